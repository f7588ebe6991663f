//! State beside the log: snapshots, checkpoints of subscribers, and the rows of projections.
//!
//! ```text
//! DIRECTORY/state.sqlite                snapshots, checkpoints of subscribers
//! DIRECTORY/views/NAME.v2.sqlite        a projection: its rows and its checkpoint
//!
//! SCHEMA.snapshots, SCHEMA.checkpoints  the same in PostgreSQL; in MariaDB and MySQL a schema is a database
//! SCHEMA$NAME_v2                        the schema of a projection
//! ```
//!
//! - T1  All of it is derived from the log and can be made again. It is bound to the log's identity: what was
//!   derived from another log, or reaches beyond the end of this one, is not gone on with.
//! - T2  A projection has a file or a schema of its own, so projections do not wait for each other, and to make one anew
//!   is to make a new one beside it.
//! - T3  A directory is for one process at a time, a database for any number: what runs by name runs in one of them, and
//!   in another when that ends.
//!
//! The files: `database` (state in a database), `guard` (who does what), `place` (the schema of a projection).

mod database;
mod guard;
mod place;
mod volatile;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use annals_core::{Error, Result, StoreId, StoreUrl};
use annals_sql::Inlines;
use rusqlite::{Connection, OptionalExtension};

pub(crate) use database::{StateDatabase, Transaction, id_of, position_of};
pub(crate) use guard::Held;
pub(crate) use place::{AWAY_MAX, ViewPlace};

use crate::sql::{Database, Place, SqlError};

/// Where the state beside the log is kept.
#[derive(Clone, Debug)]
pub struct State(Kept);

#[derive(Clone)]
enum Kept {
    Memory,
    Directory(PathBuf),
    /// With the projections of its log that are inline, if it is the log's own database.
    Database(StoreUrl, Option<Inlines>),
}

/// State that is open.
#[derive(Clone)]
pub(crate) enum Opened {
    /// `state.sqlite`, and where the projections' files are, if they are files.
    Sqlite(Database, Option<PathBuf>),
    Database(StateDatabase),
}

impl State {
    /// In memory: it ends with the process and is made again at the next start.
    pub fn memory() -> Self {
        Self(Kept::Memory)
    }

    /// In SQLite files in this directory, which is made if need be. One process at a time may use it.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self(Kept::Directory(path.into()))
    }

    /// In the database with this address, `postgres://…?schema=SCHEMA` or `mysql://…/DATABASE`, whose tables are made if
    /// need be. It may be another than the log's, also of an embedded log. Any number of processes may use it, all of
    /// them with the same log.
    ///
    /// ```no_run
    /// # use annals::{Annals, State};
    /// # async fn start() -> annals::Result<()> {
    /// let store = annals::open_store(&"file:./data".parse()?).await?;
    /// let state = State::database("postgres://service@localhost/bank?schema=shop")?;
    /// let annals = Annals::with_store(store, state).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] if this is no address of a database.
    pub fn database(url: &str) -> Result<Self> {
        Self::at(&url.parse()?)
    }

    /// The same with an address that was read before.
    pub(crate) fn at(url: &StoreUrl) -> Result<Self> {
        match url {
            StoreUrl::Postgres(_) | StoreUrl::MySql(_) => Ok(Self(Kept::Database(url.clone(), None))),
            other => Err(annals_core::Invalid::new("state", format!("`{other}` is no database")).into()),
        }
    }

    /// Beside the log with this address: in its directory, or in its database, whose appends take these projections with them.
    pub(crate) fn beside(url: &StoreUrl, inlines: Option<Inlines>) -> Self {
        match url {
            StoreUrl::Postgres(_) | StoreUrl::MySql(_) => Self(Kept::Database(url.clone(), inlines)),
            StoreUrl::File(directory) => Self::directory(directory),
            _ => Self::memory(),
        }
    }

    /// Opens it for this log.
    pub(crate) async fn open(self, store: StoreId) -> Result<Opened> {
        let (place, views) = match self.0 {
            Kept::Database(url, inlines) => {
                let sessions = crate::open::sessions(&url)?;
                return Ok(Opened::Database(StateDatabase::open(sessions, inlines, store).await?));
            }
            Kept::Memory => (Place::Memory, None),
            Kept::Directory(directory) => {
                // The process may change its working directory.
                let absolute = std::path::absolute(&directory);
                let directory = absolute.map_err(|error| no_folder(&directory, &error))?;
                (Place::File(directory.join("state.sqlite")), Some(directory.join("views")))
            }
        };
        let made = views.clone();
        let open = move || -> Result<Database> {
            if let Some(views) = made {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(&views);
                made.map_err(|error| no_folder(&views, &error))?;
            }
            let path = match &place {
                Place::File(path) => Some(path.clone()),
                Place::Memory => None,
            };
            let named = |error| state_error(path.as_deref(), error);
            let database = Database::open(&place).map_err(named)?;
            database.write_now(|connection| bind(connection, store)).map_err(named)?;
            Ok(database)
        };
        match tokio::task::spawn_blocking(open).await {
            Ok(database) => Ok(Opened::Sqlite(database?, views)),
            Err(stopped) => Err(Error::Internal(Box::new(stopped))),
        }
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Directory(directory) => write!(f, "{}", directory.display()),
            Self::Database(url, _) => write!(f, "{url}"),
        }
    }
}

/// What an error of the state means to somebody who opens or uses a store.
pub(crate) fn state_failed(error: impl Into<SqlError>) -> Error {
    error.into().into()
}

/// Why a folder of the state cannot be had, with its name.
fn no_folder(folder: &Path, error: &std::io::Error) -> Error {
    Error::Unusable(format!("{}: {error}", folder.display()).into())
}

/// Why state in SQLite cannot be used, with the file, what is in it, and what can be done.
pub(crate) fn state_error(path: Option<&Path>, error: SqlError) -> Error {
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
    let place = annals_core::Place { file: path.display().to_string(), offset: 0, position: None };
    Error::Damaged { place, cause: cause.into() }
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
    connection.execute_batch(include_str!("state/sqlite.sql"))?;
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
        connection.execute_batch("DELETE FROM log; DELETE FROM snapshots; DELETE FROM checkpoints;")?;
    }
    connection.execute("INSERT INTO log (store) VALUES (?1)", [store.as_bytes()])?;
    Ok(())
}
