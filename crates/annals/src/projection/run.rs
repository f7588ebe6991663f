//! The task that fills a projection: page after page of the log, each in one transaction.

use std::sync::Arc;

use annals_core::{Backoff, LogPage, LogRead, Position, Query, RecordedEvent};

use super::file::{ViewFile, checkpoint, set_checkpoint};
use super::{Projected, Projection, Witness};
use crate::shared::Shared;
use crate::sql::{Database, Rows, SqlError};
use crate::tasks::Stop;
use crate::{Failure, Recorded};

/// A checkpoint is written at the latest when this many positions without an event for the projection have
/// passed; until then the memory of the task is enough.
const PASSED_MAX: u64 = 10_000;

/// A projection on its way through the log.
pub(super) struct Filling<P> {
    pub projection: Arc<P>,
    pub file: ViewFile,
    pub shared: Arc<Shared>,
    pub projected: Arc<Projected>,
    pub backoff: Backoff,
    pub read: LogRead,
    /// The checkpoint in the file.
    pub written: Position,
}

impl<P: Projection> Filling<P> {
    pub fn new(
        projection: P,
        file: ViewFile,
        shared: Arc<Shared>,
        projected: Arc<Projected>,
        query: Query,
    ) -> Self {
        let written = file.checkpoint();
        let read = LogRead::forward(written.next()).matching(query);
        let (projection, backoff) = (Arc::new(projection), crate::tasks::BACKOFF);
        Self { projection, file, shared, projected, backoff, read, written }
    }

    /// Goes on until the system stops. A transaction that is under way then is finished first.
    pub async fn run(mut self, mut stop: Stop) {
        while self.go_on(&mut stop).await.is_some() {}
        self.projected.progress.stopped();
    }

    /// Takes the next page, or waits for it. Nothing, if a stop is asked for.
    async fn go_on(&mut self, stop: &mut Stop) -> Option<()> {
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

    /// Somebody else has filled the same file up to here: what was read is not what comes next.
    fn go_on_from(&mut self, position: Position) -> Option<()> {
        tracing::warn!(projection = P::NAME, %position, "another task fills the same file; it goes on from there");
        self.written = position;
        self.read.from = position.next();
        self.projected.progress.worked();
        self.projected.progress.reached(position);
        Some(())
    }

    /// Applies events, and leaves the checkpoint at the last one.
    async fn apply(&mut self, events: &[RecordedEvent]) -> Result<(), NotApplied> {
        let Some(last) = events.last() else { return Ok(()) };
        self.commit(events, Witness { position: last.position, id: last.id }).await
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
        apply(&self.file.database, self.projection.clone(), events.to_vec(), self.written, at).await?;
        self.written = at.position;
        Ok(())
    }

    async fn at_the_end(&mut self) {
        if let Some(serving) = self.file.caught_up() {
            *self.projected.serving.write() = serving;
            self.file.remove_older().await;
        }
        self.projected.progress.worked();
        self.projected.progress.caught_up();
    }

    async fn wait_after(&self, error: String, position: Option<Position>, stop: &mut Stop) -> Option<()> {
        tracing::warn!(projection = P::NAME, ?position, error, "a projection cannot go on; it tries again");
        let attempts = self.projected.progress.failed(error, position, self.shared.clock.now());
        stop.or(tokio::time::sleep(self.backoff.before(attempts))).await
    }
}

/// A failure at one event of several.
struct FailedAt {
    /// Its place among them.
    index: usize,
    failure: Failure,
}

/// Why events were not applied. Nothing of them was.
enum NotApplied {
    Failed(FailedAt),
    /// The checkpoint in the file is not where it was left.
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
async fn apply<P: Projection>(
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
