//! The decision on an append, one for all stores: write it, return the outcome of a duplicate, or refuse it.
//!
//! The order of the checks is part of the contract:
//!
//! 1. Is its idempotency key in the log? Then it is a duplicate, whatever its events are; whether it is the
//!    same append is compared when its outcome is returned ([`Appended::checked`](crate::Appended::checked)).
//! 2. Are its events in the log already, by id, at consecutive positions, at the versions that it expects?
//!    Then it is a duplicate too.
//! 3. Is one of its event ids used in that stream already? Then it is invalid.
//! 4. Does every condition hold? If not, it is refused with all violated conditions.
//!
//! A store implements [`LogView`] over its committed state and everything that will be committed before the
//! append, and calls [`admit`] while no other append can be committed in between.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use crate::{
    Append, Condition, Conflict, EventId, EventStore, Expected, IdempotencyKey, Invalid, LogRead, Position,
    Query, RecordedEvent, Result, StoreId, StreamId, StreamRead, Version, Violated, Violation, Witness,
};

/// The view of a log that [`admit`] needs.
pub trait LogView {
    /// Why the log could not be read.
    type Error;

    /// The identity of the log.
    fn id(&self) -> StoreId;

    /// Version of a stream; 0 if it does not exist.
    fn stream_version(&self, stream: &StreamId) -> Result<Version, Self::Error>;

    /// Position of the first event of the append that had this key.
    fn append_with_key(&self, key: &IdempotencyKey) -> Result<Option<Position>, Self::Error>;

    /// Position of the event with this id in this stream.
    fn event_with_id(&self, stream: &StreamId, id: EventId) -> Result<Option<Position>, Self::Error>;

    /// The event at this position: its stream, its version there and its id. `None` beyond the end.
    fn event_at(&self, position: Position) -> Result<Option<(StreamId, Version, EventId)>, Self::Error>;

    /// Position of the first event after this position that matches the query.
    fn first_match(&self, query: &Query, after: Position) -> Result<Option<Position>, Self::Error>;
}

/// The decision on an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Write it.
    Write,
    /// The append with its key was committed before, and begins at this position.
    Keyed(Position),
    /// Its events are in the log already: as many as it has, from this position on.
    Repeated(Position),
    /// It is invalid: an event id is already used.
    Invalid(Invalid),
    /// These conditions, by index, do not hold.
    Refuse(Vec<(usize, Violated)>),
}

/// Decides on an append. It must have passed [`Append::validate`].
///
/// # Errors
/// Those of the view.
pub fn admit<V: LogView>(view: &V, append: &Append) -> Result<Admission, V::Error> {
    if let Some(key) = &append.key
        && let Some(first) = view.append_with_key(key)?
    {
        return Ok(Admission::Keyed(first));
    }
    if let Some(first) = repeated(view, append)? {
        return Ok(Admission::Repeated(first));
    }
    if let Some(invalid) = reused_id(view, append)? {
        return Ok(Admission::Invalid(invalid));
    }
    let (mut violations, mut places) = (Vec::new(), Places::new());
    for (index, condition) in append.conditions.iter().enumerate() {
        if let Some(violated) = violated(view, &mut places, condition)? {
            violations.push((index, violated));
        }
    }
    Ok(if violations.is_empty() { Admission::Write } else { Admission::Refuse(violations) })
}

/// Position of the first event, if the log has the events of the append already, in its order and at the
/// versions that it expects.
fn repeated<V: LogView>(view: &V, append: &Append) -> Result<Option<Position>, V::Error> {
    let Some(head) = append.writes.first() else { return Ok(None) };
    let Some(first) = view.event_with_id(&head.stream, head.event.id)? else { return Ok(None) };
    let mut streams_seen = HashSet::new();
    for (offset, write) in append.writes.iter().enumerate() {
        let Some((stream, version, id)) = view.event_at(first.plus(offset as u64))? else { return Ok(None) };
        if stream != write.stream || id != write.event.id {
            return Ok(None);
        }
        if streams_seen.insert(&write.stream) && !wanted_there(append, &write.stream, version) {
            return Ok(None);
        }
    }
    Ok(Some(first))
}

/// Whether the conditions of the append allow its first event of this stream at this version.
fn wanted_there(append: &Append, wanted: &StreamId, at: Version) -> bool {
    append.conditions.iter().all(|condition| match condition {
        Condition::Version { stream, expected } if stream == wanted => match expected {
            Expected::Exists => at > Version::FIRST,
            expected => expected.version().is_none_or(|before| before.next() == at),
        },
        Condition::Newest { stream, version, .. } if stream == wanted => version.next() == at,
        _ => true,
    })
}

fn reused_id<V: LogView>(view: &V, append: &Append) -> Result<Option<Invalid>, V::Error> {
    let mut seen = HashSet::new();
    // Ascending ids are distinct. Generated ids ascend, because they begin with the time.
    let rising = append.writes.windows(2).all(|pair| pair[0].event.id < pair[1].event.id);
    for (index, write) in append.writes.iter().enumerate() {
        let field = || format!("events[{index}].id");
        let (stream, id) = (&write.stream, write.event.id);
        if !rising && !seen.insert((stream, id)) {
            let problem = format!("`{id}` is the id of two events for stream `{stream}`");
            return Ok(Some(Invalid::new(field(), problem)));
        }
        if let Some(position) = view.event_with_id(stream, id)? {
            let problem =
                format!("`{id}` is the id of another event of stream `{stream}`, at position {position}");
            return Ok(Some(Invalid::new(field(), problem)));
        }
    }
    Ok(None)
}

/// Events that were read, by position: an event may be large, and many conditions may name it.
type Places = HashMap<Position, Option<(StreamId, Version, EventId)>>;

fn event_at<'p, V: LogView>(
    view: &V,
    places: &'p mut Places,
    position: Position,
) -> Result<Option<&'p (StreamId, Version, EventId)>, V::Error> {
    Ok(match places.entry(position) {
        Entry::Occupied(known) => known.into_mut().as_ref(),
        Entry::Vacant(place) => place.insert(view.event_at(position)?).as_ref(),
    })
}

fn violated<V: LogView>(
    view: &V,
    places: &mut Places,
    condition: &Condition,
) -> Result<Option<Violated>, V::Error> {
    Ok(match condition {
        Condition::Version { expected: Expected::Any, .. } => None,
        Condition::Version { stream, expected } => {
            let actual = view.stream_version(stream)?;
            (!expected.allows(actual)).then(|| Violated::Version {
                stream: stream.clone(),
                expected: *expected,
                actual,
            })
        }
        Condition::Newest { stream, version, event } => newest(view, places, stream, *version, *event)?,
        Condition::NoMatch { query, after } => match after.witness() {
            Some(seen) if !holds(view, places, seen)? => Some(Violated::History { seen }),
            _ => {
                let after = after.position;
                view.first_match(query, after)?.map(|position| Violated::NoMatch { after, position })
            }
        },
    })
}

/// Whether the log has the event that was seen at its position.
fn holds<V: LogView>(view: &V, places: &mut Places, seen: Witness) -> Result<bool, V::Error> {
    if seen.position == Position::ZERO {
        return Ok(seen == Witness::origin(view.id()));
    }
    Ok(event_at(view, places, seen.position)?.is_some_and(|(_, _, id)| *id == seen.id))
}

/// How the condition that this is the newest event of the stream is violated; `None` if it holds.
fn newest<V: LogView>(
    view: &V,
    places: &mut Places,
    stream: &StreamId,
    seen: Version,
    event: EventId,
) -> Result<Option<Violated>, V::Error> {
    let actual = view.stream_version(stream)?;
    let there = match view.event_with_id(stream, event)? {
        Some(position) => {
            event_at(view, places, position)?.is_some_and(|(of, at, _)| of == stream && *at == seen)
        }
        None => false,
    };
    let stream = stream.clone();
    Ok(match there {
        false => Some(Violated::Newest { stream, version: seen, actual }),
        true if actual != seen => Some(Violated::Version { stream, expected: Expected::Exact(seen), actual }),
        true => None,
    })
}

/// Most unseen events in a conflict, over all of its violations.
const UNSEEN_EVENTS_MAX: usize = 256;
/// Most bytes of unseen events in a conflict, over all of its violations; one event is included whatever its
/// size.
const UNSEEN_BYTES_MAX: usize = 4 << 20;

impl Conflict {
    /// The full error for a refused append: reads the events that the caller has not seen, with the store's
    /// ordinary reads and therefore outside the lock under which the append was decided on. For store
    /// implementers.
    ///
    /// A conflict contains at most 256 events or 4 MiB in total, over all of its violations. Beyond that, and
    /// for a condition that appears in the append a second time, a violation contains no events and is marked
    /// as incomplete.
    ///
    /// # Errors
    /// Those of the store's reads.
    pub async fn explain<S: EventStore + ?Sized>(
        store: &S,
        conditions: &[Condition],
        refused: Vec<(usize, Violated)>,
    ) -> Result<Self> {
        let mut room = Room { events: UNSEEN_EVENTS_MAX, bytes: UNSEEN_BYTES_MAX };
        let mut explained = HashSet::new();
        let mut violations = Vec::with_capacity(refused.len());
        for (condition, violated) in refused {
            let (unseen, unseen_complete) = if explained.insert(&conditions[condition]) {
                unseen(store, &conditions[condition], &violated, &mut room).await?
            } else {
                (Vec::new(), false)
            };
            violations.push(Violation { condition, violated, unseen, unseen_complete });
        }
        Ok(Self { violations })
    }
}

/// The room that is left in a conflict.
struct Room {
    events: usize,
    bytes: usize,
}

/// The events that explain one violation, as many as there is room for, and whether these are all.
async fn unseen<S: EventStore + ?Sized>(
    store: &S,
    condition: &Condition,
    violated: &Violated,
    room: &mut Room,
) -> Result<(Vec<RecordedEvent>, bool)> {
    match (violated, condition) {
        (Violated::Version { stream, expected, actual }, _) => {
            let Some(seen) = expected.version().filter(|seen| seen < actual) else {
                return Ok((Vec::new(), true));
            };
            if room.events == 0 {
                return Ok((Vec::new(), false));
            }
            let missed = usize::try_from(actual.get() - seen.get()).unwrap_or(usize::MAX);
            let read = StreamRead::forward(stream, seen.next()).to(*actual).limit(missed.min(room.events));
            let events = room.take(store.read_stream(read).await?.events);
            let complete = events.len() == missed;
            Ok((events, complete))
        }
        (Violated::NoMatch { position, .. }, Condition::NoMatch { query, .. }) => {
            if room.events == 0 {
                return Ok((Vec::new(), false));
            }
            let read = LogRead::forward(*position).matching(query.clone()).limit(room.events);
            let page = store.read_log(read).await?;
            let found = page.events.len();
            let events = room.take(page.events);
            let complete = page.end && events.len() == found;
            Ok((events, complete))
        }
        // In another history every event is unseen: none is included.
        (Violated::Newest { .. } | Violated::NoMatch { .. } | Violated::History { .. }, _) => {
            Ok((Vec::new(), false))
        }
    }
}

impl Room {
    /// The events before the first that does not fit.
    fn take(&mut self, mut events: Vec<RecordedEvent>) -> Vec<RecordedEvent> {
        let found = events.len();
        let empty = self.events == UNSEEN_EVENTS_MAX;
        let mut fits = 0;
        for event in &events {
            let bytes = event.bytes();
            if bytes > self.bytes && !(empty && fits == 0) {
                break;
            }
            self.bytes = self.bytes.saturating_sub(bytes);
            fits += 1;
        }
        events.truncate(fits);
        self.events = if fits < found || self.bytes == 0 { 0 } else { self.events - fits };
        events
    }
}
