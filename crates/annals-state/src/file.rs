//! One SQLite database: a file in write-ahead mode with one writer and many readers, or one in memory.
//!
//! - D1  Work runs on the runtime's threads for blocking work, never on those that drive tasks.
//! - D2  `write` is one transaction: it is applied as a whole or not at all, also after a panic.
//! - D3  A file is synced at checkpoints of SQLite only. A power failure may lose the last transactions, as a
//!   whole and in order, which is acceptable for state that is derived from the log.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::types::{ToSqlOutput, Value as Owned, ValueRef};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::{SqlError, Value};

/// How long a connection waits for another process that has the file locked.
const BUSY: Duration = Duration::from_secs(10);
/// Connections for reading that are kept open.
const READERS_MAX: usize = 8;

/// Creates a file that only its owner may read or write, as the log beside it: it has what is in the log.
/// SQLite gives the files beside it the same mode. What goes wrong here is reported when the file is opened.
fn create_private(path: &Path) {
    let _ = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
}

/// The location of a database.
#[derive(Clone, Debug)]
pub enum Place {
    /// In memory, until it is closed.
    Memory,
    /// In this file.
    File(PathBuf),
}

/// One database.
#[derive(Clone)]
pub struct Database {
    writer: Arc<Mutex<Connection>>,
    /// The connections for reading. `None` in memory, where all use the writer.
    readers: Option<Arc<Readers>>,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Database {
    /// Opens or creates the database. Blocks.
    pub fn open(place: &Place) -> Result<Self, SqlError> {
        let (connection, readers) = match place {
            Place::Memory => (Connection::open_in_memory()?, None),
            Place::File(path) => {
                create_private(path);
                let connection = Connection::open(path)?;
                connection.pragma_update(None, "journal_mode", "wal")?;
                connection.pragma_update(None, "synchronous", "normal")?;
                (connection, Some(Arc::new(Readers { path: path.clone(), idle: Mutex::default() })))
            }
        };
        connection.busy_timeout(BUSY)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { writer: Arc::new(Mutex::new(connection)), readers })
    }

    /// Its file, unless it is in memory.
    pub fn path(&self) -> Option<&Path> {
        self.readers.as_ref().map(|readers| readers.path.as_path())
    }

    /// Runs this in one transaction. Blocks.
    pub fn write_now<T, E: From<SqlError>>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.writer.lock();
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(SqlError::from)?;
        let done = work(&transaction)?;
        transaction.commit().map_err(SqlError::from)?;
        Ok(done)
    }

    /// Runs this in one transaction.
    pub async fn write<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<SqlError> + Send + 'static,
    {
        let database = self.clone();
        blocking(move || database.write_now(work)).await
    }

    /// Reads. SQLite refuses to write here.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<T, SqlError> {
        let database = self.clone();
        blocking(move || match &database.readers {
            None => {
                let connection = database.writer.lock();
                connection.pragma_update(None, "query_only", true)?;
                let done = work(&connection);
                connection.pragma_update(None, "query_only", false)?;
                done
            }
            Some(readers) => {
                let connection = readers.take()?;
                let done = work(&connection);
                readers.give_back(connection);
                done
            }
        })
        .await
    }
}

impl Readers {
    fn take(&self) -> Result<Connection, SqlError> {
        if let Some(connection) = self.idle.lock().pop() {
            return Ok(connection);
        }
        // Not read-only: the last reader of a file in write-ahead mode may have to tidy up beside it.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        if idle.len() < READERS_MAX {
            idle.push(connection);
        }
    }
}

/// Deletes the file of a database and the files that SQLite keeps beside it.
pub fn remove(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Runs blocking work away from the threads that drive tasks.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<SqlError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => {
            let cause = match stopped.try_into_panic() {
                Ok(panic) => annals_core::panic_text(panic).into(),
                Err(cancelled) => cancelled.into(),
            };
            Err(SqlError::Stopped(cause).into())
        }
    }
}

/// The value of a column of SQLite.
pub(crate) fn read_cell(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// A value for a column of SQLite.
pub(crate) struct Cell<'a>(pub &'a Value);

impl rusqlite::ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Value::Null => ToSqlOutput::Owned(Owned::Null),
            Value::Integer(number) => ToSqlOutput::Owned(Owned::Integer(*number)),
            Value::Real(number) => ToSqlOutput::Owned(Owned::Real(*number)),
            Value::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Value::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}
