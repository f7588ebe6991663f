//! The row of an event: what all databases have in common.
//!
//! ```text
//! position | append_position | entity_type | entity_id | entity_version | event_id | event_type | ...
//! ```
//!
//! `entity_id` is the whole name of the stream, `entity_type` its category. Data that is text without NUL is
//! in `event_data`, where any client can read it; other data is in `event_binary`. One of them is NULL.

use std::collections::BTreeMap;

use annals_core::{
    Bytes, ContentType, Error, EventId, EventType, IdempotencyKey, Invalid, Location, Metadata, NewEvent,
    Position, RecordedEvent, StreamId, Tag, Text, Timestamp, Version,
};

/// The data of an event in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored<'a> {
    /// In `event_data`.
    Text(&'a str),
    /// In `event_binary`.
    Binary(&'a [u8]),
}

impl<'a> Stored<'a> {
    /// Chooses the column for this data.
    pub fn of(data: &'a [u8]) -> Self {
        match std::str::from_utf8(data) {
            Ok(text) if !text.contains('\0') => Self::Text(text),
            _ => Self::Binary(data),
        }
    }

    /// Returns the text, if it is text.
    pub fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// Returns the bytes, if they are not text.
    pub fn binary(self) -> Option<&'a [u8]> {
        match self {
            Self::Text(_) => None,
            Self::Binary(bytes) => Some(bytes),
        }
    }
}

/// The writer's own keys as a JSON object; `None` if there are no keys.
pub fn own_to_json(own: &BTreeMap<Text, Text>) -> Option<String> {
    let object = || {
        let object = own.iter().map(|(key, value)| (key.to_string(), value.to_string().into()));
        serde_json::Value::Object(object.collect()).to_string()
    };
    (!own.is_empty()).then(object)
}

/// The tags as a JSON array, in their order; `None` if there are no tags.
pub fn tags_to_json(tags: &[Tag]) -> Option<String> {
    let array = || serde_json::Value::from_iter(tags.iter().map(Tag::as_str)).to_string();
    (!tags.is_empty()).then(array)
}

/// The columns of an event.
#[derive(Debug)]
pub struct EventRow {
    /// Place in the log.
    pub position: i64,
    /// Position of the first event of its append.
    pub append_position: i64,
    /// The stream's name.
    pub entity_id: String,
    /// Place in the stream.
    pub entity_version: i64,
    /// The bytes of the id.
    pub event_id: [u8; 16],
    /// The stored name of its type.
    pub event_type: String,
    /// Version of the shape of its data.
    pub schema_version: i32,
    /// The content type; `None` is JSON.
    pub content_type: Option<String>,
    /// Its data, if it is text.
    pub event_data: Option<String>,
    /// Its data, if it is not text.
    pub event_binary: Option<Vec<u8>>,
    /// The tags as a JSON array.
    pub tags: Option<String>,
    /// The business process.
    pub process_id: Option<String>,
    /// Who started it.
    pub initiator: Option<String>,
    /// What triggered it.
    pub triggering_event: Option<String>,
    /// Trace context.
    pub trace: Option<String>,
    /// The writer's own keys as a JSON object.
    pub metadata: Option<String>,
    /// When it happened, in microseconds since 1970.
    pub occurred_at: Option<i64>,
    /// When it was recorded, in microseconds since 1970.
    pub recorded_at: i64,
    /// The key of its append, on the first event.
    pub idempotency_key: Option<String>,
}

impl EventRow {
    /// The event.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the row is not one that a store writes.
    pub fn into_event(self) -> Result<RecordedEvent, Error> {
        let position = self.position;
        self.read().map_err(|invalid| Error::Damaged {
            location: Location {
                file: "table events".to_owned(),
                offset: 0,
                position: u64::try_from(position).ok().map(Position::new),
            },
            cause: Box::new(invalid),
        })
    }

    fn read(self) -> Result<RecordedEvent, Invalid> {
        let data = match (self.event_data, self.event_binary) {
            (Some(text), None) => Bytes::from(text),
            (None, Some(bytes)) => Bytes::from(bytes),
            _ => return Err(Invalid::new("event_data", "must be there or `event_binary`, and not both")),
        };
        let metadata = Metadata {
            process: self.process_id.map(Text::from),
            initiator: self.initiator.map(Text::from),
            predecessor: self.triggering_event.map(Text::from),
            trace: self.trace.map(Text::from),
            own: self.metadata.map_or_else(|| Ok(BTreeMap::new()), |json| own_of_json(&json))?,
        };
        let event = NewEvent {
            id: EventId::from_bytes(self.event_id),
            event_type: EventType::new(self.event_type)?,
            schema_version: u16::try_from(self.schema_version)
                .map_err(|_| Invalid::new("schema_version", "is not a number up to 65535"))?,
            content_type: self.content_type.map_or(ContentType::Json, ContentType::new),
            data,
            tags: self.tags.map_or_else(|| Ok(Vec::new()), |json| tags_of_json(&json))?,
            metadata: metadata.into(),
            occurred_at: self.occurred_at.map(Timestamp::from_micros),
        };
        Ok(RecordedEvent::record(
            &event,
            &StreamId::new(self.entity_id)?,
            Position::new(number("position", self.position)?),
            Version::new(number("entity_version", self.entity_version)?),
            Position::new(number("append_position", self.append_position)?),
            Timestamp::from_micros(self.recorded_at),
            self.idempotency_key.map(IdempotencyKey::new).transpose()?.as_ref(),
        ))
    }
}

fn number(field: &str, number: i64) -> Result<u64, Invalid> {
    u64::try_from(number).map_err(|_| Invalid::new(field, "is below 0"))
}

fn own_of_json(json: &str) -> Result<BTreeMap<Text, Text>, Invalid> {
    let own: BTreeMap<String, String> =
        serde_json::from_str(json).map_err(|error| Invalid::new("metadata", error.to_string()))?;
    Ok(own.into_iter().map(|(key, value)| (Text::from(key), Text::from(value))).collect())
}

fn tags_of_json(json: &str) -> Result<Vec<Tag>, Invalid> {
    let tags: Vec<String> =
        serde_json::from_str(json).map_err(|error| Invalid::new("tags", error.to_string()))?;
    tags.into_iter().map(Tag::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_placed_where_it_can_be_read() {
        assert_eq!(Stored::of(b"{}"), Stored::Text("{}"));
        assert_eq!(Stored::of(b""), Stored::Text(""));
        assert_eq!(Stored::of(b"a\0"), Stored::Binary(b"a\0"));
        assert_eq!(Stored::of(&[0xff]), Stored::Binary(&[0xff]));
    }
}
