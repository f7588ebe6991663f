//! `annals restore`: restores a backup to a new directory, up to a position or a time.

use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use annals_core::{Position, StoreUrl, Timestamp};
use annals_engine::disk::{Disk, Fresh};
use annals_engine::{EngineStore, RestoreOptions, RestorePoint, Work, restore};
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use crate::address::{parser, store_parser};
use crate::backup_storage::{Destination, cause};
use crate::begin::Place;
use crate::named::refuse_within_store;
use crate::output::{Output, thousands};
use crate::progress;
use crate::store::{StoreOption, options};

/// Restore a store from a backup, up to a position or a time
#[derive(Args)]
#[command(after_help = "Examples:
  annals restore ./backups --store file:./restored
  annals restore ./backups --store file:./restored --to 2017-04-15T13:00:00Z
  annals restore ./backups --store file:./restored \\
      --to 42@0f8fad5b-d9cb-469f-a165-70867728950e
  annals restore s3://bucket/annals --store file:./restored --backup 12

The directory must not exist; it appears when the log in it is whole and verified. It is the same log, with the \
same identity, at an earlier time: do not run both. Events after the point are not in it. ANNALS_STORE is not \
asked, so that a store at work is never named by mistake.")]
pub(crate) struct Restore {
    /// Where the backups are: a directory, s3://BUCKET/PATH, gs://… or az://…
    #[arg(value_name = "SOURCE", value_parser = parser::<Destination>())]
    source: Destination,
    /// The new store: `file:DIRECTORY`, which must not exist
    #[arg(long = "store", value_name = "URL", value_parser = store_parser())]
    store: StoreUrl,
    /// Up to here: a position, perhaps as 42@UUID with the id of the event there, which must be in the
    /// backup; or a time such as 2017-04-15T13:00:00Z [default: all of it]
    #[arg(long, value_name = "POSITION|TIME")]
    to: Option<To>,
    /// From this backup, by its number in `annals backup --list` [default: the newest]
    #[arg(long, value_name = "NUMBER", value_parser = crate::numbers::whole_number)]
    backup: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug)]
enum To {
    Place(Place),
    Time(Timestamp),
}

impl To {
    fn point(self) -> RestorePoint {
        match self {
            Self::Place(place) => RestorePoint::Position(place.position()),
            Self::Time(time) => RestorePoint::Time(time),
        }
    }

    /// Refuses a restored log that does not end with the event that was requested: its backup may be of
    /// another history.
    async fn check(self, disk: Arc<dyn Disk>, head: Position) -> anyhow::Result<()> {
        let Self::Place(place) = self else { return Ok(()) };
        if place.id().is_some() && head < place.position() {
            bail!(
                "position {} is within an append, which ends later: name its last event, or the position alone for the log \
                 up to {head}",
                place.position()
            );
        }
        if place.id().is_some() {
            let store = EngineStore::on(disk, options()?)?;
            place.check(&store).await.context("another backup may have it; --backup names one")?;
        }
        Ok(())
    }
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(place) = text.parse() {
            return Ok(Self::Place(place));
        }
        let time = text.parse::<Timestamp>().map_err(|wrong| {
            wrong.problem.replace("is not a time like", "is not a position, nor a time like")
        })?;
        Ok(Self::Time(time))
    }
}

impl Restore {
    /// Restores the store and prints its contents in short.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let store = StoreOption { url: self.store };
        let directory = store.directory("restore to")?.to_owned();
        let storage = self.source.read()?;
        let failed = || format!("nothing was restored to {}", store.url);
        refuse_within_store(&directory).with_context(failed)?;
        let fresh = Fresh::begin(&directory).with_context(failed)?;
        let (work, disk) = (Work::new(None), fresh.disk());
        let options = RestoreOptions { work: work.clone(), backup: self.backup, to: self.to.map(To::point) };
        let restored = progress::of(&work, "restoring", move || restore(&*storage, disk, &options)).await?;
        let restored = restored.map_err(cause).with_context(failed)?;
        if let Some(to) = self.to {
            to.check(fresh.disk(), restored.head).await.with_context(failed)?;
        }
        fresh.finish().with_context(failed)?;
        let mut output = Output::standard();
        let events = restored.verification.events;
        if self.json {
            output.line(
                &json!({
                    "store": restored.store.to_string(), "backup": restored.backup, "head": restored.head.get(),
                    "recorded_at": restored.recorded_at.map(|time| time.fixed()), "events": events,
                    "bytes": restored.bytes, "digest": restored.verification.digest,
                })
                .to_string(),
            )?;
        } else {
            let last = match restored.recorded_at {
                Some(time) => format!("position {}, recorded {}", restored.head, time.fixed()),
                None => "no event".to_owned(),
            };
            let (url, backup) = (&store.url, restored.backup);
            output.line(&format!("restored {url} from backup {backup}: up to {last}"))?;
            output.line(&format!("{} events, verified: no damage found", thousands(events)))?;
            output.line(&format!("the log is {}, as it was at that point", restored.store))?;
        }
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}
