//! Tokens that clients receive and send back: a position or a version with the id of the event there,
//! `42@UUID`.
//!
//! - T1  A bare number does not identify the history that it was read from, so after a restore a client would
//!   skip events or take others for known ones. Everything that a client receives to send back is a token:
//!   ids of server-sent events, ETags, the `after` and `before` of pages, witnesses of appends.
//! - T2  Every token that a client sends is checked. If it does not hold, the response is the problem
//!   `other-history`, never an empty page. Bare numbers are accepted too, unchecked.
//!
//! A token of the log is an [`annals_core::Witness`]; a token of a stream has a version instead of the
//! position. At 0 the id is that of the log.

use std::fmt;
use std::str::FromStr;

use annals_core::{
    Condition, EventId, EventStore, Expected, Invalid, Position, RecordedEvent, Result, Seen, StreamId,
    StreamRead, Version, Witness,
};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, de};

use crate::problem::Problem;
use annals_json::whole;

/// A position or version from a client, and the id of the event there if the client gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    number: u64,
    id: Option<EventId>,
}

impl Token {
    /// The token for a version of a stream with this event.
    pub(crate) fn of_version(version: Version, id: EventId) -> Self {
        Self { number: version.get(), id: Some(id) }
    }

    /// The token for a version without an event.
    pub(crate) fn bare(version: Version) -> Self {
        Self { number: version.get(), id: None }
    }

    /// Merges two tokens that have the same number and do not name different events. `None` if they differ.
    pub(crate) fn and(self, other: Self) -> Option<Self> {
        let same = self.number == other.number && (self.id == other.id || self.id.xor(other.id).is_some());
        same.then_some(Self { number: self.number, id: self.id.or(other.id) })
    }

    /// The number alone.
    pub(crate) fn number(self) -> u64 {
        self.number
    }

    /// How much of the log the client has seen.
    pub(crate) fn seen(self) -> Seen {
        Seen { position: Position::new(self.number), event: self.id }
    }

    /// The witness of the log, if the client gave the event.
    pub(crate) fn witness(self) -> Option<Witness> {
        self.id.map(|id| Witness { position: Position::new(self.number), id })
    }

    /// The place before the first event of a stream of this log.
    fn origin(store: &dyn EventStore) -> Self {
        Self::of_version(Version::ZERO, Witness::origin(store.id()).id)
    }

    /// The condition that the stream is at this version, or that this event is its newest. The store compares
    /// the event when it decides on the append, so the history cannot change in between; [`lost_version`] is
    /// the problem if it is another one.
    pub(crate) fn condition(
        self,
        store: &dyn EventStore,
        stream: StreamId,
        field: &str,
    ) -> Result<Condition, Problem> {
        let version = Version::new(self.number);
        match self.id {
            Some(event) if version > Version::ZERO => Ok(Condition::Newest { stream, version, event }),
            Some(_) if self != Self::origin(store) => Err(lost_version(field, &stream, version)),
            _ => Ok(Condition::Version { stream, expected: Expected::Exact(version) }),
        }
    }

    /// The number as a position, after a check that the log still has the event there.
    pub(crate) async fn position(self, store: &dyn EventStore, field: &str) -> Result<Position, Problem> {
        let position = Position::new(self.number);
        let Some(witness) = self.witness() else { return Ok(position) };
        if witness.holds(store).await? {
            return Ok(position);
        }
        let head = store.head().await?;
        Err(lost(field, witness).with("head", head.get()))
    }

    /// The number as a version, after a check that the stream still has the event there.
    pub(crate) async fn version(
        self,
        store: &dyn EventStore,
        stream: &StreamId,
        field: &str,
    ) -> Result<Version, Problem> {
        let version = Version::new(self.number);
        if self.id.is_none() {
            return Ok(version);
        }
        let there =
            if self.number == 0 { Some(Self::origin(store)) } else { at(store, stream, version).await? };
        if there == Some(self) {
            return Ok(version);
        }
        Err(lost_version(field, stream, version))
    }
}

/// The maximum number of digits of a number. No log grows that long.
const NUMBER_DIGITS_MAX: usize = 19;
/// The length of a UUID with hyphens, the only accepted form.
const UUID_BYTES: usize = 36;

/// Refuses a number in JSON that exceeds a signed 64-bit integer, which many clients use.
pub(crate) fn check_number<E: de::Error>(number: u64, wanted: &dyn de::Expected) -> Result<(), E> {
    match i64::try_from(number) {
        Ok(_) => Ok(()),
        Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(number), wanted)),
    }
}

/// The problem that the log no longer has this event at the position where a client has seen it.
pub(crate) fn lost(field: &str, seen: Witness) -> Problem {
    let detail = format!(
        "{field} is {seen}, but the log has another event at position {}, or none: it was restored, or it is another \
         log. What was read before is not all in this log; read it again from the last event in common, or from the \
         beginning",
        seen.position
    );
    other_history(field, detail)
}

/// The problem that a stream no longer has the event at the version where a client has seen it.
pub(crate) fn lost_version(field: &str, stream: &StreamId, version: Version) -> Problem {
    let detail = format!(
        "{field} names an event, and stream `{stream}` has another one at version {version}, or none: the log was \
         restored, or it is another log. Read the stream again from the beginning"
    );
    other_history(field, detail)
}

/// The problem that the log has lost an event since the append was received, so that a bare number in it may
/// refer to a lost event.
pub(crate) fn lost_since(field: &str, seen: Witness) -> Problem {
    let detail = format!(
        "{field} is a bare number, and the log has lost the event {seen} in the meantime: the number may refer to a lost \
         event. Nothing was written; read again and decide again"
    );
    other_history(field, detail)
}

fn other_history(field: &str, detail: String) -> Problem {
    Problem::new(StatusCode::CONFLICT, "other-history", detail).with("field", field)
}

/// The token of a stream at this version; `None` if it has no such event.
async fn at(store: &dyn EventStore, stream: &StreamId, version: Version) -> Result<Option<Token>> {
    let read = StreamRead::backward(stream, version).limit(1);
    let found = store.read_stream(read).await?.events;
    let event = found.iter().find(|event| event.version() == version);
    Ok(event.map(|event| Token::of_version(version, event.id())))
}

/// The token of a stream at this version. It is taken from `events`, which are of the stream, or else read
/// from the store.
///
/// # Errors
/// As the store's reads; [`Error::Unavailable`](annals_core::Error::Unavailable) if the event is gone by now.
pub(crate) async fn of_stream(
    store: &dyn EventStore,
    stream: &StreamId,
    version: Version,
    events: &[RecordedEvent],
) -> Result<Token> {
    if version == Version::ZERO {
        return Ok(Token::origin(store));
    }
    if let Some(event) = events.iter().find(|event| event.version() == version) {
        return Ok(Token::of_version(version, event.id()));
    }
    at(store, stream, version).await?.ok_or_else(|| gone(format!("version {version} of stream `{stream}`")))
}

/// The witness at a position of the log. It is taken from `events`, which are of the log, or else read from
/// the store.
///
/// # Errors
/// As the store's reads; [`Error::Unavailable`](annals_core::Error::Unavailable) if the event is gone by now.
pub(crate) async fn of_log(
    store: &dyn EventStore,
    position: Position,
    events: &[RecordedEvent],
) -> Result<Witness> {
    if let Some(event) = events.iter().find(|event| event.position() == position) {
        return Ok(Witness::of(event));
    }
    Witness::at(store, position).await?.ok_or_else(|| gone(format!("position {position}")))
}

/// The error of a page that may be of another history.
pub(crate) fn changed() -> annals_core::Error {
    annals_core::Error::Unavailable("the log changed while it was read".into())
}

/// The token of a stream at this version, like [`of_stream`]. Fails if the stream no longer has the events of
/// the page.
pub(crate) async fn of_page(
    store: &dyn EventStore,
    stream: &StreamId,
    version: Version,
    events: &[RecordedEvent],
) -> Result<Token> {
    let token = of_stream(store, stream, version, events).await?;
    let newest = events.iter().max_by_key(|event| event.version());
    if let Some(newest) = newest.filter(|newest| newest.version() != version)
        && at(store, stream, newest.version()).await?
            != Some(Token::of_version(newest.version(), newest.id()))
    {
        return Err(changed());
    }
    Ok(token)
}

fn gone(place: String) -> annals_core::Error {
    annals_core::Error::Unavailable(format!("the event at {place} cannot be read at the moment").into())
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "{}@{id}", self.number),
            None => self.number.fmt(f),
        }
    }
}

impl FromStr for Token {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // Other forms of a number or a UUID (`+3`, `{…}`) are refused, so that each token has one text.
        let number = |text: &str| {
            let is_plain = text.len() <= NUMBER_DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_plain)
        };
        let id = |text: &str| text.parse().ok().filter(|_| text.len() == UUID_BYTES);
        let token = match text.split_once('@') {
            Some((before, behind)) => number(before).zip(id(behind)).map(|(number, id)| (number, Some(id))),
            None => number(text).map(|number| (number, None)),
        };
        let (number, id) = token.ok_or_else(|| {
            let problem = format!(
                "`{text}` is not a whole number from 0 up, of at most {NUMBER_DIGITS_MAX} digits, alone or as `42@UUID`"
            );
            Invalid::new("token", problem)
        })?;
        Ok(Self { number, id })
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Token;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0 up, or \"42@UUID\"")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Token, E> {
                check_number(number, &self)?;
                Ok(Token { number, id: None })
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Token, E> {
                whole(number, &self).and_then(|number| self.visit_u64(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Token, E> {
                match text.parse() {
                    Ok(token @ Token { id: Some(_), .. }) => Ok(token),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        value.deserialize_any(Visitor)
    }
}
