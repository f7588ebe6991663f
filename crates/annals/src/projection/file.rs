//! The rows of a projection and its checkpoint: one SQLite database.
//!
//! ```text
//! views/revenue.v1.sqlite     answers while the next one is being filled
//! views/revenue.v2.sqlite     rows, and `annals_checkpoint`: the log, the schema, the position
//! ```
//!
//! A file is thrown away and begun anew if it is another log's, if it reaches beyond the end of the log, if the
//! log has another event where its newest one was, if its schema's text has changed, or if SQLite cannot read it.

use std::path::{Path, PathBuf};

use annals_core::{Error, EventId, EventStore, Position, Result, Witness};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::{Answering, Bound, Projection, Serving};
use crate::sql::{Database, Dialect, Place, SqlError, blocking, remove, whole};
use crate::state::unavailable;

/// A projection's database, and that of the version before as long as it answers.
pub(crate) struct ViewFile {
    pub database: Database,
    checkpoint: Position,
    older: Option<Older>,
    directory: Option<PathBuf>,
    name: &'static str,
    version: u32,
}

struct Older {
    version: u32,
    database: Database,
}

/// What is at the path of a file.
enum Found {
    /// No file, or one that was never begun.
    Nothing,
    Bound(Bound),
    /// Something that SQLite cannot read.
    Broken,
}

impl ViewFile {
    /// Opens the file of this version in this directory, or begins it; without a directory it is in memory.
    pub async fn open<P: Projection>(store: &dyn EventStore, directory: Option<PathBuf>) -> Result<Self> {
        let schema = P::schema(Dialect::Sqlite);
        let (name, version) = (P::NAME, P::VERSION);
        let place = directory.as_ref().map(|directory| path(directory, name, version));
        let mut checkpoint = Position::ZERO;
        if let Some(path) = place.clone() {
            let found = off_thread({
                let path = path.clone();
                move || read_bound(&path)
            });
            let reason = match found.await? {
                Found::Nothing => None,
                Found::Broken => Some("the file is not a database".to_owned()),
                Found::Bound(bound) => {
                    checkpoint = bound.position;
                    bound.unusable(schema, store).await?.map(|unusable| unusable.to_string())
                }
            };
            if let Some(reason) = reason {
                tracing::warn!(projection = name, reason, "the rows are made again from the first event");
                checkpoint = Position::ZERO;
                off_thread(move || remove(&path).map_err(|error| SqlError::Stopped(error.into()))).await?;
            }
        }
        let id = store.id();
        let database = off_thread(move || {
            let database = Database::open(&place.map_or(Place::Memory, Place::File))?;
            database.write_now(|connection| begin(connection, id.as_bytes(), schema))?;
            Ok(database)
        })
        .await?;
        let older = match &directory {
            Some(directory) => open_older(directory.clone(), name, version, *id.as_bytes()).await?,
            None => None,
        };
        Ok(Self { database, checkpoint, older, directory, name, version })
    }

    /// Everything up to here is in the rows.
    pub fn checkpoint(&self) -> Position {
        self.checkpoint
    }

    /// The database that answers queries: the one of the version before, as long as there is one.
    pub fn serving(&self) -> Serving {
        match &self.older {
            Some(older) => {
                Serving { database: Answering::File(older.database.clone()), older: Some(older.version) }
            }
            None => Serving { database: Answering::File(self.database.clone()), older: None },
        }
    }

    /// It has come to the end of the log: this version answers from now on, if an older one did so far.
    pub fn caught_up(&mut self) -> Option<Serving> {
        self.older.take()?;
        Some(self.serving())
    }

    /// Removes the files of older versions, once nobody is sent to them any more.
    pub async fn remove_older(&self) {
        let Some(directory) = self.directory.clone() else { return };
        let (name, version) = (self.name, self.version);
        let removed = off_thread(move || {
            for (_, path) in older_files(&directory, name, version) {
                remove(&path).map_err(|error| SqlError::Stopped(error.into()))?;
            }
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(projection = name, %error, "the file of an older version could not be removed");
        }
    }
}

/// Everything up to here is in the rows.
pub(super) fn checkpoint(connection: &Connection) -> Result<Position, SqlError> {
    let mut statement = connection.prepare_cached("SELECT position FROM annals_checkpoint")?;
    let position: i64 = statement.query_row((), |row| row.get(0))?;
    Ok(Position::new(position.unsigned_abs()))
}

/// Notes in the transaction of the rows that everything up to this event is in them.
pub(super) fn set_checkpoint(connection: &Connection, at: Witness) -> Result<(), SqlError> {
    let sql = "UPDATE annals_checkpoint SET position = ?1, witness_position = ?1, witness_id = ?2";
    let position = whole(at.position.get())?;
    connection.prepare_cached(sql)?.execute(params![position, at.id.as_bytes()])?;
    Ok(())
}

fn path(directory: &Path, name: &str, version: u32) -> PathBuf {
    directory.join(format!("{name}.v{version}.sqlite"))
}

/// The files of versions below this one, oldest first.
fn older_files(directory: &Path, name: &str, below: u32) -> Vec<(u32, PathBuf)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            let version = file.strip_prefix(name)?.strip_prefix(".v")?.strip_suffix(".sqlite")?;
            let version = version.parse::<u32>().ok().filter(|version| *version < below)?;
            Some((version, entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// The newest older version, if it is of this log.
async fn open_older(
    directory: PathBuf,
    name: &'static str,
    below: u32,
    store: [u8; 16],
) -> Result<Option<Older>> {
    off_thread(move || {
        for (version, path) in older_files(&directory, name, below).into_iter().rev() {
            if matches!(read_bound(&path)?, Found::Bound(bound) if bound.store == store) {
                return Ok(Some(Older { version, database: Database::open(&Place::File(path))? }));
            }
        }
        Ok(None)
    })
    .await
}

/// Makes the tables of a new file.
fn begin(connection: &Connection, store: &[u8; 16], schema: &str) -> Result<(), SqlError> {
    if bound(connection)?.is_some() {
        return Ok(());
    }
    connection.execute_batch(
        "CREATE TABLE annals_checkpoint (
            store            BLOB    NOT NULL,
            schema           TEXT    NOT NULL,
            position         INTEGER NOT NULL,
            witness_position INTEGER,
            witness_id       BLOB
        );",
    )?;
    connection.execute_batch(schema)?;
    connection.execute(
        "INSERT INTO annals_checkpoint (store, schema, position) VALUES (?1, ?2, 0)",
        params![store, schema],
    )?;
    Ok(())
}

/// What is at this path.
fn read_bound(path: &Path) -> Result<Found, SqlError> {
    if !path.exists() {
        return Ok(Found::Nothing);
    }
    match bound(&Connection::open(path)?) {
        Ok(bound) => Ok(bound.map_or(Found::Nothing, Found::Bound)),
        Err(rusqlite::Error::SqliteFailure(failure, _))
            if matches!(failure.code, ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) =>
        {
            Ok(Found::Broken)
        }
        Err(error) => Err(error.into()),
    }
}

fn bound(connection: &Connection) -> rusqlite::Result<Option<Bound>> {
    let begun = connection
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'annals_checkpoint'", (), |_| Ok(()))
        .optional()?;
    if begun.is_none() {
        return Ok(None);
    }
    let sql = "SELECT store, schema, position, witness_position, witness_id FROM annals_checkpoint";
    let read = connection.query_row(sql, (), |row| {
        let witness = match (row.get::<_, Option<i64>>(3)?, row.get::<_, Option<[u8; 16]>>(4)?) {
            (Some(position), Some(id)) => Some(Witness {
                position: Position::new(position.unsigned_abs()),
                id: EventId::from_bytes(id),
            }),
            _ => None,
        };
        Ok(Bound {
            store: row.get(0)?,
            schema: row.get(1)?,
            position: Position::new(row.get::<_, i64>(2)?.unsigned_abs()),
            witness,
        })
    });
    read.optional()
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SqlError> + Send + 'static,
) -> Result<T, Error> {
    blocking(work).await.map_err(unavailable)
}
