//! Snapshots in memory, of the streams that are used most.

use annals_core::{Cause, Result, StreamId, Version};
use async_trait::async_trait;
use parking_lot::Mutex;
use quick_cache::unsync::Cache;

use super::{SNAPSHOTS_KEPT, SnapshotStore, StoredSnapshot};

/// Snapshots of a bounded number of streams, in memory. They end with the process.
pub struct MemorySnapshots(Mutex<Cache<StreamId, Vec<StoredSnapshot>>>);

impl MemorySnapshots {
    /// Keeps the snapshots of this many streams, those that are used most.
    pub fn new(streams_max: usize) -> Self {
        Self(Mutex::new(Cache::new(streams_max.max(1))))
    }
}

#[async_trait]
impl SnapshotStore for MemorySnapshots {
    async fn put(&self, snapshot: StoredSnapshot) -> Result<(), Cause> {
        let mut streams = self.0.lock();
        let mut kept = streams.remove(&snapshot.stream).map_or_else(Vec::new, |(_, kept)| kept);
        kept.retain(|other| other.schema == snapshot.schema && other.version != snapshot.version);
        let stream = snapshot.stream.clone();
        kept.push(snapshot);
        kept.sort_by_key(|snapshot| snapshot.version);
        let surplus = kept.len().saturating_sub(SNAPSHOTS_KEPT);
        kept.drain(..surplus);
        streams.insert(stream, kept);
        Ok(())
    }

    async fn nearest(
        &self,
        stream: &StreamId,
        schema: &str,
        up_to: Version,
    ) -> Result<Option<StoredSnapshot>, Cause> {
        let streams = self.0.lock();
        let kept = streams.get(stream).map_or(&[][..], |kept| kept.as_slice());
        Ok(kept.iter().rev().find(|kept| kept.schema == schema && kept.version <= up_to).cloned())
    }

    async fn forget(&self, stream: &StreamId) -> Result<(), Cause> {
        self.0.lock().remove(stream);
        Ok(())
    }
}
