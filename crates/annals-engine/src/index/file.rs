//! The index of a sealed segment, on disk. The bytes are pictured in `build`.
//!
//! Nothing is held in memory but the header; blocks are read as they are needed, checked, and kept in a cache
//! that all segments share, so memory does not grow with the log.

use std::ops::Range;
use std::sync::Arc;

use annals_core::{EventId, Position};
use quick_cache::sync::Cache;

use super::build::{
    BLOCK_BYTES, IDS_PER_BLOCK, LINE_BYTES, LINES_PER_BLOCK, Layout, MAGIC, OFFSETS_PER_BLOCK, PAYLOAD_BYTES,
    filter_probes, id_hash,
};
use super::{Kind, Offset, Postings, SegmentIndex, Source};
use crate::disk::File;
use crate::encoding::{get_u32, get_u64, get_varint};
use crate::error::Fault;
use crate::frame::Digest;
use crate::segment::Ending;

type Block = Arc<[u8]>;

/// Blocks of index files that were read lately, by segment and number.
pub struct BlockCache(Cache<(u64, u32), Block>);

impl BlockCache {
    /// A cache of that many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Cache::new((bytes / BLOCK_BYTES).max(16)))
    }
}

/// The index of a sealed segment, on disk.
pub struct FileIndex {
    name: String,
    file: Arc<dyn File>,
    layout: Layout,
    cache: Arc<BlockCache>,
}

impl FileIndex {
    /// Opens the index file of the segment that begins at `base`.
    pub fn open(name: &str, file: Arc<dyn File>, base: u64, cache: Arc<BlockCache>) -> Result<Self, Fault> {
        let layout = Layout::default();
        let mut index = Self { name: name.to_owned(), file, layout, cache };
        let header = index.read(0)?;
        if &header[..8] != MAGIC {
            return Err(index.damaged(0, "is not an index of this version"));
        }
        let number = |at: usize| get_u32(&header[24 + 4 * at..]);
        index.layout = Layout {
            base: get_u64(&header[8..]),
            ending: Ending {
                byte: get_u64(&header[16..]),
                chain: header[72..104].try_into().expect("32 bytes"),
            },
            count: number(0),
            ids: number(1),
            leaves: number(2),
            leaf_count: number(3),
            root: number(4),
            depth: number(5),
            filter: number(6),
            lines: number(7),
            blocks: number(8),
        };
        if index.layout.base != base {
            return Err(index.damaged(0, "is the index of another segment"));
        }
        let length = index.file.length().map_err(Fault::io("read the length of", name))?;
        if length != u64::from(index.layout.blocks) * BLOCK_BYTES as u64 {
            return Err(index.damaged(0, "has not the length that its header says"));
        }
        Ok(index)
    }

    /// Digest of the log at the end of the segment.
    pub fn chain(&self) -> Digest {
        self.layout.ending.chain
    }

    fn damaged(&self, block: u32, problem: &str) -> Fault {
        let position = Some(Position::new(self.layout.base)).filter(|position| *position != Position::ZERO);
        Fault::damaged(&self.name, u64::from(block) * BLOCK_BYTES as u64, position, problem)
    }

    fn block(&self, number: u32) -> Result<Block, Fault> {
        let key = (self.layout.base, number);
        if let Some(block) = self.cache.0.get(&key) {
            return Ok(block);
        }
        let block = self.read(number)?;
        self.cache.0.insert(key, block.clone());
        Ok(block)
    }

    fn read(&self, number: u32) -> Result<Block, Fault> {
        let mut bytes = vec![0; BLOCK_BYTES];
        let offset = u64::from(number) * BLOCK_BYTES as u64;
        let count = self.file.read_at(&mut bytes, offset).map_err(Fault::io("read", &self.name))?;
        if count < BLOCK_BYTES {
            return Err(self.damaged(number, "ends too early"));
        }
        if crc32c::crc32c(&bytes[..PAYLOAD_BYTES]) != get_u32(&bytes[PAYLOAD_BYTES..]) {
            return Err(self.damaged(number, "a block's checksum does not match"));
        }
        bytes.truncate(PAYLOAD_BYTES);
        Ok(bytes.into())
    }

    /// Whether these bytes may be among the streams, keys and ids of the segment.
    fn may_have(&self, bytes: &[u8]) -> Result<bool, Fault> {
        let (line, mut bits) = filter_probes(bytes, self.layout.lines);
        let block = self.block(self.layout.filter + line / LINES_PER_BLOCK as u32)?;
        let start = (line as usize % LINES_PER_BLOCK) * LINE_BYTES;
        let line = &block[start..start + LINE_BYTES];
        Ok(bits.all(|bit| line[bit as usize / 8] & (1 << (bit % 8)) != 0))
    }

    /// The leaf in which a term is, if it is anywhere.
    fn leaf_of(&self, term: &[u8]) -> Result<u32, Fault> {
        let mut number = self.layout.root;
        for _ in 0..self.layout.depth {
            let block = self.block(number)?;
            let mut child = None;
            let mut entries = Entries { bytes: &block, at: 0 };
            while let Some(name) = entries.name() {
                let next = entries.number();
                if name > term && child.is_some() {
                    break;
                }
                child = Some(next as u32);
            }
            number = child.ok_or_else(|| self.damaged(number, "an inner block has no child"))?;
        }
        Ok(number)
    }

    fn find_term(&self, term: &[u8]) -> Result<Option<Postings>, Fault> {
        if self.layout.leaf_count == 0 {
            return Ok(None);
        }
        let block = self.block(self.leaf_of(term)?)?;
        let mut entries = Entries { bytes: &block, at: 0 };
        while let Some(name) = entries.name() {
            if name == term {
                return Ok(Some(entries.postings()));
            }
            if name > term {
                break;
            }
            entries.skip_postings();
        }
        Ok(None)
    }

    /// The places of a block of postings: rank of the first, and the places.
    fn postings_block(&self, number: u32) -> Result<(u32, Vec<u32>), Fault> {
        let block = self.block(number)?;
        let count = u16::from_le_bytes([block[4], block[5]]);
        let mut entries = Entries { bytes: &block, at: 6 };
        Ok((get_u32(&block), entries.places(u64::from(count))))
    }

    /// The first of these blocks that holds what is wanted: `beyond` says of a block's first rank and first
    /// place whether they are beyond it.
    fn seek(&self, start: u32, blocks: u32, beyond: impl Fn(u32, u32) -> bool) -> Result<u32, Fault> {
        let (mut low, mut high) = (0, blocks);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let block = self.block(start + middle)?;
            let mut entries = Entries { bytes: &block, at: 6 };
            let first = entries.number() as u32;
            if beyond(get_u32(&block), first) { high = middle } else { low = middle }
        }
        Ok(low)
    }
}

/// Walks over the entries of a block.
struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Entries<'a> {
    fn number(&mut self) -> u64 {
        // The block's checksum was right, so what stands in it is what was written.
        let (number, length) = self.bytes.get(self.at..).and_then(get_varint).unwrap_or((0, 0));
        self.at += length;
        number
    }

    /// The name of the next entry; nothing at the end of the block.
    fn name(&mut self) -> Option<&'a [u8]> {
        let length = self.number() as usize;
        let name = self.bytes.get(self.at..self.at + length).filter(|name| !name.is_empty())?;
        self.at += length;
        Some(name)
    }

    fn places(&mut self, count: u64) -> Vec<u32> {
        let mut before = 0;
        (0..count)
            .map(|_| {
                before += self.number() as u32;
                before
            })
            .collect()
    }

    fn postings(&mut self) -> Postings {
        let first_version = self.number();
        let count = self.number();
        let source = match self.number() {
            0 => Source::Blocks(self.number() as u32, self.number() as u32),
            _ => Source::Inline(self.places(count)),
        };
        Postings { first_version, count: count as u32, source }
    }

    fn skip_postings(&mut self) {
        self.number();
        self.number();
        match self.number() {
            0 => {
                self.number();
                self.number();
            }
            bytes => self.at += bytes as usize,
        }
    }
}

impl SegmentIndex for FileIndex {
    fn count(&self) -> u32 {
        self.layout.count
    }

    fn offsets(&self, places: Range<u32>) -> Result<Vec<Offset>, Fault> {
        let mut offsets = Vec::with_capacity(places.len());
        let mut place = places.start as usize;
        while place < places.end as usize {
            let block = self.block(1 + (place / OFFSETS_PER_BLOCK) as u32)?;
            let from = place % OFFSETS_PER_BLOCK;
            let to = OFFSETS_PER_BLOCK.min(from + places.end as usize - place);
            offsets.extend((from..to).map(|at| Offset(get_u32(&block[4 * at..]))));
            place += to - from;
        }
        Ok(offsets)
    }

    fn find(&self, kind: Kind, name: &str) -> Result<Option<Postings>, Fault> {
        let term = kind.term(name);
        if matches!(kind, Kind::Stream | Kind::Key) && !self.may_have(&term)? {
            return Ok(None);
        }
        self.find_term(&term)
    }

    fn places(&self, postings: &Postings, range: Range<u32>) -> Result<Vec<u32>, Fault> {
        let (start, blocks) = match &postings.source {
            Source::Inline(places) => {
                let from = places.partition_point(|&place| place < range.start);
                let to = places.partition_point(|&place| place < range.end).max(from);
                return Ok(places[from..to].to_vec());
            }
            &Source::Blocks(start, blocks) => (start, blocks),
            Source::Memory(_) => unreachable!("postings are asked of their own index"),
        };
        let mut found = Vec::new();
        for block in self.seek(start, blocks, |_, place| place > range.start)?..blocks {
            let (_, places) = self.postings_block(start + block)?;
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
            Source::Memory(_) => unreachable!("postings are asked of their own index"),
        };
        let mut found = Vec::new();
        for block in self.seek(start, blocks, |rank, _| rank > ranks.start)?..blocks {
            let (first, places) = self.postings_block(start + block)?;
            if first >= ranks.end {
                break;
            }
            let ranked = (first..).zip(places);
            found.extend(ranked.filter(|(rank, _)| ranks.contains(rank)).map(|(_, place)| place));
        }
        Ok(found)
    }

    fn count_below(&self, postings: &Postings, _visible: u32) -> u32 {
        // A sealed segment is visible as a whole.
        postings.count
    }

    fn with_id(&self, id: EventId) -> Result<Vec<u32>, Fault> {
        if !self.may_have(id.as_bytes())? {
            return Ok(Vec::new());
        }
        let hash = id_hash(id);
        let entry = |number: usize| {
            let block = self.block(self.layout.ids + (number / IDS_PER_BLOCK) as u32)?;
            let at = number % IDS_PER_BLOCK * 8;
            Ok::<_, Fault>((get_u32(&block[at..]), get_u32(&block[at + 4..])))
        };
        let (mut low, mut high) = (0, self.layout.count as usize);
        while low < high {
            let middle = low + (high - low) / 2;
            if entry(middle)?.0 < hash { low = middle + 1 } else { high = middle }
        }
        let mut places = Vec::new();
        while low < self.layout.count as usize {
            let (found, place) = entry(low)?;
            if found != hash {
                break;
            }
            places.push(place);
            low += 1;
        }
        Ok(places)
    }

    fn streams_after(&self, name: Option<&str>, limit: usize) -> Result<Vec<(String, Postings)>, Fault> {
        let mut streams = Vec::new();
        if self.layout.leaf_count == 0 {
            return Ok(streams);
        }
        let after = Kind::Stream.term(name.unwrap_or_default());
        let end = self.layout.leaves + self.layout.leaf_count;
        for leaf in self.leaf_of(&after)?..end {
            let block = self.block(leaf)?;
            let mut entries = Entries { bytes: &block, at: 0 };
            while let Some(name) = entries.name() {
                if name <= &after[..] {
                    entries.skip_postings();
                } else if name[0] != Kind::Stream as u8 || streams.len() == limit {
                    return Ok(streams);
                } else {
                    let postings = entries.postings();
                    streams.push((String::from_utf8_lossy(&name[1..]).into_owned(), postings));
                }
            }
        }
        Ok(streams)
    }
}
