//! `memory:`, a store that ends with the process. Each open creates a new one.

use std::sync::Arc;

use annals_core::{Invalid, Limits, MemoryStore, Result, StoreUrl};
use annals_state::{Backend, OpenOptions, Opened, StatePlace};
use async_trait::async_trait;

pub(super) struct Memory;

#[async_trait]
impl Backend for Memory {
    fn schemes(&self) -> &'static [&'static str] {
        &["memory"]
    }

    fn form(&self) -> &'static str {
        "memory:"
    }

    fn check(&self, url: &StoreUrl) -> Result<(), Invalid> {
        match url.rest() {
            "" => Ok(()),
            _ => {
                let problem = "in memory has no name; write `memory:`, or `file:DIRECTORY` for one that outlives the process";
                Err(Invalid::new("store", problem))
            }
        }
    }

    async fn open(&self, _: &StoreUrl, options: OpenOptions) -> Result<Opened> {
        Ok(Opened::new(Arc::new(MemoryStore::with(Limits::default(), options.clock))))
    }

    fn state(&self, _: &StoreUrl) -> StatePlace {
        StatePlace::Memory
    }
}
