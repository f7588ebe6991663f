//! `file:DIRECTORY`, the embedded store. Operations that only it supports (backup, repair, receipts) are in
//! `annals_engine`, on an [`EngineStore`] or its directory.

use std::path::PathBuf;
use std::sync::Arc;

use annals_core::{Error, Invalid, Result, StoreUrl};
use annals_engine::{EngineStore, Options};
use annals_state::{Backend, OpenOptions, Opened, StatePlace};
use async_trait::async_trait;

pub(super) struct Embedded;

#[async_trait]
impl Backend for Embedded {
    fn schemes(&self) -> &'static [&'static str] {
        &["file"]
    }

    fn form(&self) -> &'static str {
        "file:DIRECTORY"
    }

    fn check(&self, url: &StoreUrl) -> Result<(), Invalid> {
        match url.rest() {
            "" => {
                let problem = "names no directory; write `file:DIRECTORY`, such as `file:./data`";
                Err(Invalid::new("store", problem))
            }
            _ => Ok(()),
        }
    }

    async fn open(&self, url: &StoreUrl, options: OpenOptions) -> Result<Opened> {
        let OpenOptions { clock, existing } = options;
        let (directory, options) = (PathBuf::from(url.rest()), Options { clock, ..Options::default() });
        let open = move || match existing {
            true => EngineStore::open_to_read(directory, options),
            false => EngineStore::open(directory, options),
        };
        match tokio::task::spawn_blocking(open).await {
            Ok(store) => Ok(Opened::new(Arc::new(store?))),
            Err(stopped) => Err(Error::Internal(Box::new(stopped))),
        }
    }

    fn state(&self, url: &StoreUrl) -> StatePlace {
        StatePlace::Directory(PathBuf::from(url.rest()))
    }
}
