//! Snapshots: the folded state of an aggregate, stored so that loading need not begin at the first event.
//!
//! - N1  A snapshot is a cache. If it cannot be used (another schema, unreadable bytes, a version
//!   that the stream does not have, another history), the events are replayed instead.
//! - N2  A snapshot includes the event of its own version. Loading continues with the next event.
//! - N3  A failure to store a snapshot is a warning, never an error of the command.
//! - N4  A state that is not read back unchanged is not stored: JSON has no infinity and no `Some(None)`. The
//!   loaded state equals that of a replay of the log, with and without snapshots.
//!
//! The files: `policy` (when to take one), `exact` (compares a state with the one read back). Snapshots are
//! stored by `annals_state`.

mod exact;
mod policy;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_core::{Aggregate, Bytes, StreamId, Timestamp, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use annals_state::{MemorySnapshots, SnapshotStore, StoredSnapshot};
pub use policy::{Policy, every, older_than};

use crate::HandlerError;
use crate::codec;
use crate::failure::caught;
use crate::fold::Folded;

/// An aggregate of which snapshots can be kept. It must also be `Serialize` and `DeserializeOwned`.
///
/// A snapshot is read back and compared before it is stored. If the state read back differs, because JSON has
/// no infinity and no `Some(None)`, it is not stored: one warning names the field, and the events are
/// replayed. Fields that serde skips are compared by [`is_same`](Self::is_same).
#[doc(alias("memento"))]
pub trait Snapshot: Aggregate {
    /// Increase this whenever the shape of the state changes, or the result of `evolve` or of an upcaster's
    /// function for an event. Snapshots of another version are not used; nor are those taken with other
    /// versions of the events' shapes, or with another table of upcasters.
    const SNAPSHOT_VERSION: u32 = 1;

    /// Whether the state read back from its JSON equals this one. The serialized fields are compared anyway;
    /// if serde skips a field that matters (`#[serde(skip)]`), implement this as `self == read_back`.
    fn is_same(&self, read_back: &Self) -> bool {
        let _ = read_back;
        true
    }
}

/// The snapshots of one kind of aggregate.
pub(crate) struct Snapshots<A> {
    store: Arc<dyn SnapshotStore>,
    policy: Policy,
    schema: String,
    // These two are created where the bounds of serde are in scope, so that the repository does not need
    // them.
    write: fn(&A) -> Result<Vec<u8>, HandlerError>,
    read: fn(&[u8]) -> Result<A, HandlerError>,
    /// Whether it was reported that a state of this kind cannot be stored.
    reported: AtomicBool,
}

impl<A: Snapshot + Serialize + DeserializeOwned> Snapshots<A> {
    pub fn new(store: Arc<dyn SnapshotStore>, policy: Policy) -> Self {
        Self {
            store,
            policy,
            schema: schema::<A>(),
            write: |state| caught(|| written(state)),
            read: |bytes| caught(|| Ok(serde_json::from_slice(bytes)?)),
            reported: AtomicBool::new(false),
        }
    }
}

/// The schema of a snapshot: the version of its shape, and the shapes of the folded events. A state that
/// was folded from events that another program decoded differently is not used.
fn schema<A: Snapshot>() -> String {
    let version = format!("{}/{}", A::NAME, A::SNAPSHOT_VERSION);
    match codec::fingerprint::<A::Event>() {
        Some(fingerprint) => format!("{version}+{fingerprint}"),
        None => version,
    }
}

/// Encodes the state as JSON, if the same state is read back from it.
pub(crate) fn written<A: Snapshot + Serialize + DeserializeOwned>(
    state: &A,
) -> Result<Vec<u8>, HandlerError> {
    let bytes = serde_json::to_vec(state)?;
    let read: A = serde_json::from_slice(&bytes)?;
    match exact::difference(state, &read)? {
        None if state.is_same(&read) => Ok(bytes),
        None => Err(HandlerError::new("it is read back as another state, by `Snapshot::is_same`")),
        Some(field) => Err(HandlerError::new(format!("its field `{field}` is read back as another value"))),
    }
}

impl<A: Aggregate> Snapshots<A> {
    /// The newest snapshot up to this version. Whether it belongs to the history of the log is checked when
    /// the events after it are read ([`Folded::catch_up`]).
    pub async fn nearest(&self, stream: &StreamId, up_to: Version) -> Option<Folded<A>> {
        let stored = match self.store.nearest(stream, &self.schema, up_to).await {
            Ok(stored) => stored?,
            Err(error) => {
                tracing::warn!(%stream, %error, "no snapshot could be read; the events are replayed");
                return None;
            }
        };
        let state = match (self.read)(&stored.state) {
            // A store of snapshots must not return one at version 0, or beyond the requested version.
            Ok(state) if Version::FIRST <= stored.version && stored.version <= up_to => state,
            Ok(_) => {
                self.forget(stream, "its version is outside of the requested range").await;
                return None;
            }
            Err(error) => {
                self.forget(stream, &error.to_string()).await;
                return None;
            }
        };
        Some(Folded {
            state,
            version: stored.version,
            position: stored.position,
            last: Some(stored.event_id),
            snapshot: stored.version,
            since: Some(stored.taken_at),
        })
    }

    /// Takes a snapshot if one is due by the policy.
    pub async fn take_if_due(&self, stream: &StreamId, folded: &mut Folded<A>, now: Timestamp) {
        let Some((event_id, since)) = folded.last.zip(folded.since) else { return };
        let events = folded.version.get() - folded.snapshot.get();
        // A time in the future was written by a wrong clock. It must not delay all snapshots until that time.
        let age = now.since(since).max(since.since(now));
        if events == 0 || !self.policy.is_due(events, age) {
            return;
        }
        let state = match (self.write)(&folded.state) {
            Ok(state) => Bytes::from(state),
            Err(error) => return self.report(stream, &error),
        };
        let snapshot = StoredSnapshot {
            stream: stream.clone(),
            schema: self.schema.clone(),
            version: folded.version,
            event_id,
            position: folded.position,
            taken_at: now,
            state,
        };
        match self.store.put(snapshot).await {
            Ok(()) => (folded.snapshot, folded.since) = (folded.version, Some(now)),
            Err(error) => tracing::warn!(%stream, %error, "a snapshot could not be kept"),
        }
    }

    /// Reports once per kind of aggregate that a state cannot be stored.
    fn report(&self, stream: &StreamId, error: &HandlerError) {
        if !self.reported.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                aggregate = self.schema, %stream, %error,
                "states of this aggregate cannot be kept as snapshots; the events are replayed"
            );
        }
    }

    pub async fn forget(&self, stream: &StreamId, reason: &str) {
        tracing::warn!(%stream, reason, "a snapshot is not usable; the events are replayed");
        if let Err(error) = self.store.forget(stream).await {
            tracing::warn!(%stream, %error, "snapshots could not be dropped");
        }
    }
}
