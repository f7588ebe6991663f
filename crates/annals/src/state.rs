//! State beside the log: snapshots, checkpoints of subscribers, and the rows of projections.
//!
//! ```text
//! DIRECTORY/state.sqlite                snapshots, checkpoints of subscribers
//! DIRECTORY/views/NAME.v2.sqlite        a projection: its rows and its checkpoint
//!
//! SCHEMA.snapshots, SCHEMA.checkpoints  their tables in PostgreSQL; in MariaDB and MySQL a schema is a database
//! SCHEMA$NAME_v2                        the schema of a projection
//! ```
//!
//! - T1  All of it is derived from the log and can be rebuilt. It is bound to the log's identity: state that
//!   was derived from another log, or extends beyond the end of this one, is not resumed.
//! - T2  A projection has a file or a schema of its own, so projections do not wait for each other, and one
//!   is rebuilt in a new one beside it.
//! - T3  A directory is for one process at a time, a database for any number: a named consumer runs in one of
//!   them, and moves to another when that process ends.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals_core::{Error, Invalid, Result, StoreId, StoreUrl};
use annals_state::{Inlines, MemoryState, OpenSessions, SqlState, SqliteState, StatePlace, StateStore};

use crate::backend::Backends;

/// Where the state beside the log is kept.
#[derive(Clone, Debug)]
pub struct State(Kept);

#[derive(Clone)]
enum Kept {
    Memory,
    Directory(PathBuf),
    Database {
        url: StoreUrl,
        sessions: OpenSessions,
        /// The inline projections of the log, if it is the log's own database.
        inlines: Option<Inlines>,
    },
}

/// State that is open.
#[derive(Clone)]
pub(crate) struct Opened {
    /// Checkpoints and snapshots.
    pub store: Arc<dyn StateStore>,
    /// Where the rows of projections are stored.
    pub views: Views,
}

/// Where the rows of projections are stored.
#[derive(Clone)]
pub(crate) enum Views {
    /// In SQLite, in files of this directory or in memory.
    Sqlite(Option<PathBuf>),
    /// In schemas of the database. With the inline projections of the log, if it is the log's own database.
    Database(SqlState, Option<Inlines>),
}

impl Opened {
    /// The shared database, if the state is in one.
    pub fn database(&self) -> Option<&SqlState> {
        match &self.views {
            Views::Database(database, _) => Some(database),
            Views::Sqlite(_) => None,
        }
    }
}

impl State {
    /// In memory: it is lost when the process ends and rebuilt at the next start.
    pub fn memory() -> Self {
        Self(Kept::Memory)
    }

    /// In SQLite files in this directory, which is created if necessary. One process at a time may use it.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self(Kept::Directory(path.into()))
    }

    /// In the database with this address, `postgres://…?schema=SCHEMA` or `mysql://…/DATABASE`, whose tables
    /// are created if necessary. It need not be the database of the log, and the log may be embedded. Any
    /// number of processes may use it, all with the same log.
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
    /// [`Error::Invalid`] if this is not the address of a database that this build supports.
    pub fn database(url: &str) -> Result<Self> {
        Self::database_with(url, &Backends::default())
    }

    /// As [`database`](Self::database), with other kinds of store, such as your own with its state in a
    /// database.
    ///
    /// # Errors
    /// As [`database`](Self::database).
    pub fn database_with(url: &str, backends: &Backends) -> Result<Self> {
        let url = backends.parse(url)?;
        match backends.find(&url)?.state(&url) {
            StatePlace::Database(sessions) => Ok(Self(Kept::Database { url, sessions, inlines: None })),
            _ => Err(Invalid::new("state", format!("`{url}` is not a database")).into()),
        }
    }

    /// At this place, beside the log with this address. Appends to the log write the rows of `inlines`.
    pub(crate) fn beside(url: &StoreUrl, place: StatePlace, inlines: Option<Inlines>) -> Self {
        Self(match place {
            StatePlace::Memory => Kept::Memory,
            StatePlace::Directory(directory) => Kept::Directory(directory),
            StatePlace::Database(sessions) => Kept::Database { url: url.clone(), sessions, inlines },
        })
    }

    /// Opens it for this log.
    pub(crate) async fn open(self, log: StoreId) -> Result<Opened> {
        match self.0 {
            Kept::Database { sessions, inlines, .. } => {
                let database = SqlState::open(sessions()?, log).await?;
                Ok(Opened { store: Arc::new(database.clone()), views: Views::Database(database, inlines) })
            }
            Kept::Memory => Ok(Opened { store: Arc::new(MemoryState::new(log)), views: Views::Sqlite(None) }),
            Kept::Directory(directory) => {
                // The process may change its working directory.
                let absolute = std::path::absolute(&directory);
                let directory = absolute.map_err(|error| no_folder(&directory, &error))?;
                let views = directory.join("views");
                let made = DirBuilder::new().recursive(true).mode(0o700).create(&views);
                made.map_err(|error| no_folder(&views, &error))?;
                let store = SqliteState::open(directory.join("state.sqlite"), log).await?;
                Ok(Opened { store: Arc::new(store), views: Views::Sqlite(Some(views)) })
            }
        }
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Directory(directory) => write!(f, "{}", directory.display()),
            Self::Database { url, .. } => write!(f, "{url}"),
        }
    }
}

/// The error for a folder of the state that cannot be created, with its name.
fn no_folder(folder: &Path, error: &std::io::Error) -> Error {
    Error::Unusable(format!("{}: {error}", folder.display()).into())
}
