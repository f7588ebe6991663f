//! The body of a recorded event: the event as the caller gave it, in bytes, without its position and version.
//! Pure. For store implementers.
//!
//! A [`RecordedEvent`](crate::RecordedEvent) is a view over these bytes, and the engine stores them as they
//! are.
//!
//! ```text
//! | flags u8 | id 16 | stream | type | [schema u16] [content] [occurred i64] [key] [tags] [metadata] | data
//! ```
//!
//! Each name is preceded by its length, a varint. A field in brackets is present if its flag is set. The data
//! is the rest. The digest of a log is computed from the SHA-256 digests of these bytes, so this format never
//! changes: a new field gets a new flag.

pub mod encoding;

use std::collections::BTreeMap;

use bytes::Bytes;

use self::encoding::{Malformed, Reader, get_varint, put_varint, time_of};
use crate::name::check_name;
use crate::{
    ContentType, EventId, EventType, IdempotencyKey, Metadata, NewEvent, StreamId, Tag, Text, Timestamp,
};

const HAS_SCHEMA: u8 = 1;
pub(crate) const HAS_CONTENT: u8 = 2;
pub(crate) const HAS_OCCURRED: u8 = 4;
pub(crate) const HAS_KEY: u8 = 8;
const HAS_TAGS: u8 = 16;
pub(crate) const HAS_METADATA: u8 = 32;
const FLAGS_KNOWN: u8 = 63;

/// Where the names begin: after the flags and the id.
const NAMES_AT: usize = 17;

/// Writes the body of an event. The key is that of its append, for the append's first event.
pub fn encode(out: &mut Vec<u8>, stream: &StreamId, event: &NewEvent, key: Option<&IdempotencyKey>) {
    let mut flags = 0;
    let mut set = |flag, on| flags |= if on { flag } else { 0 };
    set(HAS_SCHEMA, event.schema_version != 1);
    set(HAS_CONTENT, event.content_type != ContentType::Json);
    set(HAS_OCCURRED, event.occurred_at.is_some());
    set(HAS_KEY, key.is_some());
    set(HAS_TAGS, !event.tags.is_empty());
    set(HAS_METADATA, !event.metadata.is_empty());
    out.push(flags);
    out.extend_from_slice(event.id.as_bytes());
    put_text(out, stream.as_str());
    put_text(out, event.event_type.as_str());
    if flags & HAS_SCHEMA != 0 {
        out.extend_from_slice(&event.schema_version.to_le_bytes());
    }
    if flags & HAS_CONTENT != 0 {
        put_text(out, event.content_type.as_str());
    }
    if let Some(time) = event.occurred_at {
        out.extend_from_slice(&time.as_micros().to_le_bytes());
    }
    if let Some(key) = key {
        put_text(out, key.as_str());
    }
    if flags & HAS_TAGS != 0 {
        put_varint(out, event.tags.len() as u64);
        for tag in &event.tags {
            put_text(out, tag.as_str());
        }
    }
    if flags & HAS_METADATA != 0 {
        encode_metadata(out, &event.metadata);
    }
    out.extend_from_slice(&event.data);
}

fn encode_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    let Metadata { process, initiator, predecessor, trace, own } = metadata;
    // The length of an optional text is written plus one; zero means that the text is missing.
    for text in [process, initiator, predecessor, trace] {
        put_varint(out, text.as_ref().map_or(0, |text| text.len() as u64 + 1));
        out.extend_from_slice(text.as_ref().map_or(&[], |text| text.as_bytes()));
    }
    put_varint(out, own.len() as u64);
    for (key, value) in own {
        put_text(out, key);
        put_text(out, value);
    }
}

/// A body, borrowed from its bytes. Names are not [checked](Self::check) yet.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    /// Identifies the event.
    pub id: EventId,
    /// Name of the stream.
    pub stream: &'a [u8],
    /// Name of the type.
    pub event_type: &'a [u8],
    /// Version of the type's schema.
    pub schema_version: u16,
    /// Media type of the data, if it is not JSON.
    pub content_type: Option<&'a [u8]>,
    /// When it happened, if the caller gave a time.
    pub occurred_at: Option<Timestamp>,
    /// The idempotency key of its append; only the first event of the append has it.
    pub key: Option<&'a [u8]>,
    /// The business process.
    pub process: Option<&'a [u8]>,
    /// Who started it.
    pub initiator: Option<&'a [u8]>,
    /// The message or event that caused it.
    pub predecessor: Option<&'a [u8]>,
    tags: List<'a>,
    metadata: Option<&'a [u8]>,
    /// The event's data.
    pub data: &'a [u8],
    /// All bytes between the id and the data.
    names: &'a [u8],
}

/// Consecutive names that [`Body::read`] has already found.
#[derive(Clone, Copy, Debug, Default)]
struct List<'a> {
    count: u64,
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    /// Reads a body, which is all of the bytes.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let [flags] = reader.array("flags")?;
        if flags & !FLAGS_KNOWN != 0 {
            return Err(Malformed::Field("flags"));
        }
        let has = |flag| flags & flag != 0;
        let mut body = Self {
            id: EventId::from_bytes(reader.array("id")?),
            stream: reader.name("stream")?,
            event_type: reader.name("type")?,
            schema_version: 1,
            content_type: None,
            occurred_at: None,
            key: None,
            process: None,
            initiator: None,
            predecessor: None,
            tags: List::default(),
            metadata: None,
            data: &[],
            names: &[],
        };
        if has(HAS_SCHEMA) {
            body.schema_version = u16::from_le_bytes(reader.array("schema version")?);
        }
        if has(HAS_CONTENT) {
            body.content_type = Some(reader.name("content type")?);
        }
        if has(HAS_OCCURRED) {
            body.occurred_at = Some(time_of(reader.array("occurred time")?)?);
        }
        if has(HAS_KEY) {
            body.key = Some(reader.name("idempotency key")?);
        }
        if has(HAS_TAGS) {
            let count = reader.varint("tags")?;
            let bytes = reader.rest();
            for _ in 0..count {
                reader.name("tag")?;
            }
            body.tags = List { count, bytes: &bytes[..bytes.len() - reader.rest().len()] };
        }
        if has(HAS_METADATA) {
            let bytes = reader.rest();
            body.process = optional(&mut reader)?;
            body.initiator = optional(&mut reader)?;
            body.predecessor = optional(&mut reader)?;
            optional(&mut reader)?;
            for _ in 0..reader.varint("metadata")? {
                reader.name("metadata")?;
                reader.name("metadata")?;
            }
            body.metadata = Some(&bytes[..bytes.len() - reader.rest().len()]);
        }
        body.data = reader.rest();
        body.names = &bytes[NAMES_AT..bytes.len() - body.data.len()];
        Ok(body)
    }

    /// Checks that each name is UTF-8 and a name that a caller could have given.
    ///
    /// # Errors
    /// [`Malformed::Field`], with the field.
    pub fn check(&self) -> Result<(), Malformed> {
        // Nearly all names are ASCII and shorter than 128 bytes. Then each byte here is one of 1 to 127, and
        // nothing has to be told apart: not even the lengths, which are no more than names may have.
        if self.names.iter().fold(true, |plain, byte| plain & (1..0x80).contains(byte)) {
            return Ok(());
        }
        name(self.stream, "stream", StreamId::BYTES_MAX)?;
        name(self.event_type, "type", EventType::BYTES_MAX)?;
        if let Some(media_type) = self.content_type {
            utf8(media_type, "content type")?;
        }
        if let Some(key) = self.key {
            name(key, "idempotency key", IdempotencyKey::BYTES_MAX)?;
        }
        for tag in self.tags() {
            name(tag, "tag", Tag::BYTES_MAX)?;
        }
        let Some(metadata) = self.metadata else { return Ok(()) };
        let mut reader = Reader::new(metadata);
        for _ in 0..4 {
            utf8(optional(&mut reader)?.unwrap_or_default(), "metadata")?;
        }
        for _ in 0..2 * reader.varint("metadata")? {
            utf8(reader.name("metadata")?, "metadata")?;
        }
        Ok(())
    }

    /// The tags, in the order in which they were given.
    pub fn tags(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.tags.bytes);
        (0..self.tags.count).map(move |_| reader.name("tag").expect("they were read before"))
    }

    /// The metadata of a [checked](Self::check) body. It shares the bytes that the body was read from, which
    /// are part of `block`.
    pub(crate) fn metadata(&self, block: &Bytes) -> Metadata {
        let Some(bytes) = self.metadata else { return Metadata::default() };
        let text = |bytes| Text::from_utf8(block.slice_ref(bytes)).expect(CHECKED);
        let mut reader = Reader::new(bytes);
        let mut next = || optional(&mut reader).expect(CHECKED).map(text);
        let (process, initiator, predecessor, trace) = (next(), next(), next(), next());
        let count = reader.varint("metadata").expect(CHECKED);
        let mut name = || text(reader.name("metadata").expect(CHECKED));
        let own = (0..count).map(|_| (name(), name())).collect::<BTreeMap<_, _>>();
        Metadata { process, initiator, predecessor, trace, own }
    }
}

/// The id in a checked body.
#[inline]
pub(crate) fn id(body: &[u8]) -> EventId {
    EventId::from_bytes(body[1..NAMES_AT].try_into().expect("16 bytes"))
}

/// The name of the stream in a checked body, and what follows it.
#[inline]
pub(crate) fn stream(body: &[u8]) -> (&[u8], &[u8]) {
    next_name(&body[NAMES_AT..])
}

/// The name of the type in a checked body, and what follows it.
#[inline]
pub(crate) fn event_type(body: &[u8]) -> (&[u8], &[u8]) {
    next_name(stream(body).1)
}

/// Whether a checked body has this field; most have none of those that may be missing.
#[inline]
pub(crate) fn has(body: &[u8], field: u8) -> bool {
    body[0] & field != 0
}

/// The version of the shape of the data, in a checked body.
#[inline]
pub(crate) fn schema_version(body: &[u8]) -> u16 {
    if !has(body, HAS_SCHEMA) {
        return 1;
    }
    u16::from_le_bytes(event_type(body).1[..2].try_into().expect("2 bytes"))
}

#[inline]
fn next_name(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, at) = get_varint(bytes).expect(CHECKED);
    bytes[at..].split_at(length as usize)
}

/// The text of a name in a checked body.
#[inline]
pub(crate) fn str_of(name: &[u8]) -> &str {
    std::str::from_utf8(name).expect(CHECKED)
}

const CHECKED: &str = "a body is checked when it becomes an event";

fn utf8<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::Field(field))
}

fn name(bytes: &[u8], field: &'static str, bytes_max: usize) -> Result<(), Malformed> {
    check_name(field, utf8(bytes, field)?, bytes_max).map_err(|_| Malformed::Field(field))
}

/// An optional text: its length is written plus one; zero means that it is missing.
fn optional<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    let length = usize::try_from(reader.varint("metadata")?).map_err(|_| Malformed::Short("metadata"))?;
    if length == 0 { Ok(None) } else { reader.take(length - 1, "metadata").map(Some) }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Position, RecordedEvent, Version};

    fn rich() -> (StreamId, NewEvent, IdempotencyKey) {
        let mut event = NewEvent::new("account.opened", r#"{"owner":"김"}"#)
            .unwrap()
            .with_tag(Tag::new("owner:김").unwrap())
            .with_tag(Tag::new("vip").unwrap());
        event.schema_version = 7;
        event.content_type = ContentType::new("application/cbor");
        event.occurred_at = Some(Timestamp::from_micros(-1));
        event.metadata.process = Some("p-1".into());
        event.metadata.trace = Some("".into());
        event.metadata.own.insert("ip".into(), "::1".into());
        (StreamId::new("account-1").unwrap(), event, IdempotencyKey::new("k").unwrap())
    }

    fn recorded(bytes: Vec<u8>) -> Result<RecordedEvent, Malformed> {
        let place = (Position::new(7), Version::new(3), Position::new(6));
        RecordedEvent::of_body(bytes.into(), place.0, place.1, place.2, Timestamp::from_micros(5))
    }

    #[test]
    fn what_is_written_is_read() {
        let (stream, event, key) = rich();
        let plain = NewEvent::new("a", "").unwrap();
        for (event, key) in [(event, Some(key)), (plain, None)] {
            let mut bytes = Vec::new();
            encode(&mut bytes, &stream, &event, key.as_ref());
            let read = recorded(bytes).unwrap();
            assert_eq!(
                (read.stream_id(), read.idempotency_key(), read.to_new()),
                (stream.clone(), key, event)
            );
        }
    }

    #[test]
    fn one_media_type_has_one_form() {
        let (stream, mut event, _) = rich();
        for (variant, media_type) in
            [(ContentType::Json, "application/json"), (ContentType::Binary, "application/octet-stream")]
        {
            let bodies = [variant.clone(), ContentType::Other(media_type.into())].map(|content_type| {
                event.content_type = content_type;
                let mut bytes = Vec::new();
                encode(&mut bytes, &stream, &event, None);
                assert_eq!(recorded(bytes.clone()).unwrap().to_new(), event);
                bytes
            });
            assert_eq!(bodies[0], bodies[1], "{variant}");
        }
    }

    #[test]
    fn no_bytes_make_reading_panic() {
        let (stream, event, key) = rich();
        let mut bytes = Vec::new();
        encode(&mut bytes, &stream, &event, Some(&key));
        let read = |bytes: Vec<u8>| recorded(bytes).map(|event| (event.to_new(), format!("{event:?}")));
        for cut in 0..bytes.len() {
            let _ = read(bytes[..cut].to_vec());
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut wrong = bytes.clone();
                wrong[cut] = value;
                let _ = read(wrong);
            }
        }
        assert_eq!(read(vec![0xc0; 40]).unwrap_err(), Malformed::Field("flags"));
    }

    #[test]
    fn a_name_that_no_caller_could_have_given_is_refused() {
        let (stream, event, key) = rich();
        let mut bytes = Vec::new();
        encode(&mut bytes, &stream, &event, Some(&key));
        let find = |text: &[u8]| bytes.windows(text.len()).position(|bytes| bytes == text).unwrap();
        for (text, field) in [
            (&b"account-1"[..], "stream"),
            (b"account.opened", "type"),
            (b"application/cbor", "content type"),
            (b"k\x02", "idempotency key"),
            (b"vip", "tag"),
            (b"::1", "metadata"),
        ] {
            for value in [0, 0xff] {
                let mut wrong = bytes.clone();
                wrong[find(text)] = value;
                let is_free = matches!(field, "content type" | "metadata") && value == 0;
                let expected = if is_free { None } else { Some(Malformed::Field(field)) };
                assert_eq!(recorded(wrong).err(), expected, "{field} with {value:#x}");
            }
        }
    }
}
