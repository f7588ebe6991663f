//! What appends are decided by and staged in: the log, where it ends with all that is staged, and the run that is added to.
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

/// The end of the log.
pub struct Staging {
    /// What readers see.
    pub log: Arc<Log>,
    /// Where is written.
    pub active: Active,
    /// Where the log ends, staged appends included.
    pub tail: End,
    /// Versions of streams that are not in the newest run.
    pub heads: Heads,
    /// The ids of all runs but the newest.
    pub older_ids: IdRange,
}

/// The segment that is being written, and the newest run.
pub struct Active {
    /// The segment.
    pub segment: Arc<Segment>,
    /// How far its file reaches, with zeros from the tail on.
    pub allocated: u64,
    /// Where the run begins.
    pub from: End,
    /// The index of the run.
    pub index: Arc<RwLock<MemoryIndex>>,
}

/// Versions of streams that were looked up in older runs lately and have no event in the newest; 0 for those that have
/// none anywhere.
pub struct Heads(Cache<StreamId, Version, UnitWeighter, Xxh3DefaultBuilder>);

impl Heads {
    /// Room for that many streams.
    pub fn new(streams: usize) -> Self {
        let (weights, hashes) = (UnitWeighter, Xxh3DefaultBuilder);
        Self(Cache::with(streams, streams as u64, weights, hashes, DefaultLifecycle::default()))
    }
    /// The version of a stream, if it was looked up lately.
    pub fn get(&self, stream: &StreamId) -> Option<Version> {
        self.0.get(stream)
    }

    /// A stream was looked up.
    pub fn insert(&self, stream: StreamId, version: Version) {
        self.0.insert(stream, version);
    }

    /// The newest run knows the stream now.
    pub fn remove(&self, stream: &StreamId) {
        self.0.remove(stream);
    }
}
