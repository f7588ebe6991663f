//! The option that names a store, the same for every command. Which kinds there are, `annals::open_store` knows.

use std::path::Path;
use std::sync::Arc;

use annals_core::{EventStore, StoreUrl};
use annals_engine::{EngineStore, Options};
use anyhow::{Context as _, bail};
use clap::Args;

use crate::address::parser;

/// The option that names a store.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreOption {
    /// The store: `file:DIRECTORY` (created if need be), `postgres://…`, `mysql://…`, or `memory:`, which ends with the
    /// command
    #[arg(long = "store", env = "ANNALS_STORE", hide_env_values = true, value_name = "URL", value_parser = parser::<StoreUrl>())]
    pub(crate) url: StoreUrl,
}

/// What every directory of an embedded store holds; see `docs/file-format.md`.
const LOG: &str = "log";

impl StoreOption {
    /// Opens the store.
    pub(crate) async fn open(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        annals::open_store(&self.url).await.with_context(|| format!("cannot open {}", self.url))
    }

    /// Opens the store to read it, also from a read-only medium: one that is not there is not created, for its name is a
    /// mistake.
    pub(crate) async fn open_existing(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        match &self.url {
            StoreUrl::File(_) => Ok(self.open_embedded("read").await?),
            _ => self.open().await,
        }
    }

    /// The same of an embedded store, as what it is, for what only that kind can do.
    pub(crate) async fn open_embedded(&self, to: &str) -> anyhow::Result<Arc<EngineStore>> {
        let directory = self.directory(to)?.to_owned();
        self.must_exist()?;
        let open = move || EngineStore::open_to_read(directory, Options::default());
        let opened = tokio::task::spawn_blocking(open).await?;
        Ok(Arc::new(opened.with_context(|| format!("cannot open {}", self.url))?))
    }

    /// Opens an embedded store to write to it; creates it if need be.
    pub(crate) async fn create_embedded(&self, to: &str) -> anyhow::Result<Arc<EngineStore>> {
        let directory = self.directory(to)?.to_owned();
        let open = move || EngineStore::open(directory, Options::default());
        let opened = tokio::task::spawn_blocking(open).await?;
        Ok(Arc::new(opened.with_context(|| format!("cannot open {}", self.url))?))
    }

    /// The directory of an embedded store.
    pub(crate) fn directory(&self, to: &str) -> anyhow::Result<&Path> {
        match &self.url {
            StoreUrl::File(directory) => Ok(directory),
            other => bail!("cannot {to} {other}: it is not a store of the kind `file:DIRECTORY`"),
        }
    }

    /// Refuses a store that is not there.
    pub(crate) fn must_exist(&self) -> anyhow::Result<()> {
        match &self.url {
            StoreUrl::File(directory) if !directory.join(LOG).is_dir() => {
                bail!("there is no store at {}", self.url)
            }
            _ => Ok(()),
        }
    }
}
