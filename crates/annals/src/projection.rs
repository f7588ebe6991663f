//! Projections: rows in a database, derived from the events of the log. Their guarantees (J1 to J4) are
//! documented at [`Projection`].
//!
//! The files: `file` and `schema` (the rows and the checkpoint, in SQLite and in other databases), `home`
//! (either), `run` (the task that fills them), `inline` (filled in the transaction of an append), `view` (the
//! queries).

mod decoded;
mod file;
mod home;
mod inline;
mod run;
mod schema;
mod serving;
mod view;

use std::sync::Arc;

use annals_core::{Backoff, Event, EventStore, Invalid, Result};
use annals_state::{Dialect, Tx};
use parking_lot::RwLock;

use home::Home;
use run::{ProjectionRunner, Reading};
pub(crate) use serving::Projected;
pub use view::{View, ViewError};

use crate::codec;
use crate::handles::holds_handle;
use crate::progress::{Progress, Status};
use crate::shared::Shared;
use crate::state::Views;
use crate::tasks::{Registry, Tasks};
use crate::{HandlerError, Recorded};

/// Rows in a database, derived from the events of the log, for queries.
///
/// - J1  The rows of an event and the checkpoint after it are written in one transaction. So every event has
///   its effect exactly once, whenever the process ends.
/// - J2  An event that fails is retried until it succeeds. Events before it are applied, events after it
///   wait, and the status reports the failure. Nothing else in the system waits.
/// - J3  Each [`VERSION`](Self::VERSION) has its own file, or in PostgreSQL, MariaDB and MySQL its own
///   schema. A new version is filled beside the old one, which serves queries until the new one has reached
///   the end of the log. The old one is removed then, or when no process uses it any more.
/// - J4  Of several processes on one database, one at a time fills the rows, and all read them. The
///   checkpoint is locked and compared in each transaction, so J1 does not depend on that.
#[doc(alias("read model", "query side", "view model", "materialized view"))]
pub trait Projection: Send + Sync + 'static {
    /// Its name, which is also the name of its file or schema: letters, digits, `-`, `_` and `.`.
    const NAME: &'static str;

    /// Increase this whenever the same events lead to different rows: they are rebuilt from the first event.
    const VERSION: u32 = 1;

    /// The tables and indexes, as SQL: `CREATE TABLE …; CREATE INDEX …;`. `docs/sql-stores.md` lists the SQL
    /// that works in every database.
    const SCHEMA: &'static str;

    /// The tables and indexes for one kind of database, if they must differ; [`SCHEMA`](Self::SCHEMA) by
    /// default.
    fn schema(dialect: Dialect) -> &'static str {
        let _ = dialect;
        Self::SCHEMA
    }

    /// The events that it applies. For events of several aggregates, an enum with `#[event(union)]`. Its
    /// [upcasters](Event::UPCASTERS) apply here too: an event that they turn into several is applied in
    /// parts, one after the other ([`Recorded::part`]), in one transaction; an event that they drop is
    /// skipped.
    type Event: Event;

    /// Applies one event. Must depend only on the event and the rows, so that it can be repeated.
    ///
    /// # Errors
    /// Any; what it wrote is rolled back, and the event is retried later.
    fn apply(&self, event: &Recorded<Self::Event>, tx: &Tx<'_>) -> Result<(), HandlerError>;

    /// Applies several events, in order, while the rows are filled: those of at most
    /// [`ProjectionBuilder::batch`] stored events, each with all of its parts. The resulting rows must be the
    /// same as if [`apply`](Self::apply) were called for one event after the other, which is the default. It
    /// exists for speed: one statement can write the rows of many events.
    ///
    /// # Errors
    /// Any; what it wrote is rolled back, and the events are passed to [`apply`](Self::apply) one by one, to
    /// find the one that fails.
    fn apply_all(&self, events: &[Recorded<Self::Event>], tx: &Tx<'_>) -> Result<(), HandlerError> {
        events.iter().try_for_each(|event| self.apply(event, tx))
    }
}

/// A projection before its start.
#[must_use = "a projection does nothing until it is started"]
pub struct ProjectionBuilder<P> {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    started: Registry<Projected>,
    projection: P,
    batch: usize,
    backoff: Backoff,
    inline: bool,
}

impl<P: Projection> ProjectionBuilder<P> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        tasks: Arc<Tasks>,
        started: Registry<Projected>,
        projection: P,
    ) -> Self {
        let backoff = crate::tasks::BACKOFF;
        Self { shared, tasks, started, projection, batch: 1_000, backoff, inline: false }
    }

    /// At most this many events in one transaction; 1,000 by default.
    pub fn batch(mut self, events_max: usize) -> Self {
        self.batch = events_max.max(1);
        self
    }

    /// The pause before a failed event is retried; from 50 milliseconds up to 30 seconds by default.
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Writes the rows in the transaction of the append: once an append is acknowledged, the rows show it.
    /// For logs in a database that were opened with [`Annals::open`](crate::Annals::open).
    ///
    /// If the projection refuses an event, its append is refused with
    /// [`Error::Invalid`](annals_core::Error::Invalid) and writes nothing. While the rows are far behind the
    /// log (they are being rebuilt, or processes without this projection append) they are filled like those
    /// of any other projection, until they have caught up. Every append of every process waits for the
    /// projection: keep it fast.
    ///
    /// ```no_run
    /// # use annals::{Annals, Projection};
    /// # async fn start(accounts: impl Projection) -> annals::Result<()> {
    /// let annals = Annals::open("postgres://service@localhost/bank").await?;
    /// annals.project(accounts).inline().start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn inline(mut self) -> Self {
        self.inline = true;
        self
    }

    /// Starts it: it applies events from its checkpoint on, and then live ones, until the system stops.
    ///
    /// # Errors
    /// If it is started already, its name or schema is invalid, its rows cannot be used, or the system was
    /// shut down.
    pub async fn start(self) -> Result<()> {
        check_name(P::NAME)?;
        let Self { shared, tasks, started, projection, batch, backoff, inline } = self;
        let inlines = match (&shared.state.views, inline) {
            (_, false) => None,
            (Views::Database(_, Some(inlines)), true) => Some(inlines.clone()),
            _ => {
                let problem = format!(
                    "`{}` cannot be inline: its rows would have to be in the database of the log, opened by its address \
                     (`Annals::open`), and its kind of store be one that writes rows with an append (PostgreSQL, MariaDB and \
                     MySQL are); start it without `inline()`",
                    P::NAME
                );
                return Err(Invalid::new("projection", problem).into());
            }
        };
        tasks.refuse_after_shutdown()?;
        codec::check::<P::Event>()?;
        let query = codec::query(&codec::types::<P::Event>())?;
        let place = started.reserve("projection", P::NAME)?;
        let home = Home::open::<P>(&shared).await?;
        let progress = Progress::from(home.checkpoint());
        let projected = Arc::new(Projected {
            store: shared.store.clone(),
            progress,
            serving: RwLock::new(home.serving()),
        });
        let holders = tasks.handles.holders(usize::from(holds_handle::<P>()));
        let runner = ProjectionRunner::new(
            projection,
            home,
            shared,
            projected.clone(),
            Reading { query, batch, backoff },
            inlines.as_ref(),
        );
        let stop = tasks.stop();
        let task = async move {
            // Dropped with the projection that holds the handle.
            let _holders = holders;
            runner.run(stop).await;
        };
        tasks.spawn(projected.clone(), task)?;
        place.fill(projected);
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
    /// Its status; `None` if no projection of this name was started.
    ///
    /// # Errors
    /// If the head of the store cannot be read.
    pub async fn status(&self) -> Result<Option<Status>> {
        let Some(projected) = self.projected.clone() else { return Ok(None) };
        let head = self.shared.store.head().await?;
        Ok(Some(crate::tasks::status(&self.name, &*projected, head)))
    }
}

/// The name becomes part of a file name.
fn check_name(name: &str) -> Result<(), Invalid> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(allowed) {
        let problem = format!("`{name}` is not 1 to 100 letters, digits, `-`, `_` and `.`");
        return Err(Invalid::new("projection", problem));
    }
    Ok(())
}
