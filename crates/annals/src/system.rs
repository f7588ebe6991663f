//! A running system: one log, with its repositories, projections and subscribers.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Aggregate, Clock, Error, EventStore, Invalid, Position, Result, StoreUrl, SystemClock};

use crate::State;
use crate::backend::{Backends, OpenOptions};
use crate::handles::Handle;
use crate::progress::{Phase, Progress, Status};
use crate::projection::{Projected, Projection, ProjectionBuilder, ProjectionHandle, View};
use crate::repository::Repository;
use crate::shared::Shared;
use crate::stream_locks::StreamLocks;
use crate::subscriber::SubscriberBuilder;
use crate::tasks::{Known, Registry, Tasks, is_settled, status};

/// Default time limit of [`Annals::settle`].
const SETTLE: Duration = Duration::from_secs(60);
/// Interval at which the end of the log is read again: events may be lost in a failover.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Pause before another check while a consumer is ahead of the log and has not noticed the loss yet.
const PAUSE: Duration = Duration::from_millis(20);

/// A running system: a log, the state beside it, and the background tasks. A clone is the same system;
/// when the last clone is dropped, the background tasks stop.
///
/// Clones held by handlers and projections do not count, unless they are behind a pointer, such as an
/// `Arc`, or one handler holds several. Then only [`shutdown`](Self::shutdown) stops the system.
// The alignment identifies handlers that hold this type (see `handles`).
#[repr(align(256))]
pub struct Annals {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    projections: Registry<Projected>,
    subscribers: Registry<Progress>,
    handle: Handle,
}

const _: () = assert!(align_of::<Annals>() == crate::handles::ALIGN);

impl Clone for Annals {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            tasks: self.tasks.clone(),
            projections: self.projections.clone(),
            subscribers: self.subscribers.clone(),
            handle: self.handle.another(),
        }
    }
}

impl Annals {
    /// Opens the store with this address: `file:./data` for a directory, `postgres://…` or `mysql://…` for a
    /// database, `memory:` for a store that ends with the process. Creates the store if it does not exist.
    ///
    /// The state beside the log (snapshots, checkpoints of subscribers, rows of projections) is stored with
    /// the log: in the directory, or in the same database, which several processes may have open at once.
    /// Each subscriber and each projection then runs in one of them at a time, and the others read its rows.
    /// [`with_store`](Self::with_store) stores the state elsewhere.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such kind of store; otherwise as the store returns.
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_with(url, &Backends::default()).await
    }

    /// As [`open`](Self::open), with a parsed address.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_at(url: &StoreUrl) -> Result<Self> {
        Self::open_among(url, &Backends::default()).await
    }

    /// As [`open`](Self::open), with other kinds of store, such as your own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(url: &str, backends: &Backends) -> Result<Self> {
        Self::open_among(&backends.parse(url)?, backends).await
    }

    pub(crate) async fn open_among(url: &StoreUrl, backends: &Backends) -> Result<Self> {
        let backend = backends.find(url)?;
        let opened = backend.open(url, OpenOptions::default()).await?;
        Self::with_store(opened.store, State::beside(url, backend.state(url), opened.inlines)).await
    }

    /// A system on a store that is open already.
    ///
    /// # Errors
    /// If the state beside the log cannot be used; [`Error::Invalid`] if it is in a database and belongs to
    /// another log.
    pub async fn with_store(store: Arc<dyn EventStore>, state: State) -> Result<Self> {
        let state = state.open(store.id()).await?;
        let clock = Arc::new(SystemClock);
        let shared = Arc::new(Shared { store, state, clock, stream_locks: StreamLocks::default() });
        let tasks = Arc::new(Tasks::new());
        let handle = tasks.handles.handle();
        handle.uses();
        let (projections, subscribers) = (Registry::default(), Registry::default());
        Ok(Self { shared, tasks, projections, subscribers, handle })
    }

    /// The same system with another clock for tasks and commands of this handle. The clock is the time of
    /// decisions; recorded times are set by the store.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        let Shared { store, state, stream_locks, .. } = &*self.shared;
        let shared =
            Shared { store: store.clone(), state: state.clone(), stream_locks: stream_locks.clone(), clock };
        Self { shared: Arc::new(shared), ..self }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.handle.uses();
        &self.shared
    }

    /// The log itself.
    pub fn store(&self) -> &Arc<dyn EventStore> {
        &self.shared().store
    }

    /// The aggregates of one kind.
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        Repository::new(self.shared().clone())
    }

    /// Prepares a projection; [`start`](ProjectionBuilder::start) starts it.
    pub fn project<P: Projection>(&self, projection: P) -> ProjectionBuilder<P> {
        ProjectionBuilder::new(
            self.shared().clone(),
            self.tasks.clone(),
            self.projections.clone(),
            projection,
        )
    }

    /// The rows of a projection.
    pub fn view<P: Projection>(&self) -> View<P> {
        self.handle.uses();
        View::new(self.projections.get(P::NAME))
    }

    /// A projection by its name.
    pub fn projection(&self, name: &str) -> ProjectionHandle {
        ProjectionHandle {
            name: name.to_owned(),
            shared: self.shared().clone(),
            projected: self.projections.get(name),
        }
    }

    /// Prepares a subscriber; [`start`](SubscriberBuilder::start) starts it. Its checkpoint is stored under
    /// its name.
    pub fn subscribe(&self, name: impl Into<String>) -> SubscriberBuilder {
        SubscriberBuilder::new(
            self.shared().clone(),
            self.tasks.clone(),
            self.subscribers.clone(),
            name.into(),
        )
    }

    /// The status of every projection and every subscriber.
    ///
    /// # Errors
    /// If the head of the store cannot be read.
    pub async fn status(&self) -> Result<Vec<Status>> {
        let head = self.shared().store.head().await?;
        let known = self.known();
        Ok(known.iter().map(|(name, known)| status(name, &**known, head)).collect())
    }

    /// All projections and subscribers, by name.
    fn known(&self) -> Vec<(String, Arc<dyn Known>)> {
        let projections = self.projections.all().into_iter();
        let projections = projections.map(|(name, known)| (name, known as Arc<dyn Known>));
        let subscribers = self.subscribers.all().into_iter();
        projections.chain(subscribers.map(|(name, known)| (name, known as Arc<dyn Known>))).collect()
    }

    /// Waits until every projection and every subscriber is at the end of the log, including events that
    /// subscribers have appended meanwhile. For tests, instead of sleeping.
    ///
    /// # Errors
    /// [`Error::Unavailable`] after a minute, with the consumers that are behind and why.
    pub async fn settle(&self) -> Result<()> {
        self.settle_within(SETTLE).await
    }

    /// As [`settle`](Self::settle), with another time limit.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub async fn settle_within(&self, limit: Duration) -> Result<()> {
        match tokio::time::timeout(limit, self.all_at_the_end()).await {
            Ok(done) => done,
            Err(_) => {
                let mut behind = self.status().await?;
                behind.retain(|status| status.lag() > 0);
                let behind: Vec<_> = behind.iter().map(describe).collect();
                Err(Error::Unavailable(format!("not at the end of the log: {}", behind.join("; ")).into()))
            }
        }
    }

    async fn all_at_the_end(&self) -> Result<()> {
        'look: loop {
            let head = self.shared().store.head().await?;
            for (name, known) in self.known() {
                let mut standing = known.progress().watch();
                let reached = standing.wait_for(|standing| is_settled(&*known, standing, head));
                // The event at the end may have been lost.
                let Ok(reached) = tokio::time::timeout(LOOK_AGAIN, reached).await else { continue 'look };
                let Ok(standing) = reached else { continue };
                if standing.position < head && !standing.idle {
                    return Err(
                        Invalid::new(name, "is stopped and will not come to the end of the log").into()
                    );
                }
            }
            let now = self.shared().store.head().await?;
            if now == head && !self.is_beyond(head) {
                return Ok(());
            }
            if now > head {
                continue;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether a running consumer is ahead of the log, because events were lost that it has not noticed yet.
    fn is_beyond(&self, head: Position) -> bool {
        self.known().iter().any(|(_, known)| {
            let standing = known.progress().standing();
            standing.position > head && standing.phase != Phase::Stopped
        })
    }

    /// Stops all background tasks and waits until they have ended, even if another caller has requested it
    /// before. Finished work is kept, and the next start resumes after it. Nothing can be started in this
    /// system afterwards.
    pub async fn shutdown(&self) {
        self.handle.uses();
        self.tasks.shutdown().await;
    }
}

fn describe(status: &Status) -> String {
    let failing = status.failing.as_ref().map_or_else(String::new, |failing| format!(" ({})", failing.error));
    format!("`{}` at {} of {}{failing}", status.name, status.position, status.head)
}
