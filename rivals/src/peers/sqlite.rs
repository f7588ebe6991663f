//! A plain table on SQLite, as a good team would write it: WAL, every commit synced, prepared statements, one
//! connection that writes behind a lock, a connection for each reader.

use std::path::Path;

use anyhow::Result;
use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, TransactionBehavior, params};

use crate::rival::{Answer, Drive, Part, Request, Rival, See};

const READERS: usize = 16;
const SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536;
    PRAGMA mmap_size = 1073741824;";
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY, stream TEXT NOT NULL,
    version INTEGER NOT NULL, type TEXT NOT NULL, tag TEXT, data BLOB NOT NULL, UNIQUE (stream, version));
    CREATE INDEX IF NOT EXISTS tags ON events (tag) WHERE tag IS NOT NULL;";

/// A database of SQLite.
pub struct SqliteStore {
    writer: Mutex<Connection>,
    readers: Vec<Mutex<Connection>>,
}

impl SqliteStore {
    /// Opens the database.
    ///
    /// # Errors
    /// As SQLite's.
    pub fn open(directory: &Path) -> Result<Self> {
        let connect = || -> Result<Mutex<Connection>> {
            let connection = Connection::open(directory.join("events.sqlite"))?;
            connection.execute_batch(SETTINGS)?;
            Ok(Mutex::new(connection))
        };
        let writer = connect()?;
        writer.lock().execute_batch(SCHEMA)?;
        Ok(Self { writer, readers: (0..READERS).map(|_| connect()).collect::<Result<_>>()? })
    }

    fn insert(&self, request: &Request) -> rusqlite::Result<u64> {
        let mut writer = self.writer.lock();
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "INSERT INTO events (stream, version, type, tag, data) VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut insert = transaction.prepare_cached(sql)?;
        let sql = "SELECT coalesce(max(version), 0) FROM events WHERE stream = ?1";
        let mut newest = transaction.prepare_cached(sql)?;
        for Part { stream, seen, event_type, tag, data } in &request.parts {
            let mut version = match request.conditional {
                true => seen.version as i64,
                false => newest.query_row([stream], |row| row.get(0))?,
            };
            for data in data {
                version += 1;
                insert.execute(params![stream, version, event_type, tag, &data[..]])?;
            }
        }
        drop((insert, newest));
        let last = transaction.last_insert_rowid();
        transaction.commit()?;
        Ok(last as u64)
    }

    fn select(&self, caller: usize, sql: &str, values: impl rusqlite::Params, see: See<'_>) -> Result<()> {
        let reader = self.readers[caller % READERS].lock();
        let mut select = reader.prepare_cached(sql)?;
        let mut rows = select.query(values)?;
        while let Some(row) = rows.next()? {
            see(row.get_ref(0)?.as_blob()?);
        }
        Ok(())
    }
}

#[async_trait]
impl Rival for SqliteStore {
    fn drives(&self) -> &'static [Drive] {
        &[Drive::Threads]
    }

    async fn append(&self, request: Request, _caller: usize, _drive: Drive) -> Result<Answer> {
        match self.insert(&request) {
            Ok(last) => Ok(Answer::Written(last)),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                Ok(Answer::Refused)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn stream(&self, name: &str, caller: usize, see: See<'_>) -> Result<()> {
        self.select(caller, "SELECT data FROM events WHERE stream = ?1 ORDER BY version", [name], see)
    }

    async fn tag(&self, name: &str, caller: usize, see: See<'_>) -> Result<()> {
        self.select(caller, "SELECT data FROM events WHERE tag = ?1 ORDER BY position", [name], see)
    }

    async fn log(&self, see: See<'_>) -> Result<()> {
        self.select(0, "SELECT data FROM events ORDER BY position", [], see)
    }

    async fn count(&self) -> Result<u64> {
        let writer = self.writer.lock();
        let count: i64 = writer.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
        Ok(count as u64)
    }
}
