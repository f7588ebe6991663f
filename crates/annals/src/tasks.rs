//! What runs in the background: projections and subscribers, by name, and how they are stopped.
//!
//! - K1  A task holds nothing that holds this, so that dropping the last handle stops every task.
//! - K2  A stop is asked for; a task ends where it loses nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Backoff, Invalid, Position};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::progress::{Kind, Phase, Progress, Standing, Status};
use crate::projection::Projected;

/// How long to wait before an event that failed is tried again.
pub(crate) const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(30));

pub(crate) struct Tasks {
    stop: watch::Sender<bool>,
    running: Mutex<Vec<JoinHandle<()>>>,
    pub projections: Registry<Projected>,
    pub subscribers: Registry<Progress>,
}

impl Tasks {
    pub fn new() -> Self {
        Self {
            stop: watch::Sender::new(false),
            running: Mutex::default(),
            projections: Registry::default(),
            subscribers: Registry::default(),
        }
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock();
        running.retain(|task| !task.is_finished());
        running.push(tokio::spawn(task));
    }

    /// What a task looks at to know when to stop.
    pub fn stop(&self) -> Stop {
        Stop(self.stop.subscribe())
    }

    /// Asks every task to stop and waits until they have.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        let running = std::mem::take(&mut *self.running.lock());
        for task in running {
            if let Err(error) = task.await {
                tracing::error!(%error, "a background task ended badly");
            }
        }
    }

    /// How everything in the background stands, by name.
    pub fn progress(&self) -> Vec<(String, Known)> {
        let projections = self.projections.all().into_iter();
        let projections = projections.map(|(name, known)| (name, Known::Projection(known)));
        let subscribers = self.subscribers.all().into_iter();
        projections.chain(subscribers.map(|(name, known)| (name, Known::Subscriber(known)))).collect()
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// What is known of a task.
pub(crate) enum Known {
    Projection(Arc<Projected>),
    Subscriber(Arc<Progress>),
}

impl Known {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Projection(_) => Kind::Projection,
            Self::Subscriber(_) => Kind::Subscriber,
        }
    }

    pub fn progress(&self) -> &Progress {
        match self {
            Self::Projection(projected) => &projected.progress,
            Self::Subscriber(progress) => progress,
        }
    }

    /// Whether queries are answered from what it has come to: not while the rows of an older version answer.
    fn shows_it(&self) -> bool {
        match self {
            Self::Projection(projected) => projected.serving.read().older.is_none(),
            Self::Subscriber(_) => true,
        }
    }
}

/// What a task looks at to know when to stop.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl From<watch::Receiver<bool>> for Stop {
    fn from(asked: watch::Receiver<bool>) -> Self {
        Self(asked)
    }
}

impl Stop {
    /// Waits until a stop is asked for.
    pub async fn asked(&mut self) {
        // An error means that the last handle is gone, which asks for the same.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether a stop is asked for.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Does this unless a stop is asked for, also half way: only for what may be dropped anywhere.
    pub async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.asked() => None,
            done = work => Some(done),
        }
    }
}

/// Tasks of one kind by name. Each name runs once, until it has stopped.
pub(crate) struct Registry<T>(Arc<Mutex<BTreeMap<String, Option<Arc<T>>>>>);

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// A name that is taken; given back unless it is filled.
pub(crate) struct Reserved<T> {
    names: Arc<Mutex<BTreeMap<String, Option<Arc<T>>>>>,
    name: Option<String>,
}

impl<T> Registry<T> {
    pub fn get(&self, name: &str) -> Option<Arc<T>> {
        self.0.lock().get(name).cloned().flatten()
    }

    pub fn reserve(&self, kind: &'static str, name: &str) -> Result<Reserved<T>, Invalid> {
        let mut names = self.0.lock();
        if names.contains_key(name) {
            return Err(Invalid::new(kind, format!("`{name}` is started already")));
        }
        names.insert(name.to_owned(), None);
        Ok(Reserved { names: self.0.clone(), name: Some(name.to_owned()) })
    }

    fn all(&self) -> Vec<(String, Arc<T>)> {
        let names = self.0.lock();
        names.iter().filter_map(|(name, known)| Some((name.clone(), known.clone()?))).collect()
    }
}

impl<T> Reserved<T> {
    pub fn fill(mut self, known: Arc<T>) {
        if let Some(name) = self.name.take() {
            self.names.lock().insert(name, Some(known));
        }
    }
}

impl<T> Drop for Reserved<T> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            self.names.lock().remove(name);
        }
    }
}

/// How a task stands, with the end of the log beside it.
pub(crate) fn status(name: &str, known: &Known, head: Position) -> Status {
    let standing = known.progress().standing();
    Status {
        kind: known.kind(),
        name: name.to_owned(),
        phase: standing.phase,
        position: standing.position,
        head: head.max(standing.position),
        failing: standing.failing,
    }
}

/// Whether a task has come as far as this and shows it, or never will.
pub(crate) fn is_settled(known: &Known, standing: &Standing, head: Position) -> bool {
    (standing.position >= head && known.shows_it()) || standing.idle || standing.phase == Phase::Stopped
}
