//! State in a SQLite file: `state.sqlite`, in the directory of an embedded log.
//!
//! - S1  It is bound to one log. Opened for another log, it is emptied: a directory belongs to one process,
//!       and the other log is gone.
//! - S2  Each call is one transaction, which locks the file for writing before it reads.

mod snapshots;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Clock, Error, EventId, Position, Result, StoreId, SystemClock};
use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params, types};

use crate::checkpoint::part_bounds;
use crate::lease::{StoredLease, micros};
use crate::memory::check;
use crate::name::check_name;
use crate::{
    Acquired, Advanced, Checkpoint, CheckpointStore, Database, Lease, LeaseStore, Place, SqlError,
    StateError, StateStore, blocking, state_failed, whole,
};

/// State in a SQLite file. A clone is another handle to it.
#[derive(Clone)]
pub struct SqliteState {
    log: StoreId,
    database: Database,
    clock: Arc<dyn Clock>,
}

impl SqliteState {
    /// Opens the state of this log in this file, which is created if necessary.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the file is corrupt, with what to do; [`Error::Unavailable`] if it cannot be
    /// used now.
    pub async fn open(path: PathBuf, log: StoreId) -> Result<Self> {
        Self::open_with_clock(path, log, Arc::new(SystemClock)).await
    }

    /// The same, with another clock for leases.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with_clock(path: PathBuf, log: StoreId, clock: Arc<dyn Clock>) -> Result<Self> {
        let open = move || -> Result<Database, Opening> {
            let named = |error| Opening(state_error(Some(&path), error));
            let database = Database::open(&Place::File(path.clone())).map_err(named)?;
            database.write_now(|connection| bind(connection, log)).map_err(named)?;
            Ok(database)
        };
        let database = blocking(open).await.map_err(|Opening(error)| error)?;
        Ok(Self { log, database, clock })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, StateError> {
        self.database.write(work).await.map_err(|failed| self.named(failed))
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<T, StateError> {
        self.database.read(work).await.map_err(|error| self.named(error.into()))
    }

    fn named(&self, failed: Failed) -> StateError {
        match failed {
            Failed::Sql(error) => StateError::Failed(state_error(self.database.path(), error)),
            Failed::State(error) => error,
        }
    }
}

/// Why the file could not be opened.
struct Opening(Error);

impl From<SqlError> for Opening {
    fn from(error: SqlError) -> Self {
        Self(state_failed(error))
    }
}

/// Why a transaction was rolled back.
enum Failed {
    Sql(SqlError),
    State(StateError),
}

impl From<SqlError> for Failed {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error.into())
    }
}

impl From<StateError> for Failed {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// Why state in SQLite cannot be used, with the file, what is in it, and what can be done.
fn state_error(path: Option<&Path>, error: SqlError) -> Error {
    let Some(path) = path else { return state_failed(error) };
    if !error.is_broken_file() {
        let problem = format!("{}: {error}", path.display()).into();
        return match error {
            SqlError::Unavailable(_) => Error::Unavailable(problem),
            _ => Error::Unusable(problem),
        };
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let named = match subscribers_in(path) {
        Some(names) if !names.is_empty() => format!(" ({})", names.join(", ")),
        _ => " (their names cannot be read)".to_owned(),
    };
    let cause = format!(
        "{error}. The file holds snapshots, which are made again, and how far each subscriber is{named}; the log does not \
         need it. Put a copy of the file in its place, or remove it, with `{file}-wal` and `{file}-shm`: every subscriber \
         then begins from the start, and does again what it did for each event of the log (sends mail, books). See \
         docs/operations.md, \"A broken state.sqlite\""
    );
    let location = annals_core::Location { file: path.display().to_string(), offset: 0, position: None };
    Error::Damaged { location, cause: cause.into() }
}

/// The subscribers that have a checkpoint in a file, as far as it can be read.
fn subscribers_in(path: &Path) -> Option<Vec<String>> {
    let connection = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    let mut statement =
        connection.prepare("SELECT subscriber FROM checkpoints ORDER BY subscriber LIMIT 100").ok()?;
    let names = statement.query_map((), |row| row.get(0)).ok()?;
    Some(names.filter_map(Result::ok).collect())
}

/// Empties a file if it was another log's.
fn bind(connection: &Connection, store: StoreId) -> Result<(), SqlError> {
    connection.execute_batch(include_str!("../sql/sqlite.sql"))?;
    let ladder = "SELECT 1 FROM pragma_table_info('checkpoints') WHERE name = 'ladder'";
    if connection.query_row(ladder, (), |_| Ok(())).optional()?.is_none() {
        connection.execute_batch("ALTER TABLE checkpoints ADD COLUMN ladder BLOB")?;
    }
    let bound: Option<Vec<u8>> = {
        let mut statement = connection.prepare("SELECT store FROM log")?;
        let mut rows = statement.query(())?;
        rows.next()?.map(|row| row.get(0)).transpose()?
    };
    if bound.as_deref() == Some(store.as_bytes()) {
        return Ok(());
    }
    if bound.as_ref().is_some_and(|bound| bound.len() != store.as_bytes().len()) {
        return Err(SqlError::Statement("its table `log` does not say which log it is the state of".into()));
    }
    if bound.is_some() {
        tracing::warn!(%store, "the state beside the log is another log's: snapshots and checkpoints are dropped");
        connection.execute_batch(
            "DELETE FROM log; DELETE FROM snapshots; DELETE FROM checkpoints;\
             UPDATE leases SET holder = NULL;",
        )?;
    }
    connection.execute("INSERT INTO log (store) VALUES (?1)", [store.as_bytes()])?;
    Ok(())
}

const COLUMNS: &str = "subscriber, position, witness_position, witness_id, ladder";

/// The values of a row of `checkpoints`.
struct Values {
    name: String,
    position: i64,
    event: Option<[u8; 16]>,
    ladder: Option<Vec<u8>>,
}

impl Values {
    fn of(name: &str, checkpoint: &Checkpoint) -> Result<Self, StateError> {
        check(name, checkpoint)?;
        Ok(Self {
            name: name.to_owned(),
            position: whole(checkpoint.position.get())?,
            event: checkpoint.event.map(|id| *id.as_bytes()),
            ladder: checkpoint.ladder.clone(),
        })
    }

    /// Inserts the row unless there is one. Returns whether it was inserted.
    fn insert(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let sql =
            format!("INSERT INTO checkpoints ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING");
        let witness = self.event.map(|_| self.position);
        let values = params![self.name, self.position, witness, self.event, self.ladder];
        Ok(connection.prepare_cached(&sql)?.execute(values)? > 0)
    }

    /// Changes the row, if this holds for its position and `?6`. Returns whether it was changed.
    fn update(&self, connection: &Connection, condition: &str, value: i64) -> rusqlite::Result<bool> {
        let sql = format!(
            "UPDATE checkpoints SET position = ?2, witness_position = ?3, witness_id = ?4, ladder = ?5
             WHERE subscriber = ?1 AND position {condition} ?6"
        );
        let witness = self.event.map(|_| self.position);
        let values = params![self.name, self.position, witness, self.event, self.ladder, value];
        Ok(connection.prepare_cached(&sql)?.execute(values)? > 0)
    }
}

/// A row of [`COLUMNS`], or what is wrong with it.
fn checkpoint_of(row: &Row<'_>) -> rusqlite::Result<Result<(String, Checkpoint), StateError>> {
    let name: String = row.get(0)?;
    let unreadable =
        |problem: &str| Ok(Err(StateError::Unreadable { name: name.clone(), problem: problem.to_owned() }));
    let position = match row.get(1)? {
        types::Value::Integer(position) => u64::try_from(position).ok(),
        _ => None,
    };
    let Some(position) = position.map(Position::new) else { return unreadable("has no position") };
    let event = match row.get(3)? {
        types::Value::Null => None,
        types::Value::Blob(id) => match <[u8; 16]>::try_from(id.as_slice()) {
            Ok(id) => Some(EventId::from_bytes(id)),
            Err(_) => return unreadable("has an event that is no id"),
        },
        _ => return unreadable("has an event that is no id"),
    };
    let ladder = match row.get(4)? {
        types::Value::Null => None,
        types::Value::Blob(bytes) => Some(bytes),
        _ => return unreadable("has an invalid ladder"),
    };
    Ok(Ok((name, Checkpoint { position, event, ladder })))
}

fn parts(connection: &Connection, name: &str) -> Result<Vec<(String, Checkpoint)>, Failed> {
    let sql = format!(
        "SELECT {COLUMNS} FROM checkpoints WHERE subscriber = ?1 OR (subscriber > ?2 AND subscriber < ?3)
         ORDER BY subscriber"
    );
    let (from, to) = part_bounds(name);
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![name, from, to], checkpoint_of)?;
    let mut parts = Vec::new();
    for row in rows {
        parts.push(row??);
    }
    Ok(parts)
}

fn lease_of(connection: &Connection, name: &str) -> rusqlite::Result<Option<StoredLease>> {
    let sql = "SELECT token, holder, lease_until, lease_length FROM leases WHERE name = ?1";
    let read = connection.prepare_cached(sql)?.query_row([name], |row| {
        Ok(StoredLease { token: row.get(0)?, holder: row.get(1)?, until: row.get(2)?, length: row.get(3)? })
    });
    read.optional()
}

fn write_lease(connection: &Connection, name: &str, lease: &StoredLease) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO leases (name, token, holder, lease_until, lease_length)
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let StoredLease { token, holder, until, length } = lease;
    connection.prepare_cached(sql)?.execute(params![name, token, holder, until, length])?;
    Ok(())
}

/// Fails if the lease is lost.
fn fence(connection: &Connection, lease: Option<&Lease>) -> Result<(), Failed> {
    let Some(lease) = lease else { return Ok(()) };
    match lease_of(connection, &lease.name)? {
        Some(stored) if stored.is(lease) => Ok(()),
        _ => Err(StateError::LeaseLost(lease.name.clone()).into()),
    }
}

#[async_trait]
impl CheckpointStore for SqliteState {
    async fn checkpoint(&self, name: &str) -> Result<Option<Checkpoint>, StateError> {
        check_name(name)?;
        let name = name.to_owned();
        let found = self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM checkpoints WHERE subscriber = ?1");
            Ok(connection.prepare_cached(&sql)?.query_row([name], checkpoint_of).optional()?)
        });
        Ok(found.await?.transpose()?.map(|(_, checkpoint)| checkpoint))
    }

    async fn create(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError> {
        let (values, lease) = (Values::of(name, checkpoint)?, lease.cloned());
        self.write(move |connection| {
            fence(connection, lease.as_ref())?;
            Ok(values.insert(connection)?)
        })
        .await
    }

    async fn advance(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<Advanced, StateError> {
        let (values, lease) = (Values::of(name, checkpoint)?, lease.cloned());
        self.write(move |connection| {
            fence(connection, lease.as_ref())?;
            if values.update(connection, "<", values.position)? {
                return Ok(Advanced::Moved);
            }
            let sql = "SELECT 1 FROM checkpoints WHERE subscriber = ?1";
            let found = connection.prepare_cached(sql)?.exists([&values.name])?;
            Ok(if found { Advanced::Behind } else { Advanced::Missing })
        })
        .await
    }

    async fn replace(
        &self,
        name: &str,
        at: Position,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError> {
        let (values, lease, at) = (Values::of(name, checkpoint)?, lease.cloned(), whole(at.get())?);
        self.write(move |connection| {
            fence(connection, lease.as_ref())?;
            Ok(values.update(connection, "=", at)?)
        })
        .await
    }

    async fn parts(&self, name: &str) -> Result<Vec<(String, Checkpoint)>, StateError> {
        check_name(name)?;
        let name = name.to_owned();
        self.write(move |connection| parts(connection, &name)).await
    }

    async fn replace_parts(
        &self,
        name: &str,
        found: &[(String, Checkpoint)],
        instead: &[(String, Checkpoint)],
    ) -> Result<bool, StateError> {
        check_name(name)?;
        let values: Vec<_> = instead
            .iter()
            .map(|(name, checkpoint)| Values::of(name, checkpoint))
            .collect::<Result<_, _>>()?;
        let (name, found) = (name.to_owned(), found.to_vec());
        self.write(move |connection| {
            if parts(connection, &name)? != found {
                return Ok(false);
            }
            for (name, _) in &found {
                connection
                    .prepare_cached("DELETE FROM checkpoints WHERE subscriber = ?1")?
                    .execute([name])?;
            }
            for values in &values {
                values.insert(connection)?;
            }
            Ok(true)
        })
        .await
    }
}

#[async_trait]
impl LeaseStore for SqliteState {
    async fn acquire(&self, name: &str, holder: &str, length: Duration) -> Result<Acquired, StateError> {
        check_name(name)?;
        check_name(holder)?;
        let (name, holder, clock) = (name.to_owned(), holder.to_owned(), self.clock.clone());
        self.write(move |connection| {
            let stored = lease_of(connection, &name)?.unwrap_or_default();
            // The time under the lock.
            Ok(match stored.acquire(&holder, clock.now().as_micros(), length) {
                Ok(acquired) => {
                    write_lease(connection, &name, &acquired)?;
                    Acquired::Held(acquired.to_lease(&name))
                }
                Err(other) => Acquired::HeldBy(other),
            })
        })
        .await
    }

    async fn renew(&self, lease: &Lease, length: Duration) -> Result<bool, StateError> {
        let (lease, clock) = (lease.clone(), self.clock.clone());
        self.write(move |connection| {
            let stored = lease_of(connection, &lease.name)?.filter(|stored| stored.is(&lease));
            let Some(mut stored) = stored else { return Ok(false) };
            stored.length = micros(length);
            stored.until = Some(clock.now().as_micros().saturating_add(stored.length));
            write_lease(connection, &lease.name, &stored)?;
            Ok(true)
        })
        .await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StateError> {
        let lease = lease.clone();
        self.write(move |connection| {
            let stored = lease_of(connection, &lease.name)?.filter(|stored| stored.is(&lease));
            if let Some(stored) = stored {
                write_lease(connection, &lease.name, &StoredLease { holder: None, ..stored })?;
            }
            Ok(())
        })
        .await
    }

    async fn holder(&self, name: &str) -> Result<Option<String>, StateError> {
        let name = name.to_owned();
        let stored = self.read(move |connection| Ok(lease_of(connection, &name)?)).await?;
        let now = self.clock.now().as_micros();
        Ok(stored.and_then(|stored| stored.holder_at(now).map(str::to_owned)))
    }
}

impl StateStore for SqliteState {
    fn log(&self) -> StoreId {
        self.log
    }
}
