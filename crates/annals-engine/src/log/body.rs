//! The encoding of one event as the caller gave it, without its position and version. Pure.
//!
//! ```text
//! | flags u8 | id 16 | stream | type | [schema u16] [content] [occurred i64] [key] [tags] [metadata] | data
//! ```
//!
//! Each name is preceded by its length, a varint. A field in brackets is present if its flag is set. The data is
//! the rest. The digest of the log is computed from the SHA-256 digests of these bytes (`digest`), so this format
//! never changes: a new field gets a new flag.

use std::collections::BTreeMap;

use annals_core::{
    ContentType, EventId, EventMetadata, EventType, IdempotencyKey, Metadata, NewEvent, StreamId, Tag, Text,
    Timestamp,
};
use bytes::Bytes;

use super::encoding::{Malformed, Reader, get_time, put_varint};

const HAS_SCHEMA: u8 = 1;
const HAS_CONTENT: u8 = 2;
const HAS_OCCURRED: u8 = 4;
const HAS_KEY: u8 = 8;
const HAS_TAGS: u8 = 16;
const HAS_METADATA: u8 = 32;
const FLAGS_KNOWN: u8 = 63;

/// Writes the body of a record.
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

/// The body of a record, borrowed from its bytes. Names are not yet checked to be UTF-8.
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
}

/// Consecutive names that [`Body::read`] has already validated.
#[derive(Clone, Copy, Debug, Default)]
struct List<'a> {
    count: u64,
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    /// Reads the body of a record, which is all of the bytes.
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
        };
        if has(HAS_SCHEMA) {
            body.schema_version = u16::from_le_bytes(reader.array("schema version")?);
        }
        if has(HAS_CONTENT) {
            body.content_type = Some(reader.name("content type")?);
        }
        if has(HAS_OCCURRED) {
            body.occurred_at = Some(get_time(&reader.array::<8>("occurred time")?)?);
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
        Ok(body)
    }

    /// The tags, in the order in which they were given.
    pub fn tags(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut reader = Reader::new(self.tags.bytes);
        (0..self.tags.count).map(move |_| reader.name("tag").expect("they were read before"))
    }

    /// The event. It shares the bytes that the body was read from, which are part of `block`.
    pub fn event(&self, block: &Bytes) -> Result<(StreamId, Option<IdempotencyKey>, NewEvent), Malformed> {
        let text =
            |bytes: &[u8], what| Text::from_utf8(block.slice_ref(bytes)).map_err(|_| Malformed::Field(what));
        let stream = StreamId::new(text(self.stream, "stream")?).map_err(|_| Malformed::Field("stream"))?;
        let event_type =
            EventType::new(text(self.event_type, "type")?).map_err(|_| Malformed::Field("type"))?;
        let content_type = match self.content_type {
            Some(name) => ContentType::new(text(name, "content type")?),
            None => ContentType::Json,
        };
        let key = match self.key {
            Some(key) => {
                let key = IdempotencyKey::new(text(key, "idempotency key")?);
                Some(key.map_err(|_| Malformed::Field("idempotency key"))?)
            }
            None => None,
        };
        let mut tags =
            Vec::with_capacity(usize::try_from(self.tags.count).unwrap_or(0).min(self.tags.bytes.len()));
        for tag in self.tags() {
            tags.push(Tag::new(text(tag, "tag")?).map_err(|_| Malformed::Field("tag"))?);
        }
        let event = NewEvent {
            id: self.id,
            event_type,
            schema_version: self.schema_version,
            content_type,
            data: block.slice_ref(self.data),
            tags,
            metadata: self.metadata.map_or_else(
                || Ok(EventMetadata::default()),
                |bytes| metadata(bytes, text).map(Into::into),
            )?,
            occurred_at: self.occurred_at,
        };
        Ok((stream, key, event))
    }
}

/// An optional text: its length is written plus one; zero means that it is missing.
fn optional<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    let length = usize::try_from(reader.varint("metadata")?).map_err(|_| Malformed::Short("metadata"))?;
    if length == 0 { Ok(None) } else { reader.take(length - 1, "metadata").map(Some) }
}

fn metadata(
    bytes: &[u8],
    text: impl Fn(&[u8], &'static str) -> Result<Text, Malformed>,
) -> Result<Metadata, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut next = || optional(&mut reader)?.map(|bytes| text(bytes, "metadata")).transpose();
    let (process, initiator, predecessor, trace) = (next()?, next()?, next()?, next()?);
    let mut own = BTreeMap::new();
    for _ in 0..reader.varint("metadata")? {
        let key = text(reader.name("metadata")?, "metadata")?;
        own.insert(key, text(reader.name("metadata")?, "metadata")?);
    }
    Ok(Metadata { process, initiator, predecessor, trace, own })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rich() -> (StreamId, NewEvent, IdempotencyKey) {
        let mut event = NewEvent::new("account.opened", r#"{"owner":"김"}"#)
            .unwrap()
            .with_tag(Tag::new("owner:김").unwrap())
            .with_tag(Tag::new("vip").unwrap());
        event.schema_version = 7;
        event.content_type = ContentType::new("application/cbor");
        event.occurred_at = Some(annals_core::Timestamp::from_micros(-1));
        event.metadata.process = Some("p-1".into());
        event.metadata.trace = Some("".into());
        event.metadata.own.insert("ip".into(), "::1".into());
        (StreamId::new("account-1").unwrap(), event, IdempotencyKey::new("k").unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        let (stream, event, key) = rich();
        let plain = NewEvent::new("a", "").unwrap();
        for (event, key) in [(event, Some(key)), (plain, None)] {
            let mut bytes = Vec::new();
            encode(&mut bytes, &stream, &event, key.as_ref());
            let bytes = Bytes::from(bytes);
            let read = Body::read(&bytes).unwrap().event(&bytes);
            assert_eq!(read, Ok((stream.clone(), key, event)));
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic() {
        let (stream, event, key) = rich();
        let mut bytes = Vec::new();
        encode(&mut bytes, &stream, &event, Some(&key));
        let read = |bytes: Vec<u8>| {
            let bytes = Bytes::from(bytes);
            Body::read(&bytes).and_then(|body| body.event(&bytes))
        };
        for cut in 0..bytes.len() {
            let _ = read(bytes[..cut].to_vec());
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut wrong = bytes.clone();
                wrong[cut] = value;
                let _ = read(wrong);
            }
        }
        assert_eq!(read(vec![0xc0; 40]), Err(Malformed::Field("flags")));
    }
}
