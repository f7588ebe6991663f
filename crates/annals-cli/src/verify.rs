//! `annals verify`: checks a store, and says what was checked.
//!
//! The embedded store is checked down to its bytes, by `annals_engine::verify`. Any other is read whole, and what
//! the contract promises of every log is checked.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;

use annals_core::{
    EventId, EventStore, LogRead, Place, Position, RecordedEvent, StoreUrl, StreamId, StreamList, Timestamp,
    Version,
};
use annals_engine::Verification;
use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use crate::output::{Output, Style, plain, thousands};
use crate::progress;
use crate::store::StoreOption;

/// Check every checksum, position, version and index of a store
#[derive(Args)]
#[command(after_help = "Example:
  annals verify --store file:./data

No other process may have the store open. The exit code is 1 if anything is wrong.")]
pub(crate) struct Verify {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreOption,
}

impl Verify {
    /// Checks the store and tells what was found.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let found = match &self.store.url {
            StoreUrl::File(directory) => {
                self.store.must_exist()?;
                let bar = progress::bytes(Some(0));
                let found = annals_engine::verify(directory, &mut |read, total| {
                    bar.set_length(total);
                    bar.set_position(read);
                });
                bar.finish_and_clear();
                found.with_context(|| format!("cannot verify {}", self.store.url))?
            }
            _ => check(&*self.store.open().await?).await?,
        };
        let mut output = Output::standard();
        if self.json {
            output.line(&in_json(&found))?;
        } else {
            self.tell(&found, &mut output)?;
        }
        output.flush()?;
        Ok(if found.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn tell(&self, found: &Verification, output: &mut Output) -> anyhow::Result<()> {
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
        if !found.digest.is_empty() {
            output.line(&format!("digest {}", found.digest))?;
        }
        for (place, problem) in &found.damage {
            let line = plain(&format!("damage at {place}: {problem}"));
            output.line(&output.styled(&line, Style::Strong))?;
        }
        let verdict = match found.damage.len() {
            0 => "it is whole".to_owned(),
            1 => "it is damaged in 1 place".to_owned(),
            places => format!("it is damaged in {places} places"),
        };
        Ok(output.line(&verdict)?)
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

fn in_json(found: &Verification) -> String {
    let damage: Vec<_> = found
        .damage
        .iter()
        .map(|(place, problem)| {
            let position = place.position.map(Position::get);
            json!({"file": place.file, "offset": place.offset, "position": position, "problem": problem})
        })
        .collect();
    json!({
        "whole": found.damage.is_empty(), "store": found.store.map(|id| id.to_string()),
        "segments": found.segments, "appends": found.appends, "events": found.events, "bytes": found.bytes,
        "indexes": found.indexes, "digest": found.digest, "damage": damage,
    })
    .to_string()
}

/// Reads a whole store and checks what the contract promises of every log.
async fn check(store: &dyn EventStore) -> anyhow::Result<Verification> {
    let mut found = Verification { store: Some(store.id()), ..Verification::default() };
    let mut log = Log::default();
    let mut from = Position::FIRST;
    loop {
        let page = store.read_log(LogRead::forward(from)).await?;
        for event in &page.events {
            found.events += 1;
            found.bytes += event.data.len() as u64;
            found.appends += u64::from(event.append == event.position);
            for problem in log.follow(event) {
                found.damage.push((at(event.position), problem));
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
        found.damage.push((at(log.position), "the list of streams differs from the log".to_owned()));
    }
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

fn at(position: Position) -> Place {
    Place { file: "log".to_owned(), offset: 0, position: Some(position) }
}

/// The log up to an event.
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
    /// Goes on to the next event; says what is wrong with it.
    fn follow(&mut self, event: &RecordedEvent) -> Vec<String> {
        let mut problems = Vec::new();
        if event.position != self.position.next() {
            problems.push(format!("position {} comes after {}", event.position, self.position));
        }
        if event.append != event.position && event.append != self.append {
            problems
                .push(format!("the append begins at {}, the one before at {}", event.append, self.append));
        }
        if event.recorded_at < self.recorded_at {
            problems.push(format!("recorded at {}, before {}", event.recorded_at, self.recorded_at));
        }
        let version = self.versions.insert(event.stream.clone(), event.version).unwrap_or_default();
        if event.version != version.next() {
            problems.push(format!("`{}` goes from version {version} to {}", event.stream, event.version));
        }
        if !self.ids.insert((event.stream.clone(), event.id)) {
            problems.push(format!("`{}` has two events with the id {}", event.stream, event.id));
        }
        (self.position, self.append, self.recorded_at) = (event.position, event.append, event.recorded_at);
        problems
    }
}
