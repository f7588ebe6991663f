//! The codec: the one path from stored bytes to domain events, and back.
//!
//! ```text
//! stored event --upcasters--> raw events of current types and versions --decode--> 0, 1 or several domain events
//! domain event --encode--> bytes, read back by type --> an event to append
//! ```
//!
//! - C1  Every reader uses [`parts`]: load, snapshots, history, projections, subscribers, retried commands,
//!       the test kit. So an upcaster applies to all readers.
//! - C2  The parts of one stored event are one item: they share position, version and id, and a reader gets
//!       all of them or none. An event is dropped only by an upcaster; an unknown type or version is an
//!       error.
//! - C3  An event that cannot be written or read back is refused before it is appended, because an event
//!       cannot be removed from the log.
//! - C4  The content type of an event is that of its codec. Data of another content type is not decoded.
//! - C5  Parts are numbered before any is dropped, so a part keeps its number when an upcaster drops another
//!       one later.
//!
//! Decryption would be between upcasters and decode. The files: `upcast` (the chain, and the validation of a
//! table).

mod upcast;

use annals_core::{
    Cause, CodecError, Event, EventMetadata, EventType, Invalid, NewEvent, Position, Query, RawEvent,
    RecordedEvent, StreamId, Tag, Timestamp, Version, refuse_reserved,
};

use crate::failure::caught;
use crate::recorded::Recorded;
pub(crate) use upcast::{check, fingerprint};

/// The events decoded from a stored one, in order.
#[derive(Debug, PartialEq)]
pub(crate) enum Parts<E> {
    /// The stored event has the current shape, as nearly all have.
    One(E),
    /// The result of upcasters: none, one or more.
    Several(Vec<E>),
}

impl<E> Parts<E> {
    fn map<T>(self, mut change: impl FnMut(E) -> T) -> Parts<T> {
        match self {
            Self::One(event) => Parts::One(change(event)),
            Self::Several(events) => Parts::Several(events.into_iter().map(change).collect()),
        }
    }
}

impl<E> IntoIterator for Parts<E> {
    type Item = E;
    type IntoIter = std::iter::Chain<std::option::IntoIter<E>, std::vec::IntoIter<E>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, several) = match self {
            Self::One(event) => (Some(event), Vec::new()),
            Self::Several(events) => (None, events),
        };
        one.into_iter().chain(several)
    }
}

/// Why a stored event cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("event {version} of stream `{stream}` (position {position}) cannot be read: {cause}")]
#[non_exhaustive]
pub struct Unreadable {
    /// The stream.
    pub stream: StreamId,
    /// The version of the event in it.
    pub version: Version,
    /// The position of the event in the log.
    pub position: Position,
    /// Why.
    pub cause: CodecError,
}

impl Unreadable {
    pub(crate) fn new(stored: &RecordedEvent, cause: CodecError) -> Self {
        Self { stream: stored.stream_id(), version: stored.version(), position: stored.position(), cause }
    }
}

/// Decodes a stored event.
pub(crate) fn parts<E: Event>(stored: &RecordedEvent) -> Result<Parts<E>, Unreadable> {
    Ok(numbered(stored)?.map(|(_, event)| event))
}

/// Decodes a stored event to events with everything that the store records about them.
pub(crate) fn recorded<E: Event>(stored: &RecordedEvent) -> Result<Parts<Recorded<E>>, Unreadable> {
    Ok(match numbered(stored)? {
        Parts::One((part, event)) => Parts::One(Recorded::new(event, part, stored.clone())),
        several => several.map(|(part, event)| Recorded::new(event, part, stored.clone())),
    })
}

/// Decodes a raw event.
pub(crate) fn read_raw<E: Event>(raw: RawEvent) -> Result<Vec<E>, CodecError> {
    Ok(numbered_raw(raw)?.into_iter().map(|(_, event)| event).collect())
}

/// Decodes a stored event to events with the numbers of their parts.
pub(crate) fn numbered<E: Event>(stored: &RecordedEvent) -> Result<Parts<(u32, E)>, Unreadable> {
    let (event_type, version) = (stored.event_type(), stored.schema_version());
    let parts = if upcast::is_current(E::UPCASTERS, event_type, version) {
        decode(event_type, version, &stored.content_type(), stored.data()).map(|event| Parts::One((0, event)))
    } else {
        numbered_raw(stored.into()).map(Parts::Several)
    };
    parts.map_err(|cause| Unreadable::new(stored, cause))
}

fn numbered_raw<E: Event>(raw: RawEvent) -> Result<Vec<(u32, E)>, CodecError> {
    let decode_one = |upcast::Part { number, raw }| {
        let event = decode(&raw.event_type, raw.schema_version, &raw.content_type, &raw.data)?;
        Ok((number, event))
    };
    upcast::chain(E::UPCASTERS, raw)?.into_iter().map(decode_one).collect()
}

impl<E: Event> Recorded<E> {
    /// Decodes a stored event: to one event, or, with an [`Upcaster`](crate::Upcaster), to several or none.
    ///
    /// # Errors
    /// If the type is not one of `E`'s or the data does not match it.
    pub fn read(stored: &RecordedEvent) -> Result<Vec<Self>, Unreadable> {
        Ok(recorded(stored)?.into_iter().collect())
    }
}

/// Decodes data of a current type. A panic of the event's code is an error of the event.
fn decode<E: Event>(
    event_type: &str,
    schema_version: u16,
    content_type: &annals_core::ContentType,
    data: &[u8],
) -> Result<E, CodecError> {
    let decoded = || {
        refuse_other_content::<E>(event_type, schema_version, content_type)?;
        E::decode(event_type, schema_version, data)
    };
    caught(|| Ok(decoded())).unwrap_or_else(|panic| {
        let cause = panic.to_string().into();
        Err(CodecError::Decode { event_type: event_type.to_owned(), schema_version, cause })
    })
}

/// Refuses data whose content type is not that of the codec.
fn refuse_other_content<E: Event>(
    event_type: &str,
    schema_version: u16,
    stored: &annals_core::ContentType,
) -> Result<(), CodecError> {
    // The content type of an unknown event type is not known.
    if !E::TYPES.contains(&event_type) {
        return Ok(());
    }
    let expected = E::content_type(event_type);
    if *stored == expected || (stored.is_json() && expected.is_json()) {
        return Ok(());
    }
    Err(CodecError::ContentType {
        event_type: event_type.to_owned(),
        schema_version,
        stored: stored.as_str().into(),
        expected: expected.as_str().into(),
    })
}

/// Whether a reader gets events of this stored type: a current type, or the input of an upcaster.
pub(crate) fn takes<E: Event>(event_type: &str) -> bool {
    E::TYPES.contains(&event_type) || E::UPCASTERS.iter().any(|upcaster| upcaster.event_type() == event_type)
}

/// The stored types that a reader gets: the current ones and all inputs of upcasters.
pub(crate) fn types<E: Event>() -> Vec<&'static str> {
    let mut types = E::TYPES.to_vec();
    for upcaster in E::UPCASTERS {
        if !types.contains(&upcaster.event_type()) {
            types.push(upcaster.event_type());
        }
    }
    types
}

/// The query for events of these types.
pub(crate) fn query(types: &[&str]) -> Result<Query, Invalid> {
    let types = types.iter().map(|name| EventType::new(*name)).collect::<Result<Vec<_>, Invalid>>()?;
    Ok(Query::types(types))
}

/// Metadata, time and tags for every event of a command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside {
    pub metadata: EventMetadata,
    pub occurred_at: Option<Timestamp>,
    pub tags: Vec<Tag>,
}

/// Encodes an event and reads it back.
pub(crate) fn encode<E: Event>(event: &E, beside: &Beside) -> Result<(NewEvent, E), CodecError> {
    let event_type = event.event_type();
    let failed = |cause: Cause| CodecError::Encode { event_type: event_type.to_owned(), cause };
    if !E::TYPES.contains(&event_type) {
        return Err(failed("it is not in `Event::TYPES`, so readers would not find it".into()));
    }
    let schema_version = event.schema_version();
    if schema_version != E::current_version(event_type) {
        return Err(failed("its `schema_version` is not the `current_version` of its type".into()));
    }
    let invalid = |invalid: Invalid| failed(Box::new(invalid));
    refuse_reserved("type", event_type).map_err(invalid)?;
    let mut new = NewEvent::new(event_type, event.encode()?).map_err(invalid)?;
    (new.schema_version, new.content_type) = (schema_version, E::content_type(event_type));
    // Some values can be written as JSON, but not read back, such as NaN.
    let read_back = decode(event_type, schema_version, &new.content_type, &new.data)?;
    new.metadata = beside.metadata.clone();
    new.occurred_at = beside.occurred_at;
    for tag in event.tags()?.into_iter().chain(beside.tags.iter().cloned()) {
        new = new.with_tag(tag);
    }
    Ok((new, read_back))
}
