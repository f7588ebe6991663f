//! The rows of a projection and its checkpoint in a schema of a database, which several processes share.
//!
//! They are made again if they reach beyond the end of the log, if the log has another event where their newest one was, if
//! they are of a log that was there before, or if they are gone. If the schema's text has changed, they are made again unless
//! another process uses them: that is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{EventStore, Invalid, Position, RecordedEvent, Result, Witness};
use annals_state::{
    AWAY_MAX, Checked, Dialect, Fault, Lease, Params, Queued, Session, SqlError, SqlState, StatementChannel,
    Tx, Unusable, ViewPlace, id_of, position_of, run_blocking, translate,
};

use super::Projection;
use super::run::{Batching, FailedAt, NotApplied, give};
use super::serving::{Answering, Serving};
use crate::HandlerError;

/// Rows of an older version that others use are looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How often a process says that it uses its rows.
const RENEW: Duration = Duration::from_secs(60);
/// Rows are not made again with another schema while a process uses them that was seen within this time.
const SCHEMA_AWAY: Duration = Duration::from_secs(10 * 60);
/// What is done when the process stops may take this long.
const GOODBYE: Duration = Duration::from_secs(5);

/// The rows of a projection, and of the version before as long as they answer.
pub(super) struct ViewSchema {
    place: ViewPlace,
    definition: &'static str,
    checkpoint: Position,
    /// Whether the rows were there once since the start.
    is_made: bool,
    older: Option<ViewPlace>,
    /// When to try to remove older versions; `None` if there are none.
    removes: Option<Instant>,
    renewed: Instant,
    /// The lease under which this process fills the rows.
    lease: Option<Lease>,
}

impl ViewSchema {
    /// Opens the schema of this version, or makes it.
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
            // One that was removed meanwhile, or is not whole, is none.
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

    /// Makes sure that the rows are there, and are of this log and this schema. Makes them again if they are not.
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
            tracing::warn!(
                schema = self.place.schema(),
                reason,
                "the rows are made again from the first event"
            );
        }
        if make {
            work.make(self.definition).await?;
        } else {
            // Somebody may have changed them since.
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

    /// Says that this process uses the rows, from time to time.
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

    /// Says that this process does not use the rows any more, as far as that can be said now.
    pub async fn let_go(&self) {
        let goodbye = async {
            let instance = self.place.database().leases().instance().await?;
            for place in [Some(&self.place), self.older.as_ref()].into_iter().flatten() {
                place.let_go(instance).await?;
            }
            Ok::<_, Fault>(())
        };
        match tokio::time::timeout(GOODBYE, goodbye).await {
            Ok(Ok(())) => {}
            failed => {
                let error = failed
                    .map_or_else(|_| "it takes too long".to_owned(), |done| format!("{:?}", done.err()));
                tracing::debug!(
                    schema = self.place.schema(),
                    error,
                    "it stays noted that this process uses the rows"
                );
            }
        }
    }

    pub fn place(&self) -> &ViewPlace {
        &self.place
    }

    /// From here on the rows are filled under this lease.
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
            // Rows that others used the last time may be free by now.
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

    /// Whether all of them are removed.
    async fn try_remove_older(&self) -> Result<bool> {
        let instance = self.place.database().leases().instance().await?;
        let mut all = true;
        for older in self.place.older().await? {
            let mut work = older.work().await?;
            if work.bound().await?.is_some() {
                work.upgrade().await?;
                work.let_go(instance).await?;
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
    /// Leave it if somebody has it.
    Skip,
}

/// The checkpoint, as the transaction of an append finds it.
pub(super) enum Locked {
    /// It is locked, at this position, and the log has the event there.
    At(Position),
    /// Somebody else has it, or makes the rows again.
    ByOther,
    /// The log does not have the event at which it is.
    OtherHistory(Witness),
}

/// Locks the checkpoint in a transaction on the database of the log, which has entered the place, and compares it with the log.
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

/// The statement that notes in the transaction of the rows that everything up to this event is in them.
fn checkpoint_at(place: &ViewPlace, at: Witness) -> Result<Queued, SqlError> {
    let sql = "UPDATE annals_checkpoint SET position = ?1, event_id = ?2";
    let values = (at.position, at.id.as_bytes().as_slice()).values()?;
    let statement = translate(place.database().dialect(), place.schema(), sql, values.len());
    let statement = statement.map_err(|problem| SqlError::Statement(problem.into()))?;
    Ok(Queued { statement: Arc::new(statement), values })
}

/// Notes in the transaction of the rows that everything up to this event is in them.
pub(super) async fn set_checkpoint(
    session: &mut (dyn Session + '_),
    place: &ViewPlace,
    at: Witness,
) -> Result<(), SqlError> {
    Ok(session.run_all(&[checkpoint_at(place, at)?]).await?)
}

/// Why events were not taken in a transaction.
pub(super) struct NotTaken {
    pub failed: FailedAt,
    /// Whether it is the database that does not answer as it should, whatever the event.
    pub lost: bool,
}

/// Takes events in a transaction that has entered the place. A panic of the projection is a failure of the event that it
/// met.
pub(super) async fn take<P: Projection>(
    session: &mut (dyn Session + '_),
    place: &ViewPlace,
    projection: Arc<P>,
    events: Arc<Vec<RecordedEvent>>,
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

/// The same, and returns the statements that are still queued: if the events are taken one by one, there are none.
async fn take_all_but_queued<P: Projection>(
    session: &mut (dyn Session + '_),
    place: &ViewPlace,
    projection: Arc<P>,
    events: Arc<Vec<RecordedEvent>>,
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

/// Applies events in one transaction with the checkpoint before and after them, if the lease is not lost. It takes four round
/// trips beside those of the statements of the projection: the first one begins the transaction and locks the checkpoint, the
/// second one executes what is queued and moves the checkpoint, the third one compares the lease, the last one commits.
pub(super) async fn apply<P: Projection>(
    place: &ViewPlace,
    projection: Arc<P>,
    events: Arc<Vec<RecordedEvent>>,
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
        // Without a statement of the projection's it is no event that has failed.
        if !is_queued {
            return Err(failure.into());
        }
        transaction.rollback().await;
        return Err(NotApplied::Failed(FailedAt { index, failure: failure.into() }));
    }
    // Last, so that the row of the lease is locked for a moment only.
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

/// Which event it is for which a constraint that is deferred has refused the commit: the first of the append after which it
/// is violated. What one append does is looked at together, as what one transaction does.
async fn refused_at_commit<P: Projection>(
    place: &ViewPlace,
    projection: Arc<P>,
    events: Arc<Vec<RecordedEvent>>,
    failure: HandlerError,
) -> FailedAt {
    let mut index = 0;
    let found: Result<Option<FailedAt>, Fault> = async {
        let mut transaction = place.begin().await?;
        for append in events.chunk_by(|one, next| one.append == next.append) {
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

/// Looks now at the constraints that PostgreSQL would look at when the transaction ends. If one is violated, the transaction
/// can only be rolled back; otherwise it is as before.
pub(super) async fn check_deferred(session: &mut (dyn Session + '_), place: &ViewPlace) -> Result<(), Fault> {
    if place.database().dialect() != Dialect::Postgres {
        return Ok(());
    }
    // The end of a subtransaction takes back that they are looked at immediately.
    session
        .script(
            "SAVEPOINT annals_deferred; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO SAVEPOINT annals_deferred",
        )
        .await
}
