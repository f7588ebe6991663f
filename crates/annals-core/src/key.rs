//! Idempotency keys: the meaning of a reused key, and the error for a key that belongs to another append.
//!
//! Next: `reuse`, which compares the two appends.

use crate::name::name_type;
use crate::{Position, StreamId};

name_type! {
    /// The caller's name for one append: the same append with the same key is not written again, and gets the
    /// outcome of the first; another append with the key is refused (G5). At most 2,048 bytes.
    IdempotencyKey, "idempotency key", 2048
}

/// The meaning of a used idempotency key for an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyReuse {
    /// The append is refused with [`Error::Reused`](crate::Error::Reused), unless it equals the append that
    /// used the key: the same number of events with the same streams, types, schema versions, content types,
    /// data, tags, times of occurrence and metadata (without the trace, which may differ per attempt), and
    /// the same ids where the caller gave them. JSON data is compared by value.
    #[default]
    Refuse,
    /// The append gets the original outcome, even if its events differ. For callers whose key names a
    /// command, which may decide differently when it is repeated.
    Original,
}

/// The key or ids that an append has reused, and where they were used first.
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
