//! The facts by which a group of appends is validated: assumed, or read from the log under its lock.

use std::collections::{BTreeMap, HashMap};

use annals_core::{
    Append, Condition, EventId, Expected, IdempotencyKey, Position, Query, StreamId, Timestamp, Version,
    Witness,
};

use crate::Batch;

/// The facts of the log that concern a group. What is not in here is not in the log.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Position of the last event.
    pub head: Position,
    /// The requested streams that exist.
    pub versions: HashMap<StreamId, Version>,
    /// Keys that are used, and the position of their append's first event.
    pub keys: HashMap<IdempotencyKey, Position>,
    /// Event ids that are used in their stream, and where the event is.
    pub ids: HashMap<StreamId, HashMap<EventId, Position>>,
    /// The events at the positions at which those of a repeated append may be already.
    pub places: BTreeMap<Position, (StreamId, Version, EventId)>,
    /// The newest events of streams, where one is assumed: it must be there. It always stays there once it
    /// is, so it need not be looked for under the lock, but on the connection on which the group is written.
    pub newest: HashMap<StreamId, EventId>,
    /// The first event that matches, for each condition in the order of [`Asked::matches`].
    pub matches: Vec<(Query, Position, Option<Position>)>,
}

impl Facts {
    /// The assumptions under which all of these appends are written: each stream is at the version that its
    /// first condition expects, and keys and ids are new. `None` if they do not follow from the appends
    /// alone.
    ///
    /// The head is not assumed, so positions derived from these facts have no meaning.
    pub fn assumed<'a>(appends: impl IntoIterator<Item = &'a Append>) -> Option<Self> {
        let mut assumed = Self::default();
        let mut staged: HashMap<&StreamId, u64> = HashMap::new();
        for append in appends {
            for condition in &append.conditions {
                let before = |stream| staged.get(stream).copied().unwrap_or(0);
                match condition {
                    Condition::Version { expected: Expected::Any, .. } => {}
                    Condition::Version { stream, expected } if !assumed.versions.contains_key(stream) => {
                        let version = expected.version()?.get().checked_sub(before(stream))?;
                        assumed.versions.insert(stream.clone(), Version::new(version));
                    }
                    Condition::Version { .. } => {}
                    // No reader has seen what the group itself writes.
                    Condition::Newest { stream, version, event } if before(stream) == 0 => {
                        assumed.assume_newest(stream, *version, *event);
                    }
                    _ => return None,
                }
            }
            for write in &append.writes {
                *staged.entry(&write.stream).or_default() += 1;
            }
        }
        Some(assumed)
    }

    /// Assumes that this is the newest event of the stream. Its position is not known, and is represented by
    /// one that no log has.
    fn assume_newest(&mut self, stream: &StreamId, version: Version, event: EventId) {
        self.versions.entry(stream.clone()).or_insert(version);
        if self.newest.insert(stream.clone(), event).is_none() {
            let position = Position::new(u64::MAX - self.places.len() as u64);
            self.ids.entry(stream.clone()).or_default().insert(event, position);
            self.places.insert(position, (stream.clone(), version, event));
        }
    }

    /// Records the queries of the conditions, and returns those that must be looked up, with their numbers.
    pub fn note_matches<'a>(&mut self, asked: &Asked<'a>) -> Vec<(usize, &'a Query, Position)> {
        let mut to_look_up = Vec::new();
        for (number, &(query, after)) in asked.matches.iter().enumerate() {
            // Positions have no gaps, so it is known which is the next.
            let first = (query.is_all() && self.head > after).then(|| after.next());
            self.matches.push((query.clone(), after, first));
            if !query.is_all() && self.head > after {
                to_look_up.push((number, query, after));
            }
        }
        to_look_up
    }

    /// Records the position of the first event that matches the query with this number.
    pub fn matched(&mut self, number: usize, position: Position) {
        if let Some((_, _, first)) = self.matches.get_mut(number) {
            *first = Some(position);
        }
    }

    /// The version and position of the event with this id in this stream.
    pub fn position_of(&self, stream: &StreamId, id: EventId) -> Option<Position> {
        self.ids.get(stream)?.get(&id).copied()
    }
}

/// The facts that must be read from the log to validate these appends.
#[derive(Debug)]
pub struct Asked<'a> {
    appends: Vec<&'a Append>,
    /// The event that the log must still contain.
    pub known: Witness,
    /// Streams whose version is needed.
    pub streams: Vec<&'a StreamId>,
    /// Keys that may be used.
    pub keys: Vec<&'a IdempotencyKey>,
    /// Ids that may be used in their stream.
    pub ids: Vec<(&'a StreamId, EventId)>,
    /// Queries that must match nothing after a position.
    pub matches: Vec<(&'a Query, Position)>,
    /// Events that must be the newest of their stream.
    newest: Vec<(&'a StreamId, EventId)>,
    /// Positions at which certain events must be.
    seen: Vec<Position>,
}

impl<'a> Asked<'a> {
    /// The facts that these appends need.
    pub fn of(batch: &Batch<'a>) -> Self {
        let appends: Vec<_> = batch.appends.iter().map(|pending| pending.append).collect();
        let (mut streams, mut ids, mut matches) = (Vec::new(), Vec::new(), Vec::new());
        let (mut newest, mut seen) = (Vec::new(), Vec::new());
        for append in &appends {
            for write in &append.writes {
                ids.push((&write.stream, write.event.id));
                streams.push(&write.stream);
            }
            for condition in &append.conditions {
                match condition {
                    Condition::Version { stream, .. } => streams.push(stream),
                    Condition::Newest { stream, event, .. } => {
                        streams.push(stream);
                        ids.push((stream, *event));
                        newest.push((stream, *event));
                    }
                    Condition::NoMatch { query, after } => {
                        matches.push((query, after.position));
                        seen.extend(after.witness().map(|witness| witness.position));
                    }
                    _ => {}
                }
            }
        }
        streams.sort_unstable();
        streams.dedup();
        let keys = appends.iter().filter_map(|append| append.key.as_ref()).collect();
        Self { appends, known: batch.known, streams, keys, ids, matches, newest, seen }
    }

    /// The positions at which the events of a repeated append may be already, given the position of its first
    /// event, and those of events that must be the newest or that were seen. Ranges are inclusive.
    pub fn ranges(&self, facts: &Facts) -> Vec<(Position, Position)> {
        let ranges = self.appends.iter().filter_map(|append| {
            let write = append.writes.first()?;
            let first = facts.position_of(&write.stream, write.event.id)?;
            Some((first, first.plus(append.writes.len() as u64 - 1)))
        });
        let newest = self.newest.iter().filter_map(|(stream, event)| facts.position_of(stream, *event));
        let single = newest.chain(self.seen.iter().copied()).filter(|position| *position > Position::ZERO);
        ranges.chain(single.map(|position| (position, position))).collect()
    }
}

/// The end of the log before a group.
#[derive(Clone, Debug)]
pub struct Tail {
    /// Position of the last event before the group.
    pub position: Position,
    /// When that was recorded: a lower bound of the times of the group.
    pub recorded_at: Timestamp,
    /// The version of each of the group's streams before it, in their order.
    pub versions: Vec<Version>,
}

#[cfg(test)]
mod tests {
    use annals_core::NewEvent;

    use super::*;

    fn append(stream: &str, expected: Expected, count: usize) -> Append {
        let events = (0..count).map(|_| NewEvent::new("thing.noted", "{}").unwrap());
        Append::to(StreamId::new(stream).unwrap(), expected, events)
    }

    fn assumed(appends: &[Append]) -> Option<Vec<(String, u64)>> {
        let facts = Facts::assumed(appends)?;
        let mut versions: Vec<_> =
            facts.versions.iter().map(|(stream, version)| (stream.to_string(), version.get())).collect();
        versions.sort();
        Some(versions)
    }

    #[test]
    fn the_first_expectation_is_assumed() {
        let at = |version| Expected::Exact(Version::new(version));
        let group = [append("a", at(3), 2), append("a", at(5), 1), append("b", Expected::NoStream, 1)];
        assert_eq!(assumed(&group), Some(vec![("a".into(), 3), ("b".into(), 0)]));
        let group = [append("a", Expected::Any, 2), append("a", at(5), 1)];
        assert_eq!(assumed(&group), Some(vec![("a".into(), 3)]), "what is staged in front counts");
        assert_eq!(assumed(&[append("a", Expected::Any, 2)]), Some(vec![]));
    }

    #[test]
    fn a_newest_event_is_assumed_with_its_version() {
        let stream = StreamId::new("a").unwrap();
        let event = EventId::from_name(b"third");
        let after = append("a", Expected::Any, 1).after_event(&stream, Version::new(3), event);
        let facts = Facts::assumed([&after]).unwrap();
        assert_eq!((facts.versions[&stream], facts.newest[&stream]), (Version::new(3), event));
        assert!(
            Facts::assumed(&[append("a", Expected::Any, 1), after]).is_none(),
            "it is written by the group"
        );
    }

    #[test]
    fn unknown_outcomes_are_not_assumed() {
        assert_eq!(assumed(&[append("a", Expected::Exists, 1)]), None);
        assert_eq!(assumed(&[append("a", Expected::Any, 1).unless(Query::all(), Position::ZERO)]), None);
        let group = [append("a", Expected::Any, 2), append("a", Expected::NoStream, 1)];
        assert_eq!(assumed(&group), None, "it would have to have had a version below 0");
    }
}
