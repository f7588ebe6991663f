//! The task that fills a projection: page after page of the log, each in one transaction.
//!
//! Before it begins, whenever the log lost events, and whenever the database has something else than was left there, the
//! rows are checked (`Home::check`): rows that are gone, or that are made of lost events, are made again.

use std::sync::Arc;

use annals_consume::{Found, LogReader};
use annals_core::{Backoff, Position, Query, RecordedEvent, Seen, Witness};
use annals_sql::{Inlines, Registered};

use super::file::{checkpoint, set_checkpoint};
use super::inline::InlineProjection;
use super::{Home, Projected, Projection};
use crate::checkpoint::Checked;
use crate::follow::{Followed, follow};
use crate::handles::inside_now;
use crate::shared::Shared;
use crate::sql::{Database, Rows, SqlError};
use crate::state::Held;
use crate::stop::Stop;
use crate::tasks::after_panic;
use crate::{Failure, Recorded};

/// A checkpoint is written at the latest when this many positions without an event for the projection have
/// passed; until then the memory of the task is enough.
const PASSED_MAX: u64 = 10_000;
/// Most events of a transaction of a projection that is inline: an append that comes meanwhile is written without its rows.
const INLINE_BATCH_MAX: usize = 100;

/// A projection on its way through the log.
pub(super) struct ProjectionRunner<P> {
    projection: Arc<P>,
    home: Home,
    shared: Arc<Shared>,
    projected: Arc<Projected>,
    pub backoff: Backoff,
    query: Query,
    batch: usize,
    reader: LogReader,
    /// The checkpoint with the rows.
    written: Seen,
    /// Whether others have moved it since, so that the reader is not there.
    is_stale: bool,
    /// If appends take it with them.
    inline: Option<(Registered, Arc<InlineProjection<P>>)>,
}

/// What was read of the log.
struct Page {
    events: Vec<RecordedEvent>,
    through: Witness,
    end: bool,
}

impl<P: Projection> ProjectionRunner<P> {
    pub fn new(
        projection: P,
        home: Home,
        shared: Arc<Shared>,
        projected: Arc<Projected>,
        query: Query,
        batch: usize,
    ) -> Self {
        let (projection, backoff) = (Arc::new(projection), crate::tasks::BACKOFF);
        // The rows are checked before anything is read.
        let (written, origin) = (home.checkpoint().into(), Witness::origin(shared.store.id()));
        let reader = LogReader::new(shared.store.clone(), origin, query.clone(), batch);
        let (is_stale, inline) = (false, None);
        Self { projection, home, shared, projected, backoff, query, batch, reader, written, is_stale, inline }
    }

    /// Has appends take it with them from now on, as long as this runs.
    pub fn register(&mut self, inlines: &Inlines) {
        let Home::Schema(schema) = &self.home else { return };
        let inline = Arc::new(InlineProjection {
            projection: self.projection.clone(),
            place: schema.place().clone(),
            store: self.shared.store.clone(),
            projected: self.projected.clone(),
            query: self.query.clone(),
            known: self.written.position.get().into(),
            behind_max: super::inline::BEHIND_MAX.into(),
            given_up: false.into(),
        });
        self.inline = Some((inlines.register(inline.clone()), inline));
        self.batch = self.batch.min(INLINE_BATCH_MAX);
        let origin = Witness::origin(self.shared.store.id());
        self.reader = LogReader::new(self.shared.store.clone(), origin, self.query.clone(), self.batch);
    }

    /// Runs until the system stops. A transaction that is under way then is finished first.
    pub async fn run(mut self, mut stop: Stop) {
        loop {
            let work = async {
                self.take_turns(&mut stop).await;
                Ok(())
            };
            let Err(panic) = crate::failure::caught_later(work).await else { break };
            after_panic(P::NAME, panic, &self.projected.progress, &self.shared, &mut stop).await;
        }
        self.home.let_go().await;
    }

    async fn take_turns(&mut self, stop: &mut Stop) {
        while let Some(held) = self.turn(stop).await {
            if self.check(stop).await.is_none() {
                return;
            }
            while !held.as_ref().is_some_and(Held::is_lost) {
                if self.step(stop).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Waits until it is the turn of this process to fill the rows, and follows what is done meanwhile. `None` if a stop
    /// is asked for.
    async fn turn(&mut self, stop: &mut Stop) -> Option<Option<Held>> {
        if stop.is_asked() {
            return None;
        }
        let Home::Schema(schema) = &self.home else { return Some(None) };
        let place = schema.place().clone();
        let (store, query, projected) =
            (self.shared.store.clone(), self.query.clone(), self.projected.clone());
        let name = lease(&self.home);
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

    /// Checks the rows, and resumes where they are, perhaps at the beginning. `None` if a stop is asked for.
    async fn check(&mut self, stop: &mut Stop) -> Option<()> {
        loop {
            let error = match stop.or(self.try_check()).await? {
                Ok(()) => return Some(()),
                Err(failure) => failure.into_text(),
            };
            self.wait_after(error, None, stop).await?;
        }
    }

    async fn try_check(&mut self) -> Result<(), Failure> {
        let store = self.shared.store.clone();
        let Checked { position, witness, made_again } = self.home.check(&*store).await?;
        let witness = match witness {
            Some(witness) => witness,
            None => Witness::at(&*store, position).await?.ok_or_else(|| {
                Failure::new(format!("the log does not have position {position}, which the rows show"))
            })?,
        };
        self.reader.resume(witness);
        (self.written, self.is_stale) = (witness.into(), false);
        *self.projected.serving.write() = self.home.serving();
        let progress = &self.projected.progress;
        progress.worked();
        progress.resumes_at(witness);
        if let Some(reason) = made_again {
            progress.notes(Some(format!("the rows are made again from the first event: {reason}")));
        }
        Ok(())
    }

    /// Applies the next page, or waits for it. `None` if a stop is asked for.
    async fn step(&mut self, stop: &mut Stop) -> Option<()> {
        if let Err(error) = self.home.renew().await {
            return self.check_after(error, stop).await;
        }
        // What appends or other processes have done need not be read.
        match self.home.at().await {
            Ok((position, Some(witness)))
                if position > self.written.position
                    || (self.is_stale && position == self.written.position) =>
            {
                self.reader.resume(witness);
                (self.written, self.is_stale) = (witness.into(), false);
                self.projected.progress.worked();
                self.projected.progress.reached(witness);
            }
            Ok((position, _)) if position == self.written.position && !self.is_stale => {}
            Ok(_) => return self.check(stop).await,
            Err(error) => return self.check_after(error, stop).await,
        }
        let before = self.reader.seen().position;
        let error = match stop.or(self.reader.next()).await? {
            Ok(Found::Lost) => {
                tracing::warn!(projection = P::NAME, position = %before, "the log has lost events that were read");
                return self.check(stop).await;
            }
            Ok(Found::Page { events, through, end }) if through.position > before => {
                // What an append has written needs no lock, for which the next append would wait.
                if self.inline.is_some()
                    && self.home.at().await.is_ok_and(|(found, _)| found != self.written.position)
                {
                    return self.moved();
                }
                return self.apply_page(Page { events, through, end }, stop).await;
            }
            Ok(Found::Page { .. }) => {
                self.at_the_end().await;
                match stop.or(self.reader.wait()).await? {
                    Ok(()) => return Some(()),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        self.wait_after(Failure::from(error).into_text(), None, stop).await
    }

    /// Applies a page, however often that has to be tried.
    async fn apply_page(&mut self, page: Page, stop: &mut Stop) -> Option<()> {
        let events = page.events;
        let mut done = 0;
        while done < events.len() {
            let FailedAt { index, failure } = match self.apply(&events[done..]).await {
                Ok(()) => break,
                Err(NotApplied::Failed(failed)) => failed,
                Err(NotApplied::Moved) => return self.moved(),
                Err(NotApplied::Lost(error)) => return self.check_after(error, stop).await,
            };
            if SqlError::is_of_broken_file(&failure) {
                return self.check_after_damage(failure, stop).await;
            }
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
                    Err(NotApplied::Moved) => return self.moved(),
                    Err(NotApplied::Lost(error)) => return self.check_after(error, stop).await,
                }
            }
            let position = events[failed].position;
            self.wait_after(failure.into_text(), Some(position), stop).await?;
        }
        if page.through.position.get() - self.written.position.get() >= PASSED_MAX {
            // Over events that are not meant.
            match self.commit(&[], page.through).await {
                Err(NotApplied::Moved) => return self.moved(),
                Err(NotApplied::Lost(error)) => return self.check_after(error, stop).await,
                Err(NotApplied::Failed(_)) | Ok(()) => {}
            }
        }
        self.projected.progress.worked();
        // First the rows that answer, then the word that they do.
        if page.end {
            self.at_the_end().await;
        }
        self.projected.progress.reached(page.through);
        Some(())
    }

    /// Others have moved the rows: the next step looks where they are, and reads from there.
    fn moved(&mut self) -> Option<()> {
        self.is_stale = true;
        tracing::debug!(projection = P::NAME, "others have moved the rows; it resumes where they are");
        Some(())
    }

    /// The rows cannot be read or written.
    async fn check_after(&mut self, error: SqlError, stop: &mut Stop) -> Option<()> {
        self.check_after_damage(error.into(), stop).await
    }

    async fn check_after_damage(&mut self, failure: Failure, stop: &mut Stop) -> Option<()> {
        if SqlError::is_of_broken_file(&failure)
            && let Home::File(file) = &mut self.home
        {
            file.is_broken();
        }
        self.wait_after(failure.into_text(), None, stop).await?;
        self.check(stop).await
    }

    /// Applies events, and leaves the checkpoint at the last one.
    async fn apply(&mut self, events: &[RecordedEvent]) -> Result<(), NotApplied> {
        let Some(last) = events.last() else { return Ok(()) };
        self.commit(events, Witness::of(last)).await?;
        if let Some((_, inline)) = &self.inline {
            inline.is_filled_to(self.written.position);
        }
        Ok(())
    }

    async fn commit(&mut self, events: &[RecordedEvent], at: Witness) -> Result<(), NotApplied> {
        self.home.apply(self.projection.clone(), events.to_vec(), self.written.position, at).await?;
        self.written = at.into();
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
        tracing::warn!(
            projection = P::NAME,
            ?position,
            error,
            "a projection cannot advance; it is tried again"
        );
        let attempts = self.projected.progress.failed(error, position, self.shared.now());
        stop.or(tokio::time::sleep(self.backoff.before(attempts))).await
    }
}

/// The name of the lease without which the rows are not filled.
fn lease(home: &Home) -> String {
    match home {
        Home::File(_) => String::new(),
        Home::Schema(schema) => format!("projection {}", schema.place().schema()),
    }
}

impl<P: Projection> Followed for ProjectionRunner<P> {
    async fn checkpoint(&self) -> Result<Seen, Failure> {
        let (position, witness) = self.home.at().await?;
        if let Some((_, inline)) = &self.inline {
            inline.is_seen_at(position);
        }
        Ok(witness.map_or(position.into(), Seen::from))
    }

    async fn caught_up(&mut self) {
        self.serve().await;
    }

    async fn waits_for(&mut self) -> Option<String> {
        if let Err(error) = self.home.renew().await {
            return Some(format!("the rows cannot be used: {}", Failure::from(error).into_text()));
        }
        let Home::Schema(schema) = &self.home else { return None };
        Some(schema.place().database().guard().waits_for(lease(&self.home)).await)
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
    Moved,
    /// The database does not answer as it should, whatever the event.
    Lost(SqlError),
}

impl From<SqlError> for NotApplied {
    fn from(error: SqlError) -> Self {
        Self::Lost(error)
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
            return Err(NotApplied::Moved);
        }
        let rows = Rows::new(connection);
        for (index, stored) in events.into_iter().enumerate() {
            let taken = crate::failure::caught(|| {
                let event = Recorded::<P::Event>::read(stored)?;
                inside_now(|| projection.apply(&event, &rows))?;
                Ok(rows.still_one_transaction()?)
            });
            taken.map_err(|failure| NotApplied::Failed(FailedAt { index, failure }))?;
        }
        set_checkpoint(connection, at)?;
        Ok(())
    };
    database.write(work).await
}
