//! Writes the index file of a run. The output is deterministic: the same events give the same bytes.
//!
//! ```text
//! block 0     header: the layout, and where the run ends
//! blocks      offsets    u32 per event: offset of its record; the top bit marks the first record of a frame
//! blocks      ids        (22 bits of the hash of the id and 10 of that of stream and id, place u32) per event, ascending
//! blocks      causes     (upper half of the hash of the predecessor u32, place u32) per event that has one, ascending
//! blocks      segments   u64 each: the first position of a segment that has events of the run
//! blocks      terms      leaves, and between them the places of terms that have many, in the order of the terms
//! blocks      inner      (first term of child, child) for each child, level by level up to one root
//! blocks      filter     lines of 64 bytes: a Bloom filter over terms of which there are many, and the sort keys of ids
//!
//! leaf, inner     u16 count | u16 offset of each entry | entries
//! entry of leaf   kind u8 | name | first version | count | bytes | deltas             few places
//!                 kind u8 | name | first version | count | 0 | first block | blocks   many
//! entry of inner  kind u8 | name | child
//! places          u32 first rank | u16 count | deltas
//! ```
//!
//! A block is 4,096 bytes, the last four of them the CRC32C of the others. Numbers without a size are
//! varints. The file is written from front to back, so a run of any length is written in little memory,
//! except for the filter. Files of earlier versions are read but not merged: they have no predecessors, and
//! their ids are in another order: by the hash of stream and id or, in the oldest version, by that of the id
//! alone. `renew` replaces them with new files. Next: `file` reads it.

use std::sync::Arc;

use annals_core::{Position, StoreId, Timestamp};

use super::IdRange;
use super::block::{BLOCK_BYTES, PAYLOAD_BYTES};
use super::filter::{self, LINE_BYTES};
use super::memory::{MemoryIndex, TermView};
use crate::disk::File;
use crate::error::Fault;
use crate::log::encoding::{put_u32, put_u64, put_varint};
use crate::log::terms::Kind;

/// The first bytes of an index file.
pub const MAGIC: &[u8; 8] = b"ANNALSX5";
/// The magic of the previous version, whose filter has only streams, keys and ids, with fewer bits each.
pub const MAGIC_4: &[u8; 8] = b"ANNALSX4";
/// The magic of the version before, which has no predecessors.
pub const MAGIC_3: &[u8; 8] = b"ANNALSX3";
/// The magic of the oldest version.
pub const MAGIC_2: &[u8; 8] = b"ANNALSX2";
/// Offsets per block.
pub const OFFSETS_PER_BLOCK: usize = PAYLOAD_BYTES / 4;
/// Ids per block.
pub const IDS_PER_BLOCK: usize = PAYLOAD_BYTES / 8;
/// Segments per block.
pub const SEGMENTS_PER_BLOCK: usize = PAYLOAD_BYTES / 8;
/// Lines of the filter per block.
pub const LINES_PER_BLOCK: usize = PAYLOAD_BYTES / LINE_BYTES;
/// Places whose deltas take more bytes than this are stored in separate blocks.
const INLINE_BYTES_MAX: usize = 512;
/// Bytes that are written to the file at a time.
const WRITE_BYTES: usize = 1 << 20;

/// Where a run ends, and the state of the log there: enough to resume reading after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Identity of the log.
    pub store: StoreId,
    /// Position of the first event of the segment in which the run ends.
    pub segment: Position,
    /// The salt of that segment.
    pub salt: u32,
    /// The first byte of that segment after the run.
    pub byte: u64,
    /// Link of the log up to there.
    pub link: u64,
    /// Recorded time of the run's last event.
    pub recorded_at: Timestamp,
    /// First byte of the run's last frame, and its checksum.
    pub frame: (u64, u32),
}

/// Layout of an index file, in block numbers; the header is block 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Position of the run's first event.
    pub base: u64,
    /// Number of events.
    pub count: u32,
    /// First block of ids; offsets begin at block 1.
    pub ids: u32,
    /// First block of segments.
    pub segments: u32,
    /// Number of segments.
    pub segment_count: u32,
    /// Root of the tree of terms: a leaf if `depth` is 0. If it is 0, there are no terms.
    pub root: u32,
    /// Levels of inner blocks.
    pub depth: u32,
    /// First block of the filter.
    pub filter: u32,
    /// Number of lines of the filter.
    pub lines: u32,
    /// Number of blocks of the file.
    pub blocks: u32,
    /// Smallest and largest id.
    pub id_range: IdRange,
    /// First block of predecessors.
    pub causes: u32,
    /// Number of events that have a predecessor.
    pub cause_count: u32,
}

impl Layout {
    /// Number of fields of four bytes.
    pub const NUMBERS: usize = 9;

    fn numbers(&self) -> [u32; Self::NUMBERS] {
        [
            self.count,
            self.ids,
            self.segments,
            self.segment_count,
            self.root,
            self.depth,
            self.filter,
            self.lines,
            self.blocks,
        ]
    }
}

/// Bytes of the header.
const HEADER_BYTES: usize = 160;

fn header(layout: &Layout, ending: &Ending) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    out[..8].copy_from_slice(MAGIC);
    put_u64(&mut out[8..], layout.base);
    for (index, number) in layout.numbers().into_iter().enumerate() {
        put_u32(&mut out[16 + 4 * index..], number);
    }
    out[56..72].copy_from_slice(ending.store.as_bytes());
    put_u64(&mut out[72..], ending.segment.get());
    put_u64(&mut out[80..], ending.byte);
    put_u64(&mut out[88..], ending.link);
    put_u64(&mut out[96..], ending.recorded_at.as_micros().cast_unsigned());
    put_u32(&mut out[104..], ending.salt);
    put_u32(&mut out[108..], ending.frame.1);
    put_u64(&mut out[112..], ending.frame.0);
    out[120..136].copy_from_slice(&layout.id_range.smallest);
    out[136..152].copy_from_slice(&layout.id_range.largest);
    put_u32(&mut out[152..], layout.causes);
    put_u32(&mut out[156..], layout.cause_count);
    out
}

/// Writes the index of a run to an empty file and syncs it.
pub fn write(
    name: &str,
    file: &Arc<dyn File>,
    base: Position,
    ending: &Ending,
    index: &MemoryIndex,
) -> Result<(), Fault> {
    let mut out = RunWriter::new(name, file.clone(), base, index.count(), index.id_range(), &|_| true);
    for offset in index.all_offsets() {
        out.offset(offset.raw())?;
    }
    let mut ids: Vec<u64> = index.all_ids().map(|(place, hashes)| in_order(hashes.short(), place)).collect();
    ids.sort_unstable();
    let terms = index.sorted_terms();
    // Terms of predecessors are sorted last.
    let (terms, causes) = terms.split_at(terms.partition_point(|term| term.kind != Kind::Predecessor));
    let of_cause = |term: &TermView<'_>, place: &u32| in_order(cause(term.hash), *place);
    let mut causes: Vec<u64> =
        causes.iter().flat_map(|term| term.places.iter().map(move |place| of_cause(term, place))).collect();
    causes.sort_unstable();
    let filtered = terms.iter().filter(|term| term.kind.is_filtered()).count() as u64;
    out.begin_ids(filtered)?;
    ids.into_iter().try_for_each(|id| out.id(id))?;
    out.begin_causes()?;
    causes.into_iter().try_for_each(|cause| out.cause(cause))?;
    out.begin_terms(&[ending.segment])?;
    for term in terms {
        out.term(term.kind, term.name, term.first_version, term.places)?;
    }
    out.finish(ending)
}

/// A hash and a place in one number that sorts by hash, then place.
pub fn in_order(hash: u32, place: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(place)
}

/// The part of the hash of a predecessor by which predecessors are sorted.
pub fn cause(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The hash of an id for the filter.
pub fn filter_hash(short: u32) -> u64 {
    // The high half selects the line; the low half must differ too.
    u64::from(short) << 32 | u64::from(short.wrapping_mul(0x9e37_79b9))
}

/// Writes an index file, part by part, in the order of its layout.
pub struct RunWriter<'a> {
    name: &'a str,
    file: Arc<dyn File>,
    layout: Layout,
    /// Blocks that are not written yet; the first of them has the number `written`.
    bytes: Vec<u8>,
    written: u32,
    /// The payload that is being filled with entries of a fixed size.
    payload: Vec<u8>,
    leaf: Entries,
    /// The entry of a term, and its deltas: buffers that are used again for each term.
    entry: Vec<u8>,
    deltas: Vec<u8>,
    children: Vec<(Vec<u8>, u32)>,
    filter: Vec<u8>,
    pause: &'a Pause<'a>,
}

/// Is called each time bytes were written, with their number. Returns whether to continue.
pub type Pause<'a> = dyn Fn(u64) -> bool + 'a;

impl<'a> RunWriter<'a> {
    /// A writer for the index of a run of `count` events. Offsets are written first. If `pause` returns
    /// false, an error is returned.
    pub fn new(
        name: &'a str,
        file: Arc<dyn File>,
        base: Position,
        count: u32,
        id_range: IdRange,
        pause: &'a Pause<'a>,
    ) -> Self {
        let layout = Layout { base: base.get(), count, id_range, ..Layout::default() };
        Self {
            name,
            file,
            layout,
            // Space for the header, which is written last.
            bytes: vec![0; BLOCK_BYTES],
            written: 0,
            payload: Vec::with_capacity(BLOCK_BYTES),
            leaf: Entries::default(),
            entry: Vec::new(),
            deltas: Vec::new(),
            children: Vec::new(),
            filter: Vec::new(),
            pause,
        }
    }

    /// Writes the next event's offset.
    pub fn offset(&mut self, raw: u32) -> Result<(), Fault> {
        self.fixed(&raw.to_le_bytes(), OFFSETS_PER_BLOCK * 4)
    }

    /// Ends the offsets and begins the ids. The run has at most `filtered` terms in its filter.
    pub fn begin_ids(&mut self, filtered: u64) -> Result<(), Fault> {
        self.end_block()?;
        self.layout.ids = self.next();
        self.layout.lines = filter::lines(filtered + u64::from(self.layout.count));
        self.filter = vec![0; self.layout.lines as usize * LINE_BYTES];
        Ok(())
    }

    /// Writes the next id; ids must ascend.
    pub fn id(&mut self, id: u64) -> Result<(), Fault> {
        // The filter uses only what the file contains, so that runs can be merged.
        self.filtered(filter_hash((id >> 32) as u32));
        self.hash_and_place(id)
    }

    /// Ends the ids and begins the predecessors.
    pub fn begin_causes(&mut self) -> Result<(), Fault> {
        self.end_block()?;
        self.layout.causes = self.next();
        Ok(())
    }

    /// Writes the next predecessor; predecessors must ascend.
    pub fn cause(&mut self, cause: u64) -> Result<(), Fault> {
        self.layout.cause_count += 1;
        self.hash_and_place(cause)
    }

    fn hash_and_place(&mut self, number: u64) -> Result<(), Fault> {
        let mut entry = [0; 8];
        put_u32(&mut entry, (number >> 32) as u32);
        put_u32(&mut entry[4..], number as u32);
        self.fixed(&entry, IDS_PER_BLOCK * 8)
    }

    /// Ends the predecessors, writes the first positions of the run's segments, and begins the terms.
    pub fn begin_terms(&mut self, segments: &[Position]) -> Result<(), Fault> {
        self.end_block()?;
        self.layout.segments = self.next();
        self.layout.segment_count = u32::try_from(segments.len()).expect("runs are bounded");
        for segment in segments {
            self.fixed(&segment.get().to_le_bytes(), SEGMENTS_PER_BLOCK * 8)?;
        }
        self.end_block()
    }

    /// Writes the next term with its places. Terms must ascend by kind and name, and places must ascend.
    pub fn term(&mut self, kind: Kind, name: &[u8], first_version: u64, places: &[u32]) -> Result<(), Fault> {
        let mut deltas = std::mem::take(&mut self.deltas);
        deltas.clear();
        let mut before = 0;
        for &place in places {
            put_varint(&mut deltas, u64::from(place - before));
            before = place;
            if deltas.len() > INLINE_BYTES_MAX {
                break;
            }
        }
        let added = if deltas.len() > INLINE_BYTES_MAX {
            let mut long = self.begin_places();
            self.add_places(&mut long, places).and_then(|()| self.long_term(kind, name, first_version, long))
        } else {
            self.entry(kind, name, first_version, places.len() as u32, |entry| {
                put_varint(entry, deltas.len() as u64);
                entry.extend_from_slice(&deltas);
            })
        };
        self.deltas = deltas;
        added
    }

    /// Writes the next term, whose places were written before.
    pub fn long_term(
        &mut self,
        kind: Kind,
        name: &[u8],
        first_version: u64,
        mut places: LongPlaces,
    ) -> Result<(), Fault> {
        self.end_places(&mut places)?;
        let (start, blocks) = (places.start, self.next() - places.start);
        self.entry(kind, name, first_version, places.rank, |entry| {
            put_varint(entry, 0);
            put_varint(entry, u64::from(start));
            put_varint(entry, u64::from(blocks));
        })
    }

    /// Adds the entry of a term, and the term to the filter; `rest` appends what stands after the number of
    /// places.
    fn entry(
        &mut self,
        kind: Kind,
        name: &[u8],
        first_version: u64,
        count: u32,
        rest: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Fault> {
        if kind.is_filtered() {
            self.filtered(kind.hash(name));
        }
        let mut entry = std::mem::take(&mut self.entry);
        entry.clear();
        put_term(&mut entry, kind, name);
        let term = entry.len();
        put_varint(&mut entry, first_version);
        put_varint(&mut entry, u64::from(count));
        rest(&mut entry);
        if !self.leaf.fits(&entry) {
            self.end_leaf()?;
        }
        self.leaf.push(&entry[..term], &entry);
        self.entry = entry;
        Ok(())
    }

    /// Writes the inner blocks, the filter and the header, and syncs the file.
    pub fn finish(mut self, ending: &Ending) -> Result<(), Fault> {
        self.end_leaf()?;
        let mut level = std::mem::take(&mut self.children);
        while level.len() > 1 {
            level = self.inner(&level)?;
            self.layout.depth += 1;
        }
        self.layout.root = level.first().map_or(0, |&(_, block)| block);
        self.layout.filter = self.next();
        let mut filter = std::mem::take(&mut self.filter);
        filter.chunks_exact_mut(LINE_BYTES).for_each(filter::finish);
        for payload in filter.chunks(LINES_PER_BLOCK * LINE_BYTES) {
            self.push(payload)?;
        }
        self.layout.blocks = self.next();
        self.flush()?;
        let mut block = header(&self.layout, ending);
        block.resize(PAYLOAD_BYTES, 0);
        block.extend_from_slice(&crc32c::crc32c(&block).to_le_bytes());
        self.file.write_at(&block, 0).map_err(Fault::io("write", self.name))?;
        self.file.sync().map_err(Fault::io("sync", self.name))
    }

    fn filtered(&mut self, hash: u64) {
        let line = filter::line_of(hash, self.layout.lines) as usize * LINE_BYTES;
        filter::set(&mut self.filter[line..line + LINE_BYTES], hash);
    }

    /// Number of the next block.
    fn next(&self) -> u32 {
        self.written + (self.bytes.len() / BLOCK_BYTES) as u32
    }

    fn push(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(start + PAYLOAD_BYTES, 0);
        let crc = crc32c::crc32c(&self.bytes[start..]);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        if self.bytes.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let offset = u64::from(self.written) * BLOCK_BYTES as u64;
        self.file.write_at(&self.bytes, offset).map_err(Fault::io("write", self.name))?;
        self.written = self.next();
        let continues = (self.pause)(self.bytes.len() as u64);
        self.bytes.clear();
        if continues {
            return Ok(());
        }
        Err(Fault::io("continue writing", self.name)(std::io::ErrorKind::Interrupted.into()))
    }

    /// Adds an entry of a fixed size. A block holds `block_bytes` bytes of such entries.
    fn fixed(&mut self, bytes: &[u8], block_bytes: usize) -> Result<(), Fault> {
        self.payload.extend_from_slice(bytes);
        if self.payload.len() == block_bytes { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<(), Fault> {
        if self.payload.is_empty() {
            return Ok(());
        }
        let mut payload = std::mem::take(&mut self.payload);
        self.push(&payload)?;
        payload.clear();
        self.payload = payload;
        Ok(())
    }

    fn end_leaf(&mut self) -> Result<(), Fault> {
        if self.leaf.ends.is_empty() {
            return Ok(());
        }
        let (first, payload) = self.leaf.take();
        self.children.push((first, self.next()));
        self.push(&payload)
    }

    /// Writes one level of inner blocks over these children; returns the first term and the number of each
    /// block.
    fn inner(&mut self, children: &[(Vec<u8>, u32)]) -> Result<Vec<(Vec<u8>, u32)>, Fault> {
        let mut blocks = Vec::new();
        let mut entries = Entries::default();
        for (first, child) in children {
            let mut entry = first.clone();
            put_varint(&mut entry, u64::from(*child));
            if !entries.fits(&entry) {
                let (first, payload) = entries.take();
                blocks.push((first, self.next()));
                self.push(&payload)?;
            }
            if entries.ends.is_empty() {
                // A search follows the first child for every term before the second, so the first needs no
                // term. So two children fit in a block even with names of the maximum length, and each level
                // has fewer blocks.
                entry = vec![0, 0];
                put_varint(&mut entry, u64::from(*child));
            }
            entries.push(first, &entry);
        }
        let (first, payload) = entries.take();
        blocks.push((first, self.next()));
        self.push(&payload)?;
        Ok(blocks)
    }

    /// Begins the places of a term that has many. No other block may be written before the term is.
    pub fn begin_places(&mut self) -> LongPlaces {
        LongPlaces { start: self.next(), rank: 0, count: 0, before: 0, payload: vec![0; 6] }
    }

    /// Writes the next places of a term that has many. Places must ascend.
    pub fn add_places(&mut self, long: &mut LongPlaces, places: &[u32]) -> Result<(), Fault> {
        for &place in places {
            // A varint of 32 bits takes at most five bytes.
            if long.payload.len() + 5 > PAYLOAD_BYTES {
                self.end_places(long)?;
            }
            put_varint(&mut long.payload, u64::from(place - long.before));
            (long.before, long.count) = (place, long.count + 1);
        }
        Ok(())
    }

    fn end_places(&mut self, long: &mut LongPlaces) -> Result<(), Fault> {
        put_u32(&mut long.payload, long.rank);
        long.payload[4..6].copy_from_slice(&long.count.to_le_bytes());
        self.push(&long.payload)?;
        long.rank += u32::from(long.count);
        long.payload.truncate(6);
        (long.before, long.count) = (0, 0);
        Ok(())
    }
}

/// The places of a term that has many, while they are written.
pub struct LongPlaces {
    /// The first block.
    start: u32,
    /// The number of places that are written.
    rank: u32,
    /// The block that is being filled: number of places, the last of them, and the payload.
    count: u16,
    before: u32,
    payload: Vec<u8>,
}

/// Whether a term with this many places certainly has blocks for them alone.
pub fn is_long(count: u32) -> bool {
    count as usize > INLINE_BYTES_MAX
}

/// Appends the encoded term with which an entry begins.
fn put_term(entry: &mut Vec<u8>, kind: Kind, name: &[u8]) {
    entry.push(kind as u8);
    put_varint(entry, name.len() as u64);
    entry.extend_from_slice(name);
}

/// The entries of a block of terms.
#[derive(Default)]
struct Entries {
    /// The term of the first entry.
    first: Vec<u8>,
    bytes: Vec<u8>,
    ends: Vec<u16>,
}

impl Entries {
    fn fits(&self, entry: &[u8]) -> bool {
        2 + 2 * (self.ends.len() + 1) + self.bytes.len() + entry.len() <= PAYLOAD_BYTES
    }

    fn push(&mut self, term: &[u8], entry: &[u8]) {
        if self.ends.is_empty() {
            self.first = term.to_vec();
        }
        self.bytes.extend_from_slice(entry);
        self.ends.push(self.bytes.len() as u16);
    }

    /// Removes all entries; returns the term of the first one, and the payload of the block.
    fn take(&mut self) -> (Vec<u8>, Vec<u8>) {
        let mut out = Vec::with_capacity(PAYLOAD_BYTES);
        out.extend_from_slice(&(self.ends.len() as u16).to_le_bytes());
        let at = 2 + 2 * self.ends.len() as u16;
        let starts = std::iter::once(0).chain(self.ends.iter().copied()).take(self.ends.len());
        for start in starts {
            out.extend_from_slice(&(at + start).to_le_bytes());
        }
        out.extend_from_slice(&self.bytes);
        self.bytes.clear();
        self.ends.clear();
        (std::mem::take(&mut self.first), out)
    }
}
