//! Opens the store that a URL names. The only place that knows every kind.

use std::sync::Arc;

use annals_core::{EventStore, MemoryStore, StoreUrl};
use annals_engine::{EngineStore, Options};
use anyhow::{Context as _, bail};
use clap::Args;

/// The option that names a store.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreOption {
    /// The store: `file:DIRECTORY` (created if need be), or `memory:`, which ends with the command
    #[arg(long = "store", env = "ANNALS_STORE", value_name = "URL")]
    pub(crate) url: StoreUrl,
}

impl StoreOption {
    /// Opens the store.
    pub(crate) fn open(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        open(&self.url).with_context(|| format!("cannot open {}", self.url))
    }

    /// Opens the store to read it: one that is not there is not created, for its name is a mistake.
    pub(crate) fn open_existing(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        self.must_exist()?;
        self.open()
    }

    /// Refuses a store that is not there.
    pub(crate) fn must_exist(&self) -> anyhow::Result<()> {
        match &self.url {
            StoreUrl::File(directory) if !directory.exists() => {
                bail!("there is no store at {}: no such directory", self.url)
            }
            _ => Ok(()),
        }
    }
}

/// Opens the store at this address.
pub(crate) fn open(url: &StoreUrl) -> Result<Arc<dyn EventStore>, annals_core::Error> {
    match url {
        StoreUrl::Memory => Ok(Arc::new(MemoryStore::new())),
        StoreUrl::File(directory) => Ok(Arc::new(EngineStore::open(directory, Options::default())?)),
        other => Err(annals_core::Invalid::new("store", format!("`{other}` cannot be opened here")).into()),
    }
}
