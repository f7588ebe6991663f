//! The judgement on an append, once for every store: write it, answer it as a duplicate, or refuse it.
//!
//! The order of the questions is part of the contract:
//!
//! 1. Is its idempotency key known? Then it is a duplicate, whatever else it says.
//! 2. Do its events stand in the log already, by id, one after the other, where it wants to put them? Then it
//!    is a duplicate as well.
//! 3. Is one of its event ids used in that stream already? Then it is invalid.
//! 4. Does every condition hold? If not, it is refused with all that do not.
//!
//! A store implements [`LogView`] over its committed state and everything that will be committed before the
//! append, and asks under whatever excludes another append in between.

use std::collections::HashSet;

use crate::{
    Append, Condition, Conflict, Direction, EventId, EventStore, Expected, IdempotencyKey, Invalid, LogRead,
    Position, Query, RecordedEvent, Result, StreamId, StreamRead, Version, Violated, Violation,
};

/// What must be known of a log to judge an append.
pub trait LogView {
    /// Why the log could not be looked at.
    type Error;

    /// Version of a stream; 0 if it does not exist.
    fn stream_version(&self, stream: &StreamId) -> Result<Version, Self::Error>;

    /// Position of the first event of the append that had this key.
    fn append_with_key(&self, key: &IdempotencyKey) -> Result<Option<Position>, Self::Error>;

    /// Position of the event with this id in this stream.
    fn event_with_id(&self, stream: &StreamId, id: EventId) -> Result<Option<Position>, Self::Error>;

    /// The event at this position: its stream, its version there and its id. Nothing beyond the end.
    fn event_at(&self, position: Position) -> Result<Option<(StreamId, Version, EventId)>, Self::Error>;

    /// Position of the first event after this position that the query means.
    fn first_match(&self, query: &Query, after: Position) -> Result<Option<Position>, Self::Error>;
}

/// The judgement on an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Write it.
    Write,
    /// The append with its key was carried out before, and begins at this position.
    Keyed(Position),
    /// Its events stand there already: as many as it has, from this position on.
    Repeated(Position),
    /// It is invalid: an event id is used already.
    Invalid(Invalid),
    /// These conditions, by index, do not hold.
    Refuse(Vec<(usize, Violated)>),
}

/// Judges an append. It must have passed [`Append::validate`].
///
/// # Errors
/// As the view's.
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
    let mut violations = Vec::new();
    for (index, condition) in append.conditions.iter().enumerate() {
        if let Some(violated) = violated(view, condition)? {
            violations.push((index, violated));
        }
    }
    Ok(if violations.is_empty() { Admission::Write } else { Admission::Refuse(violations) })
}

/// Where the events of the append stand already, if they do, in its order and where it wants to put them.
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

/// Whether the append wants its first event of this stream at this version.
fn wanted_there(append: &Append, wanted: &StreamId, at: Version) -> bool {
    append.conditions.iter().all(|condition| match condition {
        Condition::Version { stream, expected } if stream == wanted => match expected {
            Expected::Exists => at > Version::FIRST,
            expected => expected.version().is_none_or(|before| before.next() == at),
        },
        _ => true,
    })
}

fn reused_id<V: LogView>(view: &V, append: &Append) -> Result<Option<Invalid>, V::Error> {
    let mut seen = HashSet::new();
    // Ids that rise are no two the same: ours do, for they carry the time at which they were made.
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

fn violated<V: LogView>(view: &V, condition: &Condition) -> Result<Option<Violated>, V::Error> {
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
        Condition::NoMatch { query, after } => {
            view.first_match(query, *after)?.map(|position| Violated::NoMatch { after: *after, position })
        }
    })
}

/// Most unseen events that a violation carries.
const UNSEEN_EVENTS_MAX: usize = 256;
/// Most bytes of data that a violation carries; one event is carried whatever its size.
const UNSEEN_BYTES_MAX: usize = 4 << 20;

impl Conflict {
    /// The full answer to a refused append: reads the events that the caller has not seen, by the store's
    /// ordinary reads, so outside of whatever lock the judgement was made under. For those who implement a
    /// store.
    ///
    /// # Errors
    /// As the store's reads.
    pub async fn explain<S: EventStore + ?Sized>(
        store: &S,
        conditions: &[Condition],
        refused: Vec<(usize, Violated)>,
    ) -> Result<Self> {
        let mut violations = Vec::with_capacity(refused.len());
        for (condition, violated) in refused {
            let (unseen, unseen_complete) = match (&violated, &conditions[condition]) {
                (Violated::Version { stream, expected, actual }, _) => {
                    unseen_of_stream(store, stream, *expected, *actual).await?
                }
                (Violated::NoMatch { position, .. }, Condition::NoMatch { query, .. }) => {
                    unseen_matches(store, query, *position).await?
                }
                (Violated::NoMatch { .. } | Violated::History { .. }, _) => (Vec::new(), false),
            };
            violations.push(Violation { condition, violated, unseen, unseen_complete });
        }
        Ok(Self { violations })
    }
}

async fn unseen_of_stream<S: EventStore + ?Sized>(
    store: &S,
    stream: &StreamId,
    expected: Expected,
    actual: Version,
) -> Result<(Vec<RecordedEvent>, bool)> {
    let Some(seen) = expected.version().filter(|seen| *seen < actual) else { return Ok((Vec::new(), true)) };
    let missed = usize::try_from(actual.get() - seen.get()).unwrap_or(usize::MAX);
    let read = StreamRead {
        stream: stream.clone(),
        from: seen.next(),
        direction: Direction::Forward,
        limit: missed.min(UNSEEN_EVENTS_MAX),
    };
    let events = cut(store.read_stream(read).await?.events);
    let complete = events.len() == missed;
    Ok((events, complete))
}

async fn unseen_matches<S: EventStore + ?Sized>(
    store: &S,
    query: &Query,
    first: Position,
) -> Result<(Vec<RecordedEvent>, bool)> {
    let read = LogRead::forward(first).matching(query.clone()).limit(UNSEEN_EVENTS_MAX);
    let page = store.read_log(read).await?;
    let found = page.events.len();
    let events = cut(page.events);
    let complete = page.end && events.len() == found;
    Ok((events, complete))
}

fn cut(mut events: Vec<RecordedEvent>) -> Vec<RecordedEvent> {
    let mut bytes = 0;
    let fits = events
        .iter()
        .take_while(|event| {
            bytes += event.data.len();
            bytes <= UNSEEN_BYTES_MAX
        })
        .count();
    events.truncate(fits.max(1));
    events
}
