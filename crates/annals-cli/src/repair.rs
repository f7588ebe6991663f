//! `annals repair`: copies the undamaged appends of a damaged store to a new one, and lists what was left
//! out.
//!
//! The list is `repair.jsonl` in the directory of the new store, with a JSON object per line of these kinds:
//!
//! ```text
//! left      file, offset, position, problem, lost: {first, last}, where last is null if the end is unknown, or null
//! gone      stream, first_version, last_version, position: events that were left out, according to the index
//! shifted   stream, lost_first_version, lost_last_version, old_version, new_version: later versions are renumbered from here
//! copied    first, last, to: the events at these old positions are now at `to` and after, in the same order
//! end       source, store, appends, events, left, lost, more_lost, moved, streams
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use annals_core::StoreUrl;
use annals_engine::disk::{FileDisk, Fresh};
use annals_engine::{Lost, Note, Repaired, VerifyOptions, Work, repair_disk, verify_disk_with};
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::address::store_parser;
use crate::exit::Failure;
use crate::named::{private_file, refuse_within_store};
use crate::output::{Output, Style, plain, thousands};
use crate::progress;
use crate::store::StoreOption;

/// The report, beside the log of the new store.
const REPORT: &str = "repair.jsonl";
/// The maximum number of places that are printed; the report has all.
const SHOWN: usize = 20;
/// The default size of segments.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Copy the undamaged appends of a damaged store to a new store
#[derive(Args)]
#[command(after_help = "Example:
  annals repair --store file:./data --to file:./mended

The damaged store is only read; no process may have it open. Whole appends are copied in their order, with ids, \
keys, times, tags and metadata. After a gap, positions and versions move up: ./mended/repair.jsonl lists what \
was left out, each stream that lost events, and the old position of every event. The new store has an identity of its \
own. The exit code is 6 if events are lost. If there is a backup that is recent enough, restore it rather than \
repair.")]
pub(crate) struct Repair {
    #[command(flatten)]
    store: StoreOption,
    /// The new store: `file:DIRECTORY`, which must not exist
    #[arg(long, value_name = "URL", value_parser = store_parser())]
    to: StoreUrl,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Repair {
    /// Repairs the store and prints what was left out.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let target = StoreOption { url: self.to.clone() };
        let (from, to) =
            (self.store.directory("repair")?.to_owned(), target.directory("repair to")?.to_owned());
        self.store.must_exist()?;
        let source = FileDisk::look(&from).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => anyhow::anyhow!("it is open in another process; stop that first"),
            _ => error.into(),
        });
        let source = source.with_context(|| format!("cannot read {}", self.store.url))?;
        let failed = || format!("{} was not made", self.to);
        refuse_within_store(&to).with_context(failed)?;
        let fresh = Fresh::begin(&to).with_context(failed)?;
        let mut report = Report {
            file: BufWriter::new(private_file(&fresh.path().join(REPORT)).with_context(failed)?),
            left: Vec::new(),
        };
        let (work, disk, runtime) = (Work::new(None), fresh.disk(), tokio::runtime::Handle::current());
        let watched = work.clone();
        let repaired = progress::of(&work, "copying", move || {
            let mut add_note = |note| report.note(&note);
            let repaired = repair_disk(&source, disk.clone(), SEGMENT_BYTES, &watched, &mut add_note);
            let repaired = runtime.block_on(repaired)?;
            let options = VerifyOptions { work: watched, ..VerifyOptions::default() };
            let found = verify_disk_with(&*disk, &options)?;
            if !found.finished {
                return Err(annals_engine::Stopped.into());
            }
            if let Some(damage) = found.damage.first() {
                bail!("the copy is damaged at {}: {}", damage.location, damage.problem);
            }
            report.end(&repaired)?;
            Ok((repaired, report.left))
        });
        let (repaired, left) = repaired.await?.with_context(failed)?;
        fresh.finish().with_context(failed)?;
        let mut output = Output::standard();
        if self.json {
            output.line(&in_json(&repaired).to_string())?;
        } else {
            self.print_outcome(&repaired, &left, &mut output)?;
        }
        output.flush()?;
        Ok(if repaired.lost > 0 || repaired.more_lost { Failure::Damaged.into() } else { ExitCode::SUCCESS })
    }

    fn print_outcome(&self, repaired: &Repaired, left: &[String], output: &mut Output) -> anyhow::Result<()> {
        let directory = self.to.directory().context("a repaired store is a directory")?;
        for line in &left[..left.len().min(SHOWN)] {
            output.line(&output.styled(&plain(line), Style::Strong))?;
        }
        if left.len() > SHOWN {
            output.line(&format!("… and {} more places", thousands((left.len() - SHOWN) as u64)))?;
        }
        let Repaired { appends, events, lost, more_lost, moved, streams, .. } = *repaired;
        let number = |count, one: &str, many: &str| {
            format!("{} {}", thousands(count), if count == 1 { one } else { many })
        };
        output.line(&format!(
            "copied {} to {}: {}, {}",
            self.store.url,
            self.to,
            number(appends, "append", "appends"),
            number(events, "event", "events")
        ))?;
        if lost == 0 && !more_lost {
            output.line("no event is lost")?;
        } else {
            let more = if more_lost { ", and an unknown number at the end" } else { "" };
            output.line(&format!(
                "lost {}{more}, of {} as far as they are known; {} moved to other positions",
                number(lost, "event", "events"),
                number(streams, "stream", "streams"),
                number(moved, "event", "events"),
            ))?;
        }
        let report = directory.join(REPORT);
        output.line(&format!(
            "the new store has an identity of its own; what was done is listed in {}",
            report.display()
        ))?;
        Ok(())
    }
}

/// Writes the report.
struct Report {
    file: BufWriter<File>,
    /// Messages about the places that were left out.
    left: Vec<String>,
}

impl Report {
    fn note(&mut self, note: &Note) -> io::Result<()> {
        if let Note::Left(damage) = note {
            self.left.push(format!("left out at {}: {}; {}", damage.location, damage.problem, damage.lost));
        }
        writeln!(self.file, "{}", note_in_json(note))
    }

    /// Writes the last line and syncs the file.
    fn end(&mut self, repaired: &Repaired) -> io::Result<()> {
        let mut line = in_json(repaired);
        line["kind"] = "end".into();
        writeln!(self.file, "{line}")?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

/// The lost positions as JSON.
pub(crate) fn lost_in_json(lost: Lost) -> Value {
    match lost {
        Lost::Events { first, last } => json!({"first": first.get(), "last": last.get()}),
        Lost::Rest { first } => json!({"first": first.get(), "last": null}),
        _ => Value::Null,
    }
}

fn note_in_json(note: &Note) -> Value {
    match note {
        Note::Left(damage) => json!({
            "kind": "left", "file": damage.location.file, "offset": damage.location.offset,
            "position": damage.location.position.map(annals_core::Position::get), "problem": damage.problem,
            "lost": lost_in_json(damage.lost),
        }),
        Note::Gone { stream, first, last, position } => json!({
            "kind": "gone", "stream": stream, "first_version": first.get(), "last_version": last.get(),
            "position": position.get(),
        }),
        Note::Shifted { stream, first, last, old, new } => json!({
            "kind": "shifted", "stream": stream.as_str(), "lost_first_version": first.get(),
            "lost_last_version": last.get(), "old_version": old.get(), "new_version": new.get(),
        }),
        Note::Copied { first, last, to } => {
            json!({"kind": "copied", "first": first.get(), "last": last.get(), "to": to.get()})
        }
        other => json!({"kind": "other", "note": format!("{other:?}")}),
    }
}

fn in_json(repaired: &Repaired) -> Value {
    json!({
        "source": repaired.source.map(|id| id.to_string()), "store": repaired.target.map(|id| id.to_string()),
        "appends": repaired.appends, "events": repaired.events, "left": repaired.left, "lost": repaired.lost,
        "more_lost": repaired.more_lost, "moved": repaired.moved, "streams": repaired.streams,
    })
}
