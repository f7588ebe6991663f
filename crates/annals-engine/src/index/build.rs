//! Writes the index of a sealed segment: the same bytes for the same segment, always.
//!
//! ```text
//! block 0     header: what is where
//! blocks      offsets    u32 an event: where its record begins; the top bit marks the first of a frame
//! blocks      ids        (hash u32, place u32) an event, ascending
//! blocks      postings   places of terms that have many: first rank u32, count u16, then varint deltas
//! blocks      leaves     terms in the order of their bytes, each with its places or where they are
//! blocks      inner      (first term of child, child) for each child, level upon level to one root; the first
//!                        term in a block is cut to its first byte
//! blocks      filter     lines of 64 bytes: a Bloom filter over streams, keys and event ids
//! ```
//!
//! A block is 4,096 bytes, the last four of them the CRC32C of the others, so nothing is believed unchecked.
//! Next: `file` reads it.

use annals_core::EventId;

use super::Kind;
use super::memory::MemoryIndex;
use crate::encoding::{put_u32, put_u64, put_varint};
use crate::segment::Ending;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of a block that hold something: all but the checksum.
pub const PAYLOAD_BYTES: usize = BLOCK_BYTES - 4;
/// The first bytes of an index file.
pub const MAGIC: &[u8; 8] = b"ANNALSX1";
/// Offsets in a block.
pub const OFFSETS_PER_BLOCK: usize = PAYLOAD_BYTES / 4;
/// Ids in a block.
pub const IDS_PER_BLOCK: usize = PAYLOAD_BYTES / 8;
/// Bytes of a filter's line.
pub const LINE_BYTES: usize = 64;
/// Lines of the filter in a block.
pub const LINES_PER_BLOCK: usize = PAYLOAD_BYTES / LINE_BYTES;
/// Places that are longer than this as deltas get blocks of their own.
const INLINE_BYTES_MAX: usize = 512;
/// Bits of the filter for each thing in it.
const FILTER_BITS_EACH: usize = 10;
/// Bits that are set in a line for each thing.
const FILTER_PROBES: u32 = 6;

/// Where the parts of an index file are. Block numbers; the header is block 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Position of the segment's first event.
    pub base: u64,
    /// Events.
    pub count: u32,
    /// Where the segment ends.
    pub ending: Ending,
    /// First block of ids; offsets begin at block 1.
    pub ids: u32,
    /// First block of leaves.
    pub leaves: u32,
    /// How many leaves there are.
    pub leaf_count: u32,
    /// Root of the terms: a leaf if `depth` is 0.
    pub root: u32,
    /// Levels of inner blocks.
    pub depth: u32,
    /// First block of the filter.
    pub filter: u32,
    /// Lines of the filter.
    pub lines: u32,
    /// Blocks in all.
    pub blocks: u32,
}

impl Layout {
    fn write(&self) -> Vec<u8> {
        let mut out = vec![0; 104];
        out[..8].copy_from_slice(MAGIC);
        put_u64(&mut out[8..], self.base);
        put_u64(&mut out[16..], self.ending.byte);
        out[72..].copy_from_slice(&self.ending.chain);
        let numbers = [
            self.count,
            self.ids,
            self.leaves,
            self.leaf_count,
            self.root,
            self.depth,
            self.filter,
            self.lines,
            self.blocks,
        ];
        for (index, number) in numbers.into_iter().enumerate() {
            put_u32(&mut out[24 + 4 * index..], number);
        }
        out
    }
}

/// The hash of an event's id that ids are sorted by.
pub fn id_hash(id: EventId) -> u32 {
    crc32c::crc32c(id.as_bytes())
}

/// The line of the filter and the bits in it that stand for these bytes.
pub fn filter_probes(bytes: &[u8], lines: u32) -> (u32, impl Iterator<Item = u32>) {
    let hash = xxhash_rust::xxh3::xxh3_128(bytes);
    let line = (((hash as u64 >> 32) * u64::from(lines)) >> 32) as u32;
    let high = (hash >> 64) as u64;
    (line, (0..FILTER_PROBES).map(move |probe| (high >> (9 * probe)) as u32 & 511))
}

/// The index file of a sealed segment that ends there.
pub fn build(base: u64, ending: Ending, index: &MemoryIndex) -> Vec<u8> {
    let mut out = Blocks { bytes: vec![0; BLOCK_BYTES] };
    let mut layout = Layout { base, ending, count: index.count(), ..Layout::default() };
    let offsets: Vec<u8> = index.all_offsets().iter().flat_map(|offset| offset.raw().to_le_bytes()).collect();
    out.fixed(&offsets, OFFSETS_PER_BLOCK * 4);

    layout.ids = out.next();
    let mut ids: Vec<(u32, u32)> = index.all_ids().map(|(place, id)| (id_hash(id), place)).collect();
    ids.sort_unstable();
    let bytes: Vec<u8> =
        ids.iter().flat_map(|(hash, place)| [hash.to_le_bytes(), place.to_le_bytes()]).flatten().collect();
    out.fixed(&bytes, IDS_PER_BLOCK * 8);

    let terms = index.sorted_terms();
    let entries: Vec<(&[u8], Vec<u8>)> = terms
        .iter()
        .map(|&(name, first_version, places)| (name, entry(name, first_version, places, &mut out)))
        .collect();
    layout.leaves = out.next();
    let mut level = out.packed(&entries);
    layout.leaf_count = level.len() as u32;
    while level.len() > 1 {
        level = out.inner(&level);
        layout.depth += 1;
    }
    layout.root = level.first().map_or(layout.leaves, |&(_, block)| block);

    layout.filter = out.next();
    let exact = |name: &[u8]| name[0] == Kind::Stream as u8 || name[0] == Kind::Key as u8;
    let named = terms.iter().map(|(name, ..)| *name).filter(|name| exact(name));
    let ids: Vec<EventId> = index.all_ids().map(|(_, id)| id).collect();
    let things: Vec<&[u8]> = named.chain(ids.iter().map(|id| &id.as_bytes()[..])).collect();
    let (lines, filter) = filter(&things);
    layout.lines = lines;
    out.fixed(&filter, LINES_PER_BLOCK * LINE_BYTES);

    layout.blocks = out.next();
    out.header(&layout.write());
    out.bytes
}

/// A term as it stands in a leaf; long lists of places go to blocks of their own.
fn entry(name: &[u8], first_version: u64, places: &[u32], out: &mut Blocks) -> Vec<u8> {
    let mut entry = Vec::with_capacity(name.len() + 16);
    put_varint(&mut entry, name.len() as u64);
    entry.extend_from_slice(name);
    put_varint(&mut entry, first_version);
    put_varint(&mut entry, places.len() as u64);
    let mut deltas = Vec::new();
    let mut before = 0;
    for &place in places {
        put_varint(&mut deltas, u64::from(place - before));
        before = place;
        if deltas.len() > INLINE_BYTES_MAX {
            let (start, blocks) = out.postings(places);
            put_varint(&mut entry, 0);
            put_varint(&mut entry, u64::from(start));
            put_varint(&mut entry, u64::from(blocks));
            return entry;
        }
    }
    put_varint(&mut entry, deltas.len() as u64);
    entry.extend_from_slice(&deltas);
    entry
}

fn inner_entry(first: &[u8], child: u32) -> Vec<u8> {
    let mut entry = Vec::with_capacity(first.len() + 8);
    put_varint(&mut entry, first.len() as u64);
    entry.extend_from_slice(first);
    put_varint(&mut entry, u64::from(child));
    entry
}

fn filter(things: &[&[u8]]) -> (u32, Vec<u8>) {
    let lines = (things.len() * FILTER_BITS_EACH).div_ceil(LINE_BYTES * 8).max(1);
    let mut filter = vec![0; lines * LINE_BYTES];
    for thing in things {
        let (line, bits) = filter_probes(thing, lines as u32);
        for bit in bits {
            filter[line as usize * LINE_BYTES + bit as usize / 8] |= 1 << (bit % 8);
        }
    }
    (lines as u32, filter)
}

/// The file as it grows, block by block.
struct Blocks {
    bytes: Vec<u8>,
}

impl Blocks {
    /// Number of the next block.
    fn next(&self) -> u32 {
        (self.bytes.len() / BLOCK_BYTES) as u32
    }

    fn push(&mut self, payload: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(start + PAYLOAD_BYTES, 0);
        let crc = crc32c::crc32c(&self.bytes[start..]);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
    }

    fn header(&mut self, payload: &[u8]) {
        self.bytes[..payload.len()].copy_from_slice(payload);
        let crc = crc32c::crc32c(&self.bytes[..PAYLOAD_BYTES]);
        put_u32(&mut self.bytes[PAYLOAD_BYTES..], crc);
    }

    /// Things of one size, as many in a block as fit.
    fn fixed(&mut self, bytes: &[u8], bytes_per_block: usize) {
        for payload in bytes.chunks(bytes_per_block) {
            self.push(payload);
        }
    }

    /// Entries of any size, none of them cut; returns the first name and the number of each block.
    fn packed<'a>(&mut self, entries: &[(&'a [u8], Vec<u8>)]) -> Vec<(&'a [u8], u32)> {
        let mut blocks = Vec::new();
        let mut payload: Vec<u8> = Vec::new();
        for (name, entry) in entries {
            // One byte stays free: a name of no length ends the block.
            if payload.len() + entry.len() >= PAYLOAD_BYTES {
                self.push(&payload);
                payload.clear();
            }
            if payload.is_empty() {
                blocks.push((*name, self.next()));
            }
            payload.extend_from_slice(entry);
        }
        if !payload.is_empty() {
            self.push(&payload);
        }
        blocks
    }

    /// One level of inner blocks over these children; returns the first name and the number of each block.
    fn inner<'a>(&mut self, children: &[(&'a [u8], u32)]) -> Vec<(&'a [u8], u32)> {
        let mut blocks = Vec::new();
        let mut payload: Vec<u8> = Vec::new();
        for &(first, child) in children {
            let entry = inner_entry(first, child);
            if payload.len() + entry.len() >= PAYLOAD_BYTES {
                self.push(&payload);
                payload.clear();
            }
            if payload.is_empty() {
                blocks.push((first, self.next()));
                // The first child is taken for all that comes before the second, so its kind says enough; and
                // two children fit even if their names are as long as may be: every level is shorter.
                payload = inner_entry(&first[..1], child);
            } else {
                payload.extend_from_slice(&entry);
            }
        }
        if !payload.is_empty() {
            self.push(&payload);
        }
        blocks
    }

    /// Places in blocks of their own; returns the first block and how many there are.
    fn postings(&mut self, places: &[u32]) -> (u32, u32) {
        let start = self.next();
        let mut rank = 0;
        while rank < places.len() {
            let mut payload = vec![0; 6];
            let mut before = 0;
            let mut count = 0;
            // A varint of 32 bits takes at most five bytes.
            while rank + count < places.len() && payload.len() + 5 <= PAYLOAD_BYTES {
                let place = places[rank + count];
                put_varint(&mut payload, u64::from(place - before));
                before = place;
                count += 1;
            }
            put_u32(&mut payload, rank as u32);
            payload[4..6].copy_from_slice(&(count as u16).to_le_bytes());
            self.push(&payload);
            rank += count;
        }
        (start, self.next() - start)
    }
}
