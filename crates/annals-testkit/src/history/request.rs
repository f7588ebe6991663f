//! Random requests: few streams, few keys and repeated ids, so that requests interact.
//!
//! All of it is derived from the seed and from the responses that the task has received.

use std::collections::BTreeMap;

use annals_core::{
    Append, Appended, Direction, Error, EventId, Expected, IdempotencyKey, LogRead, NewEvent, Position,
    Query, QueryItem, Result, Seen, StreamId, StreamRead, Text, Version, Violated, Witness, Write,
};

use super::{Sent, lock};
use crate::given::{category, event, event_type, key, stream, tag};

/// A small generator of random numbers (SplitMix64): the same seed, the same numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, task: u64) -> Self {
        Self(seed ^ task.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, but not including, this one.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in this many times, on average.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("it is below a length")
    }

    fn pick<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.index(choice.len())]
    }
}

const STREAMS: [&str; 5] = ["a-1", "a-2", "b-1", "b-2", "c"];
const TYPES: [&str; 3] = ["opened", "changed", "closed"];
const TAGS: [&str; 3] = ["red", "green", "blue"];
const KEYS: u64 = 24;
const IDS: u64 = 30;

/// One task's requests.
pub(super) struct Requests {
    pub(super) random: Random,
    sent: Sent,
    versions: BTreeMap<StreamId, Version>,
    head: Position,
    /// A written event.
    seen: Option<Witness>,
}

impl Requests {
    pub(super) fn new(random: Random, sent: Sent) -> Self {
        Self { random, sent, versions: BTreeMap::new(), head: Position::ZERO, seen: None }
    }

    /// Records the versions of the streams, so that many expectations are correct and many are only stale.
    pub(super) fn learn(&mut self, append: &Append, answer: &Result<Appended>) {
        lock(&self.sent).push(append.clone());
        match answer {
            Ok(done) => {
                self.head = self.head.max(done.last);
                if let Some(last) = append.writes.last().filter(|_| !done.duplicate) {
                    self.seen = Some(Witness { position: done.last, id: last.event.id });
                }
                self.versions.extend(done.streams.iter().cloned());
            }
            Err(Error::Conflict(conflict)) => {
                for violation in &conflict.violations {
                    match &violation.violated {
                        Violated::Version { stream, actual, .. } => {
                            self.versions.insert(stream.clone(), *actual);
                        }
                        Violated::NoMatch { position, .. } => self.head = self.head.max(*position),
                        _ => {}
                    }
                }
            }
            Err(_) => {}
        }
    }

    pub(super) fn append(&mut self) -> Append {
        if self.random.once_in(6)
            && let Some(again) = self.again()
        {
            return again;
        }
        let mut append = Append::new();
        for _ in 0..=self.random.below(3) {
            let write = Write { stream: self.stream(), event: self.event() };
            append.writes.push(write);
        }
        for name in self.conditioned(&append) {
            let expected = self.expected(&name);
            append = append.expecting(name, expected);
        }
        if self.random.once_in(5) {
            let after = self.after();
            append = append.unless(self.query(), after);
        }
        if self.random.once_in(4) {
            append = append.once(self.key());
        }
        append
    }

    /// A position near the head, or a seen event: one time in three at another position than its own.
    fn after(&mut self) -> Seen {
        let near = Position::new(self.head.get().saturating_sub(self.random.below(4)));
        match self.seen.filter(|_| self.random.once_in(2)) {
            Some(seen) if self.random.once_in(3) => Witness { position: seen.position.next(), ..seen }.into(),
            Some(seen) => seen.into(),
            None => near.into(),
        }
    }

    /// The streams that a condition names: most of the written ones, and sometimes another.
    fn conditioned(&mut self, append: &Append) -> Vec<StreamId> {
        let mut names: Vec<StreamId> = append.writes.iter().map(|write| write.stream.clone()).collect();
        names.sort();
        names.dedup();
        names.retain(|_| !self.random.once_in(3));
        if self.random.once_in(6) {
            names.push(self.stream());
        }
        names
    }

    /// An append that was sent before, unchanged or slightly changed.
    fn again(&mut self) -> Option<Append> {
        let sent = lock(&self.sent);
        if sent.is_empty() {
            return None;
        }
        let mut append = sent[self.random.index(sent.len())].clone();
        drop(sent);
        match self.random.below(5) {
            0 if append.writes.len() > 1 => drop(append.writes.pop()),
            1 => append.writes.reverse(),
            2 => append.key = None,
            3 => append.conditions.clear(),
            _ => {}
        }
        Some(append)
    }

    fn stream(&mut self) -> StreamId {
        stream(self.random.pick(&STREAMS))
    }

    pub(super) fn key(&mut self) -> IdempotencyKey {
        key(&format!("key-{}", self.random.below(KEYS)))
    }

    fn expected(&mut self, name: &StreamId) -> Expected {
        let known = self.versions.get(name).copied().unwrap_or_default();
        match self.random.below(10) {
            0 => Expected::NoStream,
            1 => Expected::Exists,
            2 => Expected::Any,
            3 => Expected::Exact(Version::new(self.random.below(12))),
            4 => Expected::Exact(known.next()),
            _ => Expected::Exact(known),
        }
    }

    fn event(&mut self) -> NewEvent {
        let mut event = event(self.random.pick(&TYPES));
        if self.random.once_in(8) {
            event.id = EventId::from_name(&self.random.below(IDS).to_be_bytes());
        }
        event.data = self.random.next().to_string().into();
        for word in TAGS {
            if self.random.once_in(3) {
                event = event.with_tag(tag(word));
            }
        }
        event.metadata.process = self.random.once_in(3).then(|| Text::from("process-1"));
        event.metadata.initiator = self.random.once_in(3).then(|| Text::from("user:1"));
        event.metadata.predecessor = self.random.once_in(3).then(|| Text::from("message-1"));
        event
    }

    fn query(&mut self) -> Query {
        let items = (0..self.random.below(3)).map(|_| self.item()).collect();
        Query { items }
    }

    fn item(&mut self) -> QueryItem {
        let random = &mut self.random;
        QueryItem {
            category: random.once_in(3).then(|| category(random.pick(&["a", "b", "c"]))),
            types: (0..random.below(3)).map(|_| event_type(random.pick(&TYPES))).collect(),
            tags: (0..random.below(3)).map(|_| tag(random.pick(&TAGS))).collect(),
            process: random.once_in(5).then(|| Text::from("process-1")),
            initiator: random.once_in(5).then(|| Text::from("user:1")),
            id: random.once_in(8).then(|| EventId::from_name(&random.below(IDS).to_be_bytes())),
            predecessor: random.once_in(5).then(|| Text::from("message-1")),
        }
    }

    fn direction(&mut self) -> Direction {
        self.random.pick(&[Direction::Forward, Direction::Backward])
    }

    /// The end of a read: one time in three it may be before the end of the log.
    fn to(&mut self) -> u64 {
        if self.random.once_in(3) { self.random.below(self.head.get() + 3) } else { u64::MAX }
    }

    pub(super) fn log_read(&mut self) -> LogRead {
        let (direction, beyond) = (self.direction(), self.head.get() + 5);
        let from = if self.random.once_in(4) { u64::MAX } else { self.random.below(beyond) };
        let query = self.query();
        LogRead {
            from: Position::new(from),
            to: Position::new(self.to()),
            direction,
            query,
            limit: self.limit(),
        }
    }

    pub(super) fn stream_read(&mut self) -> StreamRead {
        let (stream, direction) = (self.stream(), self.direction());
        let from = if self.random.once_in(3) { u64::MAX } else { self.random.below(30) };
        StreamRead {
            stream,
            from: Version::new(from),
            to: Version::new(self.to()),
            direction,
            limit: self.limit(),
        }
    }

    fn limit(&mut self) -> usize {
        self.random.pick(&[1, 2, 5, 1_000])
    }
}
