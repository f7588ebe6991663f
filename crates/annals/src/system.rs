//! A running system: one log, and everything that is built on it.

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

/// How long [`Annals::settle`] waits.
const SETTLE: Duration = Duration::from_secs(60);
/// The end of the log is looked at again after this time: events may be lost in a failover.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What has seen more than the log has is given this long to find that out, again and again.
const PAUSE: Duration = Duration::from_millis(20);

/// A running system: a log, the state beside it, and what runs in the background. A clone is the same system;
/// when the last one is dropped, what runs in the background stops.
///
/// Clones that handlers and projections hold do not count, unless they are behind a pointer of the handler's own, such as an
/// `Arc`, or one handler holds several. Then only [`shutdown`](Self::shutdown) stops the system.
// The alignment is how a handler that holds this is known.
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
    /// Opens the store with this address: `file:./data` for a directory, `postgres://…` or `mysql://…` for a database,
    /// `memory:` for as long as the process lives. Creates what is missing.
    ///
    /// The state beside the log (snapshots, checkpoints of subscribers, rows of projections) is kept where the log is: in
    /// the directory, or in the same database, which several processes may have open at once. Each subscriber and each
    /// projection then runs in one of them at a time, and the others read its rows.
    /// [`with_store`](Self::with_store) keeps the state elsewhere.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such kind of store; else as the store says.
    pub async fn open(url: &str) -> Result<Self> {
        Self::open_with(url, &Backends::default()).await
    }

    /// The same with an address that was read before.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_at(url: &StoreUrl) -> Result<Self> {
        Self::open_among(url, &Backends::default()).await
    }

    /// The same with other kinds of store, such as one of your own.
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
    /// If the state beside the log cannot be used; [`Error::Invalid`] if it is in a database, and another log's.
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

    /// The same system with another clock for what is started and executed through this handle. It tells
    /// decisions the time; recorded times are the store's.
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

    /// A projection that is to be started.
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

    /// A subscriber that is to be started. Its name is what it is remembered by.
    pub fn subscribe(&self, name: impl Into<String>) -> SubscriberBuilder {
        SubscriberBuilder::new(
            self.shared().clone(),
            self.tasks.clone(),
            self.subscribers.clone(),
            name.into(),
        )
    }

    /// How every projection and every subscriber stands.
    ///
    /// # Errors
    /// If the store cannot be asked for its head.
    pub async fn status(&self) -> Result<Vec<Status>> {
        let head = self.shared().store.head().await?;
        let known = self.known();
        Ok(known.iter().map(|(name, known)| status(name, &**known, head)).collect())
    }

    /// What is known of everything in the background, by name.
    fn known(&self) -> Vec<(String, Arc<dyn Known>)> {
        let projections = self.projections.all().into_iter();
        let projections = projections.map(|(name, known)| (name, known as Arc<dyn Known>));
        let subscribers = self.subscribers.all().into_iter();
        projections.chain(subscribers.map(|(name, known)| (name, known as Arc<dyn Known>))).collect()
    }

    /// Waits until every projection and every subscriber is at the end of the log, also of what subscribers
    /// have added to it meanwhile. For tests: nothing has to sleep.
    ///
    /// # Errors
    /// [`Error::Unavailable`], with who is behind and why, if that is not so after a minute.
    pub async fn settle(&self) -> Result<()> {
        self.settle_within(SETTLE).await
    }

    /// The same with a limit of one's own.
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
                // The end that is waited for may be gone.
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

    /// Whether somebody has seen more than the log has, and will find that out.
    fn is_beyond(&self, head: Position) -> bool {
        self.known().iter().any(|(_, known)| {
            let standing = known.progress().standing();
            standing.position > head && standing.phase != Phase::Stopped
        })
    }

    /// Stops what runs in the background and waits until it has stopped, also if a shutdown was asked for before. What it
    /// finished is kept, and the next start resumes there. Nothing can be started in this system afterwards.
    pub async fn shutdown(&self) {
        self.handle.uses();
        self.tasks.shutdown().await;
    }
}

fn describe(status: &Status) -> String {
    let failing = status.failing.as_ref().map_or_else(String::new, |failing| format!(" ({})", failing.error));
    format!("`{}` at {} of {}{failing}", status.name, status.position, status.head)
}
