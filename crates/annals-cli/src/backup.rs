//! `annals backup`: copies a store to a directory or to object storage, and lists the backups there.

use std::process::ExitCode;

use annals_core::{Clock as _, Error, StoreUrl, SystemClock};
use annals_engine::{BackupEntry, BackupOptions, Manifest, Work, backups, verify_backup};
use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use crate::address::{parser, store_parser};
use crate::backup_storage::{Destination, cause};
use crate::exit::Failure;
use crate::output::{Column, Output, Style, thousands};
use crate::progress;
use crate::store::StoreOption;

/// Back a store up to a directory or to object storage
#[derive(Args)]
#[command(after_help = "Examples:
  annals backup ./backups --store file:./data
  annals backup s3://bucket/annals --store file:./data --verify --keep 30
  annals backup --list ./backups

A finished segment is copied once and never again, so every backup after the first is small. A store that \
`annals serve` has open is backed up by that process: start it with --backup DESTINATION and ask it with `curl \
-X POST http://127.0.0.1:2113/v1/backup`. Keys for object storage come from the environment: AWS_ACCESS_KEY_ID, \
AWS_REGION, …")]
pub(crate) struct Backup {
    /// Where backups of this store go: a directory, s3://BUCKET/PATH, gs://… or az://…
    #[arg(value_name = "DESTINATION", value_parser = parser::<Destination>())]
    destination: Destination,
    /// Show the backups that are there, and make none
    #[arg(long, conflicts_with_all = ["keep", "rate"])]
    list: bool,
    /// Read everything back that the backup is made of; with --list, all backups
    #[arg(long)]
    verify: bool,
    /// Leave this many backups, the newest, and remove the others
    #[arg(long, value_name = "COUNT", value_parser = count)]
    keep: Option<usize>,
    /// Read at most this many MiB a second; what is copied is read twice, to check it and to copy it
    #[arg(long, value_name = "MIB", value_parser = crate::numbers::rate)]
    rate: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The store: `file:DIRECTORY`
    #[arg(long = "store", env = "ANNALS_STORE", hide_env_values = true, value_name = "URL", value_parser = store_parser(), required_unless_present = "list")]
    store: Option<StoreUrl>,
}

/// Parses the number of backups to keep.
pub(crate) fn count(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|count| *count > 0).ok_or("is not a whole number from 1 up")
}

impl Backup {
    /// Makes a backup, or lists the existing ones.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if self.list { self.show().await } else { self.make().await }
    }

    async fn make(self) -> anyhow::Result<ExitCode> {
        let url = self.store.context("--store is required")?;
        let store = StoreOption { url }.open_embedded("back up").await?;
        let storage = self.destination.open()?;
        let work = Work::new(self.rate);
        let options = BackupOptions { work: work.clone(), verify: self.verify, keep: self.keep };
        let backup = progress::of(&work, "copying", move || store.backup(&*storage, &options)).await?;
        let backup = backup
            .map_err(cause)
            .with_context(|| format!("there is no new backup in {}", self.destination))?;
        let mut output = Output::standard();
        if self.json {
            output.line(&in_json(&backup).to_string())?;
        } else {
            let manifest = &backup.manifest;
            output.line(&format!(
                "backup {} in {}: up to position {}, {} in {}; copied {} in {}{}",
                manifest.number,
                self.destination,
                manifest.head,
                mebibytes(manifest.bytes()),
                segments(manifest.segments.len() as u64),
                mebibytes(backup.copied_bytes),
                segments(backup.copied),
                if self.verify { ", and read all of it back" } else { "" },
            ))?;
            match &backup.removed[..] {
                [] => {}
                [one] => output.line(&format!("removed backup {one}"))?,
                several => output.line(&format!("removed {} older backups", several.len()))?,
            }
            if let Some(number) = backup.other_history {
                output.line(&format!(
                    "the backups up to {number} are of another history of this log, which was set back since; they are kept, \
                     also by --keep, until kept-{number:06} is removed"
                ))?;
            }
            for number in &backup.unreadable {
                let kept = if self.keep.is_some() { "; so nothing was removed" } else { "" };
                output.line(&format!("backup {number} cannot be read{kept}"))?;
            }
        }
        output.flush()?;
        // The backup was made, but older ones were not removed.
        let kept_too_many = self.keep.is_some() && !backup.unreadable.is_empty();
        Ok(if kept_too_many { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    async fn show(self) -> anyhow::Result<ExitCode> {
        let storage = self.destination.read()?;
        let work = Work::new(None);
        let (verify, watched) = (self.verify, work.clone());
        let found = progress::of(&work, "reading", move || {
            let mut found = backups(&*storage)?;
            for listed in found.iter_mut().filter(|_| verify) {
                let Ok(manifest) = &listed.manifest else { continue };
                match verify_backup(&*storage, manifest, &watched) {
                    Ok(()) => {}
                    Err(error @ Error::Damaged { .. }) => listed.manifest = Err(error),
                    Err(error) => return Err(error),
                }
            }
            Ok(found)
        });
        let found =
            found.await?.map_err(cause).with_context(|| format!("cannot list {}", self.destination))?;
        let mut output = Output::standard();
        if self.json {
            for listed in &found {
                output.line(&listed_in_json(listed).to_string())?;
            }
        } else if found.is_empty() {
            output.line(&format!("no backups in {}", self.destination))?;
        } else {
            self.table(&found, &mut output)?;
        }
        output.flush()?;
        let unusable = found.iter().find_map(|listed| listed.manifest.as_ref().err());
        Ok(unusable.map_or(ExitCode::SUCCESS, |error| Failure::of_store(error).into()))
    }

    fn table(&self, found: &[BackupEntry], output: &mut Output) -> anyhow::Result<()> {
        let columns = [
            Column::number("BACKUP"),
            Column::number("POSITION"),
            Column::number("SIZE"),
            Column::number("SEGMENTS"),
            Column::text("MADE", Style::Plain),
            Column::text("LAST EVENT", Style::Plain),
        ];
        let whole: Vec<&Manifest> = found.iter().filter_map(|listed| listed.manifest.as_ref().ok()).collect();
        let rows = whole.iter().map(|backup| {
            let Manifest { number, head, segments, created_at, recorded_at, .. } = backup;
            let last = if head.get() > 0 { recorded_at.fixed() } else { "-".to_owned() };
            let (size, segments) = (mebibytes(backup.bytes()), segments.len().to_string());
            vec![number.to_string(), head.to_string(), size, segments, created_at.fixed(), last]
        });
        if let Some(last) = whole.last() {
            output.table(&columns, &rows.collect::<Vec<_>>())?;
            let whole = self.verify && found.iter().all(|listed| listed.manifest.is_ok());
            let checked = if whole { "; all of it was read and is as it was written" } else { "" };
            output.line(&format!("of the log {}{checked}", last.store))?;
        }
        let now = SystemClock.now();
        if let Some(ahead) = whole.iter().find(|backup| backup.head.get() > 0 && backup.recorded_at > now) {
            let line = format!(
                "the newest event of backup {} was recorded at {}, and the clock of this machine says {}: times do not tell \
                 the newest events apart, so restore --to a position",
                ahead.number,
                ahead.recorded_at.fixed(),
                now.fixed()
            );
            output.line(&output.styled(&line, Style::Strong))?;
        }
        for BackupEntry { number, manifest } in found {
            if let Err(error) = manifest {
                let line = format!("backup {number} cannot be restored: {}", error.chain());
                output.line(&output.styled(&line, Style::Strong))?;
            }
        }
        Ok(())
    }
}

/// A finished backup as JSON.
pub(crate) fn in_json(backup: &annals_engine::Backup) -> Value {
    let mut json = manifest_in_json(&backup.manifest);
    json["copied_segments"] = backup.copied.into();
    json["copied_bytes"] = backup.copied_bytes.into();
    json["removed"] = backup.removed.clone().into();
    json["unreadable"] = backup.unreadable.clone().into();
    json["other_history_up_to"] = backup.other_history.into();
    json
}

fn listed_in_json(listed: &BackupEntry) -> Value {
    match &listed.manifest {
        Ok(manifest) => manifest_in_json(manifest),
        Err(error) => json!({"backup": listed.number, "problem": error.chain()}),
    }
}

fn manifest_in_json(manifest: &Manifest) -> Value {
    let recorded_at = (manifest.head.get() > 0).then(|| manifest.recorded_at.fixed());
    json!({
        "backup": manifest.number, "store": manifest.store.to_string(), "head": manifest.head.get(),
        "recorded_at": recorded_at, "created_at": manifest.created_at.fixed(), "bytes": manifest.bytes(),
        "segments": manifest.segments.len(),
    })
}

/// Bytes in MiB with two decimals, rounded up, so that a small number is not shown as zero.
pub(crate) fn mebibytes(bytes: u64) -> String {
    let hundredths = (u128::from(bytes) * 100).div_ceil(1 << 20);
    let (whole, part) = (u64::try_from(hundredths / 100).unwrap_or(u64::MAX), hundredths % 100);
    format!("{}.{part:02} MiB", thousands(whole))
}

fn segments(count: u64) -> String {
    if count == 1 { "1 segment".to_owned() } else { format!("{} segments", thousands(count)) }
}
