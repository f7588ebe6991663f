//! `annals verify`: checks a store, and reports what was checked.
//!
//! `annals_engine::verify_with` checks an embedded store down to its bytes. Any other store is read
//! completely and checked against the contract of logs.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;

use annals_core::{
    EventId, EventStore, Location, LogRead, Position, RecordedEvent, StreamId, StreamList, Timestamp, Version,
};
use annals_engine::{Damage, LastPass, Lost, Verification, VerifyOptions, Work};
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use crate::exit::Failure;
use crate::head::{Published, embedded};
use crate::output::{Output, Style, plain, thousands};
use crate::repair::lost_in_json;
use crate::store::StoreOption;
use crate::{progress, stop};

/// Check every checksum, position, version and index of a store
#[derive(Args)]
#[command(after_help = "Example:
  annals verify --store file:./data
  annals verify --store file:./data --rate 20 --resume
  annals verify --store file:./data --head head.json

No other process may have the store open; `annals serve --verify-rate` verifies a store while it is served. The \
exit code is 6 if the store is damaged. Nothing in the log is changed; the progress is saved beside it, for \
--resume.")]
pub(crate) struct Verify {
    /// Read at most this many MiB a second
    #[arg(long, value_name = "MIB", value_parser = crate::numbers::rate)]
    rate: Option<u64>,
    /// Resume where an earlier verification was stopped, if there is one
    #[arg(long)]
    resume: bool,
    /// Print when the whole store was last verified, and verify nothing
    #[arg(long, conflicts_with_all = ["rate", "resume", "head"])]
    last: bool,
    /// Also prove that the log still begins as it did at this published head: see `annals head --json`
    #[arg(long, alias = "chain", value_name = "FILE")]
    head: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreOption,
}

impl Verify {
    /// Checks the store and prints the result.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if self.last {
            return self.tell_last();
        }
        let head = self.head.as_deref().map(Published::read).transpose()?;
        let found = match self.store.url.directory() {
            Some(directory) => {
                self.store.must_exist()?;
                let (directory, work) = (directory.to_owned(), Work::new(self.rate));
                let options = VerifyOptions { work: work.clone(), resume: self.resume, on_damage: None };
                let verify = move || annals_engine::verify_with(directory, &options);
                let found = progress::of(&work, "verifying", verify).await?;
                found.with_context(|| format!("cannot verify {}", self.store.url))?
            }
            None if self.rate.is_some() || self.resume => bail!(
                "cannot verify {} at a rate or in pieces: it is not a store of the kind `file:DIRECTORY`",
                self.store.url
            ),
            None => check(&*self.store.open_existing().await?).await?,
        };
        // A damaged store proves nothing.
        let proved = match &head {
            Some(head) if found.damage.is_empty() => Some(embedded(&self.store)?.begins_with(head)?),
            head => head.map(|_| false),
        };
        let mut output = Output::standard();
        if self.json {
            output.line(&in_json(&found, proved))?;
        } else {
            self.print_outcome(&found, &mut output)?;
            if let (Some(head), Some(proved)) = (&head, proved) {
                let verdict = if proved { "as it was" } else { "not as it was" };
                output.line(&format!(
                    "up to position {} it is {verdict} when the head was published",
                    head.position
                ))?;
            }
        }
        output.flush()?;
        Ok(if !found.damage.is_empty() {
            Failure::Damaged.into()
        } else if !found.finished {
            stop::exit_code()
        } else if proved == Some(false) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    fn tell_last(&self) -> anyhow::Result<ExitCode> {
        let directory = self.store.directory("say when it was verified:")?;
        self.store.must_exist()?;
        let last = annals_engine::last_pass(directory);
        let last = last.with_context(|| format!("cannot look at {}", self.store.url))?;
        let mut output = Output::standard();
        if self.json {
            let last = last.map(|last| {
                json!({"at": last.finished_at.fixed(), "head": last.head.get(), "damage": last.damage})
            });
            output.line(&json!({"last": last}).to_string())?;
        } else {
            output.line(&match last {
                None => format!("{} was never verified to the end", self.store.url),
                Some(LastPass { finished_at, head, damage }) => {
                    let found = match damage {
                        0 => "whole".to_owned(),
                        damage => format!("damaged in {}", counted(damage, "place")),
                    };
                    format!("verified at {} up to position {head}: {found}", finished_at.fixed())
                }
            })?;
        }
        output.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    fn print_outcome(&self, found: &Verification, output: &mut Output) -> anyhow::Result<()> {
        let url = &self.store.url;
        let checked = [
            ("segment", found.segments),
            ("append", found.appends),
            ("event", found.events),
            ("byte", found.bytes),
            ("index", found.indexes),
        ];
        let checked = checked.iter().filter(|(name, count)| *count > 0 || *name == "event");
        let checked: Vec<_> = checked.map(|(name, count)| counted(*count, name)).collect();
        let checked = checked.join(", ");
        output.line(&format!("checked {url}: {checked}"))?;
        if let Some(position) = found.resumed {
            output
                .line(&format!("resumed at position {position}; everything before it was checked earlier"))?;
        }
        if !found.digest.is_empty() {
            output.line(&format!("digest {}", found.digest))?;
        }
        for Damage { location, problem, lost } in &found.damage {
            let line = plain(&format!("damage at {location}: {problem}; {lost}"));
            output.line(&output.styled(&line, Style::Strong))?;
        }
        let verdict = match found.damage.len() {
            0 if !found.finished => "no damage found so far".to_owned(),
            0 => "no damage found".to_owned(),
            places => format!("it is damaged in {}", counted(places as u64, "place")),
        };
        output.line(&verdict)?;
        if !found.finished {
            let next = found.head.next();
            output
                .line(&format!("it was stopped; with --resume it continues at position {next} or before"))?;
        } else if !found.damage.is_empty() {
            output.line("restore a backup, or copy the undamaged part with `annals repair`")?;
        }
        Ok(())
    }
}

fn counted(count: u64, name: &str) -> String {
    let plural = match name {
        _ if count == 1 => name.to_owned(),
        "index" => "indexes".to_owned(),
        name => format!("{name}s"),
    };
    format!("{} {plural}", thousands(count))
}

fn in_json(found: &Verification, proved: Option<bool>) -> String {
    let damage: Vec<_> = found
        .damage
        .iter()
        .map(|Damage { location, problem, lost }| {
            let position = location.position.map(Position::get);
            json!({
                "file": location.file, "offset": location.offset, "position": position, "problem": problem,
                "lost": lost_in_json(*lost),
            })
        })
        .collect();
    json!({
        "whole": found.damage.is_empty() && found.finished, "finished": found.finished,
        "resumed": found.resumed.map(Position::get), "head": found.head.get(), "store": found.store.map(|id| id.to_string()),
        "segments": found.segments, "appends": found.appends, "events": found.events, "bytes": found.bytes,
        "indexes": found.indexes, "digest": found.digest, "as_published": proved, "damage": damage,
    })
    .to_string()
}

/// Reads a whole store and checks it against the contract of logs.
async fn check(store: &dyn EventStore) -> anyhow::Result<Verification> {
    let mut found = Verification { store: Some(store.id()), ..Verification::default() };
    let mut log = Log::default();
    let mut from = Position::FIRST;
    loop {
        let page = store.read_log(LogRead::forward(from)).await?;
        for event in &page.events {
            found.events += 1;
            found.bytes += event.data().len() as u64;
            found.appends += u64::from(event.append() == event.position());
            for problem in log.follow(event) {
                found.damage.push(damage(event.position(), problem));
            }
        }
        from = page.next;
        if page.end {
            break;
        }
    }
    let listed = listed(store).await?;
    found.indexes += 1;
    if listed != log.versions {
        found.damage.push(damage(log.position, "the list of streams differs from the log".to_owned()));
    }
    (found.head, found.finished) = (log.position, true);
    Ok(found)
}

async fn listed(store: &dyn EventStore) -> annals_core::Result<HashMap<StreamId, Version>> {
    let mut listed = HashMap::new();
    let mut list = StreamList::default();
    loop {
        let page = store.list_streams(list.clone()).await?;
        let end = page.len() < list.limit;
        list.after = page.last().map(|info| info.stream.clone());
        listed.extend(page.into_iter().map(|info| (info.stream, info.version)));
        if end {
            return Ok(listed);
        }
    }
}

fn damage(position: Position, problem: String) -> Damage {
    let location = Location { file: "log".to_owned(), offset: 0, position: Some(position) };
    Damage { location, problem, lost: Lost::Nothing }
}

/// The state of the log after an event.
struct Log {
    position: Position,
    append: Position,
    recorded_at: Timestamp,
    versions: HashMap<StreamId, Version>,
    ids: HashSet<(StreamId, EventId)>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            position: Position::ZERO,
            append: Position::ZERO,
            recorded_at: Timestamp::MIN,
            versions: HashMap::new(),
            ids: HashSet::new(),
        }
    }
}

impl Log {
    /// Advances to the next event; returns its problems.
    fn follow(&mut self, event: &RecordedEvent) -> Vec<String> {
        let mut problems = Vec::new();
        if event.position() != self.position.next() {
            problems.push(format!("position {} comes after {}", event.position(), self.position));
        }
        if event.append() != event.position() && event.append() != self.append {
            problems.push(format!(
                "the append begins at {}, the one before at {}",
                event.append(),
                self.append
            ));
        }
        if event.recorded_at() < self.recorded_at {
            problems.push(format!("recorded at {}, before {}", event.recorded_at(), self.recorded_at));
        }
        let version = self.versions.insert(event.stream_id(), event.version()).unwrap_or_default();
        if event.version() != version.next() {
            problems.push(format!("`{}` goes from version {version} to {}", event.stream(), event.version()));
        }
        if !self.ids.insert((event.stream_id(), event.id())) {
            problems.push(format!("`{}` has two events with the id {}", event.stream(), event.id()));
        }
        (self.position, self.append, self.recorded_at) =
            (event.position(), event.append(), event.recorded_at());
        problems
    }
}
