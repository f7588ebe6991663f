//! The store in memory: the reference for store implementers, and a fast target for tests.
//!
//! One lock, one vector of events, and maps from names to indexes in it. It keeps every clause of the
//! contract except G1: its events are lost when the process ends.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use event_listener::Event;

use crate::{
    Admission, Append, Appended, Clock, Conflict, Direction, Error, EventId, EventStore, IdempotencyKey,
    Limits, LogPage, LogRead, LogView, Position, Query, RecordedEvent, Result, StoreId, StreamId, StreamInfo,
    StreamList, StreamPage, StreamRead, SystemClock, Timestamp, Version, admit,
};

/// A store in memory, which ends with the process.
pub struct MemoryStore {
    id: StoreId,
    limits: Limits,
    clock: Arc<dyn Clock>,
    log: Mutex<Log>,
    /// Notified when the log has grown.
    grown: Event,
}

struct Log {
    id: StoreId,
    events: Vec<RecordedEvent>,
    streams: BTreeMap<StreamId, Vec<Position>>,
    keys: HashMap<IdempotencyKey, Position>,
    ids: HashMap<(StreamId, EventId), Position>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store with the default limits and the machine's clock.
    pub fn new() -> Self {
        Self::with(Limits::default(), Arc::new(SystemClock))
    }

    /// An empty store with these limits and this clock.
    pub fn with(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let id = StoreId::generate();
        Self { id, limits, clock, log: Mutex::new(Log::new(id)), grown: Event::new() }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // No code below panics in the middle of a change, so the log under a poisoned lock is consistent.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on the append and writes it if it is admitted: one step under the lock.
    fn try_append(&self, append: &Append) -> Result<Appended, Refusal> {
        let mut log = self.log();
        let Ok(admission) = admit(&*log, append);
        match admission {
            Admission::Write => Ok(log.write(append, self.clock.now(), &self.grown)),
            Admission::Keyed(first) => Ok(log.outcome(first)),
            Admission::Repeated(first) => {
                let count = append.writes.len();
                Ok(Appended::of(&log.events[index(first)..index(first) + count], true))
            }
            Admission::Invalid(invalid) => Err(Refusal::Error(invalid.into())),
            Admission::Refuse(violated) => Err(Refusal::Conflict(violated)),
        }
    }
}

enum Refusal {
    Error(Error),
    Conflict(Vec<(usize, crate::Violated)>),
}

/// Index in the vector of the event at this position.
fn index(position: Position) -> usize {
    usize::try_from(position.get() - 1).expect("an event in memory has an index")
}

impl Log {
    fn new(id: StoreId) -> Self {
        Self { id, events: Vec::new(), streams: BTreeMap::new(), keys: HashMap::new(), ids: HashMap::new() }
    }

    fn head(&self) -> Position {
        Position::new(self.events.len() as u64)
    }

    fn version(&self, stream: &StreamId) -> Version {
        Version::new(self.streams.get(stream).map_or(0, Vec::len) as u64)
    }

    fn write(&mut self, append: &Append, now: Timestamp, grown: &Event) -> Appended {
        let held = self.events.last().map_or(Timestamp::MIN, |event| event.recorded_at());
        let recorded_at = append.recorded_at.unwrap_or(now).min(now).max(held);
        let first = self.head().next();
        for write in &append.writes {
            let position = self.head().next();
            let version = self.version(&write.stream).next();
            self.streams.entry(write.stream.clone()).or_default().push(position);
            self.ids.insert((write.stream.clone(), write.event.id), position);
            let key = append.key.as_ref().filter(|_| position == first);
            self.events.push(RecordedEvent::record(
                &write.event,
                &write.stream,
                position,
                version,
                first,
                recorded_at,
                key,
            ));
        }
        if let Some(key) = &append.key {
            self.keys.insert(key.clone(), first);
        }
        grown.notify(usize::MAX);
        Appended::of(&self.events[index(first)..], false)
    }

    /// The outcome of the append that begins at this position.
    fn outcome(&self, first: Position) -> Appended {
        let rest = &self.events[index(first)..];
        let count = rest.iter().take_while(|event| event.append() == first).count();
        Appended::of(&rest[..count], true)
    }
}

impl LogView for Log {
    type Error = Infallible;

    fn id(&self) -> StoreId {
        self.id
    }

    fn stream_version(&self, stream: &StreamId) -> Result<Version, Infallible> {
        Ok(self.version(stream))
    }

    fn append_with_key(&self, key: &IdempotencyKey) -> Result<Option<Position>, Infallible> {
        Ok(self.keys.get(key).copied())
    }

    fn event_with_id(&self, stream: &StreamId, id: EventId) -> Result<Option<Position>, Infallible> {
        Ok(self.ids.get(&(stream.clone(), id)).copied())
    }

    fn event_at(&self, position: Position) -> Result<Option<(StreamId, Version, EventId)>, Infallible> {
        let event = self.events.get(index(position));
        Ok(event.map(|event| (event.stream_id(), event.version(), event.id())))
    }

    fn first_match(&self, query: &Query, after: Position) -> Result<Option<Position>, Infallible> {
        let later = self.events.iter().skip(usize::try_from(after.get()).unwrap_or(usize::MAX));
        Ok(later.into_iter().find(|event| query.matches(event)).map(|event| event.position()))
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    fn id(&self) -> StoreId {
        self.id
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        append.validate(&self.limits)?;
        match self.try_append(&append) {
            Ok(appended) if appended.duplicate => appended.checked(self, &append).await,
            Ok(appended) => Ok(appended),
            Err(Refusal::Error(error)) => Err(error),
            Err(Refusal::Conflict(violated)) => {
                Err(Error::Conflict(Box::new(Conflict::explain(self, &append.conditions, violated).await?)))
            }
        }
    }

    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        read.validate(&self.limits)?;
        let log = self.log();
        let head = log.head();
        let (limit, last) = (read.limit.max(1), head.min(read.to));
        let forward = read.direction == Direction::Forward;
        let mut next = if forward { read.from.max(Position::FIRST) } else { read.from.min(last) };
        let ends = |next| if forward { next > last } else { next == Position::ZERO };
        let mut events = Vec::new();
        while !ends(next) && events.len() < limit {
            let event = &log.events[index(next)];
            if read.query.matches(event) {
                events.push(event.clone());
            }
            next = if forward { next.next() } else { next.previous() };
        }
        Ok(LogPage { events, next, end: ends(next), head })
    }

    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        let log = self.log();
        let version = log.version(&read.stream);
        let (limit, last) = (read.limit.max(1) as u64, version.min(read.to));
        let (from, to, next) = match read.direction {
            Direction::Forward => {
                let from = read.from.max(Version::FIRST);
                let to = last.min(from.plus(limit - 1));
                (from, to, from.max(to.next()))
            }
            Direction::Backward => {
                let to = read.from.min(last);
                let from = Version::new(to.get().saturating_sub(limit - 1)).max(Version::FIRST);
                (from, to, from.min(to.next()).previous())
            }
        };
        let places = log.streams.get(&read.stream).map_or(&[][..], Vec::as_slice);
        let mut events: Vec<_> = (from.get()..=to.get())
            .map(|version| places[usize::try_from(version - 1).expect("a version in memory has an index")])
            .map(|position| log.events[index(position)].clone())
            .collect();
        let end = match read.direction {
            Direction::Forward => next > last,
            Direction::Backward => next == Version::ZERO,
        };
        if read.direction == Direction::Backward {
            events.reverse();
        }
        Ok(StreamPage { events, next, end, version })
    }

    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        let log = self.log();
        let start = list.after.map_or(Bound::Unbounded, Bound::Excluded);
        let streams = log.streams.range((start, Bound::Unbounded));
        Ok(streams
            .filter(|(stream, _)| {
                list.category.as_ref().is_none_or(|category| stream.category() == *category)
            })
            .filter_map(|(stream, places)| {
                let version = Version::new(places.len() as u64);
                places.last().map(|&position| StreamInfo { stream: stream.clone(), version, position })
            })
            .take(list.limit.max(1))
            .collect())
    }

    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        let log = self.log();
        Ok(log.keys.get(key).map(|&first| log.outcome(first)))
    }

    async fn head(&self) -> Result<Position> {
        Ok(self.log().head())
    }

    async fn wait(&self, after: Position) -> Result<Position> {
        loop {
            // Registered before the head is read, so that no later append is missed.
            let grown = self.grown.listen();
            let head = self.log().head();
            if head > after {
                return Ok(head);
            }
            grown.await;
        }
    }
}
