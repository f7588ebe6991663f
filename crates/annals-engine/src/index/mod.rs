//! Indexes: where in a segment the events are that have a stream, a type, a tag, an id, a key.
//!
//! An index speaks of one segment. A *place* is an event's position less the segment's first, so places begin at
//! 0 and fit in 32 bits. There are two: `memory`, of the segment that is being written, and `file`, of a sealed
//! one, written once by `build`. Both are derived from the segment and can be made again from it.
//!
//! What an event is found by is a *term*: a kind and a name, compared whole. `search` answers queries from the
//! places of terms.

use std::ops::Range;

use annals_core::{EventId, RecordedEvent, Text};

use crate::error::Fault;

mod build;
mod file;
mod memory;
mod search;

pub use build::build;
pub use file::{BlockCache, FileIndex};
pub use memory::MemoryIndex;
pub use search::search;

/// What kind of name a term is. The number stands in index files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A stream.
    Stream = 1,
    /// The category of a stream.
    Category = 2,
    /// A type of event.
    Type = 3,
    /// A tag.
    Tag = 4,
    /// A process.
    Process = 5,
    /// An initiator.
    Initiator = 6,
    /// An idempotency key; its place is that of the append's first event.
    Key = 7,
}

impl Kind {
    /// The term of this kind with this name, as it is looked up by: the kind's number, then the name.
    pub fn term(self, name: &str) -> Vec<u8> {
        let mut term = Vec::with_capacity(name.len() + 1);
        term.push(self as u8);
        term.extend_from_slice(name.as_bytes());
        term
    }
}

/// The terms of an event, each once.
pub fn terms_of(event: &RecordedEvent, mut each: impl FnMut(Kind, &str)) {
    each(Kind::Stream, event.stream.as_str());
    each(Kind::Category, event.stream.category().as_str());
    each(Kind::Type, event.event_type.as_str());
    for (index, tag) in event.tags.iter().enumerate() {
        if !event.tags[..index].contains(tag) {
            each(Kind::Tag, tag.as_str());
        }
    }
    let mut optional = |kind, name: &Option<Text>| {
        if let Some(name) = name {
            each(kind, name.as_str());
        }
    };
    optional(Kind::Process, &event.metadata.process);
    optional(Kind::Initiator, &event.metadata.initiator);
    if let Some(key) = &event.idempotency_key {
        each(Kind::Key, key.as_str());
    }
}

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

/// The places of one term, ready to be asked for.
#[derive(Clone, Debug)]
pub struct Postings {
    /// For a stream: version of its first event in the segment; else 0.
    pub first_version: u64,
    /// How many places there are. In memory, also those that are not visible yet.
    pub count: u32,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// In memory: number of the term.
    Memory(usize),
    /// All of them.
    Inline(Vec<u32>),
    /// In blocks of an index file: the first, and how many.
    Blocks(u32, u32),
}

/// What every index answers.
pub trait SegmentIndex: Send + Sync {
    /// How many events there are. In memory, also those that are not visible yet.
    fn count(&self) -> u32;

    /// Where the records at these places begin.
    fn offsets(&self, places: Range<u32>) -> Result<Vec<Offset>, Fault>;

    /// The places of a term, if it has any.
    fn find(&self, kind: Kind, name: &str) -> Result<Option<Postings>, Fault>;

    /// Those of the places that lie in the range, ascending.
    fn places(&self, postings: &Postings, range: Range<u32>) -> Result<Vec<u32>, Fault>;

    /// Those of the places that have these ranks: the first has rank 0.
    fn ranked(&self, postings: &Postings, ranks: Range<u32>) -> Result<Vec<u32>, Fault>;

    /// How many of the places lie below `visible`.
    fn count_below(&self, postings: &Postings, visible: u32) -> u32;

    /// Places of the events with this id, and perhaps of others: the event itself tells.
    fn with_id(&self, id: EventId) -> Result<Vec<u32>, Fault>;

    /// The streams whose names come after this one (from the first, if none is given), in the order of their
    /// bytes, at most this many.
    fn streams_after(&self, name: Option<&str>, limit: usize) -> Result<Vec<(String, Postings)>, Fault>;
}
