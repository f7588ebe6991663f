//! An inline projection: `annals_state::InlineProjection`, in the transaction of an append.
//!
//! - X1  If the checkpoint of the rows is directly before the group, the events of the group are applied, the
//!       checkpoint moves to the last one, and all of it commits with the append.
//! - X2  If the rows are a little behind, the missing events are applied first, in the same transaction. They
//!       are committed already, and the log is locked, so no event comes in between.
//! - X3  If the rows are far behind, missing, or derived from an event that the log has lost, if one of the
//!       missing events fails, or if another session has locked the rows, the group is written without them,
//!       and the task of the projection catches up.
//! - X4  The log is locked meanwhile, so no wait here is long: none for the task of the projection while it
//!       fills the rows; [`LOCK_MS`] for other locks; [`CATCH_UP`] for the missing events; [`APPLY`] for all
//!       of it, and for each statement. If the server does not end a statement by itself (MySQL, for one that
//!       changes rows), the connection is abandoned after [`GIVE_UP`]. After a failure appends skip the rows
//!       until the task has made progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals_core::{EventStore, Invalid, LogRead, Position, Query, RecordedEvent, Witness};
use annals_state::{Dialect, Group, InlineProjection, NotTaken, Session, SqlError, ViewPlace, position_of};
use async_trait::async_trait;

use super::decoded::Decoded;
use super::run::Batching;
use super::schema::{Lock, Locked, check_deferred, lock_with_log, set_checkpoint, take};
use super::{Projected, Projection};
use crate::HandlerError;

/// The most positions that the rows may lag to be caught up in the transaction of an append.
pub(super) const BEHIND_MAX: u64 = 1_000;
/// Time limit of the catch-up.
const CATCH_UP: Duration = Duration::from_millis(250);
/// Time limit of writing the rows, and of each of their statements.
const APPLY: Duration = Duration::from_secs(3);
/// If writing the rows has not ended after this time, the connection is abandoned, and the group is not
/// written.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Time limit of a statement that waits for rows or tables locked by others. MariaDB and MySQL count in
/// seconds.
const LOCK_MS: u64 = 500;

pub(super) struct InlineWriter<P> {
    pub projection: Arc<P>,
    pub place: ViewPlace,
    pub store: Arc<dyn EventStore>,
    pub projected: Arc<Projected>,
    pub query: Query,
    /// The last known checkpoint.
    pub known: AtomicU64,
    /// The current limit of positions that the rows may lag to be caught up.
    pub behind_max: AtomicU64,
    /// Whether a connection was abandoned because writing the rows took too long: until the task has made
    /// progress, appends skip the rows even if they do not lag.
    pub given_up: AtomicBool,
}

/// Why the rows are not written.
enum Left {
    /// They cannot be written now; the task of the projection catches up.
    Behind,
    NotTaken(NotTaken),
}

impl<P: Projection> InlineWriter<P> {
    /// Records that the task of the projection has filled the rows up to here.
    pub fn is_filled_to(&self, position: Position) {
        self.known.store(position.get(), Ordering::Relaxed);
        self.given_up.store(false, Ordering::Relaxed);
        let more = |behind_max: u64| Some((behind_max * 2).clamp(1, BEHIND_MAX));
        let _ = self.behind_max.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Records the checkpoint that this process reads while another one fills the rows.
    pub fn is_seen_at(&self, position: Position) {
        if position.get() > self.known.load(Ordering::Relaxed) {
            self.is_filled_to(position);
        }
    }

    async fn write(&self, session: &mut (dyn Session + '_), group: &Group) -> Result<(), Left> {
        let deadline = Instant::now() + APPLY;
        session.enter(self.place.schema()).await.map_err(|fault| self.behind(fault.into()))?;
        let behind_max = self.behind_max.load(Ordering::Relaxed);
        let far = |position: Position| group.behind.get().saturating_sub(position.get()) > behind_max;
        // Read without a lock, so as not to block the process that fills the rows. While the rows do not lag,
        // that process locks them only briefly.
        let mut exact = self.known.load(Ordering::Relaxed) == group.behind.get();
        if !exact {
            let position = self.position(session).await?;
            exact = position == group.behind;
            if far(position) {
                return Err(Left::Behind);
            }
        }
        let patience = if exact { Lock::Wait } else { Lock::Skip };
        let found = lock_with_log(session, &self.place, patience).await;
        let found = match found.map_err(|fault| self.behind(fault.into()))? {
            Locked::At(position) => position,
            // Another session is filling the rows.
            Locked::ByOther => return Err(Left::Behind),
            Locked::OtherHistory(lost) => {
                return Err(self.behind(HandlerError::new(format!(
                    "the log no longer has {lost}, which the rows show"
                ))));
            }
        };
        self.known.store(found.get(), Ordering::Relaxed);
        if found > group.behind || far(found) {
            return Err(Left::Behind);
        }
        if found < group.behind {
            self.catch_up(session, found, group.behind).await.map_err(|failure| self.behind(failure))?;
            // Otherwise a deferred constraint would refuse the group because of an older event.
            check_deferred(session, &self.place).await.map_err(|fault| self.behind(fault.into()))?;
        }
        let mut places = Vec::new();
        let mut events = Vec::new();
        for (place, event) in group.events.iter().enumerate() {
            if crate::codec::takes::<P::Event>(event.event_type()) {
                places.push(place);
                events.push(event.clone());
            }
        }
        let (projection, events) = (self.projection.clone(), Arc::new(Decoded::all(events)));
        let taken = take(session, &self.place, projection, events, Batching::OneByOne, Some(deadline)).await;
        taken.map_err(|not_taken| {
            let failure = not_taken.failed.failure;
            if not_taken.lost {
                return self.behind(failure);
            }
            let event = places[not_taken.failed.index.unwrap_or_default()];
            let kind = group.events[event].event_type();
            let problem =
                format!("({kind}) is refused by the projection `{}`: {}", P::NAME, failure.into_text());
            Left::NotTaken(NotTaken::Refused { event, problem: Invalid::new("events", problem) })
        })?;
        if let Err(fault) = check_deferred(session, &self.place).await {
            let event = places.last().copied().unwrap_or_default();
            return Err(Left::NotTaken(match fault {
                annals_state::Fault::Unavailable(cause) => NotTaken::Unavailable(cause),
                annals_state::Fault::Store(error) => NotTaken::Unavailable(Box::new(error)),
                fault => {
                    let problem = format!("is refused by the projection `{}`: {fault}", P::NAME);
                    NotTaken::Refused { event, problem: Invalid::new("events", problem) }
                }
            }));
        }
        let last = group.events.last().ok_or(Left::Behind)?;
        let at = Witness::of(last);
        set_checkpoint(session, &self.place, at).await.map_err(|error| self.behind(error.into()))?;
        self.known.store(at.position.get(), Ordering::Relaxed);
        Ok(())
    }

    /// Reads the checkpoint without a lock; another session may be moving it.
    async fn position(&self, session: &mut (dyn Session + '_)) -> Result<Position, Left> {
        let (dialect, sql) = (self.place.database().dialect(), "SELECT position FROM annals_checkpoint");
        let answer = annals_state::execute(session, dialect, self.place.schema(), sql, &[]).await;
        let answer = answer.map_err(|fault| self.behind(fault.into()))?;
        let Some(row) = answer.rows.first() else { return Ok(Position::ZERO) };
        Ok(position_of(row).map_err(|fault| self.behind(fault.into()))?.0)
    }

    /// Applies the events after `behind`, up to `through`.
    async fn catch_up(
        &self,
        session: &mut (dyn Session + '_),
        behind: Position,
        through: Position,
    ) -> Result<(), HandlerError> {
        let deadline = Instant::now() + CATCH_UP;
        let mut read = LogRead::forward(behind.next()).matching(self.query.clone());
        while read.from <= through {
            let page = tokio::time::timeout_at(deadline.into(), self.store.read_log(read.clone())).await;
            let page =
                page.map_err(|_| HandlerError::new("the missing events could not be read in time"))??;
            let missing = |event: &RecordedEvent| event.position() <= through;
            let events: Vec<_> = page.events.into_iter().filter(missing).collect();
            let events = Decoded::all(events);
            let projection = self.projection.clone();
            let taken =
                take(session, &self.place, projection, Arc::new(events), Batching::AllAtOnce, Some(deadline))
                    .await;
            taken.map_err(|not_taken| not_taken.failed.failure)?;
            if page.next <= read.from {
                return Err(HandlerError::new("the replica does not have the missing events yet"));
            }
            read.from = page.next;
        }
        Ok(())
    }

    /// Leaves the rows to the task of the projection, and logs the reason.
    fn behind(&self, reason: HandlerError) -> Left {
        self.leave(reason.into_text());
        Left::Behind
    }

    /// Makes appends skip the rows until the task of the projection has made progress.
    fn leave(&self, reason: String) {
        self.behind_max.store(0, Ordering::Relaxed);
        tracing::debug!(
            projection = P::NAME,
            reason,
            "rows are not written with an append; they are filled later"
        );
    }

    /// Writes the rows after a savepoint, with short time limits, and rolls back to it if they cannot be
    /// written.
    async fn write_or_undo(&self, session: &mut (dyn Session + '_), group: &Group) -> Result<bool, NotTaken> {
        let (begin, end) = limits(self.place.database().dialect());
        let lost = |fault: annals_state::Fault| NotTaken::Unavailable(Box::new(SqlError::from(fault)));
        session.script(&begin).await.map_err(lost)?;
        let mut written = Err(Left::Behind);
        let work = async {
            written = self.write(session, group).await;
            Ok(())
        };
        if let Err(panic) = crate::failure::caught_later(work).await {
            written = Err(self.behind(panic));
        }
        let undone = match written {
            Err(Left::Behind) => session.script("ROLLBACK TO SAVEPOINT annals_inline").await,
            _ => Ok(()),
        };
        // After a failure too, because the connection is reused.
        if !end.is_empty() {
            session.script(end).await.map_err(lost)?;
        }
        undone.map_err(lost)?;
        match written {
            Ok(()) => Ok(true),
            Err(Left::Behind) => Ok(false),
            Err(Left::NotTaken(not_taken)) => Err(not_taken),
        }
    }
}

/// The statements that set a savepoint and short time limits, and those that restore the limits. A lower
/// existing limit is kept.
fn limits(dialect: Dialect) -> (String, &'static str) {
    let seconds = APPLY.as_secs();
    match dialect {
        // In MySQL the limit of a statement's time applies only to statements that read.
        Dialect::MySql => (
            format!(
                "SAVEPOINT annals_inline; \
                 SET @annals_wait = @@innodb_lock_wait_timeout, @annals_wait_meta = @@lock_wait_timeout \
                 /*M! , @annals_limit = @@max_statement_time */ /*!80000 , @annals_limit = @@max_execution_time */; \
                 SET SESSION innodb_lock_wait_timeout = 1, SESSION lock_wait_timeout = 1 \
                 /*M! , SESSION max_statement_time = \
                     IF(@@max_statement_time = 0, {seconds}, LEAST(@@max_statement_time, {seconds})) */ \
                 /*!80000 , SESSION max_execution_time = CAST(\
                     IF(@@max_execution_time = 0, {seconds}000, LEAST(@@max_execution_time, {seconds}000)) AS UNSIGNED) */"
            ),
            "SET SESSION innodb_lock_wait_timeout = @annals_wait, SESSION lock_wait_timeout = @annals_wait_meta \
             /*M! , SESSION max_statement_time = @annals_limit */ /*!80000 , SESSION max_execution_time = @annals_limit */",
        ),
        // Both limits last until the end of the transaction, in which only the commit follows.
        _ => {
            let lower = |setting: &str, millis: u64| {
                format!(
                    "SELECT set_config('{setting}', '{millis}', true) WHERE current_setting('{setting}') = '0' \
                     OR current_setting('{setting}')::interval > interval '{millis} milliseconds'"
                )
            };
            let (lock, statement) =
                (lower("lock_timeout", LOCK_MS), lower("statement_timeout", seconds * 1_000));
            (format!("SAVEPOINT annals_inline; {lock}; {statement}"), "")
        }
    }
}

#[async_trait]
impl<P: Projection> InlineProjection for InlineWriter<P> {
    /// The whole group is applied in the transaction, or none of it.
    async fn take(&self, session: &mut (dyn Session + '_), group: &Group) -> Result<bool, NotTaken> {
        if self.given_up.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match tokio::time::timeout(GIVE_UP, self.write_or_undo(session, group)).await {
            Ok(taken) => taken,
            Err(_) => {
                let reason = format!("the rows of the projection `{}` take too long", P::NAME);
                self.given_up.store(true, Ordering::Relaxed);
                self.leave(reason.clone());
                Err(NotTaken::Unavailable(reason.into()))
            }
        }
    }

    fn committed(&self, newest: Witness) {
        self.projected.progress.reached(newest);
    }
}
