//! State beside the log: snapshots, checkpoints of subscribers, and the rows of projections. In SQLite.
//!
//! ```text
//! DIRECTORY/state.sqlite                snapshots, checkpoints of subscribers
//! DIRECTORY/views/NAME.v2.sqlite        a projection: its rows and its checkpoint
//! ```
//!
//! - T1  All of it is derived from the log and can be made again. It is bound to the log's identity: what was
//!   derived from another log, or reaches beyond the end of this one, is thrown away with a warning.
//! - T2  A projection has a file of its own, so projections do not wait for each other, and to make one anew is
//!   to make a new file.

use std::path::PathBuf;

use annals_core::{Error, Result, StoreId};
use rusqlite::Connection;

use crate::sql::{Database, Place, SqlError};

/// Where the state beside the log is kept.
#[derive(Clone, Debug)]
pub struct State(Kept);

#[derive(Clone, Debug)]
enum Kept {
    Memory,
    Directory(PathBuf),
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

    /// Whether it outlives the process.
    pub(crate) fn is_durable(&self) -> bool {
        matches!(self.0, Kept::Directory(_))
    }

    /// Where `state.sqlite` is. Makes the directories. Blocks.
    fn place(&self) -> Result<Place> {
        match &self.0 {
            Kept::Memory => Ok(Place::Memory),
            Kept::Directory(directory) => {
                std::fs::create_dir_all(directory.join("views"))
                    .map_err(|error| Error::Unavailable(Box::new(error)))?;
                Ok(Place::File(directory.join("state.sqlite")))
            }
        }
    }

    /// The directory of the projections' files, if they are files.
    pub(crate) fn views(&self) -> Option<PathBuf> {
        match &self.0 {
            Kept::Memory => None,
            Kept::Directory(directory) => Some(directory.join("views")),
        }
    }

    /// Opens `state.sqlite` for this log, emptied if it was another log's. Blocks.
    pub(crate) fn open(&self, store: StoreId) -> Result<Database> {
        let opened = Database::open(&self.place()?);
        let database = opened.map_err(unavailable)?;
        database.write_now(|connection| bind(connection, store)).map_err(unavailable)?;
        Ok(database)
    }
}

pub(crate) fn unavailable(error: SqlError) -> Error {
    Error::Unavailable(Box::new(error))
}

fn bind(connection: &Connection, store: StoreId) -> Result<(), SqlError> {
    connection.execute_batch(include_str!("state.sql"))?;
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
