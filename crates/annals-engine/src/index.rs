//! Indexes: find events by stream, type, tag, id and key.
//!
//! An index covers a *run*: consecutive events of the log. A *place* is an event's position minus the run's
//! first position, so places begin at 0 and fit in 32 bits. There are two kinds: `memory`, the index of the
//! newest run, to which the writer adds events, and `file`, on disk, written once by `writer`. `merge` merges
//! several runs into one, so that a look-up reads few indexes even if the log is long. All of them are
//! derived from the segments and can be rebuilt.
//!
//! A *term* is an index key of an event (`terms`). `search` runs queries on the places of terms.

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
pub use merge::{Hashes, merge, renew};
pub use search::{hashes_in_filters, is_by_hash, search};
pub use writer::{Ending, Pause, write};

/// The offset of a record in the segment's file, and whether the record is the first of its frame.
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

/// The smallest and the largest id of a run. New ids that begin with a timestamp, as ours do, are outside the
/// ranges of all older runs, so those runs need not be searched.
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

    /// The range that covers both.
    pub fn with(self, other: Self) -> Self {
        Self { smallest: self.smallest.min(other.smallest), largest: self.largest.max(other.largest) }
    }

    /// Whether the id is within the range.
    pub fn may_have(&self, id: EventId) -> bool {
        (self.smallest..=self.largest).contains(id.as_bytes())
    }
}

/// The postings list of one term. Its places are read with the methods of [`Index`].
#[derive(Clone, Debug)]
pub struct Postings {
    /// For a stream: version of its first event in the run; otherwise 0.
    pub first_version: u64,
    /// Number of places. In memory, places that are not visible yet are included.
    pub count: u32,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// In memory: number of the term.
    Memory(u32),
    /// The places themselves.
    Inline(Vec<u32>),
    /// In blocks of an index file: the first block, and the number of blocks.
    Blocks(u32, u32),
    /// Among the predecessors of an index file, starting with this entry.
    Causes(u32),
}

/// The look-ups of an index.
pub trait Index: Send + Sync {
    /// Number of events. In memory, events that are not visible yet are included.
    fn count(&self) -> u32;

    /// Appends the offsets of the records at these places.
    fn offsets(&self, places: Range<u32>, to: &mut Vec<Offset>) -> Result<(), Fault>;

    /// Like [`offsets`](Self::offsets), but may skip the checksum of the index. The caller must read and
    /// verify the records, each of which is valid only at its own position.
    fn unchecked_offsets(&self, places: Range<u32>, to: &mut Vec<Offset>) -> Result<(), Fault> {
        self.offsets(places, to)
    }

    /// Prefetches into the processor's cache what tells whether a stream or key with this hash may be here,
    /// for a [`find`](Self::find) that follows at once.
    fn bring_near(&self, hash: u64) {
        let _ = hash;
    }

    /// The places of a term; `None` if it has none. For a predecessor there may be false positives: check the
    /// events.
    fn find(&self, kind: Kind, name: &[u8], hash: u64) -> Result<Option<Postings>, Fault>;

    /// The places within the range, ascending.
    fn places(&self, postings: &Postings, range: Range<u32>) -> Result<Vec<u32>, Fault>;

    /// The places with these ranks; the first place has rank 0.
    fn ranked(&self, postings: &Postings, ranks: Range<u32>) -> Result<Vec<u32>, Fault>;

    /// Number of places below `visible`.
    fn count_below(&self, postings: &Postings, visible: u32) -> u32;

    /// The smallest and the largest id.
    fn id_range(&self) -> IdRange;

    /// Places of the events of a stream with this id. There may be false positives: check the events.
    fn with_id(&self, stream: &[u8], id: EventId, hashes: IdentityHashes) -> Result<Vec<u32>, Fault>;

    /// Places of the events with this id in any stream. There may be false positives: check the events.
    fn of_id(&self, id: EventId) -> Result<Option<Postings>, Fault>;

    /// At most `limit` streams whose names come after this one (all streams if it is `None`), in the order of
    /// their bytes.
    fn streams_after(&self, name: Option<&str>, limit: usize) -> Result<Vec<(String, Postings)>, Fault>;
}
