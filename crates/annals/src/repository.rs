//! A repository: the aggregates of one kind, loaded by folding and changed by commands.
//!
//! The path of a command to the log is: `execute` (the options of a command) -> `attempt` (load, decide,
//! append, repeated after a conflict) -> `annals_core::EventStore::append`. Loading is in `fold`.

mod again;
mod answer;
mod attempt;
mod delivered;
mod encoded;
mod error;
mod execute;
mod history;
mod key;

use std::sync::Arc;

use annals_core::{
    Aggregate, CommandOf, Error, EventId, EventStoreExt, Invalid, Position, Seen, StreamId, StreamRead,
    Timestamp, Version,
};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use answer::{Answer, Refusal};
pub(crate) use delivered::Delivered;
pub(crate) use encoded::Encoded;
pub use error::ExecuteError;
pub use execute::{CommandBuilder, Committed};
pub use history::{Change, History};

use crate::codec;
use crate::fold::{Folded, LoadError};
use crate::shared::Shared;
use crate::snapshot::{Policy, Snapshot, SnapshotStore, Snapshots};

/// How often a command is retried after conflicts and while the store is unavailable.
const RETRIES: u32 = 8;
/// How often a stream is folded if the log loses events meanwhile.
const FOLDS: u32 = 5;

/// The aggregates of one kind. A clone is the same repository.
#[doc(alias("event sourcing repository", "aggregate store"))]
pub struct Repository<A: Aggregate> {
    shared: Arc<Shared>,
    snapshots: Option<Arc<Snapshots<A>>>,
    cache: Option<Arc<Cache<A>>>,
    retries: u32,
    /// Why no event can be read: the table of upcasters is invalid.
    unreadable: Option<Invalid>,
    /// The delivery from which it was obtained.
    delivered: Option<Arc<Delivered>>,
}

type Cache<A> = Mutex<quick_cache::unsync::Cache<StreamId, Folded<A>>>;

impl<A: Aggregate> Clone for Repository<A> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            snapshots: self.snapshots.clone(),
            cache: self.cache.clone(),
            retries: self.retries,
            unreadable: self.unreadable.clone(),
            delivered: self.delivered.clone(),
        }
    }
}

/// An aggregate at a version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded<A> {
    /// The state after its events up to this version.
    pub state: A,
    /// The version; 0 if nothing has happened yet.
    pub version: Version,
    /// Position of its newest event.
    pub position: Position,
    /// The id of its newest event; `None` if nothing has happened yet.
    pub event: Option<EventId>,
}

impl<A> Loaded<A> {
    /// Whether anything has happened to it yet.
    pub fn exists(&self) -> bool {
        self.version > Version::ZERO
    }
}

/// The event that a view must have reached to show the loaded state: `view.at_least(&loaded)`.
impl<A> From<&Loaded<A>> for Seen {
    fn from(loaded: &Loaded<A>) -> Self {
        Self { position: loaded.position, event: loaded.event }
    }
}

impl<A> From<Folded<A>> for Loaded<A> {
    fn from(folded: Folded<A>) -> Self {
        Self { state: folded.state, version: folded.version, position: folded.position, event: folded.last }
    }
}

impl<A: Aggregate> Repository<A> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let unreadable = codec::check::<A::Event>().err();
        Self { shared, snapshots: None, cache: None, retries: RETRIES, unreadable, delivered: None }
    }

    /// The stream of an aggregate.
    fn stream(&self, id: &str) -> Result<StreamId, Invalid> {
        match &self.unreadable {
            Some(invalid) => Err(invalid.clone()),
            None => StreamId::of(A::NAME, id),
        }
    }

    /// The same repository, with commands caused by this delivery.
    pub(crate) fn delivered(&self, delivered: Arc<Delivered>) -> Self {
        Self { delivered: Some(delivered), ..self.clone() }
    }

    /// Keeps the folded state of this many aggregates in memory. Events of other writers, and a loss of
    /// events in the log, are still noticed: by the condition of every append, which names the newest event
    /// of the aggregate, and by a read of the stream before a command is refused.
    #[must_use]
    pub fn cache(mut self, aggregates_max: usize) -> Self {
        self.cache = Some(Arc::new(Mutex::new(quick_cache::unsync::Cache::new(aggregates_max.max(1)))));
        self
    }

    /// Sets how often a command is retried after conflicts and while the store is unavailable; 8 times by
    /// default.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Executes a command on an aggregate, which need not exist yet.
    pub fn execute<C>(&self, id: impl Into<String>, command: C) -> CommandBuilder<A, C>
    where
        C: CommandOf<A>,
    {
        let id = id.into();
        let Some(delivered) = &self.delivered else { return CommandBuilder::new(self.clone(), id, command) };
        let cause = delivered.cause(A::NAME, &id, self.shared.store.id());
        CommandBuilder::new(self.clone(), id, command).caused(cause, &delivered.metadata)
    }

    /// Executes a command on an aggregate that must not exist yet.
    pub fn create<C>(&self, id: impl Into<String>, command: C) -> CommandBuilder<A, C>
    where
        C: CommandOf<A>,
    {
        self.execute(id, command).creating()
    }

    /// Executes a command on an aggregate that must exist.
    pub fn update<C>(&self, id: impl Into<String>, command: C) -> CommandBuilder<A, C>
    where
        C: CommandOf<A>,
    {
        self.execute(id, command).updating()
    }

    /// Loads the current state of an aggregate. Without events, that is its initial state at version 0.
    ///
    /// # Errors
    /// If the store, or an event of the stream, cannot be read.
    pub async fn load(&self, id: impl AsRef<str>) -> Result<Loaded<A>, LoadError> {
        let id = id.as_ref();
        let stream = self.stream(id)?;
        let mut folded = match self.cached(&stream) {
            Some(folded) => self.caught_up(id, &stream, folded).await?,
            None => self.folded(id, &stream, Version::MAX).await?,
        };
        self.keep(&stream, &mut folded).await;
        Ok(folded.into())
    }

    /// Loads an aggregate as it was at a version.
    ///
    /// # Errors
    /// [`LoadError::NotReached`] if its stream is shorter; otherwise as [`load`](Self::load).
    pub async fn at(&self, id: impl AsRef<str>, version: impl Into<Version>) -> Result<Loaded<A>, LoadError> {
        let (id, wanted) = (id.as_ref(), version.into());
        let stream = self.stream(id)?;
        let folded = self.folded(id, &stream, wanted).await?;
        if folded.version < wanted {
            return Err(LoadError::NotReached { stream, wanted, actual: folded.version });
        }
        Ok(folded.into())
    }

    /// Loads an aggregate as it was at a time, by the recorded times of its events.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn as_of(&self, id: impl AsRef<str>, time: Timestamp) -> Result<Loaded<A>, LoadError> {
        let id = id.as_ref();
        let stream = self.stream(id)?;
        let version = self.version_at(&stream, time).await?;
        Ok(self.folded(id, &stream, version).await?.into())
    }

    /// The events of an aggregate, one after the other, with the state before and after each.
    ///
    /// # Errors
    /// If the id is invalid.
    pub fn history(&self, id: impl AsRef<str>) -> Result<History<A>, LoadError> {
        let stream = self.stream(id.as_ref())?;
        Ok(History::new(self.shared.store.clone(), stream, A::initial(id.as_ref())))
    }

    /// The version of the last event recorded up to this time. Recorded times never decrease (G4), so this is
    /// a binary search.
    async fn version_at(&self, stream: &StreamId, time: Timestamp) -> Result<Version, LoadError> {
        let store = &self.shared.store;
        let (mut low, mut high) = (Version::ZERO, store.stream_version(stream).await?);
        while low < high {
            let middle = Version::new(low.get() + (high.get() - low.get()).div_ceil(2));
            let read = StreamRead::forward(stream, middle).limit(1);
            match store.read_stream(read).await?.events.first() {
                Some(event) if event.recorded_at() <= time => low = middle,
                _ => high = middle.previous(),
            }
        }
        Ok(low)
    }

    /// The cached state, which may be stale, or else the stream folded to its end.
    async fn current(&self, id: &str, stream: &StreamId) -> Result<Folded<A>, LoadError> {
        match self.cached(stream) {
            Some(folded) => Ok(folded),
            None => self.folded(id, stream, Version::MAX).await,
        }
    }

    fn cached(&self, stream: &StreamId) -> Option<Folded<A>> {
        self.cache.as_ref().and_then(|cache| cache.lock().get(stream).cloned())
    }

    /// The state with all later events applied; folded again from the beginning if the log has another
    /// history.
    async fn caught_up(
        &self,
        id: &str,
        stream: &StreamId,
        mut folded: Folded<A>,
    ) -> Result<Folded<A>, LoadError> {
        if folded.catch_up(&*self.shared.store, stream, Version::MAX).await? {
            return Ok(folded);
        }
        self.other_history(stream);
        self.folded(id, stream, Version::MAX).await
    }

    /// The stream folded up to a version, starting from a snapshot if there is a valid one.
    async fn folded(&self, id: &str, stream: &StreamId, up_to: Version) -> Result<Folded<A>, LoadError> {
        let store = &*self.shared.store;
        if let Some(snapshots) = &self.snapshots
            && let Some(mut folded) = snapshots.nearest(stream, up_to).await
        {
            if folded.catch_up(store, stream, up_to).await? {
                return Ok(folded);
            }
            snapshots.forget(stream, "the log has another history").await;
        }
        for _ in 0..FOLDS {
            let mut folded = Folded::initial(id);
            if folded.catch_up(store, stream, up_to).await? {
                return Ok(folded);
            }
        }
        Err(Error::Unavailable("the log has another history each time that it is read".into()).into())
    }

    /// Drops the cached states of all aggregates: folded events of one have been lost, and so may be those of
    /// others.
    fn other_history(&self, stream: &StreamId) {
        tracing::warn!(%stream, "the log has another history than before; states in memory are folded again");
        if let Some(cache) = &self.cache {
            cache.lock().clear();
        }
    }

    /// Stores a state in the cache and, if one is due, as a snapshot.
    async fn keep(&self, stream: &StreamId, folded: &mut Folded<A>) {
        if let Some(snapshots) = &self.snapshots {
            snapshots.take_if_due(stream, folded, self.shared.clock.now()).await;
        }
        if let Some(cache) = &self.cache {
            cache.lock().insert(stream.clone(), folded.clone());
        }
    }

    fn forget(&self, stream: &StreamId) {
        if let Some(cache) = &self.cache {
            cache.lock().remove(stream);
        }
    }
}

impl<A: Snapshot + Serialize + DeserializeOwned> Repository<A> {
    /// Keeps snapshots by this policy, in the state beside the log: in `state.sqlite`, or in memory if there
    /// is no directory.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use annals::{Repository, Snapshot, snapshot::{every, older_than}};
    /// # fn of<A: Snapshot + serde::Serialize + serde::de::DeserializeOwned>(accounts: Repository<A>) -> Repository<A> {
    /// accounts.snapshots(every(100).or(older_than(Duration::from_secs(3600))))
    /// # }
    /// ```
    #[must_use]
    pub fn snapshots(self, policy: Policy) -> Self {
        let store = self.shared.state.store.clone();
        self.snapshots_in(store, policy)
    }

    /// Keeps snapshots by this policy in another store.
    #[must_use]
    pub fn snapshots_in(mut self, store: Arc<dyn SnapshotStore>, policy: Policy) -> Self {
        self.snapshots = Some(Arc::new(Snapshots::new(store, policy)));
        self
    }
}
