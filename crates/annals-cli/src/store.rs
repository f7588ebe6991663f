//! The option that names a store, the same for every command. Which kinds there are, `annals::backend::Backends` knows.
//! What only the embedded store can do is done with `annals_engine`; so it is opened here as what it is.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{EventStore, StoreUrl};
use annals_engine::{EngineStore, Options};
use anyhow::Context as _;
use clap::Args;

use crate::address::store_parser;
use crate::exit::NotFound;
use crate::output::note;

/// The option that names a store.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreOption {
    /// The store: `file:DIRECTORY`, `postgres://…`, `mysql://…`, or `memory:`, which ends with the command. One that is not
    /// there is created by what writes
    #[arg(long = "store", env = "ANNALS_STORE", hide_env_values = true, value_name = "URL", value_parser = store_parser())]
    pub(crate) url: StoreUrl,
}

/// The variable that says by how many days the clock may be ahead of an embedded store.
const CLOCK_AHEAD_MAX: &str = "ANNALS_CLOCK_AHEAD_MAX_DAYS";

/// How embedded stores are opened.
pub(crate) fn options() -> anyhow::Result<Options> {
    let mut options = Options::default();
    if let Some(days) = std::env::var_os(CLOCK_AHEAD_MAX) {
        let days = days.to_str().and_then(|days| days.parse::<u32>().ok());
        let days = days.with_context(|| format!("{CLOCK_AHEAD_MAX} is not a whole number of days"))?;
        options.clock_ahead_max = Duration::from_secs(u64::from(days) * DAY_SECONDS);
    }
    Ok(options)
}

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// A clock that is behind by less is not worth a line.
const BEHIND_MIN: Duration = Duration::from_secs(60);

/// Says on standard error what somebody should know of a store, if no log says so: that the end of the log is not what it
/// was, that the clock is behind it, or that a clock that was ahead has noted a time that is corrected.
pub(crate) fn notice(store: &EngineStore) {
    if tracing::enabled!(tracing::Level::WARN) {
        return;
    }
    if let Some(lost) = store.lost_end() {
        note(&format!(
            "annals: the end of the log is not what it was, and only what is there is read: {lost}"
        ));
    }
    if let Some(time) = store.last_use_given_up() {
        note(&format!(
            "annals: by its file LOCK the store was last in use at {time}, for a week now in the future: a clock that was ahead \
             had noted it, and it is corrected"
        ));
    }
    let behind = store.clock_behind();
    if behind < BEHIND_MIN {
        return;
    }
    let span = match behind.as_secs() {
        seconds if seconds < 2 * DAY_SECONDS => format!("{seconds} seconds"),
        seconds => format!("{} days", seconds / DAY_SECONDS),
    };
    note(&format!(
        "annals: the clock of this machine is {span} behind the newest event: until it has caught up, every event is recorded \
         at the time of that one"
    ));
}

/// What every directory of an embedded store holds; see `docs/file-format.md`.
const LOG: &str = "log";

impl StoreOption {
    /// Opens the store; creates it if need be.
    pub(crate) async fn open(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        match self.is_embedded() {
            true => Ok(self.create_embedded("open").await?),
            false => annals::open_store(&self.url).await.with_context(|| format!("cannot open {}", self.url)),
        }
    }

    /// Opens the store to read it, also from a read-only medium: one that is not there is not created, for its name is a
    /// mistake.
    pub(crate) async fn open_existing(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        match self.is_embedded() {
            true => Ok(self.open_embedded("read").await?),
            false => {
                let opened = annals::open_store_to_read(&self.url).await;
                opened.with_context(|| format!("cannot open {}", self.url))
            }
        }
    }

    /// The same of an embedded store, as what it is, for what only that kind can do.
    pub(crate) async fn open_embedded(&self, to: &str) -> anyhow::Result<Arc<EngineStore>> {
        let (directory, options) = (self.directory(to)?.to_owned(), options()?);
        self.must_exist()?;
        let opened =
            tokio::task::spawn_blocking(move || EngineStore::open_to_read(directory, options)).await?;
        self.opened(opened)
    }

    /// Opens an embedded store to write to it; creates it if need be.
    pub(crate) async fn create_embedded(&self, to: &str) -> anyhow::Result<Arc<EngineStore>> {
        let (directory, options) = (self.directory(to)?.to_owned(), options()?);
        let opened = tokio::task::spawn_blocking(move || EngineStore::open(directory, options)).await?;
        self.opened(opened)
    }

    fn opened(&self, opened: annals_core::Result<EngineStore>) -> anyhow::Result<Arc<EngineStore>> {
        let store = opened.with_context(|| format!("cannot open {}", self.url))?;
        notice(&store);
        Ok(Arc::new(store))
    }

    /// Whether it is an embedded store.
    pub(crate) fn is_embedded(&self) -> bool {
        self.url.directory().is_some()
    }

    /// The directory of an embedded store.
    pub(crate) fn directory(&self, to: &str) -> anyhow::Result<&Path> {
        self.url.directory().with_context(|| {
            format!("cannot {to} {}: it is not a store of the kind `file:DIRECTORY`", self.url)
        })
    }

    /// Refuses a store that is not there.
    pub(crate) fn must_exist(&self) -> anyhow::Result<()> {
        let Some(directory) = self.url.directory() else { return Ok(()) };
        let is_there = match directory.join(LOG).metadata() {
            Ok(found) => found.is_dir(),
            // One that may not be looked at may be there.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(error).with_context(|| format!("cannot look at {}", self.url));
            }
            Err(_) => false,
        };
        match is_there {
            true => Ok(()),
            false => Err(NotFound(format!("there is no store at {}", self.url)).into()),
        }
    }
}
