//! Snapshots: the folded state of an aggregate, kept so that loading need not begin at the first event.
//!
//! - N1  A snapshot is a cache. Whatever is wrong with it (another schema, bytes that cannot be read, a version
//!   that the stream does not have, a history that has gone another way), the events are replayed instead.
//! - N2  A snapshot holds the effect of its own version's event. Loading continues with the one after it.
//! - N3  To fail to keep one is a warning, never an error of the command.
//! - N4  A state that is not read back as it was is not kept: JSON has no infinity and no `Some(None)`. The loaded state is what a replay makes of the log, with and without snapshots.
//!
//! The files: `policy` (when), `exact` (whether a state is the same when it is read back). Where they are kept: `annals_state`.

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
/// A snapshot is read back and compared before it is kept. A state that comes back as another one, because JSON has no infinity
/// and no `Some(None)`, is not kept: there is one warning, which names the field, and the events are replayed. What serde is
/// not told of, [`is_same`](Self::is_same) compares.
#[doc(alias("memento"))]
pub trait Snapshot: Aggregate {
    /// Raise this whenever the shape of the state changes, or what `evolve` or the function of an upcaster makes of an event.
    /// Snapshots of another version are not used; nor are those that were made with other versions of the events' shapes, or
    /// with another table of upcasters.
    const SNAPSHOT_VERSION: u32 = 1;

    /// Whether the state that was read back from its JSON is this one. What is in the JSON is compared anyway; if serde leaves
    /// a field out (`#[serde(skip)]`) that matters, write `self == read_back`.
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
    // Where the bounds of serde are known, these two are made; the repository need not know them.
    write: fn(&A) -> Result<Vec<u8>, HandlerError>,
    read: fn(&[u8]) -> Result<A, HandlerError>,
    /// Whether it was reported that a state of this kind cannot be kept.
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

/// What a snapshot is bound to: the version of its shape, and the shapes of the events that are folded into it. A state that
/// was folded from events as another program read them is not used.
fn schema<A: Snapshot>() -> String {
    let version = format!("{}/{}", A::NAME, A::SNAPSHOT_VERSION);
    match codec::fingerprint::<A::Event>() {
        Some(fingerprint) => format!("{version}+{fingerprint}"),
        None => version,
    }
}

/// The state as JSON, if that is read back as the same state.
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
    /// The newest snapshot up to this version. Whether it belongs to the history of the log is seen when what follows is
    /// read ([`Folded::catch_up`]).
    pub async fn nearest(&self, stream: &StreamId, up_to: Version) -> Option<Folded<A>> {
        let stored = match self.store.nearest(stream, &self.schema, up_to).await {
            Ok(stored) => stored?,
            Err(error) => {
                tracing::warn!(%stream, %error, "no snapshot could be read; the events are replayed");
                return None;
            }
        };
        let state = match (self.read)(&stored.state) {
            // A store of snapshots that holds one of no event, or beyond what was asked for, is wrong.
            Ok(state) if Version::FIRST <= stored.version && stored.version <= up_to => state,
            Ok(_) => {
                self.forget(stream, "its version is none that was asked for").await;
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

    /// Takes a snapshot if the policy wants one.
    pub async fn take_if_due(&self, stream: &StreamId, folded: &mut Folded<A>, now: Timestamp) {
        let Some((event_id, since)) = folded.last.zip(folded.since) else { return };
        let events = folded.version.get() - folded.snapshot.get();
        // A time that far ahead was written by a clock that was wrong: it must not put off every snapshot until then.
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

    /// Reports once for a kind of aggregate that a state cannot be kept.
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
