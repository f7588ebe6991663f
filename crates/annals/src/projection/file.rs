//! The rows of a projection and its checkpoint: one SQLite database.
//!
//! ```text
//! views/revenue.v1.sqlite     serves queries while the next one is being filled
//! views/revenue.v2.sqlite     rows, and `annals_checkpoint`: the log, the schema, the position
//! ```
//!
//! A file is removed and rebuilt if it belongs to another log, if it extends beyond the end of the log, if
//! the log has another event at its checkpoint, if the text of its schema has changed, if it is missing, or
//! if SQLite cannot read it, at the start or while it is filled.

use std::path::{Path, PathBuf};

use annals_core::{Error, EventId, EventStore, Position, Result, Witness};
use annals_state::{
    Bound, Checked, Database, Dialect, Place, SqlError, blocking, is_broken, remove, state_failed, whole,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::Projection;
use super::serving::{Answering, Serving};

/// A projection's database, and that of the previous version as long as it serves queries.
pub(crate) struct ViewFile {
    pub database: Database,
    checkpoint: Position,
    /// Whether SQLite could not read its own file.
    is_broken: bool,
    older: Option<Older>,
    directory: Option<PathBuf>,
    name: &'static str,
    version: u32,
    schema: &'static str,
}

struct Older {
    version: u32,
    database: Database,
}

/// The content at the path of a file.
enum Found {
    /// No file, or one without tables yet.
    Nothing,
    Bound(Bound),
    /// A file that SQLite cannot read, or that is not a read model.
    Broken,
}

impl ViewFile {
    /// Opens or creates the file of this version in this directory; without a directory the database is in
    /// memory.
    pub async fn open<P: Projection>(store: &dyn EventStore, directory: Option<PathBuf>) -> Result<Self> {
        let (name, version, schema) = (P::NAME, P::VERSION, P::schema(Dialect::Sqlite));
        let id = *store.id().as_bytes();
        let path = directory.as_ref().map(|directory| path(directory, name, version));
        let found = match path.clone() {
            Some(path) => off_thread(move || read_bound(&path)).await?,
            None => Found::Nothing,
        };
        let checked = resume_at(found, schema, store).await?;
        let database = make(path, checked.as_ref().err().copied(), id, name, schema).await?;
        let older = match &directory {
            Some(directory) => open_older(directory.clone(), name, version, id).await?,
            None => None,
        };
        let checkpoint = checked.map_or(Position::ZERO, |checked| checked.position);
        Ok(Self { database, checkpoint, is_broken: false, older, directory, name, version, schema })
    }

    /// Ensures that the rows exist and are of this log and this schema. Rebuilds them otherwise.
    pub async fn check(&mut self, store: &dyn EventStore) -> Result<Checked> {
        let path = self.directory.as_ref().map(|directory| path(directory, self.name, self.version));
        let found = match path.clone() {
            _ if self.is_broken => Found::Broken,
            Some(path) => off_thread(move || read_bound(&path)).await?,
            None => self.database.read(|connection| Ok(found_in(connection)?)).await.map_err(state_failed)?,
        };
        let nothing = matches!(found, Found::Nothing);
        let reason = match resume_at(found, self.schema, store).await? {
            Ok(checked) if !nothing => return Ok(checked),
            Ok(_) => "the file is gone",
            Err(reason) => reason,
        };
        let id = *store.id().as_bytes();
        self.database = make(path, Some(reason), id, self.name, self.schema).await?;
        self.is_broken = false;
        Ok(Checked { position: Position::ZERO, witness: None, made_again: Some(reason.to_owned()) })
    }

    /// Records that SQLite could not read the file: the next check rebuilds it.
    pub fn is_broken(&mut self) {
        self.is_broken = true;
    }

    /// The checkpoint stored with the rows, and the event there.
    pub async fn at(&self) -> Result<(Position, Option<Witness>), SqlError> {
        match self.database.read(|connection| Ok(bound(connection)?)).await? {
            Some(bound) => Ok((bound.position, bound.witness)),
            None => Err(SqlError::Statement("the rows have no checkpoint".into())),
        }
    }

    /// The checkpoint of the rows when they were opened.
    pub fn checkpoint(&self) -> Position {
        self.checkpoint
    }

    /// The database that serves queries: that of the previous version, as long as there is one.
    pub fn serving(&self) -> Serving {
        match &self.older {
            Some(older) => {
                Serving { database: Answering::File(older.database.clone()), older: Some(older.version) }
            }
            None => Serving { database: Answering::File(self.database.clone()), older: None },
        }
    }

    /// Called when the rows have reached the end of the log. Returns the new database for queries if an older
    /// one served them until now.
    pub fn caught_up(&mut self) -> Option<Serving> {
        self.older.take()?;
        Some(self.serving())
    }

    /// Removes the files of older versions. Call it after queries have stopped using them.
    pub async fn remove_older(&self) {
        let Some(directory) = self.directory.clone() else { return };
        let (name, version) = (self.name, self.version);
        let removed = off_thread(move || {
            for (_, path) in older_files(&directory, name, version) {
                remove(&path).map_err(|error| SqlError::Statement(error.into()))?;
            }
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(projection = name, %error, "the file of an older version could not be removed");
        }
    }
}

/// The position up to which events are applied to the rows.
pub(super) fn checkpoint(connection: &Connection) -> Result<Position, SqlError> {
    let mut statement = connection.prepare_cached("SELECT position FROM annals_checkpoint")?;
    let position: i64 = statement.query_row((), |row| row.get(0))?;
    Ok(Position::new(position.unsigned_abs()))
}

/// Writes the checkpoint after this event, in the transaction of the rows.
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

/// The newest older version that is of this log.
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

/// Creates the tables of a new file.
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
    connection.execute_batch(schema).map_err(|error| match error.into() {
        SqlError::Statement(cause) => SqlError::Schema(cause),
        other => other,
    })?;
    connection.execute(
        "INSERT INTO annals_checkpoint (store, schema, position) VALUES (?1, ?2, 0)",
        params![store, schema],
    )?;
    Ok(())
}

/// The checkpoint at which to resume, or why the rows must be rebuilt.
async fn resume_at(
    found: Found,
    schema: &str,
    store: &dyn EventStore,
) -> Result<Result<Checked, &'static str>> {
    let none = Checked { position: Position::ZERO, witness: None, made_again: None };
    Ok(match found {
        Found::Nothing => Ok(none),
        Found::Broken => Err("the file is not a database, or is broken"),
        Found::Bound(bound) => match bound.unusable(schema, store).await? {
            None => Ok(Checked { position: bound.position, witness: bound.witness, ..none }),
            Some(unusable) => Err(unusable.reason()),
        },
    })
}

/// Opens the file, or rebuilds it for the reason in `again`.
async fn make(
    path: Option<PathBuf>,
    again: Option<&'static str>,
    store: [u8; 16],
    name: &'static str,
    schema: &'static str,
) -> Result<Database> {
    off_thread(move || {
        if let Some(reason) = again {
            let file = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            tracing::warn!(projection = name, file, reason, "the rows are rebuilt from the first event");
            if let Some(path) = &path {
                remove(path).map_err(|error| SqlError::Statement(error.into()))?;
            }
        }
        let database = Database::open(&path.map_or(Place::Memory, Place::File))?;
        database.write_now(|connection| begin(connection, &store, schema))?;
        Ok(database)
    })
    .await
}

/// Reads the content at this path.
fn read_bound(path: &Path) -> Result<Found, SqlError> {
    match path.exists() {
        true => Ok(found_in(&Connection::open(path)?)?),
        false => Ok(Found::Nothing),
    }
}

fn found_in(connection: &Connection) -> rusqlite::Result<Found> {
    match bound(connection) {
        Ok(bound) => Ok(bound.map_or(Found::Nothing, Found::Bound)),
        Err(error) if is_broken(&error) || is_of_another_kind(&error) => Ok(Found::Broken),
        Err(error) => Err(error),
    }
}

/// Whether the checkpoint has unexpected columns, or unexpected values in them.
fn is_of_another_kind(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    matches!(
        error,
        Error::InvalidColumnType(..)
            | Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::SqlInputError { .. }
    )
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
        let position = row.get::<_, i64>(2)?;
        let position =
            u64::try_from(position).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(2, position))?;
        Ok(Bound { store: row.get(0)?, schema: row.get(1)?, position: Position::new(position), witness })
    });
    read.optional()
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SqlError> + Send + 'static,
) -> Result<T, Error> {
    blocking(work).await.map_err(state_failed)
}
