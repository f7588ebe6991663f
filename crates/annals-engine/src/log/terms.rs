//! Terms: the index keys of an event, and their hashes.
//!
//! A term is a kind and a name, always compared in full; a hash only narrows the search. Hashes are computed
//! when an event is encoded, on the appending thread (`frame`), and are stored in index files (`index`).

use annals_core::EventId;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use annals_core::body::Body;

/// The kind of a term. The number is stored in index files.
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
    /// An idempotency key. Its only place is that of the append's first event.
    Key = 7,
    /// The predecessor of an event. On disk it is not stored as a term: there may be as many names as events.
    Predecessor = 8,
}

impl Kind {
    /// The hash of the term of this kind with this name. Filters on disk depend on it, so it never changes.
    pub fn hash(self, name: &[u8]) -> u64 {
        xxh3_64_with_seed(name, self as u64)
    }

    /// The kind of a term on disk with this number.
    pub fn of(number: u8) -> Option<Self> {
        use Kind::*;
        [Stream, Category, Type, Tag, Process, Initiator, Key].into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether terms of this kind are in the filter of a run: those of which there are many, so that most are
    /// in few runs. Predecessors are not, as there may be as many as events.
    pub fn is_filtered(self) -> bool {
        !matches!(self, Self::Category | Self::Type | Self::Predecessor)
    }
}

/// The hash of an event's id. Filters on disk depend on it, so it never changes.
pub fn id_hash(id: EventId) -> u64 {
    xxh3_64(id.as_bytes())
}

/// The hash of an event's id and stream together, from the hashes of both: the same id may be used in several
/// streams. Filters on disk depend on it, so it never changes.
pub fn identity_hash(id_hash: u64, stream_hash: u64) -> u64 {
    (id_hash ^ stream_hash.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream_hash
}

/// The sort key of an event among the ids of a run: the upper 22 bits are from the hash of its id, so that a
/// search by id finds it in every stream; the others are from the hash of id and stream, so that a search by
/// both reads few entries even if many streams have the id.
pub fn short(id_hash: u64, stream_hash: u64) -> u32 {
    (id_hash >> 32) as u32 & !OF_STREAM | (identity_hash(id_hash, stream_hash) >> 32) as u32 & OF_STREAM
}

/// The bits of [`short`] that depend on the stream.
pub const OF_STREAM: u32 = (1 << 10) - 1;

/// The hashes by which an event is found from its id and stream.
#[derive(Clone, Copy, Debug)]
pub struct IdentityHashes {
    /// Hash of the id.
    pub id: u64,
    /// Hash of the stream.
    pub stream: u64,
}

impl IdentityHashes {
    /// The hashes of this id in the stream of this name.
    pub fn of(stream: &[u8], id: EventId) -> Self {
        Self { id: id_hash(id), stream: Kind::Stream.hash(stream) }
    }

    /// [`identity_hash`] of both.
    pub fn both(self) -> u64 {
        identity_hash(self.id, self.stream)
    }

    /// [`short`] of both.
    pub fn short(self) -> u32 {
        short(self.id, self.stream)
    }
}

/// The terms of an event, each once.
pub fn terms_of<'a>(event: &Body<'a>, mut each: impl FnMut(Kind, &'a [u8])) {
    each(Kind::Stream, event.stream);
    each(Kind::Category, category(event.stream));
    each(Kind::Type, event.event_type);
    for (index, tag) in event.tags().enumerate() {
        if !event.tags().take(index).any(|before| before == tag) {
            each(Kind::Tag, tag);
        }
    }
    for (kind, name) in [
        (Kind::Process, event.process),
        (Kind::Initiator, event.initiator),
        (Kind::Key, event.key),
        (Kind::Predecessor, event.predecessor),
    ] {
        if let Some(name) = name {
            each(kind, name);
        }
    }
}

/// The category of a stream, as in `StreamId::category`.
fn category(stream: &[u8]) -> &[u8] {
    match stream.iter().position(|&byte| byte == b'-') {
        None | Some(0) => stream,
        Some(dash) => &stream[..dash],
    }
}

/// Appends the hash of the event's id, then the hash of each of its terms in the order of [`terms_of`].
pub fn hashes_of(event: &Body<'_>, hashes: &mut Vec<u64>) {
    hashes.push(id_hash(event.id));
    terms_of(event, |kind, name| hashes.push(kind.hash(name)));
}
