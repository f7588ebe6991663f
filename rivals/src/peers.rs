//! The stores that are compared, and how each is opened. A file for each in `peers/`.

pub mod annals;
pub mod postgres;
mod sqlite;
mod tephra;
#[cfg(feature = "umadb")]
mod umadb;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use crate::rival::Rival;

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Peer {
    /// Ours, embedded.
    Annals,
    /// Tephra, embedded.
    Tephra,
    /// UmaDB behind gRPC on the loopback, server and client in this process.
    Umadb,
    /// A plain table on SQLite.
    Sqlite,
    /// A plain table on PostgreSQL, over a socket of the system.
    Postgres,
}

impl Peer {
    /// The name in tables and lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Annals => "annals",
            Self::Tephra => "tephra",
            Self::Umadb => "umadb",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }

    /// Whether its events can be found by a tag besides their stream.
    pub fn has_tags(self) -> bool {
        self != Self::Postgres
    }

    /// Whether it is a library that works on files below one directory; only such stores are opened, killed,
    /// weighed and scanned.
    pub fn is_embedded_log(self) -> bool {
        matches!(self, Self::Annals | Self::Tephra)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Opens stores.
pub struct Opener {
    runtime: tokio::runtime::Handle,
    server: Option<postgres::Server>,
}

impl Opener {
    /// Opens stores whose tasks run there, and those of PostgreSQL on this server.
    pub fn new(runtime: tokio::runtime::Handle, server: Option<postgres::Server>) -> Self {
        Self { runtime, server }
    }

    /// Opens the peer's store in this directory; creates both if need be.
    ///
    /// # Errors
    /// As the store's.
    pub fn open(&self, peer: Peer, directory: &Path) -> Result<Arc<dyn Rival>> {
        std::fs::create_dir_all(directory)?;
        Ok(match peer {
            Peer::Annals => Arc::new(annals::AnnalsStore::open(directory)?),
            Peer::Tephra => Arc::new(tephra::TephraStore::open(directory)?),
            #[cfg(feature = "umadb")]
            Peer::Umadb => Arc::new(umadb::UmadbStore::open(directory, &self.runtime)?),
            #[cfg(not(feature = "umadb"))]
            Peer::Umadb => anyhow::bail!("this binary was built without UmaDB"),
            Peer::Sqlite => Arc::new(sqlite::SqliteStore::open(directory)?),
            Peer::Postgres => {
                let Some(server) = &self.server else { anyhow::bail!("there is no PostgreSQL server") };
                Arc::new(self.runtime.block_on(postgres::PostgresStore::open(server, directory))?)
            }
        })
    }

    /// Whether the peer can be made to read from the disk again.
    pub fn can_forget(&self, peer: Peer) -> bool {
        peer != Peer::Postgres || matches!(self.server, Some(postgres::Server::Own { .. }))
    }

    /// Makes the peer forget what it holds in memory beyond an open store.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn forget(&mut self, peer: Peer) -> Result<()> {
        match (peer, &mut self.server) {
            (Peer::Postgres, Some(server)) => server.restart(),
            _ => Ok(()),
        }
    }
}
