//! Validation of a group, append by append, and the rows of the valid ones.
//!
//! Each append is validated by `annals_core::admit` against the facts and everything that is staged before
//! it. An append that arrived before a loss of events was found may rest on lost events: see [`doubted`].
//! Next below: `database`, which writes the rows.

use std::collections::HashMap;
use std::convert::Infallible;

use annals_core::{
    Admission, Append, Appended, EventId, IdempotencyKey, Invalid, LogView, Position, Query, RecordedEvent,
    StoreId, StreamId, Timestamp, Version, Violated, Witness, Write, admit,
};

use crate::batch::names_only_a_place;
use crate::{Batch, Facts, Pending, Tail};

/// A validated group of appends: its assumptions about the log, and its rows.
#[derive(Debug)]
pub struct Staged<'a> {
    facts: Facts,
    /// The event that the log must still contain.
    pub known: Witness,
    log: StoreId,
    /// The streams that the group writes or assumes something of.
    pub streams: Vec<StagedStream>,
    /// The events, in the order of their positions: the first is at the position after the head.
    pub events: Vec<StagedEvent<'a>>,
    outcomes: Vec<Outcome>,
    by_name: HashMap<StreamId, usize>,
    keys: HashMap<&'a IdempotencyKey, Position>,
    ids: HashMap<(usize, EventId), Position>,
}

/// A stream of a group.
#[derive(Debug)]
pub struct StagedStream {
    /// Its name.
    pub id: StreamId,
    /// The version that it must have before the group; `None` if the group is valid at any version.
    pub assumed: Option<Version>,
    /// The event that must be there at that version; `None` if the version is enough.
    pub newest: Option<EventId>,
    /// How many events of the group it gets.
    pub count: u64,
    /// The place among the group's events of the last of them, from 1; 0 if there is none.
    pub last: u64,
}

/// An event of a group.
#[derive(Debug)]
pub struct StagedEvent<'a> {
    /// The event and its stream.
    pub write: &'a Write,
    /// The stream's place in [`Staged::streams`].
    pub stream: usize,
    /// Its place among the group's events of the stream, from 1.
    pub version: u64,
    /// The place among the group's events of the first of its append, from 1.
    pub append: u64,
    /// The append's key, on its first event.
    pub key: Option<&'a IdempotencyKey>,
    /// When it is recorded, unless the log's last event was recorded later. Never decreases along the group.
    pub recorded_at: Timestamp,
}

/// The verdict on one append of a group.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is written: this many events from this place of the group on.
    Written { start: usize, count: usize },
    /// Its key is known: the append begins at this position.
    Keyed(Position),
    /// Its events are in the log already, from this position on.
    Repeated(Position),
    /// It is invalid.
    Invalid(Invalid),
    /// These conditions do not hold.
    Refused(Vec<(usize, Violated)>),
}

impl<'a> Staged<'a> {
    /// Validates these appends by their own assumptions about the log. `None` if the log must be read to
    /// validate them.
    pub fn assuming(batch: &Batch<'a>, now: Timestamp) -> Option<Self> {
        if batch.appends.iter().any(Pending::is_doubtful) {
            return None;
        }
        let facts = Facts::assumed(batch.appends.iter().map(|pending| pending.append))?;
        let staged = Self::validate(facts, batch, now);
        let whole = staged.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Written { .. }));
        whole.then_some(staged)
    }

    /// Validates these appends against these facts. `now` is the time of the clock of the store.
    pub fn validate(facts: Facts, batch: &Batch<'a>, now: Timestamp) -> Self {
        let mut staged = Self {
            facts,
            known: batch.known,
            log: batch.log,
            streams: Vec::new(),
            events: Vec::new(),
            outcomes: Vec::with_capacity(batch.appends.len()),
            by_name: HashMap::new(),
            keys: HashMap::new(),
            ids: HashMap::new(),
        };
        for Pending { append, lost } in batch.appends.iter().copied() {
            let Ok(mut admission) = admit(&staged, append);
            if let Some(lost) = lost {
                admission = doubted(admission, append, lost);
            }
            let outcome = match admission {
                Admission::Write => staged.write(append, now),
                Admission::Keyed(first) => Outcome::Keyed(first),
                Admission::Repeated(first) => Outcome::Repeated(first),
                Admission::Invalid(invalid) => Outcome::Invalid(invalid),
                Admission::Refuse(violated) => Outcome::Refused(violated),
            };
            staged.outcomes.push(outcome);
        }
        // Assumptions about streams that are only read must hold too.
        let looked_at: Vec<_> = staged.facts.versions.keys().cloned().collect();
        for stream in looked_at {
            staged.stream(&stream);
        }
        staged
    }

    /// The end of the log if the group has nothing to write. Only for facts that were read.
    pub fn nothing(&self) -> Option<Tail> {
        let tail = Tail { position: self.facts.head, recorded_at: Timestamp::MIN, versions: Vec::new() };
        self.events.is_empty().then_some(tail)
    }

    /// The last event of the group, given the end of the log before it. `None` if nothing was written.
    pub fn newest(&self, tail: &Tail) -> Option<Witness> {
        let id = self.events.last()?.write.event.id;
        Some(Witness { position: tail.position.plus(self.events.len() as u64), id })
    }

    /// The verdicts on the appends, in their order.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The outcome of the append with these events, given the end of the log before the group.
    pub fn appended(&self, start: usize, count: usize, tail: &Tail) -> Appended {
        let events = &self.events[start..start + count];
        let places = events
            .iter()
            .map(|event| (&self.streams[event.stream].id, tail.versions[event.stream].plus(event.version)));
        let recorded_at = events[0].recorded_at.max(tail.recorded_at);
        let last = events[count - 1].write.event.id;
        Appended::new(tail.position.plus(start as u64 + 1), recorded_at, places, last, false)
    }

    /// The events of the group as recorded, given the end of the log before it.
    pub(crate) fn recorded_behind(&self, tail: &Tail) -> Vec<RecordedEvent> {
        let recorded = self.events.iter().zip(1..).map(|(event, place)| {
            RecordedEvent::record(
                &event.write.event,
                &event.write.stream,
                tail.position.plus(place),
                tail.versions[event.stream].plus(event.version),
                tail.position.plus(event.append),
                event.recorded_at.max(tail.recorded_at),
                event.key,
            )
        });
        recorded.collect()
    }

    fn write(&mut self, append: &'a Append, now: Timestamp) -> Outcome {
        let held = self.events.last().map_or(Timestamp::MIN, |event| event.recorded_at);
        let recorded_at = append.recorded_at.unwrap_or(now).min(now).max(held);
        let start = self.events.len();
        for write in &append.writes {
            let place = self.events.len() as u64 + 1;
            let stream = self.stream(&write.stream);
            let of_group = &mut self.streams[stream];
            of_group.count += 1;
            of_group.last = place;
            let version = of_group.count;
            self.ids.insert((stream, write.event.id), self.facts.head.plus(place));
            let key = append.key.as_ref().filter(|_| place == start as u64 + 1);
            let append = start as u64 + 1;
            self.events.push(StagedEvent { write, stream, version, append, key, recorded_at });
        }
        if let Some(key) = &append.key {
            self.keys.insert(key, self.facts.head.plus(start as u64 + 1));
        }
        Outcome::Written { start, count: append.writes.len() }
    }

    /// The stream's place in the group.
    fn stream(&mut self, id: &StreamId) -> usize {
        if let Some(&place) = self.by_name.get(id) {
            return place;
        }
        let assumed = self.facts.versions.get(id).copied();
        let newest = self.facts.newest.get(id).copied();
        self.streams.push(StagedStream { id: id.clone(), assumed, newest, count: 0, last: 0 });
        self.by_name.insert(id.clone(), self.streams.len() - 1);
        self.streams.len() - 1
    }

    /// The staged event at this position.
    fn staged(&self, position: Position) -> Option<&StagedEvent<'a>> {
        let place = position.get().checked_sub(self.facts.head.get() + 1)?;
        self.events.get(usize::try_from(place).ok()?)
    }

    fn version_of(&self, event: &StagedEvent<'_>) -> Version {
        self.before(&self.streams[event.stream].id).plus(event.version)
    }

    fn before(&self, stream: &StreamId) -> Version {
        self.facts.versions.get(stream).copied().unwrap_or_default()
    }

    fn recorded(&self, event: &StagedEvent<'_>, position: Position) -> RecordedEvent {
        RecordedEvent::record(
            &event.write.event,
            &event.write.stream,
            position,
            self.version_of(event),
            self.facts.head.plus(event.append),
            event.recorded_at,
            None,
        )
    }
}

/// The verdict on an append that arrived before this event was found to be lost.
///
/// A repetition is found as usual, by its key and ids. But a condition that names a version or a position may
/// hold by chance, or be violated by events that do not follow those that the caller has seen: each such
/// condition fails with the loss. One that names an event, or requires that there is none, is exact in any
/// history.
fn doubted(admission: Admission, append: &Append, lost: Witness) -> Admission {
    let mut violated = match admission {
        Admission::Write => Vec::new(),
        Admission::Refuse(violated) => violated,
        known => return known,
    };
    for (index, condition) in append.conditions.iter().enumerate() {
        if names_only_a_place(condition) {
            violated.retain(|(of, _)| *of != index);
            violated.push((index, Violated::History { seen: lost }));
        }
    }
    violated.sort_by_key(|(index, _)| *index);
    if violated.is_empty() { Admission::Write } else { Admission::Refuse(violated) }
}

impl LogView for Staged<'_> {
    type Error = Infallible;

    fn id(&self) -> StoreId {
        self.log
    }

    fn stream_version(&self, stream: &StreamId) -> Result<Version, Infallible> {
        let staged = self.by_name.get(stream).map_or(0, |&place| self.streams[place].count);
        Ok(self.before(stream).plus(staged))
    }

    fn append_with_key(&self, key: &IdempotencyKey) -> Result<Option<Position>, Infallible> {
        Ok(self.keys.get(key).or_else(|| self.facts.keys.get(key)).copied())
    }

    fn event_with_id(&self, stream: &StreamId, id: EventId) -> Result<Option<Position>, Infallible> {
        let staged = self.by_name.get(stream).and_then(|&place| self.ids.get(&(place, id)).copied());
        Ok(staged.or_else(|| self.facts.position_of(stream, id)))
    }

    fn event_at(&self, position: Position) -> Result<Option<(StreamId, Version, EventId)>, Infallible> {
        let staged = self
            .staged(position)
            .map(|event| (event.write.stream.clone(), self.version_of(event), event.write.event.id));
        Ok(staged.or_else(|| self.facts.places.get(&position).cloned()))
    }

    fn first_match(&self, query: &Query, after: Position) -> Result<Option<Position>, Infallible> {
        let asked = self.facts.matches.iter().find(|(asked, from, _)| asked == query && *from == after);
        if let Some((_, _, Some(found))) = asked {
            return Ok(Some(*found));
        }
        let places = (1..).map(|place| self.facts.head.plus(place));
        let mut staged = places.zip(&self.events).filter(|(position, _)| *position > after);
        let first = staged.find(|(position, event)| query.matches(&self.recorded(event, *position)));
        Ok(first.map(|(position, _)| position))
    }
}
