//! Background tasks, by name, and their shutdown. Independent of what the tasks do.
//!
//! - K1  A task has no reference that leads to this, so that dropping the last handle stops every task.
//! - K2  A stop is requested, and a task ends at a point where it loses nothing. Every caller of a shutdown
//!   waits until all have ended.
//! - K3  A task that panics is started again (`after_panic`), and its status reports it. A task that has
//!   ended is `Stopped`, for any reason. Handles held by handlers and projections do not count (`handles`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Backoff, Invalid, Position};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::HandlerError;
use crate::handles::Handles;
use crate::progress::{Kind, Phase, Progress, Standing, Status};
use crate::shared::Shared;
use crate::stop::{Stop, Stopper};

/// The default pauses before a failed event is retried.
pub(crate) const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(30));

pub(crate) struct Tasks {
    stop: Stopper,
    /// The number of running tasks.
    running: watch::Sender<usize>,
    pub handles: Handles,
}

/// Held by a running task: when it is dropped, the task is no longer counted, and its status is `Stopped`.
struct Running {
    running: watch::Sender<usize>,
    known: Arc<dyn Known>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.known.progress().stopped();
        self.running.send_modify(|running| *running -= 1);
    }
}

impl Tasks {
    pub fn new() -> Self {
        let stop = Stopper::new();
        Self { handles: Handles::new(stop.clone()), stop, running: watch::Sender::new(0) }
    }

    /// Starts a task with this shared state.
    ///
    /// # Errors
    /// After [`shutdown`](Self::shutdown).
    pub fn spawn(
        &self,
        known: Arc<dyn Known>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Invalid> {
        // A later shutdown waits for this task; after an earlier one it is not started.
        let mut refused = Ok(());
        self.running.send_if_modified(|running| {
            refused = self.refuse_after_shutdown();
            *running += usize::from(refused.is_ok());
            refused.is_ok()
        });
        refused?;
        let running = Running { running: self.running.clone(), known };
        tokio::spawn(async move {
            // Declared first, so that the task is dropped before it.
            let _running = running;
            task.await;
        });
        Ok(())
    }

    /// # Errors
    /// After [`shutdown`](Self::shutdown).
    pub fn refuse_after_shutdown(&self) -> Result<(), Invalid> {
        match self.stop.has_asked() {
            true => Err(Invalid::new("system", "is shut down: open it again to start anything")),
            false => Ok(()),
        }
    }

    /// The stop signal for a task.
    pub fn stop(&self) -> Stop {
        self.stop.stop()
    }

    /// Requests every task to stop and waits until all have ended, even if another caller has requested it
    /// before.
    pub async fn shutdown(&self) {
        self.stop.ask();
        // The sender lives as long as this.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.ask();
    }
}

/// The state of a task that it shares with queries and statuses.
pub(crate) trait Known: Send + Sync + 'static {
    fn kind(&self) -> Kind;

    fn progress(&self) -> &Progress;

    /// Whether queries show the events that it has applied; `false` while the rows of an older version serve
    /// queries.
    fn shows_it(&self) -> bool;
}

/// Reports that a task panicked, and waits before it is started again.
pub(crate) async fn after_panic(
    name: &str,
    panic: HandlerError,
    progress: &Progress,
    shared: &Shared,
    stop: &mut Stop,
) {
    let error = panic.into_text();
    tracing::error!(name, error, "a background task panicked; it is started again");
    let attempts = progress.failed(format!("the task {error}"), None, shared.now());
    stop.or(tokio::time::sleep(BACKOFF.before(attempts))).await;
}

/// Tasks of one kind by name. A name can be started once. Clones share one state.
pub(crate) struct Registry<T>(Arc<Mutex<BTreeMap<String, Option<Arc<T>>>>>);

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// A reserved name; released when dropped, unless it is filled.
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

    pub fn all(&self) -> Vec<(String, Arc<T>)> {
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

/// The status of a task, with the head of the log.
pub(crate) fn status(name: &str, known: &dyn Known, head: Position) -> Status {
    let standing = known.progress().standing();
    Status {
        kind: known.kind(),
        name: name.to_owned(),
        phase: standing.phase,
        position: standing.position,
        head: head.max(standing.position),
        failing: standing.failing,
        refused: standing.refused,
        notice: standing.notice,
    }
}

/// Whether a task has reached this position and queries show it, or it never will.
pub(crate) fn is_settled(known: &dyn Known, standing: &Standing, head: Position) -> bool {
    (standing.position >= head && known.shows_it()) || standing.idle || standing.phase == Phase::Stopped
}
