//! The task that fills a projection: page after page of the log, each in one transaction.

use std::sync::Arc;

use annals_core::{Backoff, LogPage, LogRead, Position, Query, RecordedEvent, Witness};
use annals_sql::{Inlines, Registered};

use super::file::{checkpoint, set_checkpoint};
use super::inline::InlineProjection;
use super::{Home, Projected, Projection};
use crate::follow::{Followed, follow};
use crate::shared::Shared;
use crate::sql::{Database, Rows, SqlError};
use crate::state::Held;
use crate::tasks::Stop;
use crate::{Failure, Recorded};

/// A checkpoint is written at the latest when this many positions without an event for the projection have
/// passed; until then the memory of the task is enough.
const PASSED_MAX: u64 = 10_000;

/// A projection on its way through the log.
pub(super) struct Filling<P> {
    pub projection: Arc<P>,
    pub home: Home,
    pub shared: Arc<Shared>,
    pub projected: Arc<Projected>,
    pub backoff: Backoff,
    pub read: LogRead,
    /// The checkpoint with the rows.
    pub written: Position,
    /// If appends take it with them.
    inline: Option<Registered>,
}

impl<P: Projection> Filling<P> {
    pub fn new(
        projection: P,
        home: Home,
        shared: Arc<Shared>,
        projected: Arc<Projected>,
        query: Query,
    ) -> Self {
        let written = home.checkpoint();
        let read = LogRead::forward(written.next()).matching(query);
        let (projection, backoff) = (Arc::new(projection), crate::tasks::BACKOFF);
        Self { projection, home, shared, projected, backoff, read, written, inline: None }
    }

    /// Has appends take it with them from now on, as long as this goes on.
    pub fn take_inline(&mut self, inlines: &Inlines) {
        let Home::Schema(schema) = &self.home else { return };
        let inline = InlineProjection {
            projection: self.projection.clone(),
            place: schema.place().clone(),
            store: self.shared.store.clone(),
            projected: self.projected.clone(),
            query: self.read.query.clone(),
            known: self.written.get().into(),
        };
        self.inline = Some(inlines.register(Arc::new(inline)));
    }

    /// Goes on until the system stops. A transaction that is under way then is finished first.
    pub async fn run(mut self, mut stop: Stop) {
        while let Some(held) = self.turn(&mut stop).await {
            while !held.as_ref().is_some_and(Held::is_lost) {
                if self.go_on(&mut stop).await.is_none() {
                    return self.projected.progress.stopped();
                }
            }
        }
        self.projected.progress.stopped();
    }

    /// Waits until it is the turn of this process to fill the rows, and follows what is done meanwhile. Nothing, if a stop
    /// is asked for.
    async fn turn(&mut self, stop: &mut Stop) -> Option<Option<Held>> {
        let Home::Schema(schema) = &self.home else { return Some(None) };
        let place = schema.place().clone();
        let (store, query, projected) =
            (self.shared.store.clone(), self.read.query.clone(), self.projected.clone());
        let name = format!("projection {}", place.schema());
        let held = stop.or(async {
            tokio::select! {
                biased;
                held = place.database().guard().hold(name) => Some(held),
                () = follow(P::NAME, store, &query, &projected.progress, self) => None,
            }
        });
        let held = held.await?;
        self.projected.progress.takes_over();
        Some(held)
    }

    /// Goes on from where others have brought the rows meanwhile.
    async fn go_on_from_others(&mut self) -> Result<(), SqlError> {
        let Home::Schema(schema) = &self.home else { return Ok(()) };
        let found = schema.place().checkpoint().await?;
        if found != self.written {
            self.go_on_from(found);
        }
        Ok(())
    }

    /// Takes the next page, or waits for it. Nothing, if a stop is asked for.
    async fn go_on(&mut self, stop: &mut Stop) -> Option<()> {
        // What appends or other processes have done need not be read.
        if let Err(error) = self.go_on_from_others().await {
            return self.wait_after(error.to_string(), None, stop).await;
        }
        let store = self.shared.store.clone();
        let error = match stop.or(store.read_log(self.read.clone())).await? {
            Ok(page) if page.next > self.read.from => return self.take(page, stop).await,
            Ok(_) => {
                self.at_the_end().await;
                match stop.or(store.wait(self.read.from.previous())).await? {
                    Ok(_) => return Some(()),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        self.wait_after(error.chain(), None, stop).await
    }

    /// Takes a page, however often that has to be tried.
    async fn take(&mut self, page: LogPage, stop: &mut Stop) -> Option<()> {
        let through = page.next.previous();
        let events = page.events;
        let mut done = 0;
        while done < events.len() {
            let FailedAt { index, failure } = match self.apply(&events[done..]).await {
                Ok(()) => break,
                Err(NotApplied::Failed(failed)) => failed,
                Err(NotApplied::Moved(position)) => return self.go_on_from(position),
            };
            let failed = done + index;
            // Those before it are done on their own, so that what they say can be seen.
            if index > 0 {
                match self.apply(&events[done..failed]).await {
                    Ok(()) => {
                        done = failed;
                        self.projected.progress.worked();
                        self.projected.progress.reached(self.written);
                    }
                    Err(NotApplied::Failed(_)) => {}
                    Err(NotApplied::Moved(position)) => return self.go_on_from(position),
                }
            }
            self.wait_after(failure.to_string(), Some(events[failed].position), stop).await?;
        }
        if through.get() - self.written.get() >= PASSED_MAX {
            // If that fails, it is so the next time.
            match self.pass(through).await {
                Err(NotApplied::Moved(position)) => return self.go_on_from(position),
                Err(NotApplied::Failed(FailedAt { failure: error, .. })) => {
                    tracing::warn!(projection = P::NAME, %error, "a checkpoint could not be moved");
                }
                Ok(()) => {}
            }
        }
        self.read.from = page.next;
        self.projected.progress.worked();
        // First the rows that answer, then the word that they do.
        if page.end {
            self.at_the_end().await;
        }
        self.projected.progress.reached(through);
        Some(())
    }

    /// Somebody else has brought the rows up to here: what was read is not what comes next.
    fn go_on_from(&mut self, position: Position) -> Option<()> {
        match self.home {
            Home::File(_) => {
                tracing::warn!(projection = P::NAME, %position, "another task fills the same file; it goes on from there");
            }
            Home::Schema(_) => {
                tracing::debug!(projection = P::NAME, %position, "it goes on where others have brought the rows");
            }
        }
        let anew = position < self.written;
        self.written = position;
        self.read.from = position.next();
        self.projected.progress.worked();
        match anew {
            true => self.projected.progress.goes_on_from(position),
            false => self.projected.progress.reached(position),
        }
        Some(())
    }

    /// Applies events, and leaves the checkpoint at the last one.
    async fn apply(&mut self, events: &[RecordedEvent]) -> Result<(), NotApplied> {
        let Some(last) = events.last() else { return Ok(()) };
        self.commit(events, Witness::of(last)).await
    }

    /// Moves the checkpoint over events that are of no concern, to one of them.
    async fn pass(&mut self, through: Position) -> Result<(), NotApplied> {
        match Witness::at(&*self.shared.store, through).await {
            Ok(Some(witness)) => self.commit(&[], witness).await,
            Ok(None) => Ok(()),
            Err(error) => Err(NotApplied::Failed(FailedAt { index: 0, failure: error.into() })),
        }
    }

    async fn commit(&mut self, events: &[RecordedEvent], at: Witness) -> Result<(), NotApplied> {
        self.home.apply(self.projection.clone(), events.to_vec(), self.written, at).await?;
        self.written = at.position;
        Ok(())
    }

    /// The rows show all of the log: this version answers.
    async fn serve(&mut self) {
        if let Some(serving) = self.home.caught_up() {
            *self.projected.serving.write() = serving;
            self.home.remove_older().await;
        }
    }

    async fn at_the_end(&mut self) {
        self.serve().await;
        self.projected.progress.worked();
        self.projected.progress.caught_up();
    }

    async fn wait_after(&self, error: String, position: Option<Position>, stop: &mut Stop) -> Option<()> {
        tracing::warn!(projection = P::NAME, ?position, error, "a projection cannot go on; it tries again");
        let attempts = self.projected.progress.failed(error, position, self.shared.clock.now());
        stop.or(tokio::time::sleep(self.backoff.before(attempts))).await
    }
}

impl<P: Projection> Followed for Filling<P> {
    async fn checkpoint(&self) -> Result<Position, Failure> {
        match &self.home {
            Home::File(file) => Ok(file.checkpoint()),
            Home::Schema(schema) => Ok(schema.place().checkpoint().await?),
        }
    }

    async fn caught_up(&mut self) {
        self.serve().await;
    }
}

/// A failure at one event of several.
pub(super) struct FailedAt {
    /// Its place among them.
    pub index: usize,
    pub failure: Failure,
}

/// Why events were not applied. Nothing of them was.
pub(super) enum NotApplied {
    Failed(FailedAt),
    /// The checkpoint with the rows is not where it was left.
    Moved(Position),
}

impl From<SqlError> for NotApplied {
    /// A failure of the database as such meets the first event.
    fn from(error: SqlError) -> Self {
        Self::Failed(FailedAt { index: 0, failure: error.into() })
    }
}

/// Applies events in one transaction with the checkpoint before and after them, so that two tasks on one file
/// cannot both apply them. A panic of the projection is a failure of the event that it met.
pub(super) async fn apply<P: Projection>(
    database: &Database,
    projection: Arc<P>,
    events: Vec<RecordedEvent>,
    before: Position,
    at: Witness,
) -> Result<(), NotApplied> {
    let work = move |connection: &rusqlite::Connection| {
        let found = checkpoint(connection)?;
        if found != before {
            return Err(NotApplied::Moved(found));
        }
        let rows = Rows::new(connection);
        for (index, stored) in events.into_iter().enumerate() {
            let taken = crate::failure::caught(|| {
                let event = Recorded::<P::Event>::read(stored)?;
                projection.apply(&event, &rows)?;
                Ok(rows.still_one_transaction()?)
            });
            taken.map_err(|failure| NotApplied::Failed(FailedAt { index, failure }))?;
        }
        set_checkpoint(connection, at)?;
        Ok(())
    };
    database.write(work).await
}
