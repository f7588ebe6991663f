//! Indexes: where the events are that have a stream, a type, a tag, an id, a key.
//!
//! An index is of a *run*: events one after the other in the log. A *place* is an event's position less the run's
//! first, so places begin at 0 and fit in 32 bits. There are two kinds: `memory`, of the newest run, to which the
//! writer adds, and `file`, on disk, written once by `writer`. Runs of which there are many are merged into one by
//! `merge`, so that a look-up asks a few indexes however long the log is. All of them are derived from the segments
//! and can be made again.
//!
//! What an event is found by is a *term* (`terms`). `search` answers queries from the places of terms.

use std::ops::Range;

use annals_core::EventId;

use crate::error::Fault;
use crate::log::terms::{IdentityHashes, Kind};

mod block;
mod compare;
mod file;
mod filter;
mod memory;
mod merge;
mod search;
mod writer;

pub use block::BlockCache;
pub use compare::compare;
pub use file::FileIndex;
pub use memory::MemoryIndex;
pub use merge::{Hashes, MERGE_EVENTS_MAX, merge, renew};
pub use search::{is_by_hash, search};
pub use writer::{Ending, write};

/// Where a record begins in the segment's file, and whether it is the first of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset(u32);

impl Offset {
    const FIRST_IN_FRAME: u32 = 1 << 31;
    /// Segments are smaller than this.
    pub const MAX: u64 = Self::FIRST_IN_FRAME as u64;

    /// A record that begins at this byte.
    pub fn new(byte: u64, first_in_frame: bool) -> Self {
        assert!(byte < Self::MAX, "a segment is smaller than 2 GiB");
        Self(byte as u32 | if first_in_frame { Self::FIRST_IN_FRAME } else { 0 })
    }

    /// The first byte of the record.
    pub fn byte(self) -> u64 {
        u64::from(self.0 & !Self::FIRST_IN_FRAME)
    }

    /// Whether the record is the first of its frame, and so of its append.
    pub fn is_first_in_frame(self) -> bool {
        self.0 & Self::FIRST_IN_FRAME != 0
    }

    fn raw(self) -> u32 {
        self.0
    }
}

/// The smallest and the largest id of a run: ids that carry the time when they were made, as ours do, are beyond those
/// of all older runs, so that none of them need be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    smallest: [u8; 16],
    largest: [u8; 16],
}

impl Default for IdRange {
    fn default() -> Self {
        Self { smallest: [u8::MAX; 16], largest: [0; 16] }
    }
}

impl IdRange {
    fn add(&mut self, id: EventId) {
        self.smallest = self.smallest.min(*id.as_bytes());
        self.largest = self.largest.max(*id.as_bytes());
    }

    /// The range of both.
    pub fn with(self, other: Self) -> Self {
        Self { smallest: self.smallest.min(other.smallest), largest: self.largest.max(other.largest) }
    }

    /// Whether the id may be among them.
    pub fn may_have(&self, id: EventId) -> bool {
        (self.smallest..=self.largest).contains(id.as_bytes())
    }
}

/// The places of one term, ready to be asked for.
#[derive(Clone, Debug)]
pub struct Postings {
    /// For a stream: version of its first event in the run; else 0.
    pub first_version: u64,
    /// How many places there are. In memory, also those that are not visible yet.
    pub count: u32,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// In memory: number of the term.
    Memory(u32),
    /// All of them.
    Inline(Vec<u32>),
    /// In blocks of an index file: the first, and how many.
    Blocks(u32, u32),
    /// Among the predecessors of an index file, from this one on.
    Causes(u32),
}

/// What every index answers.
pub trait Index: Send + Sync {
    /// How many events there are. In memory, also those that are not visible yet.
    fn count(&self) -> u32;

    /// Adds where the records at these places begin.
    fn offsets(&self, places: Range<u32>, to: &mut Vec<Offset>) -> Result<(), Fault>;

    /// The same, perhaps past the checksum of the index: only for who reads the records there, each of which is trusted
    /// nowhere but at its own position.
    fn unchecked_offsets(&self, places: Range<u32>, to: &mut Vec<Offset>) -> Result<(), Fault> {
        self.offsets(places, to)
    }

    /// The places of a term, if it has any; of a predecessor perhaps others too: the events themselves tell.
    fn find(&self, kind: Kind, name: &[u8], hash: u64) -> Result<Option<Postings>, Fault>;

    /// Those of the places that lie in the range, ascending.
    fn places(&self, postings: &Postings, range: Range<u32>) -> Result<Vec<u32>, Fault>;

    /// Those of the places that have these ranks: the first has rank 0.
    fn ranked(&self, postings: &Postings, ranks: Range<u32>) -> Result<Vec<u32>, Fault>;

    /// How many of the places lie below `visible`.
    fn count_below(&self, postings: &Postings, visible: u32) -> u32;

    /// The smallest and the largest id.
    fn id_range(&self) -> IdRange;

    /// Places of the events of a stream with this id, and perhaps of others of the stream: check the event itself.
    fn with_id(&self, stream: &[u8], id: EventId, hashes: IdentityHashes) -> Result<Vec<u32>, Fault>;

    /// Places of the events with this id, whatever the stream, and perhaps of others: check the events themselves.
    fn of_id(&self, id: EventId) -> Result<Option<Postings>, Fault>;

    /// The streams whose names come after this one (from the first, if none is given), in the order of their
    /// bytes, at most this many.
    fn streams_after(&self, name: Option<&str>, limit: usize) -> Result<Vec<(String, Postings)>, Fault>;
}
