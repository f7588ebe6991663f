//! The state on which appends are decided and staged: the log, its end including staged events, and the
//! newest run.
//!
//! The writer owns it. Next: `stage`, which works on it.

use std::sync::Arc;

use parking_lot::RwLock;

use super::heads::Heads;
use crate::index::{IdRange, MemoryIndex};
use crate::log::segment::{End, Segment};
use crate::read::view::Log;

/// The log and its end, including staged events.
pub struct Staging {
    /// The log as readers see it.
    pub log: Arc<Log>,
    /// The active segment and the newest run.
    pub active: Active,
    /// The end of the log, including staged events.
    pub tail: End,
    /// Versions of streams.
    pub heads: Heads,
    /// The range of the ids of all runs except the newest.
    pub older_ids: IdRange,
}

/// The segment that is being written, and the newest run.
pub struct Active {
    /// The segment.
    pub segment: Arc<Segment>,
    /// The length of its file, which is zero from the tail on.
    pub allocated: u64,
    /// Where the run begins.
    pub from: End,
    /// The index of the run.
    pub index: Arc<RwLock<MemoryIndex>>,
}
