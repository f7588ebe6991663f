//! Messages, as a service writes them and as a sink receives them.

use std::collections::BTreeMap;

use annals_core::{Bytes, ContentType, EventId, Invalid, Timestamp};

/// Longest name of an aggregate's type, an aggregate's id, an event's type or a content type, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Most bytes of a message's data: 8 MiB.
pub const DATA_BYTES_MAX: usize = 8 << 20;
/// Most bytes of a message's headers, keys and values together: 64 KiB.
pub const HEADERS_BYTES_MAX: usize = 64 << 10;

/// A message to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// The id, by which consumers recognise a message that is published twice.
    pub id: EventId,
    /// The type of the aggregate that it is about: `order`.
    pub aggregate_type: String,
    /// The id of that aggregate. The messages of one aggregate are published in the order in which they were
    /// committed.
    pub aggregate_id: String,
    /// What happened, in the past tense: `order.placed`.
    pub event_type: String,
    /// The format of `data`.
    pub content_type: ContentType,
    /// The details of what happened. Kept byte for byte.
    pub data: Bytes,
    /// Further information for consumers, such as a trace.
    pub headers: BTreeMap<String, String>,
}

impl NewMessage {
    /// Makes a message with a new id, whose data is this value as JSON.
    ///
    /// # Errors
    /// `Invalid` if the value cannot be written as JSON. Everything else is checked when the message is
    /// written.
    pub fn json(
        aggregate_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        event_type: impl Into<String>,
        data: &(impl serde::Serialize + ?Sized),
    ) -> Result<Self, Invalid> {
        let data = serde_json::to_vec(data);
        let data =
            data.map_err(|error| Invalid::new("data", format!("cannot be written as JSON: {error}")))?;
        Ok(Self::bytes(aggregate_type, aggregate_id, event_type, ContentType::Json, data))
    }

    /// Makes a message with a new id and these bytes as data.
    pub fn bytes(
        aggregate_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        event_type: impl Into<String>,
        content_type: ContentType,
        data: impl Into<Bytes>,
    ) -> Self {
        Self {
            id: EventId::generate(),
            aggregate_type: aggregate_type.into(),
            aggregate_id: aggregate_id.into(),
            event_type: event_type.into(),
            content_type,
            data: data.into(),
            headers: BTreeMap::new(),
        }
    }

    /// Replaces the id.
    #[must_use]
    pub fn with_id(mut self, id: EventId) -> Self {
        self.id = id;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Checks everything that can be checked without a database.
    ///
    /// # Errors
    /// [`Invalid`], naming the field.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_name("aggregate_type", &self.aggregate_type)?;
        check_name("aggregate_id", &self.aggregate_id)?;
        check_name("event_type", &self.event_type)?;
        check_name("content_type", self.content_type.as_str())?;
        if self.data.len() > DATA_BYTES_MAX {
            let problem = format!("has {} bytes, the limit is {DATA_BYTES_MAX}", self.data.len());
            return Err(Invalid::new("data", problem));
        }
        if self.content_type == ContentType::Json
            && let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&self.data)
        {
            let problem = format!("is not JSON, although its content type is: {error}");
            return Err(Invalid::new("data", problem));
        }
        if self.content_type == ContentType::Json
            && let Some(offset) = half_a_character(&self.data)
        {
            let problem =
                format!("has half a character at byte {offset}: a `\\u` surrogate without its other half");
            return Err(Invalid::new("data", problem));
        }
        let bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > HEADERS_BYTES_MAX {
            let problem = format!("has {bytes} bytes, the limit is {HEADERS_BYTES_MAX}");
            return Err(Invalid::new("headers", problem));
        }
        if self.headers.contains_key("") {
            return Err(Invalid::new("headers", "has a header without a name"));
        }
        Ok(())
    }
}

/// Returns the offset of an escape in JSON that is half of a surrogate pair. Most programs cannot read such a
/// text.
fn half_a_character(json: &[u8]) -> Option<usize> {
    // JSON has a backslash only in strings, and always followed by another character.
    let escape = |at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while let Some(next) = json.get(at..)?.iter().position(|byte| *byte == b'\\') {
        at += next;
        at += match escape(at) {
            Some(0xD800..=0xDBFF) if matches!(escape(at + 6), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => return Some(at),
            Some(_) => 6,
            None => 2,
        };
    }
    None
}

/// Checks that a name stays the same in every database: some remove trailing blanks.
fn check_name(field: &str, name: &str) -> Result<(), Invalid> {
    let problem = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        format!("is {} bytes long, the limit is {NAME_BYTES_MAX}", name.len())
    } else if name.contains('\0') {
        "contains a NUL character".to_owned()
    } else if name.trim() != name {
        format!("`{name}` begins or ends with a blank")
    } else {
        return Ok(());
    };
    Err(Invalid::new(field, problem))
}

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The id. A message may be published more than once, always with the same id.
    pub id: EventId,
    /// The type of the aggregate that it is about.
    pub aggregate_type: String,
    /// The id of that aggregate.
    pub aggregate_id: String,
    /// Its number among the messages of the aggregate: 1, 2, 3, without gaps.
    pub sequence: u64,
    /// What happened, in the past tense.
    pub event_type: String,
    /// The format of `data`.
    pub content_type: ContentType,
    /// The details of what happened.
    pub data: Bytes,
    /// Further information for consumers.
    pub headers: BTreeMap<String, String>,
    /// When it was written, by the clock of the database.
    pub created_at: Timestamp,
    /// The number of this attempt, from 1: one more than the attempts that were refused. Also the first
    /// attempt may be a duplicate.
    pub attempt: u32,
    /// Its place in the table.
    pub(crate) position: i64,
    /// Why the row cannot be read, if so. Such a message is refused without being given to a sink.
    pub(crate) unreadable: Option<String>,
    /// Whether the name of its aggregate cannot be read.
    pub(crate) nameless: bool,
}

/// The aggregate of a message. The messages of one aggregate keep their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Aggregate {
    pub(crate) kind: String,
    pub(crate) id: String,
    /// The position of a message whose aggregate cannot be read. Each is an aggregate of its own.
    pub(crate) alone: Option<i64>,
}

impl std::fmt::Display for Aggregate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.alone {
            Some(position) => write!(f, "the aggregate of position {position}, whose name cannot be read,"),
            None => write!(f, "{}/{}", self.kind, self.id),
        }
    }
}

impl Message {
    pub(crate) fn aggregate(&self) -> Aggregate {
        let alone = self.nameless.then_some(self.position);
        Aggregate { kind: self.aggregate_type.clone(), id: self.aggregate_id.clone(), alone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_message_is_named() {
        let good =
            || NewMessage::json("order", "1", "order.placed", &serde_json::json!({"total": 1})).unwrap();
        assert_eq!(good().validate(), Ok(()));
        let wrong = |change: fn(&mut NewMessage)| {
            let mut message = good();
            change(&mut message);
            message.validate().unwrap_err().to_string()
        };
        assert_eq!(wrong(|m| m.aggregate_type.clear()), "aggregate_type is empty");
        assert_eq!(wrong(|m| m.aggregate_id = "1 ".into()), "aggregate_id `1 ` begins or ends with a blank");
        assert_eq!(wrong(|m| m.event_type = "a\0b".into()), "event_type contains a NUL character");
        assert_eq!(
            wrong(|m| m.aggregate_id = "x".repeat(256)),
            "aggregate_id is 256 bytes long, the limit is 255"
        );
        assert!(
            wrong(|m| m.data = "{".into()).starts_with("data is not JSON, although its content type is: EOF")
        );
        for half in [r#""\ud83d""#, r#"{"a\\\ude00": 1}"#, r#"["\ud83d\ud83d\ude00"]"#] {
            let mut message = good();
            message.data = half.into();
            let refused = message.validate().unwrap_err().to_string();
            assert!(refused.contains("half a character"), "{half}: {refused}");
        }
        for whole in [r#""\ud83d\ude00""#, r#""\\ud83d""#, r#""\"\u00e4\\""#] {
            let mut message = good();
            message.data = whole.into();
            assert_eq!(message.validate(), Ok(()), "{whole}");
        }
        assert!(wrong(|m| m.data = vec![0; DATA_BYTES_MAX + 1].into()).contains("the limit is 8388608"));
        assert_eq!(wrong(|m| m.content_type = ContentType::new("")), "content_type is empty");
        assert_eq!(
            wrong(|m| drop(m.headers.insert("".into(), "x".into()))),
            "headers has a header without a name"
        );
        let big = wrong(|m| drop(m.headers.insert("x".into(), "x".repeat(HEADERS_BYTES_MAX))));
        assert_eq!(big, "headers has 65537 bytes, the limit is 65536");
    }
}
