//! The option that names a store, shared by all commands. `annals::backend::Backends` lists the kinds of
//! stores. Commands that only the embedded store supports use `annals_engine`, so this file can open it as an
//! [`EngineStore`].

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
    /// The store: `file:DIRECTORY`, `postgres://…`, `mysql://…`, or `memory:`, which lasts until the command
    /// ends. A command that writes creates a store that does not exist
    #[arg(long = "store", env = "ANNALS_STORE", hide_env_values = true, value_name = "URL", value_parser = store_parser())]
    pub(crate) url: StoreUrl,
}

/// The environment variable for the number of days by which the clock may be ahead of an embedded store.
const CLOCK_AHEAD_MAX: &str = "ANNALS_CLOCK_AHEAD_MAX_DAYS";

/// The options with which embedded stores are opened.
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
/// The minimum lag of the clock that is reported.
const BEHIND_MIN: Duration = Duration::from_secs(60);

/// Prints warnings about a store to standard error, unless they are logged: the log has lost its end, the
/// clock is behind the newest event, or a time that was recorded by a fast clock is corrected.
pub(crate) fn notice(store: &EngineStore) {
    if tracing::enabled!(tracing::Level::WARN) {
        return;
    }
    if let Some(lost) = store.lost_end() {
        note(&format!(
            "annals: the end of the log is not as it was recorded, so only the existing events are read: {lost}"
        ));
    }
    if let Some(time) = store.last_use_in_the_future() {
        note(&format!(
            "annals: according to its file LOCK the store was last in use at {time}, which has been in the future for a week: \
             it was recorded while the clock was ahead, and is now corrected"
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

/// The folder that every directory of an embedded store contains; see `docs/file-format.md`.
const LOG: &str = "log";

impl StoreOption {
    /// Opens the store; creates it if it does not exist.
    pub(crate) async fn open(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        match self.is_embedded() {
            true => Ok(self.create_embedded("open").await?),
            false => annals::open_store(&self.url).await.with_context(|| format!("cannot open {}", self.url)),
        }
    }

    /// Opens the store to read it, also from a read-only medium. A missing store is not created, because its
    /// name is probably a mistake.
    pub(crate) async fn open_existing(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        match self.is_embedded() {
            true => Ok(self.open_embedded("read").await?),
            false => {
                let opened = annals::open_store_to_read(&self.url).await;
                opened.with_context(|| format!("cannot open {}", self.url))
            }
        }
    }

    /// Opens an embedded store to read it, for commands that only this kind supports.
    pub(crate) async fn open_embedded(&self, to: &str) -> anyhow::Result<Arc<EngineStore>> {
        let (directory, options) = (self.directory(to)?.to_owned(), options()?);
        self.must_exist()?;
        let opened =
            tokio::task::spawn_blocking(move || EngineStore::open_to_read(directory, options)).await?;
        self.opened(opened)
    }

    /// Opens an embedded store to write to it; creates it if it does not exist.
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

    /// The directory of an embedded store. `to` is the verb in the error for another kind of store.
    pub(crate) fn directory(&self, to: &str) -> anyhow::Result<&Path> {
        self.url.directory().with_context(|| {
            format!("cannot {to} {}: it is not a store of the kind `file:DIRECTORY`", self.url)
        })
    }

    /// Refuses a store that does not exist.
    pub(crate) fn must_exist(&self) -> anyhow::Result<()> {
        let Some(directory) = self.url.directory() else { return Ok(()) };
        let is_there = match directory.join(LOG).metadata() {
            Ok(found) => found.is_dir(),
            // A store without read permission may exist.
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
