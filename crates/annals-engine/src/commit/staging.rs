//! The state on which appends are decided and staged: the log, its end including staged events, and the
//! newest run.
//!
//! The writer owns it. Next: `stage`, which works on it.

use std::sync::Arc;

use annals_core::{StreamId, Version};
use parking_lot::RwLock;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

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
    /// Versions of streams that are not in the newest run.
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

/// A cache of versions of streams that were looked up in older runs and have no event in the newest; 0 for
/// streams that do not exist.
pub struct Heads(Cache<StreamId, Version, UnitWeighter, Xxh3DefaultBuilder>);

impl Heads {
    /// A cache for this many streams.
    pub fn new(streams: usize) -> Self {
        let (weights, hashes) = (UnitWeighter, Xxh3DefaultBuilder);
        Self(Cache::with(streams, streams as u64, weights, hashes, DefaultLifecycle::default()))
    }
    /// The cached version of a stream.
    pub fn get(&self, stream: &StreamId) -> Option<Version> {
        self.0.get(stream)
    }

    /// Caches the version of a stream.
    pub fn insert(&self, stream: StreamId, version: Version) {
        self.0.insert(stream, version);
    }

    /// Removes a stream, which now has events in the newest run.
    pub fn remove(&self, stream: &StreamId) {
        self.0.remove(stream);
    }
}
