//! `annals migrate`: migrates a log to the newest format: the tables and indexes of a log in a database, the
//! indexes of an embedded log.
//!
//! A signal stops the migration of an embedded log; finished indexes are kept. A database completes the
//! running statement even after this command has ended.

use std::process::ExitCode;

use annals::backend::Backends;
use annals_engine::Work;
use anyhow::{Context as _, bail};
use clap::Args;

use crate::output::Output;
use crate::store::StoreOption;
use crate::{progress, stop};

/// Bring a log of an earlier version to the newest form: its tables and indexes
#[derive(Args)]
#[command(after_help = "Examples:
  annals migrate --store postgres://owner@localhost/shop
  annals migrate --store mysql://owner@localhost/shop
  annals migrate --store file:./data

In a database every command makes missing tables when it opens a store; do it by itself if the role that serves may \
not make any. Indexes over all events are made here only, while others append and read. Several may do it at once. \
The store of `file:` must not be open: `annals serve --migrate` migrates one while it is served. What was stopped or \
killed is continued by the next.")]
pub(crate) struct Migrate {
    #[command(flatten)]
    store: StoreOption,
}

/// The hint for a migration that was stopped.
const RESUME: &str = "what is done stays done; the same command continues";

impl Migrate {
    /// Migrates the store, and reports how many steps or indexes were needed.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let url = &self.store.url;
        let cannot = || format!("cannot migrate {url}");
        let done = match Backends::default().find(url)?.maintenance() {
            Some(maintenance) => steps(maintenance.migrate(url).await.with_context(cannot)?),
            None if self.store.is_embedded() => match self.embedded().await?.with_context(cannot)? {
                0 => String::new(),
                1 => ": 1 index was of an earlier version".to_owned(),
                indexes => format!(": {indexes} indexes were of an earlier version"),
            },
            None => bail!("cannot migrate {url}: nothing of it is of an earlier version"),
        };
        let mut output = Output::standard();
        output.line(&format!("{url} is up to date{done}"))?;
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    /// Migrates an embedded store; returns the number of rewritten indexes.
    async fn embedded(&self) -> anyhow::Result<annals_core::Result<usize>> {
        self.store.must_exist()?;
        let store = self.store.create_embedded("migrate").await?;
        let work = Work::new(None);
        let migrated = progress::of_events(&work, {
            let work = work.clone();
            move || store.migrate(&work)
        });
        let migrated = migrated.await?;
        if migrated.is_err() {
            stop::check(RESUME)?;
        }
        Ok(migrated)
    }
}

fn steps(missing: usize) -> String {
    match missing {
        0 => String::new(),
        1 => ": 1 step was missing".to_owned(),
        steps => format!(": {steps} steps were missing"),
    }
}
