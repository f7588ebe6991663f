//! Snapshots: the folded state of an aggregate, kept so that loading need not begin at the first event.
//!
//! - N1  A snapshot is a cache. Whatever is wrong with it (another schema, bytes that cannot be read, a version
//!   that the stream does not have, a history that has gone another way), the events are replayed instead.
//! - N2  A snapshot holds the effect of its own version's event. Loading goes on with the one after it.
//! - N3  To fail to keep one is a warning, never an error of the command.
//!
//! The files: `policy` (when), `memory`, `sqlite` and `database` (where).

mod database;
mod memory;
mod policy;
mod sqlite;

use std::sync::Arc;

use annals_core::{
    Aggregate, Bytes, Cause, EventId, EventStore, Position, Result, StreamId, StreamRead, Timestamp, Version,
};
use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use memory::MemorySnapshots;
pub use policy::{Policy, every, older_than};

use crate::repository::Folded;
use crate::shared::Shared;
use crate::state::Opened;

/// An aggregate of which snapshots can be kept. It must also be `Serialize` and `DeserializeOwned`.
pub trait Snapshot: Aggregate {
    /// Raise this whenever the shape of the state changes, or what `evolve` makes of an event. Snapshots of
    /// another version are not used.
    const SNAPSHOT_VERSION: u32 = 1;
}

/// How many snapshots are kept of one stream: the newest.
const KEPT: usize = 4;

/// A snapshot as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The stream that was folded.
    pub stream: StreamId,
    /// What the bytes are of: the aggregate's name and its snapshot version.
    pub schema: String,
    /// The version up to which it was folded, inclusive.
    pub version: Version,
    /// The event of that version.
    pub event_id: EventId,
    /// Position of that event.
    pub position: Position,
    /// When the snapshot was taken.
    pub taken_at: Timestamp,
    /// The state, as JSON.
    pub state: Bytes,
}

/// Where snapshots are kept: apart from the log, and allowed to forget.
#[async_trait]
pub trait SnapshotStore: Send + Sync + 'static {
    /// Keeps a snapshot, and of the same stream only the newest few beside it. Those of another schema may go.
    async fn put(&self, snapshot: StoredSnapshot) -> Result<(), Cause>;

    /// The newest snapshot of this stream and schema that is not beyond this version.
    async fn nearest(
        &self,
        stream: &StreamId,
        schema: &str,
        up_to: Version,
    ) -> Result<Option<StoredSnapshot>, Cause>;

    /// Forgets all snapshots of a stream: one of them has turned out wrong.
    async fn forget(&self, stream: &StreamId) -> Result<(), Cause>;
}

/// The store beside the log: the database, `state.sqlite`, or in memory if there is no directory.
pub(crate) fn beside(shared: &Shared) -> Arc<dyn SnapshotStore> {
    match &shared.state {
        Opened::Database(database) => Arc::new(database::DatabaseSnapshots(database.clone())),
        Opened::Sqlite(database, Some(_)) => Arc::new(sqlite::SqliteSnapshots(database.clone())),
        Opened::Sqlite(_, None) => Arc::new(MemorySnapshots::new(10_000)),
    }
}

/// The snapshots of one kind of aggregate.
pub(crate) struct Snapshots<A> {
    store: Arc<dyn SnapshotStore>,
    policy: Policy,
    schema: String,
    // Where the bounds of serde are known, these two are made; the repository need not know them.
    write: fn(&A) -> serde_json::Result<Vec<u8>>,
    read: fn(&[u8]) -> serde_json::Result<A>,
}

impl<A: Snapshot + Serialize + DeserializeOwned> Snapshots<A> {
    pub fn new(store: Arc<dyn SnapshotStore>, policy: Policy) -> Self {
        Self {
            store,
            policy,
            schema: format!("{}/{}", A::NAME, A::SNAPSHOT_VERSION),
            write: |state| serde_json::to_vec(state),
            read: |bytes| serde_json::from_slice(bytes),
        }
    }
}

impl<A: Aggregate> Snapshots<A> {
    /// The newest snapshot up to this version that belongs to the history in the log.
    pub async fn nearest(
        &self,
        log: &dyn EventStore,
        stream: &StreamId,
        up_to: Version,
    ) -> Result<Option<Folded<A>>> {
        let stored = match self.store.nearest(stream, &self.schema, up_to).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!(%stream, %error, "no snapshot could be read; the events are replayed");
                return Ok(None);
            }
        };
        let state = match (self.read)(&stored.state) {
            Ok(state) => state,
            Err(error) => {
                self.forget(stream, &error.to_string()).await;
                return Ok(None);
            }
        };
        let witness = log.read_stream(StreamRead::forward(stream, stored.version).limit(1)).await?;
        if witness.events.first().is_none_or(|event| event.id != stored.event_id) {
            self.forget(stream, "the log has another history").await;
            return Ok(None);
        }
        Ok(Some(Folded {
            state,
            version: stored.version,
            position: stored.position,
            last: Some(stored.event_id),
            snapshot: stored.version,
            since: Some(stored.taken_at),
        }))
    }

    /// Takes a snapshot if the policy wants one.
    pub async fn take_if_due(&self, stream: &StreamId, folded: &mut Folded<A>, now: Timestamp) {
        let Some((event_id, since)) = folded.last.zip(folded.since) else { return };
        let events = folded.version.get() - folded.snapshot.get();
        if events == 0 || !self.policy.is_due(events, now.since(since)) {
            return;
        }
        let kept = match (self.write)(&folded.state) {
            Ok(state) => {
                let snapshot = StoredSnapshot {
                    stream: stream.clone(),
                    schema: self.schema.clone(),
                    version: folded.version,
                    event_id,
                    position: folded.position,
                    taken_at: now,
                    state: Bytes::from(state),
                };
                self.store.put(snapshot).await
            }
            Err(error) => Err(Cause::from(error)),
        };
        match kept {
            Ok(()) => (folded.snapshot, folded.since) = (folded.version, Some(now)),
            Err(error) => tracing::warn!(%stream, %error, "a snapshot could not be kept"),
        }
    }

    async fn forget(&self, stream: &StreamId, reason: &str) {
        tracing::warn!(%stream, reason, "a snapshot is not usable; the events are replayed");
        if let Err(error) = self.store.forget(stream).await {
            tracing::warn!(%stream, %error, "snapshots could not be dropped");
        }
    }
}
