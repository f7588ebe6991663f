//! The task of a projection: waits for the lease, and then fills the rows from their checkpoint on
//! (`annals_consume::Runner`). Each page of the log is applied in one transaction, with the checkpoint.
//!
//! The rows are checked (`Home::check`) before the task begins, when the log has lost events, and when the
//! checkpoint in the database is not the one that was written: rows that are missing, or derived from lost
//! events, are rebuilt.

use std::sync::Arc;

use annals_consume::{
    Applied, Checkpoints, Effect, Ladder, LogReader, Options, Resumed, Runner, SoFar, Stopped, WriteError,
};
use annals_core::{Backoff, Cause, Position, Query, Seen, Witness};
use annals_state::{Checked, Database, HeldLease, Inlines, Registration, SqlError, Tx};
use tokio::sync::{Mutex, MutexGuard};

use super::decoded::{Decoded, DecodedLog};
use super::file::{checkpoint, set_checkpoint};
use super::inline::InlineWriter;
use super::serving::Projected;
use super::{Home, Projection};
use crate::failure::{caught, is_of_broken_file};
use crate::follow::{Followed, follow};
use crate::handles::inside_now;
use crate::reports::Reports;
use crate::shared::Shared;
use crate::stop::Stop;
use crate::tasks::after_panic;
use crate::{HandlerError, Recorded};

/// A checkpoint is written at the latest after this many positions without an event for the projection; until
/// then it is kept only in the memory of the task.
const PASSED_MAX: u64 = 10_000;
/// Most events in a transaction of an inline projection: an append during the transaction is written without
/// its rows.
const INLINE_BATCH_MAX: usize = 100;
/// Transactions whose events are read ahead. With two, reading and writing often wait for each other.
const WINDOW: usize = 4;
/// Bytes of events that are read ahead.
const WINDOW_BYTES: usize = 16 << 20;

/// The task that fills the rows of a projection. Clones share one state.
pub(super) struct ProjectionRunner<P>(Arc<Parts<P>>);

impl<P> Clone for ProjectionRunner<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// How the log is read.
pub(super) struct Reading {
    pub query: Query,
    /// Most events in a transaction.
    pub batch: usize,
    pub backoff: Backoff,
}

struct Parts<P> {
    projection: Arc<P>,
    target: Mutex<Target>,
    /// Whether the rows are in a file, and not in a schema of a database.
    is_file: bool,
    shared: Arc<Shared>,
    projected: Arc<Projected>,
    backoff: Backoff,
    query: Query,
    batch: usize,
    /// Present if appends write the rows.
    inline: Option<(Registration, Arc<InlineWriter<P>>)>,
}

/// The rows, and their last known checkpoint.
struct Target {
    home: Home,
    /// The checkpoint stored with the rows.
    written: Seen,
    /// Whether another writer has moved the rows further, and they are otherwise intact.
    is_ahead: bool,
}

impl<P: Projection> ProjectionRunner<P> {
    /// A task for these rows. With `inlines`, appends to the log write the rows too.
    pub fn new(
        projection: P,
        home: Home,
        shared: Arc<Shared>,
        projected: Arc<Projected>,
        reading: Reading,
        inlines: Option<&Inlines>,
    ) -> Self {
        let Reading { query, backoff, batch } = reading;
        let projection = Arc::new(projection);
        // The rows are checked before anything is read.
        let written: Seen = home.checkpoint().into();
        let inline = inlines.and_then(|inlines| {
            let Home::Schema(schema) = &home else { return None };
            let inline = Arc::new(InlineWriter {
                projection: projection.clone(),
                place: schema.place().clone(),
                store: shared.store.clone(),
                projected: projected.clone(),
                query: query.clone(),
                known: written.position.get().into(),
                behind_max: super::inline::BEHIND_MAX.into(),
                given_up: false.into(),
            });
            Some((inlines.register(inline.clone()), inline))
        });
        let batch = if inline.is_some() { batch.min(INLINE_BATCH_MAX) } else { batch };
        let is_file = matches!(home, Home::File(_));
        let target = Mutex::new(Target { home, written, is_ahead: false });
        Self(Arc::new(Parts {
            projection,
            target,
            is_file,
            shared,
            projected,
            backoff,
            query,
            batch,
            inline,
        }))
    }

    /// Runs until the system stops. A transaction in progress is finished first.
    pub async fn run(self, mut stop: Stop) {
        loop {
            let work = async {
                self.take_turns(&mut stop).await;
                Ok(())
            };
            let Err(panic) = crate::failure::caught_later(work).await else { break };
            after_panic(P::NAME, panic, &self.0.projected.progress, &self.0.shared, &mut stop).await;
        }
        // The rows of a file need nothing, and a call that does not return still has them.
        if !self.0.is_file {
            self.0.target.lock().await.home.release().await;
        }
    }

    async fn take_turns(&self, stop: &mut Stop) {
        while let Some(held) = self.turn(stop).await {
            let Some(mut held) = held else {
                self.fill(stop).await;
                continue;
            };
            self.0.target.lock().await.home.hold(held.lease());
            tokio::select! {
                () = self.fill(stop) => {}
                () = held.lost() => {
                    tracing::warn!(projection = P::NAME, "the lease is lost; another process may fill the rows");
                }
            }
        }
    }

    /// Waits for the lease to fill the rows, and tracks the progress of the lease holder meanwhile. `None` if
    /// a stop is requested; `Some(None)` if no lease is needed, because the rows are in a file.
    async fn turn(&self, stop: &mut Stop) -> Option<Option<HeldLease>> {
        if stop.is_asked() {
            return None;
        }
        let Parts { shared, projected, query, .. } = &*self.0;
        let (database, name) = {
            let target = self.0.target.lock().await;
            let Home::Schema(schema) = &target.home else { return Some(None) };
            (schema.place().database().clone(), lease(&target.home))
        };
        let mut followed = self.clone();
        let held = stop.or(async {
            tokio::select! {
                biased;
                held = database.leases().hold(name) => Some(held),
                () = follow(P::NAME, shared.store.clone(), query, &projected.progress, &mut followed) => None,
            }
        });
        let held = held.await?;
        projected.progress.takes_over();
        Some(held)
    }

    /// Fills the rows until a stop is requested.
    async fn fill(&self, stop: &mut Stop) {
        let Parts { shared, projected, backoff, batch, .. } = &*self.0;
        let effect = Arc::new(Fill { runner: self.clone(), stop: stop.clone() });
        let observer = Arc::new(Reports { known: projected.clone(), shared: shared.clone() });
        let options = Options {
            lanes: 1,
            batch_max: *batch,
            is_blocking: self.0.is_file,
            is_total: true,
            window_max: WINDOW * batch,
            bytes_max: WINDOW_BYTES,
            backoff: *backoff,
            ..Options::default()
        };
        Runner::new(P::NAME, effect, self.clone(), observer, options).run(stop).await;
    }

    /// Serves queries from this version, because its rows have reached the end of the log.
    async fn serve(&self, target: &mut Target) {
        if let Some(serving) = target.home.caught_up() {
            *self.0.projected.serving.write() = serving;
            target.home.remove_older().await;
        }
    }

    /// Commits these events and the checkpoint at this one.
    async fn commit(
        &self,
        target: &mut Target,
        events: &Arc<Vec<Decoded<P::Event>>>,
        at: Witness,
    ) -> Result<(), NotApplied> {
        let before = target.written.position;
        let projection = &self.0.projection;
        let all = Batching::AllAtOnce;
        match target.home.apply(projection.clone(), events.clone(), before, at, all).await {
            // A broken file is not the fault of an event.
            Err(NotApplied::Failed(FailedAt { index: None, failure })) if !is_of_broken_file(&failure) => {
                let one_by_one = Batching::OneByOne;
                target.home.apply(projection.clone(), events.clone(), before, at, one_by_one).await?;
            }
            applied => applied?,
        }
        target.written = at.into();
        if let Some((_, inline)) = &self.0.inline
            && !events.is_empty()
        {
            inline.is_filled_to(at.position);
        }
        Ok(())
    }
}

impl<P: Projection> Checkpoints<DecodedLog<P::Event>> for ProjectionRunner<P> {
    async fn resume(&self) -> Result<Resumed<DecodedLog<P::Event>>, Cause> {
        let Parts { shared, projected, query, batch, .. } = &*self.0;
        let store = &shared.store;
        let mut target = self.0.target.lock().await;
        let mut notice = None;
        let ahead = match std::mem::take(&mut target.is_ahead) {
            true => target.home.at().await.ok().filter(|(position, _)| *position >= target.written.position),
            false => None,
        };
        let witness = match ahead {
            Some((_, Some(witness))) => witness,
            _ => {
                let Checked { position, witness, made_again } = target.home.check(&**store).await?;
                let witness = match witness {
                    Some(witness) => witness,
                    None => Witness::at(&**store, position).await?.ok_or_else(|| {
                        format!("the log does not have position {position}, which the rows show")
                    })?,
                };
                *projected.serving.write() = target.home.serving();
                notice =
                    made_again.map(|reason| format!("the rows are rebuilt from the first event: {reason}"));
                witness
            }
        };
        target.written = witness.into();
        projected.progress.worked();
        let log = LogReader::new(store.clone(), witness, query.clone(), *batch);
        let source = DecodedLog::new(log);
        Ok(Resumed { source, checkpoint: Ladder::from(witness), notice })
    }

    /// Writes the checkpoint if many events without effect on the rows have passed. Otherwise it is written
    /// with the rows.
    async fn write(&self, ladder: &mut Ladder) -> Result<(), WriteError> {
        let Some(newest) = ladder.newest() else { return Ok(()) };
        // While rows are written there is nothing to do: the checkpoint is written with them.
        let Ok(mut target) = self.0.target.try_lock() else { return Ok(()) };
        if newest.position.get() < target.written.position.get() + PASSED_MAX {
            return Ok(());
        }
        match self.commit(&mut target, &Arc::default(), newest).await {
            Ok(()) | Err(NotApplied::Failed(_)) => Ok(()),
            Err(NotApplied::Moved) => Err(WriteError::Moved("others have moved the rows".into())),
            Err(NotApplied::Lost(error)) => {
                Err(WriteError::Unavailable(annals_core::Error::from(error).into()))
            }
        }
    }
}

/// Applies events to the rows.
struct Fill<P> {
    runner: ProjectionRunner<P>,
    stop: Stop,
}

impl<P: Projection> Effect<DecodedLog<P::Event>> for Fill<P> {
    async fn apply(&self, events: &Arc<Vec<Decoded<P::Event>>>, _: u32, _: &SoFar<'_>) -> Applied {
        let mut target = self.runner.0.target.lock().await;
        if let Err(error) = target.home.renew().await {
            return Applied::stopped(0, self.resume_after(error.into(), &mut target).await);
        }
        // If an append has written the rows, no lock is taken here, because the next append would wait for
        // it.
        if self.runner.0.inline.is_some()
            && target.home.at().await.is_ok_and(|(found, _)| found != target.written.position)
        {
            return self.moved(events, &mut target).await;
        }
        let Some(last) = events.last() else { return Applied::all(0) };
        let FailedAt { index, failure } = match self.runner.commit(&mut target, events, last.witness()).await
        {
            Ok(()) => return Applied::all(events.len()),
            Err(NotApplied::Failed(failed)) => failed,
            Err(NotApplied::Moved) => return self.moved(events, &mut target).await,
            Err(NotApplied::Lost(error)) => {
                return Applied::stopped(0, self.resume_after(error.into(), &mut target).await);
            }
        };
        if is_of_broken_file(&failure) {
            return Applied::stopped(0, self.resume_after(failure, &mut target).await);
        }
        // The events before it are applied on their own, so that their effect is visible.
        let index = index.unwrap_or_default();
        let Some(last) = index.checked_sub(1).map(|last| &events[last]) else {
            return Applied::stopped(0, Stopped::Failed(failure.into_text()));
        };
        let before = Arc::new(events[..index].to_vec());
        match self.runner.commit(&mut target, &before, last.witness()).await {
            Ok(()) => Applied::stopped(index, Stopped::Failed(failure.into_text())),
            Err(NotApplied::Failed(FailedAt { failure, .. })) => {
                Applied::stopped(0, Stopped::Failed(failure.into_text()))
            }
            Err(NotApplied::Moved) => self.moved(events, &mut target).await,
            Err(NotApplied::Lost(error)) => {
                Applied::stopped(0, self.resume_after(error.into(), &mut target).await)
            }
        }
    }

    async fn caught_up(&self) -> Result<(), String> {
        let mut target = self.runner.0.target.lock().await;
        if let Err(error) = target.home.renew().await {
            return Err(described(self.resume_after(error.into(), &mut target).await));
        }
        match target.home.at().await {
            Ok((found, _)) if found == target.written.position => {
                self.runner.serve(&mut target).await;
                Ok(())
            }
            Ok((found, witness)) => {
                let Parts { shared, projected, .. } = &*self.runner.0;
                target.is_ahead = found > target.written.position && witness.is_some();
                // If appends move the rows all the time, they may never be found at the same checkpoint.
                if target.is_ahead
                    && let Some(witness) = witness
                    && witness.holds(&*shared.store).await.is_ok_and(|holds| holds)
                {
                    self.runner.serve(&mut target).await;
                    projected.progress.caught_up();
                }
                Err("others have moved the rows".to_owned())
            }
            Err(error) => Err(described(self.resume_after(error.into(), &mut target).await)),
        }
    }
}

impl<P: Projection> Fill<P> {
    /// Handles a checkpoint that another writer has moved. If it is at one of these events, the events up to
    /// it are applied.
    async fn moved(&self, events: &[Decoded<P::Event>], target: &mut MutexGuard<'_, Target>) -> Applied {
        let stopped = || Stopped::Moved("others have moved the rows".to_owned());
        let (found, witness) = match target.home.at().await {
            Ok((found, Some(witness))) => (found, witness),
            Ok((_, None)) => return Applied::stopped(0, stopped()),
            Err(error) => return Applied::stopped(0, self.resume_after(error.into(), target).await),
        };
        // An event that is both in the page and in the checkpoint shows that both are of one history.
        if let Some(index) = events.iter().position(|event| event.witness() == witness) {
            target.written = witness.into();
            let all = index + 1 == events.len();
            return if all {
                Applied::all(index + 1)
            } else {
                Applied::stopped(index + 1, Stopped::Interrupted)
            };
        }
        target.is_ahead = found > target.written.position;
        Applied::stopped(0, stopped())
    }

    /// Waits after a failure to read or write the rows; then they are checked.
    async fn resume_after(&self, failure: HandlerError, target: &mut MutexGuard<'_, Target>) -> Stopped {
        if is_of_broken_file(&failure)
            && let Home::File(file) = &mut target.home
        {
            file.is_broken();
        }
        let Parts { shared, projected, backoff, .. } = &*self.runner.0;
        let error = failure.into_text();
        tracing::warn!(
            projection = P::NAME,
            error,
            "the rows of a projection cannot be used; they are checked"
        );
        let attempts = projected.progress.failed(error.clone(), None, shared.now());
        self.stop.clone().or(tokio::time::sleep(backoff.before(attempts))).await;
        Stopped::Moved(error)
    }
}

fn described(stopped: Stopped) -> String {
    match stopped {
        Stopped::Failed(text) | Stopped::Unavailable(text) | Stopped::Moved(text) => text,
        Stopped::Interrupted | Stopped::Released => String::new(),
    }
}

/// The name of the lease that is needed to fill the rows.
fn lease(home: &Home) -> String {
    match home {
        Home::File(_) => String::new(),
        Home::Schema(schema) => format!("projection {}", schema.place().schema()),
    }
}

impl<P: Projection> Followed for ProjectionRunner<P> {
    async fn checkpoint(&self) -> Result<Seen, HandlerError> {
        let (position, witness) = self.0.target.lock().await.home.at().await?;
        if let Some((_, inline)) = &self.0.inline {
            inline.is_seen_at(position);
        }
        Ok(witness.map_or(position.into(), Seen::from))
    }

    async fn caught_up(&mut self) {
        let mut target = self.0.target.lock().await;
        self.serve(&mut target).await;
    }

    async fn waits_for(&mut self) -> Option<String> {
        let mut target = self.0.target.lock().await;
        if let Err(error) = target.home.renew().await {
            return Some(format!("the rows cannot be used: {}", HandlerError::from(error).into_text()));
        }
        let Home::Schema(schema) = &target.home else { return None };
        Some(schema.place().database().leases().waits_for(lease(&target.home)).await)
    }
}

/// A failure at one event of several.
pub(super) struct FailedAt {
    /// Its index among them; `None` if it is unknown, because several were passed at once.
    pub index: Option<usize>,
    pub failure: HandlerError,
}

/// How events are passed to a projection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Batching {
    /// All of them at once.
    AllAtOnce,
    /// One after the other, so that the one that fails is known.
    OneByOne,
}

/// Why events were not applied. None of them was.
pub(super) enum NotApplied {
    Failed(FailedAt),
    /// The checkpoint stored with the rows is not the expected one.
    Moved,
    /// The database or the connection failed, independently of the event.
    Lost(SqlError),
}

impl From<SqlError> for NotApplied {
    fn from(error: SqlError) -> Self {
        Self::Lost(error)
    }
}

/// Passes events to a projection. A panic of the projection is a failure of the event at which it occurred.
/// The parts of a stored event are passed in order, and if one fails, the stored event has failed: the caller
/// rolls back what was applied.
pub(super) fn give<P: Projection>(
    projection: &P,
    decoded: &[Decoded<P::Event>],
    rows: &Tx<'_>,
    batching: Batching,
) -> Result<(), FailedAt> {
    let failed = |index, failure| FailedAt { index: Some(index), failure };
    // Statements queued for several events are sent with the checkpoint. If events are passed one by one, the
    // statements of each are sent before the next event is passed.
    let done = || match batching {
        Batching::AllAtOnce => rows.still_one_transaction(),
        Batching::OneByOne => rows.flush(),
    };
    let apply = |events: &[Recorded<P::Event>]| {
        caught(|| {
            rows.still_one_transaction()?;
            match events {
                [] => {}
                [event] => inside_now(|| projection.apply(event, rows))?,
                events => inside_now(|| projection.apply_all(events, rows))?,
            }
            Ok(done()?)
        })
    };
    let mut index = 0;
    let is_run =
        |one: &Decoded<_>, next: &Decoded<_>| batching == Batching::AllAtOnce && one.is_followed_by(next);
    for run in decoded.chunk_by(is_run) {
        let events = Decoded::events(run).map_err(|unreadable| failed(index, unreadable.into()))?;
        match batching {
            Batching::AllAtOnce => apply(&events)
                .map_err(|failure| FailedAt { index: (decoded.len() == 1).then_some(0), failure })?,
            Batching::OneByOne => events
                .iter()
                .map(std::slice::from_ref)
                .try_for_each(&apply)
                .map_err(|failure| failed(index, failure))?,
        }
        index += run.len();
    }
    Ok(())
}

/// Applies events in one transaction with the checkpoint before and after them, so that two tasks on one file
/// cannot both apply them. Blocks.
pub(super) fn apply<P: Projection>(
    database: &Database,
    projection: &P,
    events: &[Decoded<P::Event>],
    before: Position,
    at: Witness,
    batching: Batching,
) -> Result<(), NotApplied> {
    database.write_now(|connection| {
        let found = checkpoint(connection)?;
        if found != before {
            return Err(NotApplied::Moved);
        }
        if !events.is_empty() {
            give(projection, events, &Tx::new(connection), batching).map_err(NotApplied::Failed)?;
        }
        set_checkpoint(connection, at)?;
        Ok(())
    })
}
