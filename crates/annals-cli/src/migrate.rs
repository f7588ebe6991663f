//! `annals migrate`: makes the tables of a log in a database, or brings them up to date.

use std::process::ExitCode;

use annals_core::StoreUrl;
use anyhow::{Context as _, bail};
use clap::Args;

use crate::output::Output;
use crate::store::StoreOption;

/// Make the tables of a log in a database, or bring them up to date
#[derive(Args)]
#[command(after_help = "Examples:
  annals migrate --store postgres://owner@localhost/shop
  annals migrate --store mysql://owner@localhost/shop

Every command does the same when it opens a store. Do it by itself if the role that serves may not make tables. \
Several may do it at once.")]
pub(crate) struct Migrate {
    #[command(flatten)]
    store: StoreOption,
}

impl Migrate {
    /// Migrates, and says how many steps were missing.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let url = &self.store.url;
        let steps = match url {
            StoreUrl::Postgres(address) => annals_postgres::migrate(address.expose()).await,
            StoreUrl::MySql(address) => annals_mysql::migrate(address.expose()).await,
            other => bail!("cannot migrate {other}: it is no database"),
        };
        let mut output = Output::standard();
        output.line(&match steps.with_context(|| format!("cannot migrate {url}"))? {
            0 => format!("{url} is up to date"),
            1 => format!("{url} is up to date: 1 step was missing"),
            steps => format!("{url} is up to date: {steps} steps were missing"),
        })?;
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}
