//! The index of a sealed run, on disk. `writer` shows the layout of the file.
//!
//! Only the header is kept in memory; blocks are read as needed, through the cache.

use std::ops::Range;
use std::sync::Arc;

use annals_core::{EventId, Position, StoreId};

use super::block::{BLOCK_BYTES, Block, BlockCache, BlockFile, PAYLOAD_BYTES};
use super::filter::{self, Density, LINE_BYTES, line_of, may_have, may_have_unsummed};
use super::writer::{
    Ending, IDS_PER_BLOCK, LINES_PER_BLOCK, Layout, MAGIC, MAGIC_2, MAGIC_3, MAGIC_4, OFFSETS_PER_BLOCK,
    SEGMENTS_PER_BLOCK, cause, filter_hash,
};
use super::{IdRange, Index, Offset, Postings, Source};
use crate::disk::File;
use crate::error::Fault;
use crate::log::encoding::{get_time, get_u32, get_u64, get_varint};
use crate::log::terms::{IdentityHashes, Kind, OF_STREAM, id_hash};

/// A read of at most this many offsets bypasses the block cache.
const FEW_OFFSETS: usize = 8;
/// Blocks that are read at a time by a merge.
pub const READ_BLOCKS: u32 = 64;

/// The format version of an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// Ids are ordered by the hash of the id alone, and the lines of the filter have no checksum.
    Two,
    /// Ids are ordered by the hash of stream and id.
    Three,
    /// Ids are ordered by the hash of the id and then that of the stream, and there are predecessors.
    Four,
    /// The filter has all terms of which there are many, with more bits each.
    Five,
}

impl Form {
    fn of(magic: &[u8]) -> Option<Self> {
        let known =
            [(MAGIC_2, Self::Two), (MAGIC_3, Self::Three), (MAGIC_4, Self::Four), (MAGIC, Self::Five)];
        known.into_iter().find(|(known, _)| *known == magic).map(|(_, form)| form)
    }
}

/// The index of a sealed run, on disk.
pub struct FileIndex {
    file: BlockFile,
    layout: Layout,
    ending: Ending,
    form: Form,
}

impl FileIndex {
    /// Opens the index file of the run that begins at `base`.
    pub fn open(
        name: &str,
        file: Arc<dyn File>,
        base: Position,
        cache: Arc<BlockCache>,
    ) -> Result<Self, Fault> {
        let file = BlockFile::new(name, file, cache);
        let header = file.read(0, 1)?;
        let Some(form) = Form::of(&header[..8]) else {
            return Err(file.damaged(0, "is not an index of this version"));
        };
        let number = |at: usize| get_u32(&header[16 + 4 * at..]);
        let array = |at: usize| header[at..at + 16].try_into().expect("16 bytes");
        let layout = Layout {
            base: get_u64(&header[8..]),
            count: number(0),
            ids: number(1),
            segments: number(2),
            segment_count: number(3),
            root: number(4),
            depth: number(5),
            filter: number(6),
            lines: number(7),
            blocks: number(8),
            id_range: IdRange { smallest: array(120), largest: array(136) },
            causes: if form >= Form::Four { get_u32(&header[152..]) } else { 0 },
            cause_count: if form >= Form::Four { get_u32(&header[156..]) } else { 0 },
        };
        let wrong = |malformed: crate::log::encoding::Malformed| file.damaged(0, &malformed.to_string());
        let ending = Ending {
            store: StoreId::from_bytes(array(56)),
            segment: Position::new(get_u64(&header[72..])),
            byte: get_u64(&header[80..]),
            link: get_u64(&header[88..]),
            recorded_at: get_time(&header[96..]).map_err(wrong)?,
            salt: get_u32(&header[104..]),
            frame: (get_u64(&header[112..]), get_u32(&header[108..])),
        };
        if layout.base != base.get() {
            return Err(file.damaged(0, "is the index of another run"));
        }
        if layout.count == 0 || file.blocks()? != u64::from(layout.blocks) {
            return Err(file.damaged(0, "does not have the length in its header"));
        }
        if !fits(&layout) {
            return Err(file.damaged(0, "has a part that goes beyond its end"));
        }
        Ok(Self { file, layout, ending, form })
    }

    /// Whether it has an earlier format version: it is not merged, and does not find events by id or
    /// predecessor.
    pub fn is_old(&self) -> bool {
        self.form < Form::Four
    }

    /// Returns an error if it cannot find events by id or predecessor.
    fn finds_by_id_and_cause(&self) -> Result<(), Fault> {
        if self.is_old() { Err(Fault::OldIndex { file: self.name().to_owned() }) } else { Ok(()) }
    }

    /// Name of the file.
    pub fn name(&self) -> &str {
        self.file.name()
    }

    /// Position of the run's first event.
    pub fn base(&self) -> Position {
        Position::new(self.layout.base)
    }

    /// Position of the run's last event.
    pub fn last(&self) -> Position {
        self.base().plus(u64::from(self.layout.count) - 1)
    }

    /// Where the run ends.
    pub fn ending(&self) -> &Ending {
        &self.ending
    }

    /// First positions of the segments that contain events of the run.
    pub fn segments(&self) -> Result<Vec<Position>, Fault> {
        let count = self.layout.segment_count;
        let blocks = count.div_ceil(SEGMENTS_PER_BLOCK as u32);
        let bytes = self.file.read(self.layout.segments, blocks)?;
        let blocks = bytes.chunks(PAYLOAD_BYTES);
        let numbers = blocks.flat_map(|block| block[..SEGMENTS_PER_BLOCK * 8].chunks_exact(8));
        Ok(numbers.take(count as usize).map(|number| Position::new(get_u64(number))).collect())
    }

    /// Reads the whole file to verify the checksums of its blocks.
    pub fn check_blocks(&self) -> Result<(), Fault> {
        const AT_ONCE: u32 = 64;
        for first in (0..self.layout.blocks).step_by(AT_ONCE as usize) {
            self.file.read(first, AT_ONCE.min(self.layout.blocks - first))?;
        }
        Ok(())
    }

    pub(super) fn file(&self) -> &BlockFile {
        &self.file
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    fn block(&self, number: u32) -> Result<Block, Fault> {
        self.file.block(number)
    }

    /// The block of the line of the filter for this hash, and where it begins there.
    fn line(&self, hash: u64) -> (u32, usize) {
        let line = line_of(hash, self.layout.lines);
        let number = self.layout.filter + line / LINES_PER_BLOCK as u32;
        (number, (line as usize % LINES_PER_BLOCK) * LINE_BYTES)
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        u64::from(self.layout.blocks) * BLOCK_BYTES as u64
    }

    /// Bytes of the filter.
    pub fn filter_bytes(&self) -> u64 {
        u64::from(self.filter_blocks()) * BLOCK_BYTES as u64
    }

    /// Loads the filter, so that no look-up waits for its pages. Waits for the device.
    pub fn load_filter(&self) {
        self.file.load(self.layout.filter, self.filter_blocks());
    }

    fn filter_blocks(&self) -> u32 {
        self.layout.lines.div_ceil(LINES_PER_BLOCK as u32)
    }

    /// An upper bound for the number of items that a filter of the newest version needs for this run.
    pub(super) fn things_in_filter(&self) -> u64 {
        let things = filter::things(self.layout.lines, self.density());
        // Earlier versions have not all terms in it.
        if self.form == Form::Five { things } else { things + u64::from(self.layout.count) }
    }

    fn density(&self) -> Density {
        if self.form == Form::Five { Density::NEW } else { Density::OLD }
    }

    /// Whether the filter has terms of this kind.
    fn filters(&self, kind: Kind) -> bool {
        kind.is_filtered() && (self.form == Form::Five || matches!(kind, Kind::Stream | Kind::Key))
    }

    /// Whether the filter may contain a term or id with this hash.
    fn may_have(&self, hash: u64) -> Result<bool, Fault> {
        let (number, at) = self.line(hash);
        let mut bytes = [0; LINE_BYTES];
        if self.form == Form::Two {
            // Its lines have no checksum, so the whole block is read and verified.
            bytes.copy_from_slice(&self.block(number)?[at..at + LINE_BYTES]);
            return Ok(may_have_unsummed(&bytes, hash));
        }
        self.file.peek(number, at, &mut bytes)?;
        may_have(&bytes, hash, self.density())
            .ok_or_else(|| self.file.damaged(number, "the checksum of a line of the filter does not match"))
    }

    /// The sort key of an event among the ids.
    fn short(&self, hashes: IdentityHashes) -> u32 {
        match self.form {
            Form::Two => (hashes.id >> 32) as u32,
            Form::Three => (hashes.both() >> 32) as u32,
            Form::Four | Form::Five => hashes.short(),
        }
    }

    /// The hash and the place in entry `number` of the ids or the predecessors, which begin at block `first`.
    fn hash_and_place(&self, first: u32, number: u32) -> Result<(u32, u32), Fault> {
        let block = self.block(first + number / IDS_PER_BLOCK as u32)?;
        let at = number as usize % IDS_PER_BLOCK * 8;
        Ok((get_u32(&block[at..]), get_u32(&block[at + 4..])))
    }

    /// The first entry of the range for which `before` is false, by binary search: it is true for all entries
    /// before that.
    fn seek_hash(
        &self,
        first: u32,
        range: Range<u32>,
        before: impl Fn((u32, u32)) -> bool,
    ) -> Result<u32, Fault> {
        let Range { start: mut low, end: mut high } = range;
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.hash_and_place(first, middle)?) { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// Places of the ids whose hashes are within the range, ascending.
    fn places_by_hash(&self, hashes: std::ops::RangeInclusive<u32>) -> Result<Vec<u32>, Fault> {
        let (ids, all) = (self.layout.ids, 0..self.layout.count);
        let mut places = Vec::new();
        for number in self.seek_hash(ids, all.clone(), |(hash, _)| hash < *hashes.start())?..all.end {
            let (hash, place) = self.hash_and_place(ids, number)?;
            if hash > *hashes.end() {
                break;
            }
            places.push(place);
        }
        places.sort_unstable();
        // The writer stores no place twice, and none outside the run.
        let rise = places.is_sorted_by(|one, other| one < other);
        let inside = places.last().is_none_or(|place| *place < self.layout.count);
        if rise && inside { Ok(places) } else { Err(self.wrong(ids)) }
    }

    /// The postings of the events whose predecessor has this hash.
    fn find_cause(&self, hash: u64) -> Result<Option<Postings>, Fault> {
        self.finds_by_id_and_cause()?;
        let (causes, hash) = (self.layout.causes, cause(hash));
        let start = self.seek_hash(causes, 0..self.layout.cause_count, |(other, _)| other < hash)?;
        let end = self.seek_hash(causes, start..self.layout.cause_count, |(other, _)| other <= hash)?;
        let postings = Postings { first_version: 0, count: end - start, source: Source::Causes(start) };
        Ok((end > start).then_some(postings))
    }

    /// The places within the range, of the `count` predecessor entries from `start` on.
    fn caused(&self, start: u32, count: u32, range: Range<u32>) -> Result<Vec<u32>, Fault> {
        let causes = self.layout.causes;
        let end = start.saturating_add(count).min(self.layout.cause_count);
        let mut places = Vec::new();
        for number in self.seek_hash(causes, start..end, |(_, place)| place < range.start)?..end {
            let (_, place) = self.hash_and_place(causes, number)?;
            if place >= range.end {
                break;
            }
            if places.last().is_some_and(|before| *before >= place) || place >= self.layout.count {
                return Err(self.wrong(causes));
            }
            places.push(place);
        }
        Ok(places)
    }

    /// A cursor in the leaf that contains the term, if any does: at the first entry not less than the term.
    fn seek_term(&self, kind: Kind, name: &[u8]) -> Result<Cursor<'_>, Fault> {
        let mut above = Vec::with_capacity(self.layout.depth as usize);
        let mut number = self.layout.root;
        for _ in 0..self.layout.depth {
            let block = self.block(number)?;
            let next = partition(&block, |entry| (entry.kind, entry.name) <= (kind as u8, name));
            let next = next.ok_or_else(|| self.wrong(number))?.max(1) - 1;
            let child = Entry::at(&block, next).and_then(|entry| entry.child());
            number = child.ok_or_else(|| self.wrong(number))?;
            above.push((block, next));
        }
        let block = self.block(number)?;
        let at = partition(&block, |entry| (entry.kind, entry.name) < (kind as u8, name));
        let at = at.ok_or_else(|| self.wrong(number))?;
        let mut cursor = Cursor { index: self, above, block, number, at, kind: 0, name: 0..0 };
        cursor.settle()?;
        Ok(cursor)
    }

    /// The error for a block whose checksum matches but whose contents are invalid.
    fn wrong(&self, number: u32) -> Fault {
        self.file.damaged(number, "a block has invalid contents")
    }

    /// Reads a block of postings: the rank of the first place, and the places.
    fn postings_block(&self, number: u32) -> Result<(u32, Vec<u32>), Fault> {
        let block = self.block(number)?;
        let count = u16::from_le_bytes([block[4], block[5]]);
        let first = get_u32(&block);
        let places = Numbers { bytes: &block[6..] }.places(u32::from(count));
        let places = places.filter(|places| first.checked_add(places.len() as u32).is_some());
        Ok((first, places.ok_or_else(|| self.wrong(number))?))
    }

    /// The block, relative to `start`, in which a scan must begin, by binary search: `beyond` gets the first
    /// rank and the first place of a block, and returns whether they are after the start of the scan.
    fn seek_place(&self, start: u32, blocks: u32, beyond: impl Fn(u32, u32) -> bool) -> Result<u32, Fault> {
        let (mut low, mut high) = (0, blocks);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let number = start.saturating_add(middle);
            let block = self.block(number)?;
            let first = Numbers { bytes: &block[6..] }.number().ok_or_else(|| self.wrong(number))?;
            if beyond(get_u32(&block), first) { high = middle } else { low = middle }
        }
        Ok(low)
    }
}

/// Whether every part in the header is within the file.
fn fits(layout: &Layout) -> bool {
    /// Levels of the tree of terms: each inner block has at least two children, and block numbers have 32
    /// bits.
    const DEPTH_MAX: u32 = 32;
    let part = |at: u32, things: u32, per_block: usize| {
        u64::from(at) + u64::from(things).div_ceil(per_block as u64) <= u64::from(layout.blocks)
    };
    part(1, layout.count, OFFSETS_PER_BLOCK)
        && part(layout.ids, layout.count, IDS_PER_BLOCK)
        && part(layout.causes, layout.cause_count, IDS_PER_BLOCK)
        && layout.cause_count <= layout.count
        && part(layout.segments, layout.segment_count, SEGMENTS_PER_BLOCK)
        && part(layout.filter, layout.lines.max(1), LINES_PER_BLOCK)
        && layout.root < layout.blocks
        && layout.depth <= DEPTH_MAX
}

/// Number of entries of a block of terms that come before the first for which `before` is false. `None` if
/// the block is malformed.
fn partition(block: &[u8], before: impl Fn(&Entry<'_>) -> bool) -> Option<usize> {
    let (mut low, mut high) = (0, Entry::count(block));
    while low < high {
        let middle = low + (high - low) / 2;
        if before(&Entry::at(block, middle)?) { low = middle + 1 } else { high = middle }
    }
    Some(low)
}

/// An entry of a block of terms: its term, and the bytes after it. The methods return `None` if the bytes are
/// malformed.
struct Entry<'a> {
    kind: u8,
    name: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Entry<'a> {
    fn count(block: &[u8]) -> usize {
        usize::from(u16::from_le_bytes([block[0], block[1]]))
    }

    fn at(block: &'a [u8], index: usize) -> Option<Self> {
        let at = u16::from_le_bytes(*block.get(2 + 2 * index..)?.first_chunk()?);
        let (&kind, rest) = block.get(usize::from(at)..)?.split_first()?;
        let mut numbers = Numbers { bytes: rest };
        let length = numbers.number()? as usize;
        let (name, rest) = numbers.bytes.split_at_checked(length)?;
        Some(Self { kind, name, rest })
    }

    /// The child block; for an entry of an inner block.
    fn child(&self) -> Option<u32> {
        Numbers { bytes: self.rest }.number()
    }

    /// The first version and the number of places; for an entry of a leaf. `numbers` continues after them.
    fn head(&self) -> Option<(u64, u32, Numbers<'a>)> {
        let mut numbers = Numbers { bytes: self.rest };
        let first_version = numbers.next()?;
        let count = numbers.number()?;
        // A term has at least one event, and the version of its last event does not overflow.
        first_version.checked_add(u64::from(count)).filter(|_| count > 0)?;
        Some((first_version, count, numbers))
    }

    /// The postings; for an entry of a leaf.
    fn postings(&self) -> Option<Postings> {
        let (first_version, count, mut numbers) = self.head()?;
        let source = match numbers.next()? {
            0 => Source::Blocks(numbers.number()?, numbers.number()?),
            _ => Source::Inline(numbers.places(count)?),
        };
        Some(Postings { first_version, count, source })
    }
}

struct Numbers<'a> {
    bytes: &'a [u8],
}

impl Numbers<'_> {
    fn next(&mut self) -> Option<u64> {
        let (number, length) = get_varint(self.bytes)?;
        self.bytes = &self.bytes[length..];
        Some(number)
    }

    fn number(&mut self) -> Option<u32> {
        u32::try_from(self.next()?).ok()
    }

    fn places(&mut self, count: u32) -> Option<Vec<u32>> {
        let mut places = Vec::new();
        self.add_places(count, 0, &mut places)?;
        Some(places)
    }

    /// Appends `count` places, each increased by `shift`.
    fn add_places(&mut self, count: u32, shift: u32, to: &mut Vec<u32>) -> Option<()> {
        let mut before = shift;
        for _ in 0..count {
            before = before.checked_add(self.number()?)?;
            to.push(before);
        }
        Some(())
    }
}

/// Iterates over the terms of an index in order.
pub struct Cursor<'a> {
    index: &'a FileIndex,
    /// The inner blocks from the root to the leaf, each with the entry that was followed.
    above: Vec<(Block, usize)>,
    block: Block,
    /// Number of the leaf block.
    number: u32,
    /// The entry of the current term; after the last term, the number of entries.
    at: usize,
    kind: u8,
    name: Range<usize>,
}

impl<'a> Cursor<'a> {
    /// A cursor at the first term.
    pub fn start(index: &'a FileIndex) -> Result<Self, Fault> {
        index.seek_term(Kind::Stream, b"")
    }

    /// Kind and name of the current term; `None` after the last one.
    pub fn term(&self) -> Option<(u8, &[u8])> {
        (self.at < Entry::count(&self.block)).then(|| (self.kind, &self.block[self.name.clone()]))
    }

    fn entry(&self) -> Entry<'_> {
        let Range { start, end } = self.name;
        Entry { kind: self.kind, name: &self.block[start..end], rest: &self.block[end..] }
    }

    /// The postings of the current term.
    pub fn postings(&self) -> Result<Postings, Fault> {
        self.entry().postings().ok_or_else(|| self.wrong())
    }

    /// First version and number of places of the current term.
    pub fn head(&self) -> Result<(u64, u32), Fault> {
        let (first_version, count, _) = self.entry().head().ok_or_else(|| self.wrong())?;
        Ok((first_version, count))
    }

    /// Calls `each` for the places of the current term, each increased by `shift`, as many at a time as there
    /// are in a block.
    pub fn places(&self, shift: u32, mut each: impl FnMut(&[u32]) -> Result<(), Fault>) -> Result<(), Fault> {
        let (_, count, mut numbers) = self.entry().head().ok_or_else(|| self.wrong())?;
        let (mut places, mut next) = (Vec::new(), 0);
        let mut add = |numbers: &mut Numbers<'_>, count: u32| {
            places.clear();
            numbers.add_places(count, shift, &mut places).ok_or_else(|| self.wrong())?;
            let (Some(first), Some(last)) = (places.first(), places.last()) else { return Err(self.wrong()) };
            if *first < next || last - shift >= self.index.layout.count {
                return Err(self.wrong());
            }
            next = *last;
            each(&places)
        };
        if numbers.next().ok_or_else(|| self.wrong())? > 0 {
            return add(&mut numbers, count);
        }
        let blocks = numbers.number().zip(numbers.number());
        let (start, blocks) = blocks.ok_or_else(|| self.wrong())?;
        for first in (start..start.saturating_add(blocks)).step_by(READ_BLOCKS as usize) {
            let count = READ_BLOCKS.min(start.saturating_add(blocks) - first);
            for block in self.index.file.read(first, count)?.chunks(PAYLOAD_BYTES) {
                let count = u16::from_le_bytes([block[4], block[5]]);
                add(&mut Numbers { bytes: &block[6..] }, count.into())?;
            }
        }
        Ok(())
    }

    /// The error for a block with invalid contents.
    fn wrong(&self) -> Fault {
        self.index.wrong(self.number)
    }

    /// Advances to the next term.
    pub fn advance(&mut self) -> Result<(), Fault> {
        self.at += 1;
        self.settle()
    }

    /// Goes to the next leaf if this one has no more terms, and reads the term.
    fn settle(&mut self) -> Result<(), Fault> {
        if self.at >= Entry::count(&self.block) && !self.next_leaf()? {
            return Ok(());
        }
        let entry = Entry::at(&self.block, self.at).ok_or_else(|| self.wrong())?;
        let end = self.block.len() - entry.rest.len();
        (self.kind, self.name) = (entry.kind, end - entry.name.len()..end);
        Ok(())
    }

    fn next_leaf(&mut self) -> Result<bool, Fault> {
        let mut levels = 0;
        loop {
            let Some((block, at)) = self.above.last_mut() else { return Ok(false) };
            levels += 1;
            if *at + 1 < Entry::count(block) {
                *at += 1;
                break;
            }
            self.above.pop();
        }
        for level in 0..levels {
            let (block, at) = self.above.last().expect("there is a block above");
            let number = Entry::at(block, *at).and_then(|entry| entry.child());
            let number = number.ok_or_else(|| self.wrong())?;
            let child = self.index.file.passing_block(number)?;
            if level + 1 < levels {
                self.above.push((child, 0));
            } else {
                (self.block, self.number, self.at) = (child, number, 0);
            }
        }
        Ok(true)
    }
}

impl Index for FileIndex {
    fn count(&self) -> u32 {
        self.layout.count
    }

    fn offsets(&self, places: Range<u32>, to: &mut Vec<Offset>) -> Result<(), Fault> {
        let mut place = places.start as usize;
        while place < places.end as usize {
            let block = self.block(1 + (place / OFFSETS_PER_BLOCK) as u32)?;
            let from = place % OFFSETS_PER_BLOCK;
            let until = OFFSETS_PER_BLOCK.min(from + places.end as usize - place);
            to.extend(block[4 * from..4 * until].chunks_exact(4).map(|raw| Offset(get_u32(raw))));
            place += until - from;
        }
        Ok(())
    }

    fn unchecked_offsets(&self, places: Range<u32>, to: &mut Vec<Offset>) -> Result<(), Fault> {
        let count = places.len();
        let from = places.start as usize % OFFSETS_PER_BLOCK;
        if count > FEW_OFFSETS || from + count > OFFSETS_PER_BLOCK {
            return self.offsets(places, to);
        }
        let mut few = [0; 4 * FEW_OFFSETS];
        let few = &mut few[..4 * count];
        self.file.peek(1 + (places.start as usize / OFFSETS_PER_BLOCK) as u32, 4 * from, few)?;
        to.extend(few.chunks_exact(4).map(|raw| Offset(get_u32(raw))));
        Ok(())
    }

    fn bring_near(&self, hash: u64) {
        let (number, at) = self.line(hash);
        self.file.bring_near(number, at, LINE_BYTES);
    }

    fn find(&self, kind: Kind, name: &[u8], hash: u64) -> Result<Option<Postings>, Fault> {
        if kind == Kind::Predecessor {
            return self.find_cause(hash);
        }
        if self.filters(kind) && !self.may_have(hash)? {
            return Ok(None);
        }
        let cursor = self.seek_term(kind, name)?;
        let is_it = cursor.term() == Some((kind as u8, name));
        is_it.then(|| cursor.postings()).transpose()
    }

    fn places(&self, postings: &Postings, range: Range<u32>) -> Result<Vec<u32>, Fault> {
        let (start, blocks) = match &postings.source {
            Source::Inline(places) => {
                let from = places.partition_point(|&place| place < range.start);
                let to = places.partition_point(|&place| place < range.end).max(from);
                return Ok(places[from..to].to_vec());
            }
            &Source::Blocks(start, blocks) => (start, blocks),
            &Source::Causes(start) => return self.caused(start, postings.count, range),
            Source::Memory(_) => unreachable!("postings are asked of their own index"),
        };
        let mut found = Vec::new();
        for block in self.seek_place(start, blocks, |_, place| place > range.start)?..blocks {
            let (_, places) = self.postings_block(start.saturating_add(block))?;
            if places.first().is_none_or(|&place| place >= range.end) {
                break;
            }
            found.extend(places.into_iter().filter(|place| range.contains(place)));
        }
        Ok(found)
    }

    fn ranked(&self, postings: &Postings, ranks: Range<u32>) -> Result<Vec<u32>, Fault> {
        let (start, blocks) = match &postings.source {
            Source::Inline(places) => {
                let end = (ranks.end as usize).min(places.len());
                return Ok(places[(ranks.start as usize).min(end)..end].to_vec());
            }
            &Source::Blocks(start, blocks) => (start, blocks),
            Source::Memory(_) | Source::Causes(_) => unreachable!("only terms are asked by rank"),
        };
        let mut found = Vec::new();
        for block in self.seek_place(start, blocks, |rank, _| rank > ranks.start)?..blocks {
            let (first, places) = self.postings_block(start.saturating_add(block))?;
            if first >= ranks.end {
                break;
            }
            let ranked = (first..).zip(places);
            found.extend(ranked.filter(|(rank, _)| ranks.contains(rank)).map(|(_, place)| place));
        }
        Ok(found)
    }

    fn count_below(&self, postings: &Postings, _visible: u32) -> u32 {
        // A sealed run is visible as a whole.
        postings.count
    }

    fn id_range(&self) -> IdRange {
        self.layout.id_range
    }

    fn with_id(&self, stream: &[u8], id: EventId, hashes: IdentityHashes) -> Result<Vec<u32>, Fault> {
        let short = self.short(hashes);
        if !self.layout.id_range.may_have(id) || !self.may_have(filter_hash(short))? {
            return Ok(Vec::new());
        }
        // In the oldest version the hash is that of the id alone, and many streams may have the same id.
        if self.form == Form::Two && self.find(Kind::Stream, stream, hashes.stream)?.is_none() {
            return Ok(Vec::new());
        }
        let mut places = self.places_by_hash(short..=short)?;
        if let [first, .., last] = places[..] {
            let Some(postings) = self.find(Kind::Stream, stream, hashes.stream)? else {
                return Ok(Vec::new());
            };
            let of_stream = self.places(&postings, first..last.saturating_add(1))?;
            places.retain(|place| of_stream.binary_search(place).is_ok());
        }
        Ok(places)
    }

    fn of_id(&self, id: EventId) -> Result<Option<Postings>, Fault> {
        self.finds_by_id_and_cause()?;
        if !self.layout.id_range.may_have(id) {
            return Ok(None);
        }
        let first = (id_hash(id) >> 32) as u32 & !OF_STREAM;
        let places = self.places_by_hash(first..=first | OF_STREAM)?;
        let count = places.len() as u32;
        Ok((count > 0).then_some(Postings { first_version: 0, count, source: Source::Inline(places) }))
    }

    fn streams_after(&self, name: Option<&str>, limit: usize) -> Result<Vec<(String, Postings)>, Fault> {
        let mut streams: Vec<(String, Postings)> = Vec::new();
        let mut first = true;
        let after = name.unwrap_or_default().as_bytes();
        let mut cursor = self.seek_term(Kind::Stream, after)?;
        while let Some((kind, name)) = cursor.term() {
            if kind != Kind::Stream as u8 || streams.len() == limit {
                break;
            }
            // In a corrupt index, names out of order could form an endless loop.
            let rises = match streams.last() {
                Some((before, _)) => name > before.as_bytes(),
                None => name > after || (first && name == after),
            };
            if !rises {
                return Err(cursor.wrong());
            }
            first = false;
            if name != after {
                let name = String::from_utf8(name.to_vec());
                streams.push((name.map_err(|_| cursor.wrong())?, cursor.postings()?));
            }
            cursor.advance()?;
        }
        Ok(streams)
    }
}
