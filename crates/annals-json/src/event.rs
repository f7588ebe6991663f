//! A recorded event as JSON, and back.
//!
//! ```text
//! {"position":7,"stream":"account-42","version":3,"append":7,"recorded_at":"2017-04-15T13:00:00.000000Z",
//!  "id":"0f…","type":"account.opened","data":{"owner":"kim"},"tags":["vip"]}
//! ```
//!
//! - J1  Omitted fields have their defaults: `schema_version` 1, `content_type` `application/json`, no tags,
//!       no metadata, no `occurred_at`, no `idempotency_key`.
//! - J2  JSON data is embedded as `data`, byte for byte. Other data is in `data_base64`.
//! - J3  JSON whose bytes cannot be embedded exactly (surrounding blanks; in a line, line breaks within it)
//!       has both: `data` to read, with blanks for line breaks, and `data_base64`, the exact bytes. The bytes
//!       have precedence.
//! - J4  [`parse_line`] of [`line()`] is the same event.
//! - J5  A line of an export also has `append_event` and `append_events`, and `one_stream` if it is of one
//!       stream: [`InAppend`]. Either both numbers are given or neither.
//!
//! Events from clients, which have no position yet, are in `incoming.rs`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::marker::PhantomData;

use annals_core::{
    Bytes, ContentType, EventType, IdempotencyKey, Invalid, Metadata, NewEvent, Position, RecordedEvent,
    StreamId, Tag, Text, Version,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::object::{Object, object, present};
use crate::refused::syntax_error;

/// An event within a larger JSON document: its data keeps its line breaks.
#[derive(Debug)]
pub struct Embedded<'a>(pub &'a RecordedEvent);

impl Serialize for Embedded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Shape::of(self.0, false).serialize(serializer)
    }
}

/// Writes an event as one line of JSON, without the line break at its end.
pub fn line(event: &RecordedEvent) -> Vec<u8> {
    serde_json::to_vec(&Shape::of(event, true)).expect("an event has only text for keys, so it is JSON")
}

/// Reads an event from a line that [`line()`] wrote.
///
/// # Errors
/// [`Invalid`], naming the field, if it is not JSON or not such an event.
pub fn parse_line(line: &[u8]) -> Result<RecordedEvent, Invalid> {
    parse(line)?.into_recorded()
}

pub(crate) fn parse(line: &[u8]) -> Result<Shape<'_>, Invalid> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let Object::<Shape<'_>>(shape) =
        serde_path_to_error::deserialize(&mut json).map_err(|error| syntax_error(&error, ""))?;
    json.end().map_err(|error| Invalid::new("line", error.to_string()))?;
    Ok(shape)
}

/// Checks that bytes are one JSON value, and returns its text without the surrounding blanks.
fn json_text(data: &[u8]) -> Result<&RawValue, serde_json::Error> {
    serde_json::from_slice(data)
}

/// The JSON form of a recorded event.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shape<'a> {
    position: u64,
    stream: Cow<'a, str>,
    version: u64,
    append: u64,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub(crate) append_event: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub(crate) append_events: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) one_stream: bool,
    recorded_at: Cow<'a, str>,
    id: Cow<'a, str>,
    #[serde(rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    schema_version: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    data: Option<Cow<'a, RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Cause::is_empty", deserialize_with = "object")]
    metadata: Cause<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    occurred_at: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<Cow<'a, str>>,
}

/// The JSON form of an event's metadata.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cause<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    initiator: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    predecessor: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "different_names")]
    own: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

impl<'a> Shape<'a> {
    pub(crate) fn of(event: &'a RecordedEvent, one_line: bool) -> Self {
        let (data, data_base64) = embed(event, one_line);
        Self {
            position: event.position().get(),
            stream: event.stream().into(),
            version: event.version().get(),
            append: event.append().get(),
            append_event: None,
            append_events: None,
            one_stream: false,
            recorded_at: event.recorded_at().fixed().into(),
            id: event.id().to_string().into(),
            event_type: event.event_type().into(),
            schema_version: event.schema_version(),
            content_type: (event.content_type() != ContentType::Json)
                .then(|| event.content_type().as_str().to_owned().into()),
            data,
            data_base64,
            tags: event.tags().map(|tag| tag.into()).collect(),
            metadata: Cause::of(&event.metadata()),
            occurred_at: event.occurred_at().map(|time| time.to_string().into()),
            idempotency_key: event.idempotency_key().map(|key| key.as_str().to_owned().into()),
        }
    }

    pub(crate) fn into_recorded(self) -> Result<RecordedEvent, Invalid> {
        let content_type = content_type(self.content_type.as_deref());
        let event = NewEvent {
            id: self.id.parse()?,
            event_type: EventType::new(&*self.event_type)?,
            schema_version: self.schema_version,
            data: match self.data_base64 {
                Some(text) => decode_base64(&text)?,
                None => embedded(&content_type, self.data.as_deref())?,
            },
            content_type,
            tags: self
                .tags
                .iter()
                .map(|tag| Tag::new(&**tag))
                .collect::<Result<_, _>>()
                .map_err(at("tags"))?,
            metadata: self.metadata.into_metadata().into(),
            occurred_at: self.occurred_at.map(|time| time.parse()).transpose().map_err(at("occurred_at"))?,
        };
        let key = self.idempotency_key.map(|key| IdempotencyKey::new(&*key)).transpose();
        Ok(RecordedEvent::record(
            &event,
            &StreamId::new(&*self.stream)?,
            Position::new(self.position),
            Version::new(self.version),
            Position::new(self.append),
            self.recorded_at.parse().map_err(at("recorded_at"))?,
            key.map_err(at("idempotency_key"))?.as_ref(),
        ))
    }
}

impl<'a> Cause<'a> {
    fn of(metadata: &Metadata) -> Self {
        let owned = |text: &Text| Cow::Owned(text.as_str().to_owned());
        let text = |text: &Option<Text>| text.as_ref().map(owned);
        Self {
            process: text(&metadata.process),
            initiator: text(&metadata.initiator),
            predecessor: text(&metadata.predecessor),
            trace: text(&metadata.trace),
            own: metadata.own.iter().map(|(key, value)| (owned(key), owned(value))).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        let Self { process, initiator, predecessor, trace, own } = self;
        own.is_empty() && [process, initiator, predecessor, trace].iter().all(|text| text.is_none())
    }

    pub(crate) fn into_metadata(self) -> Metadata {
        let text = |text: Option<Cow<'_, str>>| text.map(|text| Text::from(text.into_owned()));
        Metadata {
            process: text(self.process),
            initiator: text(self.initiator),
            predecessor: text(self.predecessor),
            trace: text(self.trace),
            own: self
                .own
                .into_iter()
                .map(|(key, value)| (key.into_owned().into(), value.into_owned().into()))
                .collect(),
        }
    }
}

/// Encodes an event's data: as `data`, as `data_base64` or as both (J2, J3).
fn embed(event: &RecordedEvent, one_line: bool) -> (Option<Cow<'_, RawValue>>, Option<Cow<'_, str>>) {
    let exact = || Some(Cow::Owned(BASE64.encode(event.data())));
    let json = event.content_type().is_json().then(|| json_text(event.data()).ok()).flatten();
    let Some(json) = json else { return (None, exact()) };
    if one_line && json.get().contains(['\n', '\r']) {
        // A line break within a string would be an escape, so only blanks between tokens change.
        let flat = json.get().replace(['\n', '\r'], " ");
        let flat = RawValue::from_string(flat).expect("JSON with other blanks is JSON");
        return (Some(Cow::Owned(flat)), exact());
    }
    let whole = json.get().len() == event.data().len();
    (Some(Cow::Borrowed(json)), if whole { None } else { exact() })
}

/// Decodes embedded data.
pub(crate) fn embedded(content_type: &ContentType, data: Option<&RawValue>) -> Result<Bytes, Invalid> {
    match data {
        Some(_) if !content_type.is_json() => {
            let problem = format!("is JSON, but the content type is {content_type}; give `data_base64`");
            Err(Invalid::new("data", problem))
        }
        Some(json) => Ok(Bytes::copy_from_slice(json.get().as_bytes())),
        None => Err(Invalid::new("data", "is missing; an event without details has {}")),
    }
}

pub(crate) fn content_type(media_type: Option<&str>) -> ContentType {
    media_type.map_or(ContentType::Json, ContentType::new)
}

pub(crate) fn decode_base64(text: &str) -> Result<Bytes, Invalid> {
    let bytes = BASE64.decode(text);
    bytes.map(Bytes::from).map_err(|error| Invalid::new("data_base64", format!("is not base64: {error}")))
}

/// The same problem, for the field with this name.
pub(crate) fn at<P: Display>(field: P) -> impl Fn(Invalid) -> Invalid {
    move |invalid| Invalid::new(field.to_string(), invalid.problem)
}

/// Reads an object and refuses repeated names: one of two values under the same name would be lost.
fn different_names<'de, 'a, D: Deserializer<'de>>(
    field: D,
) -> Result<BTreeMap<Cow<'a, str>, Cow<'a, str>>, D::Error> {
    struct Names<'a>(PhantomData<&'a str>);
    impl<'de, 'a> Visitor<'de> for Names<'a> {
        type Value = BTreeMap<Cow<'a, str>, Cow<'a, str>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some((name, value)) = fields.next_entry::<String, String>()? {
                if all.contains_key(name.as_str()) {
                    return Err(de::Error::custom(format_args!("the name `{name}` is there twice")));
                }
                all.insert(Cow::Owned(name), Cow::Owned(value));
            }
            Ok(all)
        }
    }
    field.deserialize_map(Names(PhantomData))
}

pub(crate) fn one() -> u16 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_one(number: &u16) -> bool {
    *number == 1
}
