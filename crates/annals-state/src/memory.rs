//! State in memory: the reference for the other implementations, and the state of a log in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Cause, Clock, Position, StoreId, StreamId, SystemClock, Version};
use async_trait::async_trait;
use parking_lot::Mutex;

use crate::checkpoint::part_bounds;
use crate::lease::{StoredLease, micros};
use crate::name::check_name;
use crate::{
    Acquired, Advanced, Checkpoint, CheckpointStore, Lease, LeaseStore, MemorySnapshots, SnapshotStore,
    StateError, StateStore, StoredSnapshot, whole,
};

/// Streams whose snapshots are kept.
const STREAMS_MAX: usize = 10_000;

/// State in memory, of one log. A clone is another handle to the same; it ends with the last of them.
#[derive(Clone)]
pub struct MemoryState {
    log: StoreId,
    kept: Arc<Mutex<Kept>>,
    snapshots: Arc<MemorySnapshots>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Kept {
    checkpoints: BTreeMap<String, Checkpoint>,
    leases: BTreeMap<String, StoredLease>,
}

impl MemoryState {
    /// Empty state of this log.
    pub fn new(log: StoreId) -> Self {
        Self::with_clock(log, Arc::new(SystemClock))
    }

    /// The same, with another clock for leases.
    pub fn with_clock(log: StoreId, clock: Arc<dyn Clock>) -> Self {
        Self { log, kept: Arc::default(), snapshots: Arc::new(MemorySnapshots::new(STREAMS_MAX)), clock }
    }
}

impl Kept {
    /// Fails if the lease is lost.
    fn check(&self, lease: Option<&Lease>) -> Result<(), StateError> {
        match lease {
            Some(lease) if !self.leases.get(&lease.name).is_some_and(|stored| stored.is(lease)) => {
                Err(StateError::LeaseLost(lease.name.clone()))
            }
            _ => Ok(()),
        }
    }

    fn parts(&self, name: &str) -> Vec<(String, Checkpoint)> {
        let (from, to) = part_bounds(name);
        let own = self.checkpoints.get_key_value(name);
        let parts = self.checkpoints.range(from..to);
        own.into_iter().chain(parts).map(|(name, checkpoint)| (name.clone(), checkpoint.clone())).collect()
    }
}

/// Refuses values that do not fit the columns of the other implementations.
pub(crate) fn check(name: &str, checkpoint: &Checkpoint) -> Result<(), StateError> {
    check_name(name)?;
    Ok(whole(checkpoint.position.get()).map(drop)?)
}

#[async_trait]
impl CheckpointStore for MemoryState {
    async fn checkpoint(&self, name: &str) -> Result<Option<Checkpoint>, StateError> {
        check_name(name)?;
        Ok(self.kept.lock().checkpoints.get(name).cloned())
    }

    async fn create(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError> {
        check(name, checkpoint)?;
        let mut kept = self.kept.lock();
        kept.check(lease)?;
        let is_new = !kept.checkpoints.contains_key(name);
        if is_new {
            kept.checkpoints.insert(name.to_owned(), checkpoint.clone());
        }
        Ok(is_new)
    }

    async fn advance(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<Advanced, StateError> {
        check(name, checkpoint)?;
        let mut kept = self.kept.lock();
        kept.check(lease)?;
        Ok(match kept.checkpoints.get_mut(name) {
            None => Advanced::Missing,
            Some(found) if found.position >= checkpoint.position => Advanced::Behind,
            Some(found) => {
                found.clone_from(checkpoint);
                Advanced::Moved
            }
        })
    }

    async fn replace(
        &self,
        name: &str,
        at: Position,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError> {
        check(name, checkpoint)?;
        let mut kept = self.kept.lock();
        kept.check(lease)?;
        let found = kept.checkpoints.get_mut(name).filter(|found| found.position == at);
        let is_there = found.is_some();
        found.into_iter().for_each(|found| found.clone_from(checkpoint));
        Ok(is_there)
    }

    async fn parts(&self, name: &str) -> Result<Vec<(String, Checkpoint)>, StateError> {
        check_name(name)?;
        Ok(self.kept.lock().parts(name))
    }

    async fn replace_parts(
        &self,
        name: &str,
        found: &[(String, Checkpoint)],
        instead: &[(String, Checkpoint)],
    ) -> Result<bool, StateError> {
        check_name(name)?;
        instead.iter().try_for_each(|(name, checkpoint)| check(name, checkpoint))?;
        let mut kept = self.kept.lock();
        if kept.parts(name) != found {
            return Ok(false);
        }
        for (name, _) in found {
            kept.checkpoints.remove(name);
        }
        kept.checkpoints.extend(instead.iter().cloned());
        Ok(true)
    }
}

#[async_trait]
impl LeaseStore for MemoryState {
    async fn acquire(&self, name: &str, holder: &str, length: Duration) -> Result<Acquired, StateError> {
        check_name(name)?;
        check_name(holder)?;
        let mut kept = self.kept.lock();
        let stored = kept.leases.entry(name.to_owned()).or_default();
        // The time under the lock.
        Ok(match stored.acquire(holder, self.clock.now().as_micros(), length) {
            Ok(acquired) => {
                *stored = acquired;
                Acquired::Held(stored.to_lease(name))
            }
            Err(other) => Acquired::HeldBy(other),
        })
    }

    async fn renew(&self, lease: &Lease, length: Duration) -> Result<bool, StateError> {
        let mut kept = self.kept.lock();
        let Some(stored) = kept.leases.get_mut(&lease.name).filter(|stored| stored.is(lease)) else {
            return Ok(false);
        };
        stored.length = micros(length);
        stored.until = Some(self.clock.now().as_micros().saturating_add(stored.length));
        Ok(true)
    }

    async fn release(&self, lease: &Lease) -> Result<(), StateError> {
        let mut kept = self.kept.lock();
        if let Some(stored) = kept.leases.get_mut(&lease.name).filter(|stored| stored.is(lease)) {
            stored.holder = None;
        }
        Ok(())
    }

    async fn holder(&self, name: &str) -> Result<Option<String>, StateError> {
        let kept = self.kept.lock();
        let stored = kept.leases.get(name);
        Ok(stored.and_then(|stored| stored.holder_at(self.clock.now().as_micros())).map(str::to_owned))
    }
}

#[async_trait]
impl SnapshotStore for MemoryState {
    async fn put(&self, snapshot: StoredSnapshot) -> Result<(), Cause> {
        self.snapshots.put(snapshot).await
    }

    async fn nearest(
        &self,
        stream: &StreamId,
        schema: &str,
        up_to: Version,
    ) -> Result<Option<StoredSnapshot>, Cause> {
        self.snapshots.nearest(stream, schema, up_to).await
    }

    async fn forget(&self, stream: &StreamId) -> Result<(), Cause> {
        self.snapshots.forget(stream).await
    }
}

impl StateStore for MemoryState {
    fn log(&self) -> StoreId {
        self.log
    }
}
