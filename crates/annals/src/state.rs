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

use std::path::PathBuf;

use annals_core::{Error, Result, StoreId, StoreUrl};
use annals_sql::Inlines;
use rusqlite::Connection;

pub(crate) use database::{StateDatabase, Transaction, id_of, position_of};
pub(crate) use guard::Held;
pub(crate) use place::ViewPlace;

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

    /// In the database of the log itself, whose appends take these projections with them.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn of_log(url: &StoreUrl, inlines: Inlines) -> Self {
        Self(Kept::Database(url.clone(), Some(inlines)))
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
                (Place::File(directory.join("state.sqlite")), Some(directory.join("views")))
            }
        };
        let made = views.clone();
        let open = move || -> Result<Database> {
            if let Some(views) = made {
                std::fs::create_dir_all(views).map_err(|error| Error::Unavailable(Box::new(error)))?;
            }
            let database = Database::open(&place).map_err(unavailable)?;
            database.write_now(|connection| bind(connection, store)).map_err(unavailable)?;
            Ok(database)
        };
        match tokio::task::spawn_blocking(open).await {
            Ok(database) => Ok(Opened::Sqlite(database?, views)),
            Err(stopped) => Err(Error::Unavailable(Box::new(stopped))),
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

pub(crate) fn unavailable(error: impl Into<SqlError>) -> Error {
    Error::Unavailable(Box::new(error.into()))
}

/// Empties a file if it was another log's.
fn bind(connection: &Connection, store: StoreId) -> Result<(), SqlError> {
    connection.execute_batch(include_str!("state/sqlite.sql"))?;
    let bound: Option<Vec<u8>> = {
        let mut statement = connection.prepare("SELECT store FROM log")?;
        let mut rows = statement.query(())?;
        rows.next()?.map(|row| row.get(0)).transpose()?
    };
    if bound.as_deref() == Some(store.as_bytes()) {
        return Ok(());
    }
    if bound.is_some() {
        tracing::warn!(%store, "the state beside the log is another log's: snapshots and checkpoints are dropped");
        connection.execute_batch("DELETE FROM log; DELETE FROM snapshots; DELETE FROM checkpoints;")?;
    }
    connection.execute("INSERT INTO log (store) VALUES (?1)", [store.as_bytes()])?;
    Ok(())
}
