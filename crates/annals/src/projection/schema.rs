//! The rows of a projection and its checkpoint in a schema of a database, which several processes share.
//!
//! They are begun anew if they reach beyond the end of the log, if the log has another event where their newest one was, or
//! if they are of a log that was there before. If the schema's text has changed, they are begun anew unless another process
//! uses them: that is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{EventStore, Invalid, Position, RecordedEvent, Result, Witness};
use annals_sql::{Dialect, Fault, Session, Value};

use super::run::{FailedAt, NotApplied};
use super::{Answering, Projection, Serving, Unusable};
use crate::sql::{Line, Params, Rows, SqlError, carry};
use crate::state::{StateDatabase, ViewPlace, position_of};
use crate::{Failure, Recorded};

/// Rows of an older version that others use are looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The rows of a projection, and of the version before as long as they answer.
pub(super) struct ViewSchema {
    place: ViewPlace,
    checkpoint: Position,
    older: Option<ViewPlace>,
    /// When to try to remove older versions; never, if there are none.
    removes: Option<Instant>,
}

impl ViewSchema {
    /// Opens the schema of this version, or makes it.
    pub async fn open<P: Projection>(store: &dyn EventStore, database: &StateDatabase) -> Result<Self> {
        let place = ViewPlace::of(database, P::NAME, P::VERSION)?;
        let definition = P::schema(database.dialect());
        let instance = database.guard().instance().await?.to_owned();
        let mut work = place.work().await?;
        let mut checkpoint = None;
        if let Some(bound) = work.bound().await? {
            match bound.unusable(definition, store).await? {
                None => checkpoint = Some(bound.position),
                Some(Unusable::OtherSchema) if work.is_used_by_others(&instance).await? => {
                    let problem = format!(
                        "`{}` version {} has another SCHEMA, and another process uses its rows: raise VERSION",
                        P::NAME,
                        P::VERSION
                    );
                    return Err(Invalid::new("projection", problem).into());
                }
                Some(reason) => {
                    tracing::warn!(projection = P::NAME, %reason, "the rows are made again from the first event");
                }
            }
        }
        if checkpoint.is_none() {
            work.make(definition).await?;
        } else {
            // Somebody may have changed them since.
            work.refuse_volatile(definition).await?;
            work.identify().await?;
        }
        work.hold(&instance).await?;
        drop(work);
        let all_older = place.older().await?;
        let mut older = None;
        for candidate in all_older.iter().rev() {
            let mut work = candidate.work().await?;
            // One that was removed meanwhile, or is not whole, is none.
            if work.bound().await?.is_some_and(|bound| bound.store == *store.id().as_bytes()) {
                work.hold(&instance).await?;
                older = Some(candidate.clone());
                break;
            }
        }
        let removes = (!all_older.is_empty()).then(Instant::now);
        Ok(Self { place, checkpoint: checkpoint.unwrap_or_default(), older, removes })
    }

    pub fn place(&self) -> &ViewPlace {
        &self.place
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
        let instance = self.place.database().guard().instance().await?;
        let mut all = true;
        for older in self.place.older().await? {
            let mut work = older.work().await?;
            if work.bound().await?.is_some() {
                work.let_go(instance).await?;
                if work.is_used_by_others(instance).await? {
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

/// Locks the checkpoint in this transaction, which has entered the place, and says where it stands.
pub(super) async fn lock(session: &mut (dyn Session + '_), place: &ViewPlace) -> Result<Position, Fault> {
    let dialect = place.database().dialect();
    let sql = "SELECT position FROM annals_checkpoint FOR UPDATE";
    let answer = crate::sql::carry_out(session, dialect, place.schema(), sql, &[]).await?;
    let row = answer.rows.first();
    row.map(|row| position_of(row).0).ok_or_else(|| Fault::unavailable("the rows are being made anew"))
}

/// Notes in the transaction of the rows that everything up to this event is in them.
pub(super) async fn set_checkpoint(
    session: &mut (dyn Session + '_),
    place: &ViewPlace,
    at: Witness,
) -> Result<(), SqlError> {
    let dialect = place.database().dialect();
    let sql = "UPDATE annals_checkpoint SET position = ?1, event_id = ?2";
    let values: Vec<Value> = (at.position, at.id.as_bytes().as_slice()).values()?;
    crate::sql::carry_out(session, dialect, place.schema(), sql, &values).await?;
    Ok(())
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
    events: Vec<RecordedEvent>,
) -> Result<(), NotTaken> {
    if events.is_empty() {
        return Ok(());
    }
    let work = move |line: &Line| {
        let rows = Rows::on(line);
        for (index, stored) in events.into_iter().enumerate() {
            let taken = crate::failure::caught(|| {
                let event = Recorded::<P::Event>::read(stored)?;
                projection.apply(&event, &rows)?;
                Ok(rows.still_one_transaction()?)
            });
            taken
                .map_err(|failure| NotTaken { failed: FailedAt { index, failure }, lost: line.is_lost() })?;
        }
        Ok(())
    };
    let dialect = place.database().dialect();
    let carried = carry(session, dialect, place.schema(), work).await;
    carried.unwrap_or_else(|stopped| {
        let failed = FailedAt { index: 0, failure: Failure::from(stopped) };
        Err(NotTaken { failed, lost: true })
    })
}

/// Applies events in one transaction with the checkpoint before and after them.
pub(super) async fn apply<P: Projection>(
    place: &ViewPlace,
    projection: Arc<P>,
    events: Vec<RecordedEvent>,
    before: Position,
    at: Witness,
) -> Result<(), NotApplied> {
    let mut transaction = place.begin().await.map_err(SqlError::from)?;
    let found = lock(transaction.session(), place).await.map_err(SqlError::from)?;
    if found != before {
        transaction.rollback().await;
        return Err(NotApplied::Moved(found));
    }
    if let Err(NotTaken { failed, .. }) =
        take(transaction.session(), place, projection.clone(), events.clone()).await
    {
        transaction.rollback().await;
        return Err(NotApplied::Failed(failed));
    }
    set_checkpoint(transaction.session(), place, at).await?;
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
    events: Vec<RecordedEvent>,
    failure: Failure,
) -> FailedAt {
    let mut index = 0;
    let found: Result<Option<FailedAt>, Fault> = async {
        let mut transaction = place.begin().await?;
        for append in events.chunk_by(|one, next| one.append == next.append) {
            let taken = take(transaction.session(), place, projection.clone(), append.to_vec()).await;
            if let Err(NotTaken { mut failed, .. }) = taken {
                failed.index += index;
                return Ok(Some(failed));
            }
            if let Err(fault) = check_deferred(transaction.session(), place).await {
                let failure = SqlError::from(fault).into();
                return Ok(Some(FailedAt { index, failure }));
            }
            index += append.len();
        }
        transaction.rollback().await;
        Ok(None)
    }
    .await;
    found.ok().flatten().unwrap_or(FailedAt { index: 0, failure })
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
