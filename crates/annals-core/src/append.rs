//! An append: events for one or several streams, and the conditions under which they may be written.

use std::collections::HashMap;
use std::fmt;

use crate::{
    EventId, IdempotencyKey, Invalid, KeyReuse, NewEvent, Position, Query, RecordedEvent, Seen, StreamId,
    Timestamp, Version, Witness,
};

/// The expected version of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// Exactly this version; version 0 is the same as [`NoStream`](Self::NoStream).
    Exact(Version),
    /// The stream does not exist.
    NoStream,
    /// The stream exists, at any version.
    Exists,
    /// Any version; the stream need not exist.
    Any,
}

impl Expected {
    /// Whether a stream at this version is as expected.
    pub fn allows(self, actual: Version) -> bool {
        match self {
            Self::Exact(version) => actual == version,
            Self::NoStream => actual == Version::ZERO,
            Self::Exists => actual != Version::ZERO,
            Self::Any => true,
        }
    }

    /// The version that the caller expects, if it named one.
    pub fn version(self) -> Option<Version> {
        match self {
            Self::Exact(version) => Some(version),
            Self::NoStream => Some(Version::ZERO),
            Self::Exists | Self::Any => None,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(version) => version.fmt(f),
            Self::NoStream => f.pad("none"),
            Self::Exists => f.pad("exists"),
            Self::Any => f.pad("any"),
        }
    }
}

impl std::str::FromStr for Expected {
    type Err = Invalid;

    /// Reads `none`, `exists`, `any` or a version.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "none" => Ok(Self::NoStream),
            "exists" => Ok(Self::Exists),
            "any" => Ok(Self::Any),
            number => number.parse().map(Self::Exact).map_err(|_| {
                let problem = format!("`{number}` is not a version, `none`, `exists` or `any`");
                Invalid::new("expected version", problem)
            }),
        }
    }
}

/// What must hold for an append to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// The stream is at the expected version. It need not be a stream that the append writes.
    Version {
        /// The stream.
        stream: StreamId,
        /// The expected version before the append.
        expected: Expected,
    },
    /// The newest event of the stream is this one. A version alone does not show whether the log still has
    /// the history that the caller has seen: after a restore, or a failover to a standby that had lost the
    /// newest events, other events have the same versions. The id distinguishes them.
    Newest {
        /// The stream.
        stream: StreamId,
        /// The version of its newest event; not 0.
        version: Version,
        /// The id of that event.
        event: EventId,
    },
    /// No event matches this query after this position.
    NoMatch {
        /// The events that must not exist.
        query: Query,
        /// The position up to which the caller has seen the log; events up to there do not count. If it names
        /// the event there, the log must have that event: in another history there may be matching events
        /// before the position that the caller has not seen.
        after: Seen,
    },
}

/// One event for one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The stream; it is created by its first event.
    pub stream: StreamId,
    /// The event.
    pub event: NewEvent,
}

/// One atomic request: either all of its events are written, in this order and at consecutive positions, or
/// none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Append {
    /// The events, in the order in which they get their positions. A stream may appear more than once.
    pub writes: Vec<Write>,
    /// The conditions, which must all hold. A stream without a condition is written at any version.
    pub conditions: Vec<Condition>,
    /// The caller's name for this append.
    pub key: Option<IdempotencyKey>,
    /// The meaning of a key that was used before.
    pub key_reuse: KeyReuse,
    /// The recorded time, for restoring a log that was recorded before; `None` for the store's clock.
    ///
    /// It is clamped between the recorded time of the log's last event and now, so recorded times never
    /// decrease.
    pub recorded_at: Option<Timestamp>,
}

impl Append {
    /// An append without events or conditions, to be filled in.
    pub fn new() -> Self {
        Self::default()
    }

    /// Events for one stream under an expected version: the usual case.
    pub fn to(
        stream: impl Into<StreamId>,
        expected: Expected,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        Self::new().and_to(stream, expected, events)
    }

    /// Events for one more stream.
    #[must_use]
    pub fn and_to(
        mut self,
        stream: impl Into<StreamId>,
        expected: Expected,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        let stream = stream.into();
        self.writes.extend(events.into_iter().map(|event| Write { stream: stream.clone(), event }));
        match expected {
            Expected::Any => self,
            expected => self.expecting(stream, expected),
        }
    }

    /// Commits only if this stream, written or not, is at the expected version.
    #[must_use]
    pub fn expecting(mut self, stream: impl Into<StreamId>, expected: Expected) -> Self {
        self.conditions.push(Condition::Version { stream: stream.into(), expected });
        self
    }

    /// Appends only if the newest event of this stream, written or not, is still this one.
    #[must_use]
    pub fn after_event(mut self, stream: impl Into<StreamId>, version: Version, event: EventId) -> Self {
        self.conditions.push(Condition::Newest { stream: stream.into(), version, event });
        self
    }

    /// Appends only if no event matches the query after what the caller has seen: the
    /// [`Witness`](crate::Witness) of the last event that it read, or a bare position.
    #[must_use]
    pub fn unless(mut self, query: Query, after: impl Into<Seen>) -> Self {
        self.conditions.push(Condition::NoMatch { query, after: after.into() });
        self
    }

    /// Applied once: the same append with the same key gets the outcome of the first; another append with
    /// this key is refused.
    #[must_use]
    pub fn once(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// If the key was used before, returns the original outcome, even if the events differ.
    #[must_use]
    pub fn or_original(mut self) -> Self {
        self.key_reuse = KeyReuse::Original;
        self
    }
}

/// The outcome of an append that was committed, now or, for a duplicate, before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// Position of the first event.
    pub first: Position,
    /// Position of the last event. All events between `first` and `last` belong to this append.
    pub last: Position,
    /// The id of the last event: with its position it identifies the history of the log.
    pub event: EventId,
    /// When the store recorded the events.
    pub recorded_at: Timestamp,
    /// Each written stream and its version after the append, in the order of first write. Never empty.
    pub streams: Vec<(StreamId, Version)>,
    /// Whether the append was committed before and this is its original outcome.
    pub duplicate: bool,
}

impl Appended {
    /// The outcome of an append whose events, from position `first` on, have these streams and versions, in
    /// order, and whose last event has this id. For store implementers.
    ///
    /// # Panics
    /// If there is no event: an append writes at least one.
    pub fn new<'a>(
        first: Position,
        recorded_at: Timestamp,
        events: impl IntoIterator<Item = (&'a StreamId, Version)>,
        event: EventId,
        duplicate: bool,
    ) -> Self {
        let mut streams: Vec<(StreamId, Version)> = Vec::new();
        let mut places: HashMap<&StreamId, usize> = HashMap::new();
        let mut before = None;
        let mut last = first.previous();
        for (stream, version) in events {
            let place = match before {
                // Most events are of the same stream as the one before.
                Some((other, place)) if other == stream => place,
                _ => *places.entry(stream).or_insert_with(|| {
                    streams.push((stream.clone(), version));
                    streams.len() - 1
                }),
            };
            before = Some((stream, place));
            streams[place].1 = version;
            last = last.next();
        }
        assert!(!streams.is_empty(), "an append writes at least one event");
        Self { first, last, event, recorded_at, streams, duplicate }
    }

    /// The outcome of an append that wrote these events, in their order. For store implementers.
    ///
    /// # Panics
    /// If there is no event: an append writes at least one.
    pub fn of(events: &[RecordedEvent], duplicate: bool) -> Self {
        let [first, ..] = events else { panic!("an append writes at least one event") };
        let streams: Vec<StreamId> = events.iter().map(RecordedEvent::stream_id).collect();
        let places = streams.iter().zip(events).map(|(stream, event)| (stream, event.version()));
        Self::new(first.position(), first.recorded_at(), places, events[events.len() - 1].id(), duplicate)
    }

    /// The witness of the last event.
    pub fn witness(&self) -> Witness {
        Witness { position: self.last, id: self.event }
    }

    /// The version of the written stream; of the first one, if there are several.
    pub fn version(&self) -> Version {
        self.streams[0].1
    }

    /// How many events were written.
    pub fn count(&self) -> u64 {
        self.last.get() - self.first.get() + 1
    }
}

/// The last event of the append, as seen by its caller.
impl From<&Appended> for Seen {
    fn from(appended: &Appended) -> Self {
        appended.witness().into()
    }
}
