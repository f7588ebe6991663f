//! The rows of a projection and its checkpoint in a schema of a database, which several processes share.
//!
//! They are rebuilt if they extend beyond the end of the log, if the log has another event at their
//! checkpoint, if they belong to a former log, or if they are missing. If the text of the schema has changed,
//! they are rebuilt unless another process uses them: then the start is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{EventStore, Invalid, Position, Result, Witness};
use annals_state::{
    AWAY_MAX, Checked, Dialect, Fault, Lease, Params, Queued, Session, SqlError, SqlState, StatementChannel,
    Tx, Unusable, ViewPlace, id_of, position_of, run_blocking, translate,
};

use super::Projection;
use super::decoded::Decoded;
use super::run::{Batching, FailedAt, NotApplied, give};
use super::serving::{Answering, Serving};
use crate::HandlerError;

/// Interval between attempts to remove rows of an older version that other processes use.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Interval at which a process records that it uses its rows.
const RENEW: Duration = Duration::from_secs(60);
/// Rows are not rebuilt with another schema if another process recorded its use of them within this time.
const SCHEMA_AWAY: Duration = Duration::from_secs(10 * 60);
/// Time limit for removing the record of use when the process stops.
const GOODBYE: Duration = Duration::from_secs(5);

/// The rows of a projection, and those of the previous version as long as they serve queries.
pub(super) struct ViewSchema {
    place: ViewPlace,
    definition: &'static str,
    checkpoint: Position,
    /// Whether the rows have existed at some time since the start.
    is_made: bool,
    older: Option<ViewPlace>,
    /// When to try to remove older versions; `None` if there are none.
    removes: Option<Instant>,
    renewed: Instant,
    /// The lease under which this process fills the rows.
    lease: Option<Lease>,
}

impl ViewSchema {
    /// Opens or creates the schema of this version.
    pub async fn open<P: Projection>(store: &dyn EventStore, database: &SqlState) -> Result<Self> {
        let place = ViewPlace::of(database, P::NAME, P::VERSION)?;
        let definition = P::schema(database.dialect());
        let (checkpoint, is_made, renewed) = (Position::ZERO, false, Instant::now());
        let mut schema =
            Self { place, definition, checkpoint, is_made, older: None, removes: None, renewed, lease: None };
        schema.check(store).await?;
        let instance = database.leases().instance().await?.to_owned();
        let all_older = schema.place.older().await?;
        for candidate in all_older.iter().rev() {
            let mut work = candidate.work().await?;
            // Skips a schema that was removed meanwhile, or is incomplete.
            if work.bound().await?.is_some_and(|bound| bound.store == *store.id().as_bytes()) {
                work.upgrade().await?;
                work.hold(&instance).await?;
                schema.older = Some(candidate.clone());
                break;
            }
        }
        schema.removes = (!all_older.is_empty()).then(Instant::now);
        Ok(schema)
    }

    /// Ensures that the rows exist and are of this log and this schema. Rebuilds them otherwise.
    pub async fn check(&mut self, store: &dyn EventStore) -> Result<Checked> {
        let instance = self.place.database().leases().instance().await?.to_owned();
        let mut work = self.place.work().await?;
        let mut checked = Checked { position: Position::ZERO, witness: None, made_again: None };
        let make = match work.bound().await? {
            None => {
                checked.made_again = self.is_made.then(|| "they were gone".to_owned());
                true
            }
            Some(bound) => {
                work.upgrade().await?;
                match bound.unusable(self.definition, store).await? {
                    None => (checked.position, checked.witness) = (bound.position, bound.witness),
                    Some(Unusable::OtherSchema) => {
                        if let Some(user) = work.user(&instance, SCHEMA_AWAY).await? {
                            return Err(self.other_schema(&user).into());
                        }
                        checked.made_again = Some(Unusable::OtherSchema.reason().to_owned());
                    }
                    Some(reason) => checked.made_again = Some(reason.reason().to_owned()),
                }
                checked.made_again.is_some()
            }
        };
        if let Some(reason) = &checked.made_again {
            tracing::warn!(schema = self.place.schema(), reason, "the rows are rebuilt from the first event");
        }
        if make {
            work.make(self.definition).await?;
        } else {
            // The tables may have been changed since.
            work.refuse_volatile(self.definition).await?;
        }
        work.hold(&instance).await?;
        (self.checkpoint, self.is_made, self.renewed) = (checked.position, true, Instant::now());
        Ok(checked)
    }

    fn other_schema(&self, user: &str) -> Invalid {
        let problem = format!(
            "has another SCHEMA than the rows in `{}`, and another process uses them: raise VERSION, or stop {user} \
             (one that was killed counts for {} minutes)",
            self.place.schema(),
            SCHEMA_AWAY.as_secs() / 60
        );
        Invalid::new("projection", problem)
    }

    /// Records that this process uses the rows, if the last record is older than [`RENEW`].
    pub async fn renew(&mut self) -> Result<(), SqlError> {
        if self.renewed.elapsed() < RENEW {
            return Ok(());
        }
        let instance = self.place.database().leases().instance().await?;
        for place in [Some(&self.place), self.older.as_ref()].into_iter().flatten() {
            place.renew(instance).await?;
        }
        self.renewed = Instant::now();
        Ok(())
    }

    /// Removes the record that this process uses the rows; a failure is only logged.
    pub async fn release(&self) {
        let goodbye = async {
            let instance = self.place.database().leases().instance().await?;
            for place in [Some(&self.place), self.older.as_ref()].into_iter().flatten() {
                place.release(instance).await?;
            }
            Ok::<_, Fault>(())
        };
        match tokio::time::timeout(GOODBYE, goodbye).await {
            Ok(Ok(())) => {}
            failed => {
                let error =
                    failed.map_or_else(|_| "timed out".to_owned(), |done| format!("{:?}", done.err()));
                tracing::debug!(
                    schema = self.place.schema(),
                    error,
                    "cannot remove the record that this process uses the rows"
                );
            }
        }
    }

    pub fn place(&self) -> &ViewPlace {
        &self.place
    }

    /// Sets the lease under which the rows are filled from now on.
    pub fn hold(&mut self, lease: &Lease) {
        self.lease = Some(lease.clone());
    }

    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    pub fn checkpoint(&self) -> Position {
        self.checkpoint
    }

    pub fn serving(&self) -> Serving {
        match &self.older {
            Some(older) => {
                Serving { database: Answering::Schema(older.clone()), older: Some(older.version()) }
            }
            None => Serving { database: Answering::Schema(self.place.clone()), older: None },
        }
    }

    pub fn caught_up(&mut self) -> Option<Serving> {
        match self.older.take() {
            Some(_) => Some(self.serving()),
            // Older rows that other processes used at the last attempt may be unused by now.
            None => self.removes.filter(|at| *at <= Instant::now()).map(|_| self.serving()),
        }
    }

    /// Removes the schemas of older versions that no process uses any more.
    pub async fn remove_older(&mut self) {
        self.removes = match self.try_remove_older().await {
            Ok(true) => None,
            Ok(false) => Some(Instant::now() + LOOK_AGAIN),
            Err(error) => {
                let error = error.chain();
                tracing::warn!(projection = %self.place.schema(), error, "the rows of an older version could not be removed");
                Some(Instant::now() + LOOK_AGAIN)
            }
        };
    }

    /// Removes the schemas of older versions that no process uses. Returns whether none is left.
    async fn try_remove_older(&self) -> Result<bool> {
        let instance = self.place.database().leases().instance().await?;
        let mut all = true;
        for older in self.place.older().await? {
            let mut work = older.work().await?;
            if work.bound().await?.is_some() {
                work.upgrade().await?;
                work.release(instance).await?;
                if let Some(user) = work.user(instance, AWAY_MAX).await? {
                    tracing::debug!(schema = older.schema(), user, "the rows of an older version stay");
                    all = false;
                    continue;
                }
            }
            work.remove().await?;
            tracing::info!(schema = older.schema(), "the rows of an older version are removed");
        }
        Ok(all)
    }
}

/// How to lock the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Wait,
    /// Skip the checkpoint if another session has locked it.
    Skip,
}

/// The result of locking the checkpoint in the transaction of an append.
pub(super) enum Locked {
    /// It is locked, at this position, and the log has the event there.
    At(Position),
    /// Another session has locked it, or is rebuilding the rows.
    ByOther,
    /// The log does not have the event of the checkpoint.
    OtherHistory(Witness),
}

/// Locks the checkpoint in a transaction on the database of the log, which has entered the place, and
/// compares it with the log.
pub(super) async fn lock_with_log(
    session: &mut (dyn Session + '_),
    place: &ViewPlace,
    lock: Lock,
) -> Result<Locked, Fault> {
    let dialect = place.database().dialect();
    let skip = if lock == Lock::Skip { " SKIP LOCKED" } else { "" };
    let sql = format!(
        "SELECT c.position, c.event_id, (SELECT e.event_id FROM {}.events AS e WHERE e.position = c.position)
        FROM annals_checkpoint AS c FOR UPDATE{skip}",
        place.home()
    );
    let answer = annals_state::execute(session, dialect, place.schema(), &sql, &[]).await?;
    let Some(row) = answer.rows.first() else { return Ok(Locked::ByOther) };
    let (position, witness) = position_of(row)?;
    let in_log = row.get(2).and_then(id_of);
    Ok(match witness {
        Some(witness) if in_log != Some(*witness.id.as_bytes()) => Locked::OtherHistory(witness),
        _ => Locked::At(position),
    })
}

/// The statement that writes the checkpoint after this event, in the transaction of the rows.
fn checkpoint_at(place: &ViewPlace, at: Witness) -> Result<Queued, SqlError> {
    let sql = "UPDATE annals_checkpoint SET position = ?1, event_id = ?2";
    let values = (at.position, at.id.as_bytes().as_slice()).values()?;
    let statement = translate(place.database().dialect(), place.schema(), sql, values.len());
    let statement = statement.map_err(|problem| SqlError::Statement(problem.into()))?;
    Ok(Queued { statement: Arc::new(statement), values })
}

/// Writes the checkpoint after this event, in the transaction of the rows.
pub(super) async fn set_checkpoint(
    session: &mut (dyn Session + '_),
    place: &ViewPlace,
    at: Witness,
) -> Result<(), SqlError> {
    Ok(session.run_all(&[checkpoint_at(place, at)?]).await?)
}

/// Why events were not applied in a transaction.
pub(super) struct NotTaken {
    pub failed: FailedAt,
    /// Whether the database or the connection failed, independently of the event.
    pub lost: bool,
}

/// Applies events in a transaction that has entered the place. A panic of the projection is a failure of the
/// event at which it occurred.
pub(super) async fn take<P: Projection>(
    session: &mut (dyn Session + '_),
    place: &ViewPlace,
    projection: Arc<P>,
    events: Arc<Vec<Decoded<P::Event>>>,
    batching: Batching,
    deadline: Option<Instant>,
) -> Result<(), NotTaken> {
    let index = (events.len() == 1).then_some(0);
    let left = take_all_but_queued(session, place, projection, events, batching, deadline).await?;
    session.run_all(&left).await.map_err(|fault| {
        let lost = matches!(fault, Fault::Unavailable(_) | Fault::Store(_));
        NotTaken { failed: FailedAt { index, failure: SqlError::from(fault).into() }, lost }
    })
}

/// As [`take`], but returns the statements that are still queued; there are none if the events are applied
/// one by one.
async fn take_all_but_queued<P: Projection>(
    session: &mut (dyn Session + '_),
    place: &ViewPlace,
    projection: Arc<P>,
    events: Arc<Vec<Decoded<P::Event>>>,
    batching: Batching,
    deadline: Option<Instant>,
) -> Result<Vec<Queued>, NotTaken> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let index = (events.len() == 1).then_some(0);
    let work = move |line: &StatementChannel| {
        let given = give(&*projection, &events, &Tx::on(line), batching);
        let left = given
            .and_then(|()| line.take_queued().map_err(|error| FailedAt { index, failure: error.into() }));
        left.map_err(|failed| NotTaken { failed, lost: line.is_lost() })
    };
    let dialect = place.database().dialect();
    let done = run_blocking(session, dialect, place.schema(), deadline, work).await;
    done.unwrap_or_else(|stopped| {
        let failed = FailedAt { index: Some(0), failure: HandlerError::from(stopped) };
        Err(NotTaken { failed, lost: true })
    })
}

/// Applies events in one transaction with the checkpoint before and after them, if the lease is not lost. It
/// takes four round trips beside those of the projection's statements: the first begins the transaction and
/// locks the checkpoint, the second executes the queued statements and moves the checkpoint, the third
/// compares the lease, the last commits.
pub(super) async fn apply<P: Projection>(
    place: &ViewPlace,
    projection: Arc<P>,
    events: Arc<Vec<Decoded<P::Event>>>,
    before: Position,
    at: Witness,
    batching: Batching,
    lease: Option<&Lease>,
) -> Result<(), NotApplied> {
    let (mut transaction, found) = place.begin_locked().await.map_err(SqlError::from)?;
    if found != Some(before) {
        transaction.rollback().await;
        return Err(NotApplied::Moved);
    }
    let index = (events.len() == 1).then_some(0);
    let (session, again) = (transaction.session(), events.clone());
    let left = take_all_but_queued(session, place, projection.clone(), again, batching, None).await;
    let mut left = match left {
        Ok(left) => left,
        Err(NotTaken { failed, .. }) => {
            transaction.rollback().await;
            return Err(NotApplied::Failed(failed));
        }
    };
    let is_queued = !left.is_empty();
    left.push(checkpoint_at(place, at)?);
    if let Err(fault) = transaction.session().run_all(&left).await {
        let failure = SqlError::from(fault);
        // Without a statement of the projection, no event has failed.
        if !is_queued {
            return Err(failure.into());
        }
        transaction.rollback().await;
        return Err(NotApplied::Failed(FailedAt { index, failure: failure.into() }));
    }
    // The lease is compared last, so that its row is locked only briefly.
    if let Some(lease) = lease
        && !transaction.is_held(lease).await.map_err(SqlError::from)?
    {
        transaction.rollback().await;
        place.refused(lease);
        let lost = format!("the lease `{}` is lost: another process fills the rows", lease.name);
        return Err(SqlError::Unavailable(lost.into()).into());
    }
    match transaction.commit().await {
        Err(Fault::Refused(cause)) => {
            let failure = SqlError::from(Fault::Refused(cause)).into();
            Err(NotApplied::Failed(refused_at_commit(place, projection, events, failure).await))
        }
        done => Ok(done.map_err(SqlError::from)?),
    }
}

/// The event because of which a deferred constraint has refused the commit: the first of the append after
/// which it is violated. The constraint is checked after each append, not after each event.
async fn refused_at_commit<P: Projection>(
    place: &ViewPlace,
    projection: Arc<P>,
    events: Arc<Vec<Decoded<P::Event>>>,
    failure: HandlerError,
) -> FailedAt {
    let mut index = 0;
    let found: Result<Option<FailedAt>, Fault> = async {
        let mut transaction = place.begin().await?;
        for append in events.chunk_by(|one, next| one.append() == next.append()) {
            let append_of = Arc::new(append.to_vec());
            let taken =
                take(transaction.session(), place, projection.clone(), append_of, Batching::OneByOne, None)
                    .await;
            if let Err(NotTaken { mut failed, .. }) = taken {
                failed.index = failed.index.map(|within| index + within);
                return Ok(Some(failed));
            }
            if let Err(fault) = check_deferred(transaction.session(), place).await {
                let failure = SqlError::from(fault).into();
                return Ok(Some(FailedAt { index: Some(index), failure }));
            }
            index += append.len();
        }
        transaction.rollback().await;
        Ok(None)
    }
    .await;
    found.ok().flatten().unwrap_or(FailedAt { index: Some(0), failure })
}

/// Checks deferred constraints now, which PostgreSQL would check at the end of the transaction. If one is
/// violated, the transaction can only be rolled back; otherwise it is unchanged.
pub(super) async fn check_deferred(session: &mut (dyn Session + '_), place: &ViewPlace) -> Result<(), Fault> {
    if place.database().dialect() != Dialect::Postgres {
        return Ok(());
    }
    // The rollback of the subtransaction makes the constraints deferred again.
    session
        .script(
            "SAVEPOINT annals_deferred; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO SAVEPOINT annals_deferred",
        )
        .await
}
