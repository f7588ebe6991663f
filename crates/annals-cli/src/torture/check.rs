//! The checks after a kill: the log is compared with the witness, and each kind of read with the log.
//!
//! Lost: an acknowledged append is missing. Half: some events of an append are stored and others are not.
//! Wrong: any other violation of a guarantee.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;

use annals_core::{Error, EventStore, EventStoreExt, LogRead, Position, Query, StreamId, Timestamp, Version};
use annals_engine::{EngineStore, Head};

use super::load::{self, Hash, Name, Random, hash_of, hash_of_all, hash_of_scanned};
use super::witness::{Acknowledged, Ledger, State, Witness};

/// A violation of a guarantee.
#[derive(Clone, Debug)]
pub(super) struct Violation {
    pub(super) kind: Kind,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Lost,
    Half,
    Wrong,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Half => "half",
            Self::Wrong => "wrong",
        }
    }
}

/// The counters of a check.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Acknowledged appends that were looked up; each is counted again at each check.
    pub(super) checked: u64,
    /// Appends that were in flight at a kill and are stored.
    pub(super) found: u64,
    /// Appends that were in flight at a kill and are not stored.
    pub(super) absent: u64,
    /// Appends that were sent again.
    pub(super) retried: u64,
    /// Events that the consumer has seen.
    pub(super) seen: u64,
}

/// The complete log as it was read.
#[derive(Default)]
struct Seen {
    events: Vec<(u32, Hash)>,
    writers: Vec<u64>,
    streams: Vec<String>,
    numbers: HashMap<String, u32>,
    versions: Vec<u64>,
    appends: HashMap<Name, Found>,
    wrong: Vec<Violation>,
}

/// The part of an append that was read so far: its first position, its name, the hashes of its events, and
/// its streams.
type Group = (Position, Name, Vec<Hash>, BTreeMap<String, Version>);

struct Found {
    place: Acknowledged,
    hash: Hash,
    events: u64,
}

/// One check of one store.
pub(super) struct Check<'a> {
    pub(super) store: &'a EngineStore,
    pub(super) ledger: &'a mut Ledger,
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) tally: Tally,
    pub(super) violations: Vec<Violation>,
}

/// The number of settled appends that are sent again.
const SENT_AGAIN: u64 = 5;
/// The number of streams that are read.
const STREAMS_READ: u64 = 10;

impl Check<'_> {
    /// Runs all checks. `before` is the head at the last check, and is set to the head at this one.
    pub(super) async fn run(
        &mut self,
        seen: &Path,
        witness: &Witness,
        before: &mut Option<Head>,
    ) -> anyhow::Result<()> {
        let log = self.read()?;
        self.compare(&log);
        self.consumer(&log, seen)?;
        self.streams(&log).await?;
        self.tags(&log).await?;
        if let Some(head) = before
            && self.store.head_digest(Some(head.position))?.is_none_or(|now| now != *head)
        {
            self.wrong(format!(
                "the log up to position {} is not what it was after the last kill",
                head.position
            ));
        }
        if self.violations.is_empty() {
            self.retry(&log, witness).await?;
        }
        *before = self.store.head_digest(None)?.filter(|head| head.position > Position::ZERO);
        Ok(())
    }

    fn wrong(&mut self, text: String) {
        self.violations.push(Violation { kind: Kind::Wrong, text });
    }

    /// Reads the complete log; checks positions, versions, times, and that the events of an append are
    /// adjacent.
    fn read(&mut self) -> anyhow::Result<Seen> {
        let mut log = Seen::default();
        let mut next = Position::FIRST;
        let mut recorded_at = Timestamp::MIN;
        let mut group: Option<Group> = None;
        let end = self.store.scan(Position::FIRST, |event| {
            let position = event.position();
            let wrong =
                |kind, text: String| Violation { kind, text: format!("at position {position}: {text}") };
            if position != next {
                log.wrong.push(wrong(Kind::Wrong, format!("expected position {next}")));
            }
            next = position.next();
            if event.recorded_at() < recorded_at {
                log.wrong.push(wrong(Kind::Wrong, "the recorded time goes back".into()));
            }
            recorded_at = event.recorded_at();
            let number = log.number(event.stream());
            log.versions[number as usize] += 1;
            if event.version().get() != log.versions[number as usize] {
                let text = format!(
                    "`{}` has version {}, expected {}",
                    event.stream(),
                    event.version(),
                    log.versions[number as usize]
                );
                log.wrong.push(wrong(Kind::Wrong, text));
            }
            let hash = hash_of_scanned(event);
            let name = load::name_in(event.data());
            log.events.push((number, hash));
            log.writers.push(name.map_or(u64::MAX, |name| name.writer));
            let Some(name) = name else {
                log.wrong.push(wrong(Kind::Wrong, "no writer wrote this event".into()));
                return ControlFlow::Continue(());
            };
            if event.append() == position {
                log.close(group.take());
                group = Some((position, name, Vec::new(), BTreeMap::new()));
            }
            match &mut group {
                Some((first, of, hashes, streams)) if (*first, *of) == (event.append(), name) => {
                    hashes.push(hash);
                    streams.insert(event.stream().to_owned(), event.version());
                }
                _ => log.wrong.push(wrong(Kind::Half, format!("append {name} is without its beginning"))),
            }
            ControlFlow::Continue(())
        })?;
        log.close(group);
        if end != next {
            self.wrong(format!("the log ends at {}, and its head is {}", next.previous(), end.previous()));
        }
        self.violations.append(&mut log.wrong);
        Ok(log)
    }

    /// Compares the log with the witness.
    fn compare(&mut self, log: &Seen) {
        let Self { ledger, tally, violations, .. } = self;
        let mut say = |kind, text| violations.push(Violation { kind, text });
        for (name, found) in &log.appends {
            let place = format!("append {name} at positions {} to {}", found.place.first, found.place.last);
            match ledger.appends.get(name) {
                None => say(Kind::Wrong, format!("{place}: the witness has no such append")),
                Some(known) if known.events != found.events => {
                    say(
                        Kind::Half,
                        format!("{place}: {} of {} events are there", found.events, known.events),
                    );
                }
                Some(known) if known.hash != found.hash => {
                    say(Kind::Wrong, format!("{place}: its content is not what was written"));
                }
                Some(known) if known.state == State::Absent => {
                    say(Kind::Wrong, format!("{place}: it was not there after an earlier kill"));
                }
                Some(_) => {}
            }
        }
        for (name, known) in &ledger.appends {
            let State::Acknowledged(place) = &known.state else { continue };
            tally.checked += 1;
            match log.appends.get(name) {
                None => say(
                    Kind::Lost,
                    format!(
                        "append {name} was acknowledged at positions {} to {} ({}); the log ends at {}",
                        place.first,
                        place.last,
                        place
                            .streams
                            .iter()
                            .map(|(stream, version)| format!("{stream}={version}"))
                            .collect::<Vec<_>>()
                            .join(", "),
                        log.events.len()
                    ),
                ),
                Some(found) if found.place != *place => say(
                    Kind::Wrong,
                    format!("append {name} was acknowledged as {place:?} and is there as {:?}", found.place),
                ),
                Some(_) => {}
            }
        }
    }

    /// Checks the record of the consumer: every event once, in order, without a gap.
    fn consumer(&mut self, log: &Seen, path: &Path) -> anyhow::Result<()> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let mut next = 1;
        for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
            let hash = log.events.get(next - 1).map(|(_, hash)| crate::head::hex(&hash[..8]));
            let expected = hash.map(|hash| format!("{next} {hash}"));
            if expected.as_deref() != Some(line) {
                let is = expected.as_deref().unwrap_or("nothing");
                self.wrong(format!(
                    "a consumer that reads on from its checkpoint saw `{line}`; in the log is {is}"
                ));
                return Ok(());
            }
            next += 1;
        }
        self.tally.seen = next as u64 - 1;
        Ok(())
    }

    /// Reads some streams through the index, and compares their events with the log.
    async fn streams(&mut self, log: &Seen) -> anyhow::Result<()> {
        if log.streams.is_empty() {
            return Ok(());
        }
        for _ in 0..STREAMS_READ {
            let number = self.random.below(log.streams.len() as u64) as u32;
            let name = &log.streams[number as usize];
            let events = self.store.stream_events(&StreamId::new(name.as_str())?).await?;
            let read = events
                .iter()
                .map(|event| (event.position().get(), hash_of(&event.stream_id(), &event.to_new())));
            let of_log = (1..).zip(&log.events).filter(|(_, (stream, _))| *stream == number);
            if !read.eq(of_log.map(|(position, (_, hash))| (position, *hash))) {
                self.wrong(format!("the stream `{name}` does not read as it is in the log"));
            }
        }
        Ok(())
    }

    /// Reads some events by their tag through the index, and compares them with the log.
    async fn tags(&mut self, log: &Seen) -> anyhow::Result<()> {
        const LIMIT: usize = 300;
        let from = 1 + self.random.below(log.events.len() as u64);
        for writer in 0..4 {
            let read =
                LogRead::forward(Position::new(from)).matching(Query::tags([load::tag(writer)])).limit(LIMIT);
            let page = self.store.read_log(read).await?;
            let expected =
                (1..).zip(&log.writers).filter(|(position, other)| *position >= from && **other == writer);
            let mut expected = expected.map(|(position, _)| position);
            let agree = page.events.iter().all(|event| expected.next() == Some(event.position().get()));
            let rest = expected.next();
            if !agree || (page.end && page.events.len() < LIMIT && rest.is_some()) {
                self.wrong(format!(
                    "the events of tag writer:{writer} from position {from} on are not those of the log"
                ));
            }
        }
        Ok(())
    }

    /// Resends the appends in flight and some of the settled ones.
    async fn retry(&mut self, log: &Seen, witness: &Witness) -> anyhow::Result<()> {
        let in_flight = self.ledger.appends.iter().filter(|(_, known)| known.state == State::InFlight);
        let mut names: Vec<Name> = in_flight.map(|(name, _)| *name).collect();
        let settled: Vec<Name> = self
            .ledger
            .appends
            .iter()
            .filter(|(_, known)| known.state != State::InFlight)
            .map(|(name, _)| *name)
            .collect();
        if !settled.is_empty() {
            names.extend((0..SENT_AGAIN).map(|_| settled[self.random.below(settled.len() as u64) as usize]));
        }
        for name in names {
            let found = log.appends.get(&name).map(|found| found.place.clone());
            let known = self.ledger.appends.get_mut(&name).expect("it is one of them");
            if known.state == State::InFlight {
                *(if found.is_some() { &mut self.tally.found } else { &mut self.tally.absent }) += 1;
            }
            // Some of the missing appends are not resent: they must not appear later.
            if found.is_none() && (known.state == State::Absent || self.random.below(2) == 0) {
                known.state = State::Absent;
                continue;
            }
            let append = load::append(self.seed, name, known.own);
            let outcome = match self.store.append(append).await {
                Ok(outcome) => outcome,
                // Another child has written to its stream before this check.
                Err(Error::Conflict(conflict)) if found.is_none() && conflict.is_stale() => {
                    self.ledger.appends.get_mut(&name).expect("it is one of them").state = State::Absent;
                    continue;
                }
                Err(error) => {
                    let text = format!("append {name}, sent again, was refused: {}", error.chain());
                    self.wrong(text);
                    continue;
                }
            };
            self.tally.retried += 1;
            let place = Acknowledged::of(&outcome);
            let known = self.ledger.appends.get_mut(&name).expect("it is one of them");
            let right = match &found {
                Some(found) => outcome.duplicate && place == *found,
                None => !outcome.duplicate,
            };
            if known.state == State::InFlight {
                witness.acknowledge(name, &outcome, &known.hash).await?;
                known.state = State::Acknowledged(place.clone());
            }
            if !right {
                self.wrong(format!(
                    "append {name}, sent again, was answered with {place:?}; in the log it was {found:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Seen {
    fn number(&mut self, stream: &str) -> u32 {
        if let Some(number) = self.numbers.get(stream) {
            return *number;
        }
        let number = self.streams.len() as u32;
        self.streams.push(stream.to_owned());
        self.versions.push(0);
        self.numbers.insert(stream.to_owned(), number);
        number
    }

    /// Adds an append that was read completely.
    fn close(&mut self, group: Option<Group>) {
        let Some((first, name, hashes, streams)) = group else { return };
        let events = hashes.len() as u64;
        let place = Acknowledged { first, last: first.plus(events - 1), streams };
        let found = Found { place, hash: hash_of_all(hashes), events };
        if let Some(other) = self.appends.insert(name, found) {
            let text =
                format!("append {name} is there twice: from position {} and from {first}", other.place.first);
            self.wrong.push(Violation { kind: Kind::Wrong, text });
        }
    }
}
