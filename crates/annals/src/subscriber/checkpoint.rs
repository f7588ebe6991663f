//! How far a subscriber has come: a row of `state.sqlite`, or of the table `checkpoints` of a database.
//!
//! - C1  A checkpoint names its event and carries a ladder of older ones (`history`). If the log lost events, the subscriber
//!       steps back to the newest event in common, and its status says so.
//! - C2  A row that cannot be read stops its own subscriber, and is left as it is.
//!
//! Several rows of one subscriber, and how the work is divided otherwise: `division`.

use annals_consume::Ladder;
use annals_core::{Error, EventId, EventStore, Position, Result, Seen, Witness};
use annals_sql::{Fault, Value};
use rusqlite::{OptionalExtension, params, types};

use super::division::Finished;
use super::group::Share;
use crate::sql::{Database, Params, SqlError, whole};
use crate::state::{Held, Opened, StateDatabase, state_error, state_failed};

/// The checkpoint of one subscriber, or of one share of a group.
#[derive(Clone)]
pub(super) struct Checkpoints {
    pub(super) kept: Kept,
    pub(super) subscriber: String,
    /// Whether a subscriber without a checkpoint begins at the end of the log.
    pub(super) from_now: bool,
    /// Whether `division` has made the row.
    is_share: bool,
}

#[derive(Clone)]
pub(super) enum Kept {
    Sqlite(Database),
    Database(StateDatabase),
}

/// A checkpoint as it is stored: everything up to the position is handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub position: Position,
    /// Ends at the position. Empty at the beginning of the log, and if nothing was stored of the event there.
    pub ladder: Ladder,
    /// Whether there was a ladder, and not the event of the position alone.
    whole: bool,
}

/// Where a subscriber resumes.
pub(super) struct Resumed {
    pub at: Witness,
    pub ladder: Ladder,
    /// What other divisions of the work had finished beyond that.
    pub finished: Finished,
    /// What an operator should know about it.
    pub notice: Option<String>,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointError {
    #[error(
        "the checkpoint of `{subscriber}` {problem}: correct its row in `checkpoints`, or remove it, \
         and the subscriber starts as for the first time"
    )]
    Unreadable { subscriber: String, problem: String },
    #[error(
        "the checkpoint of `{0}` is gone: another process divides the group into another number of shares; \
         start all of them with the same number"
    )]
    Gone(String),
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<Fault> for CheckpointError {
    fn from(fault: Fault) -> Self {
        SqlError::from(fault).into()
    }
}

impl From<SqlError> for CheckpointError {
    fn from(error: SqlError) -> Self {
        Self::Failed(state_failed(error))
    }
}

impl Checkpoints {
    pub fn new(state: &Opened, subscriber: &str, from_now: bool) -> Self {
        let kept = match state {
            Opened::Sqlite(database, _) => Kept::Sqlite(database.clone()),
            Opened::Database(database) => Kept::Database(database.clone()),
        };
        Self { kept, subscriber: subscriber.to_owned(), from_now, is_share: false }
    }

    /// That of one share of a group.
    pub fn of_share(&self, share: Share) -> Self {
        // No subscriber has `/` in its name.
        Self { subscriber: format!("{}/{share}", self.subscriber), is_share: true, ..self.clone() }
    }

    /// Where the subscriber will resume. Makes the checkpoint at the very first start.
    pub async fn begin(&self, store: &dyn EventStore) -> Result<Position, CheckpointError> {
        let found = self.stored(store).await?;
        let (position, was_whole) = (found.position, found.whole);
        let (stored, is_back) = self.in_common(found, store).await?;
        if !is_back && !was_whole {
            self.put(Some(position), &stored).await?;
        }
        Ok(stored.position)
    }

    /// The checkpoint, which is made at the very first start.
    async fn stored(&self, store: &dyn EventStore) -> Result<Stored, CheckpointError> {
        if let Some(stored) = self.read().await? {
            return Ok(stored);
        }
        if self.is_share {
            return Err(CheckpointError::Gone(self.subscriber.clone()));
        }
        let first = self.first(store).await?;
        self.put(None, &first).await?;
        // Others may have done the same: theirs holds.
        Ok(self.read().await?.unwrap_or(first))
    }

    /// The checkpoint as far as the log has it: as it is, or one that is further back and is to take its place.
    pub(super) async fn in_common(&self, found: Stored, store: &dyn EventStore) -> Result<(Stored, bool)> {
        let witness = match found.ladder.newest() {
            // A checkpoint without an event there is believed if the log goes that far.
            None => Witness::at(store, found.position).await?,
            witness => witness,
        };
        if let Some(at) = witness
            && at.holds(store).await?
        {
            return match found.whole {
                true => Ok((found, false)),
                false => Ok((Stored::at(store, Some(at)).await?, false)),
            };
        }
        let back = match found.ladder.last_in_common(store).await? {
            Some(common) => {
                let mut ladder = found.ladder;
                ladder.step_back(common);
                Stored { position: common.position, ladder, whole: found.whole }
            }
            // Also the first event is another one: none of this history was seen, wherever it began.
            None => Stored::at(store, None).await?,
        };
        Ok((back, true))
    }

    /// Where a subscriber begins that has no checkpoint.
    pub async fn first(&self, store: &dyn EventStore) -> Result<Stored> {
        match self.from_now {
            true => Ok(Stored::through(Ladder::from_now(store).await?)),
            false => Stored::at(store, None).await,
        }
    }

    /// Where to resume: at the checkpoint, or, if the log lost the event there, at the newest one in common, to which the
    /// checkpoint is moved. Only for the process that handles the events.
    pub async fn resume(&self, store: &dyn EventStore) -> Result<Resumed, CheckpointError> {
        let found = self.stored(store).await?;
        let (position, was_whole) = (found.position, found.whole);
        let mut finished = Finished::read(self).await?;
        finished.step_back(store).await?;
        let (stored, is_back) = self.in_common(found, store).await?;
        let mut notice = None;
        if is_back {
            let text = format!(
                "the log lost the event at position {position}, up to which this had handled everything (a backup was \
                 restored, or a standby was promoted that did not have it): it stepped back to {}, the newest event in \
                 common that it knows",
                stored.position
            );
            tracing::warn!(subscriber = self.subscriber, text, "the log has another history");
            notice = Some(text);
        }
        if is_back || !was_whole {
            self.put(Some(position), &stored).await?;
        }
        let at = stored.ladder.newest().unwrap_or(Witness::origin(store.id()));
        Ok(Resumed { at, ladder: stored.ladder, finished, notice })
    }

    /// What is stored now.
    pub async fn seen(&self) -> Result<Seen, CheckpointError> {
        let Some(stored) = self.read().await? else { return Ok(Position::ZERO.into()) };
        let newest = stored.ladder.newest().filter(|newest| newest.position == stored.position);
        Ok(newest.map_or(stored.position.into(), Seen::from))
    }

    /// Everything up to the end of this ladder is handled. A checkpoint never moves back by this.
    pub async fn write(&self, ladder: &Ladder) -> Result<(), CheckpointError> {
        let Some(witness) = ladder.newest() else { return Ok(()) };
        let stored = Stored { position: witness.position, ladder: ladder.clone(), whole: true };
        match &self.kept {
            Kept::Sqlite(database) => self.put_in_file(database, &stored, None).await,
            Kept::Database(database) => {
                let sql = "UPDATE {state}.checkpoints SET position = ?2, event_id = ?3, ladder = ?4
                    WHERE subscriber = ?1 AND position < ?2";
                let changed = database.write(sql, &stored.values(&self.subscriber)?).await;
                if changed.map_err(SqlError::from)?.changed == 0 && self.read().await?.is_none() {
                    return Err(CheckpointError::Gone(self.subscriber.clone()));
                }
                Ok(())
            }
        }
    }

    /// The name of the lease without which nothing is handled.
    pub fn lease(&self) -> String {
        format!("subscriber {}", self.subscriber)
    }

    /// Waits until this process is the one that handles the events of this subscriber; at once, if there is no other.
    pub async fn hold(&self) -> Option<Held> {
        match &self.kept {
            Kept::Sqlite(_) => None,
            Kept::Database(database) => Some(database.guard().hold(self.lease()).await),
        }
    }

    /// Why the lease is not here.
    pub async fn waits_for(&self) -> Option<String> {
        match &self.kept {
            Kept::Sqlite(_) => None,
            Kept::Database(database) => Some(database.guard().waits_for(self.lease()).await),
        }
    }

    /// Puts a checkpoint where there is none, or in the place of one that is at this position. If others have moved it
    /// meanwhile, theirs stays.
    async fn put(&self, instead: Option<Position>, stored: &Stored) -> Result<(), CheckpointError> {
        let database = match &self.kept {
            Kept::Sqlite(database) => return self.put_in_file(database, stored, instead).await,
            Kept::Database(database) => database,
        };
        let mut transaction = database.begin().await?;
        if let Some(position) = instead {
            let sql = "DELETE FROM {state}.checkpoints WHERE subscriber = ?1 AND position = ?2";
            transaction.run(sql, &(self.subscriber.as_str(), position).values()?).await?;
        }
        transaction.run(&insert(database), &stored.values(&self.subscriber)?).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Stores a checkpoint that is further, or that takes the place of the one at this position.
    async fn put_in_file(
        &self,
        database: &Database,
        stored: &Stored,
        instead: Option<Position>,
    ) -> Result<(), CheckpointError> {
        let subscriber = self.subscriber.clone();
        let seen = stored.ladder.newest().map(|witness| (witness.position, *witness.id.as_bytes()));
        let (position, ladder) = (whole(stored.position.get())?, stored.ladder.to_bytes());
        let instead = instead.map(|instead| whole(instead.get())).transpose()?;
        let write = move |connection: &rusqlite::Connection| -> Result<(), SqlError> {
            connection
                .prepare_cached(
                    "INSERT INTO checkpoints (subscriber, position, witness_position, witness_id, ladder)
                     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET
                     position = excluded.position, witness_position = excluded.witness_position,
                     witness_id = excluded.witness_id, ladder = excluded.ladder
                     WHERE excluded.position > position OR position = ?6",
                )?
                .execute(params![
                    subscriber,
                    position,
                    seen.map(|_| position),
                    seen.map(|(_, id)| id),
                    ladder,
                    instead
                ])?;
            Ok(())
        };
        let written = database.write(write).await;
        written.map_err(|error| CheckpointError::Failed(state_error(database.path(), error)))
    }

    pub(super) async fn read(&self) -> Result<Option<Stored>, CheckpointError> {
        let subscriber = self.subscriber.clone();
        let cells = match &self.kept {
            Kept::Sqlite(database) => {
                let read = move |connection: &rusqlite::Connection| {
                    let sql = "SELECT position, witness_id, ladder FROM checkpoints WHERE subscriber = ?1";
                    let cell =
                        |row: &rusqlite::Row<'_>, place| row.get::<_, types::Value>(place).map(value_of);
                    let found = connection.query_row(sql, [subscriber], |row| {
                        Ok([cell(row, 0)?, cell(row, 1)?, cell(row, 2)?])
                    });
                    Ok::<_, SqlError>(found.optional()?)
                };
                let found = database.read(read).await;
                let failed = |error| CheckpointError::Failed(state_error(database.path(), error));
                found.map_err(failed)?.map(Vec::from)
            }
            Kept::Database(database) => {
                let sql = "SELECT position, event_id, ladder FROM {state}.checkpoints WHERE subscriber = ?1";
                let answer = database.read(sql, &[Value::Text(subscriber)]).await;
                answer.map_err(SqlError::from)?.rows.into_iter().next()
            }
        };
        cells.map(|cells| Stored::of(&self.subscriber, &cells)).transpose()
    }
}

/// The statement that stores a checkpoint in a database unless there is one.
pub(super) fn insert(database: &StateDatabase) -> String {
    database.insert_unless_there(
        "{state}.checkpoints (subscriber, position, event_id, ladder) VALUES (?1, ?2, ?3, ?4)",
        "subscriber",
    )
}

fn value_of(value: types::Value) -> Value {
    match value {
        types::Value::Null => Value::Null,
        types::Value::Integer(number) => Value::Integer(number),
        types::Value::Real(number) => Value::Real(number),
        types::Value::Text(text) => Value::Text(text),
        types::Value::Blob(bytes) => Value::Blob(bytes),
    }
}

impl Stored {
    /// One at this event of the log, or at its beginning.
    async fn at(store: &dyn EventStore, witness: Option<Witness>) -> Result<Self> {
        let ladder = match witness {
            Some(witness) => Ladder::below(store, witness).await?,
            None => Ladder::default(),
        };
        Ok(Self::through(ladder))
    }

    /// One at the end of this ladder.
    fn through(ladder: Ladder) -> Self {
        let position = ladder.newest().map_or(Position::ZERO, |witness| witness.position);
        Self { position, ladder, whole: true }
    }

    /// What these columns say: position, event, ladder.
    pub fn of(subscriber: &str, cells: &[Value]) -> Result<Self, CheckpointError> {
        let unreadable = |problem: &str| CheckpointError::Unreadable {
            subscriber: subscriber.to_owned(),
            problem: problem.to_owned(),
        };
        let position = match cells.first() {
            Some(Value::Integer(position)) => u64::try_from(*position).ok().map(Position::new),
            _ => None,
        };
        let position = position.ok_or_else(|| unreadable("has no position"))?;
        let event = match cells.get(1) {
            Some(Value::Null) | None => None,
            Some(id) => {
                let id = crate::state::id_of(id).ok_or_else(|| unreadable("has an event that is no id"))?;
                Some(Witness { position, id: EventId::from_bytes(id) })
            }
        };
        let ladder = match cells.get(2) {
            Some(Value::Null) | None => None,
            Some(Value::Blob(bytes)) => {
                Some(Ladder::from_bytes(bytes).ok_or_else(|| unreadable("has a ladder that is none"))?)
            }
            Some(_) => return Err(unreadable("has a ladder that is none")),
        };
        // A version of Annals without ladders may have moved it since.
        match ladder.filter(|ladder| ladder.newest() == event) {
            Some(ladder) => Ok(Self { position, ladder, whole: true }),
            None => {
                let mut ladder = Ladder::default();
                if let Some(event) = event {
                    ladder.push(event);
                }
                Ok(Self { position, ladder, whole: false })
            }
        }
    }

    pub fn values(&self, subscriber: &str) -> Result<Vec<Value>, SqlError> {
        let id = self.ladder.newest().map(|witness| witness.id.as_bytes().to_vec());
        (subscriber, self.position, id, self.ladder.to_bytes()).values()
    }
}
