//! Projections: rows in SQLite, made of the events of the log, to be queried.
//!
//! - J1  The rows that an event makes and the checkpoint that says so are one transaction. So every event has
//!   its effect exactly once, whenever the process ends.
//! - J2  An event that fails is tried again until it works. Those before it are done, those after it wait, and
//!   the status says so. Nothing else in the system waits.
//! - J3  Another `VERSION` is another file. It is filled beside the old one, which answers until the new one has
//!   come to the end of the log, and is removed then.
//!
//! The files: `file` (the rows and the checkpoint), `run` (the task that fills them), `view` (the queries).

mod file;
mod run;
mod view;

use std::sync::Arc;

use annals_core::{Backoff, Event, EventType, Invalid, Position, Query, Result};
use parking_lot::RwLock;

use file::ViewFile;
use run::Filling;
pub use view::{View, ViewError};

use crate::progress::{Progress, Status};
use crate::shared::Shared;
use crate::sql::{Database, Rows};
use crate::tasks::{Known, Tasks};
use crate::{Failure, Recorded};

/// Rows made of events.
pub trait Projection: Send + Sync + 'static {
    /// Its name, which is also that of its file: letters, digits, `-`, `_` and `.`.
    const NAME: &'static str;

    /// Raise this whenever the rows come out differently: they are made again from the first event.
    const VERSION: u32 = 1;

    /// The tables and indexes, as SQL: `CREATE TABLE …; CREATE INDEX …;`.
    const SCHEMA: &'static str;

    /// The events that it takes. For those of several aggregates, an enum with `#[event(union)]`.
    type Event: Event;

    /// Takes one event. Must depend on nothing but the event and the rows, so that it can be done again.
    ///
    /// # Errors
    /// Any; the event is tried again later, and nothing that was done here stays.
    fn apply(&self, event: &Recorded<Self::Event>, rows: &Rows<'_>) -> Result<(), Failure>;
}

/// A projection that is to be started.
#[must_use = "a projection does nothing until it is started"]
pub struct Project<P> {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    projection: P,
    batch: usize,
    backoff: Backoff,
}

/// What is known of a running projection by everybody but its task.
pub(crate) struct Projected {
    pub progress: Progress,
    /// The database that answers queries.
    pub serving: RwLock<Serving>,
}

/// The database that answers queries, and whether it is that of an older version.
#[derive(Clone)]
pub(crate) struct Serving {
    pub database: Database,
    pub older: Option<u32>,
}

impl<P: Projection> Project<P> {
    pub(crate) fn new(shared: Arc<Shared>, tasks: Arc<Tasks>, projection: P) -> Self {
        let backoff = crate::tasks::BACKOFF;
        Self { shared, tasks, projection, batch: 1_000, backoff }
    }

    /// At most this many events in one transaction; 1,000 by default.
    pub fn batch(mut self, events_max: usize) -> Self {
        self.batch = events_max.max(1);
        self
    }

    /// How long to wait before an event that failed is tried again; from 50 milliseconds up to 30 seconds by
    /// default.
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Starts it: from its checkpoint on, and then live, until the system stops.
    ///
    /// # Errors
    /// If it is started already, its name or schema is not acceptable, or its file cannot be used.
    pub async fn start(self) -> Result<()> {
        check_name(P::NAME)?;
        let Self { shared, tasks, projection, batch, backoff } = self;
        let query = query_of(P::Event::TYPES)?;
        let place = tasks.projections.reserve("projection", P::NAME)?;
        let file = ViewFile::open::<P>(&shared).await?;
        let progress = Progress::from(file.checkpoint());
        let projected = Arc::new(Projected { progress, serving: RwLock::new(file.serving()) });
        place.fill(projected.clone());
        let mut filling = Filling::new(projection, file, shared, projected, query);
        filling.read.limit = batch;
        filling.backoff = backoff;
        tasks.spawn(filling.run(tasks.stop()));
        Ok(())
    }
}

/// A handle on a projection by its name.
pub struct ProjectionHandle {
    pub(crate) name: String,
    pub(crate) shared: Arc<Shared>,
    pub(crate) projected: Option<Arc<Projected>>,
}

impl ProjectionHandle {
    /// How it stands; nothing if no projection of this name was started.
    ///
    /// # Errors
    /// If the store cannot be asked for its head.
    pub async fn status(&self) -> Result<Option<Status>> {
        let Some(projected) = self.projected.clone() else { return Ok(None) };
        let head = self.shared.store.head().await?;
        Ok(Some(crate::tasks::status(&self.name, &Known::Projection(projected), head)))
    }
}

/// Which events a projection or a subscriber takes.
pub(crate) fn query_of(types: &[&str]) -> Result<Query> {
    let types = types.iter().map(|name| EventType::new(*name)).collect::<Result<Vec<_>, Invalid>>()?;
    Ok(Query::types(types))
}

/// The name becomes part of a file's.
fn check_name(name: &str) -> Result<(), Invalid> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(allowed) {
        let problem = format!("`{name}` is not 1 to 100 letters, digits, `-`, `_` and `.`");
        return Err(Invalid::new("projection", problem));
    }
    Ok(())
}

/// The event at a checkpoint, to tell when the log has been brought back and has gone another way since. A
/// checkpoint stands at its witness and never behind it: what lies between would be passed over unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    pub position: Position,
    pub id: annals_core::EventId,
}

impl Witness {
    /// The event that stands there now; nothing beyond the end.
    pub async fn at(store: &dyn annals_core::EventStore, position: Position) -> Result<Option<Self>> {
        let read = annals_core::LogRead::forward(position).limit(1);
        let found = store.read_log(read).await?.events.into_iter().find(|event| event.position == position);
        Ok(found.map(|event| Self { position, id: event.id }))
    }

    /// Whether the log still has this event there.
    pub async fn holds(self, store: &dyn annals_core::EventStore) -> Result<bool> {
        Ok(Self::at(store, self.position).await? == Some(self))
    }
}
