//! What a group of appends is judged on: what is assumed of the log, or what was read of it under its lock.

use std::collections::{BTreeMap, HashMap};

use annals_core::{Append, Condition, EventId, Expected, IdempotencyKey, Position, Query, StreamId, Version};

/// What is known of the log, as far as a group must know it. What is not in here is not in the log.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Position of the last event.
    pub head: Position,
    /// Streams that exist, of those that were asked for.
    pub versions: HashMap<StreamId, Version>,
    /// Keys that are used, and the position of their append's first event.
    pub keys: HashMap<IdempotencyKey, Position>,
    /// Event ids that are used in their stream, and where the event is.
    pub ids: HashMap<StreamId, HashMap<EventId, Position>>,
    /// The events that stand where an append's may stand already.
    pub places: BTreeMap<Position, (StreamId, Version, EventId)>,
    /// The first event that matches, for each condition in the order of [`Asked::matches`].
    pub matches: Vec<(Query, Position, Option<Position>)>,
}

impl Facts {
    /// What must be so if all of these appends are to be written: that each stream is at the version that its first
    /// condition expects, and that keys and ids are new. Nothing if that cannot be told from the appends alone.
    ///
    /// The head is not assumed, so no position that is judged on these facts means anything.
    pub fn assumed<'a>(appends: impl IntoIterator<Item = &'a Append>) -> Option<Self> {
        let mut versions: HashMap<StreamId, Version> = HashMap::new();
        let mut staged: HashMap<&StreamId, u64> = HashMap::new();
        for append in appends {
            for condition in &append.conditions {
                let Condition::Version { stream, expected } = condition else { return None };
                if *expected == Expected::Any || versions.contains_key(stream) {
                    continue;
                }
                let before = staged.get(stream).copied().unwrap_or(0);
                let version = expected.version()?.get().checked_sub(before)?;
                versions.insert(stream.clone(), Version::new(version));
            }
            for write in &append.writes {
                *staged.entry(&write.stream).or_default() += 1;
            }
        }
        Some(Self { versions, ..Self::default() })
    }

    /// Notes the queries that are asked about, and returns those that must be looked up, with their numbers.
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

    /// The first event that the query with this number means is here.
    pub fn matched(&mut self, number: usize, position: Position) {
        if let Some((_, _, first)) = self.matches.get_mut(number) {
            *first = Some(position);
        }
    }

    /// Where the event with this id stands in this stream.
    pub fn position_of(&self, stream: &StreamId, id: EventId) -> Option<Position> {
        self.ids.get(stream)?.get(&id).copied()
    }
}

/// What must be read of the log so that these appends can be judged.
#[derive(Debug)]
pub struct Asked<'a> {
    appends: Vec<&'a Append>,
    /// Streams whose version is asked for.
    pub streams: Vec<&'a StreamId>,
    /// Keys that may be used.
    pub keys: Vec<&'a IdempotencyKey>,
    /// Ids that may be used in their stream.
    pub ids: Vec<(&'a StreamId, EventId)>,
    /// Queries that must match nothing after a position.
    pub matches: Vec<(&'a Query, Position)>,
}

impl<'a> Asked<'a> {
    /// What these appends need.
    pub fn of(appends: Vec<&'a Append>) -> Self {
        let (mut streams, mut ids, mut matches) = (Vec::new(), Vec::new(), Vec::new());
        for append in &appends {
            for write in &append.writes {
                ids.push((&write.stream, write.event.id));
                streams.push(&write.stream);
            }
            for condition in &append.conditions {
                match condition {
                    Condition::Version { stream, .. } => streams.push(stream),
                    Condition::NoMatch { query, after } => matches.push((query, *after)),
                    _ => {}
                }
            }
        }
        streams.sort_unstable();
        streams.dedup();
        let keys = appends.iter().filter_map(|append| append.key.as_ref()).collect();
        Self { appends, streams, keys, ids, matches }
    }

    /// The positions at which an append's events may stand already, once it is known where its first event stands:
    /// each range inclusive.
    pub fn ranges(&self, facts: &Facts) -> Vec<(Position, Position)> {
        let ranges = self.appends.iter().filter_map(|append| {
            let write = append.writes.first()?;
            let first = facts.position_of(&write.stream, write.event.id)?;
            Some((first, first.plus(append.writes.len() as u64 - 1)))
        });
        ranges.collect()
    }
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
    fn what_cannot_be_told_is_not_assumed() {
        assert_eq!(assumed(&[append("a", Expected::Exists, 1)]), None);
        assert_eq!(assumed(&[append("a", Expected::Any, 1).unless(Query::all(), Position::ZERO)]), None);
        let group = [append("a", Expected::Any, 2), append("a", Expected::NoStream, 1)];
        assert_eq!(assumed(&group), None, "it would have to have had a version below 0");
    }
}
