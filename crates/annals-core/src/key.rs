//! Keys of appends: what a key that is used again means, and the error for one that belongs to another append.
//!
//! Next: `reuse`, which compares the two.

use crate::name::name_type;
use crate::{Position, StreamId};

name_type! {
    /// The caller's name for one append: the same append with the same key again is not executed but answered
    /// with the outcome of the first; another one is refused (G5). At most 2,048 bytes.
    IdempotencyKey, "idempotency key", 2048
}

/// What a used idempotency key means to an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyReuse {
    /// The append is refused with [`Error::Reused`](crate::Error::Reused), unless it is the same as the one that used the key: the same
    /// number of events with the same streams, types, content types, data, tags, times of occurrence and metadata
    /// (without the trace, which each attempt may have of its own), and the same ids where the caller gave them. Data
    /// that is JSON is the same if it means the same value.
    #[default]
    Refuse,
    /// The append gets the original outcome, whatever its events are. For callers whose key names a command, which
    /// may decide otherwise when it is repeated.
    Original,
}

/// Which key or ids an append has used again, and where they were used first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reused {
    /// The key; `None` if the append was found by the ids of its events.
    pub key: Option<IdempotencyKey>,
    /// Position of the first event of the original append.
    pub first: Position,
    /// Stream of that event.
    pub stream: StreamId,
    /// The part of the append that differs from the original one, as a path: `events[0].data`.
    pub field: String,
}

impl std::fmt::Display for Reused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.key {
            Some(key) => write!(f, "the key `{key}` belongs to")?,
            None => f.write_str("the ids of these events belong to")?,
        }
        let Self { first, stream, field, .. } = self;
        write!(
            f,
            " the append at position {first} (stream `{stream}`), which is another one: {field} differs"
        )
    }
}
