//! The bytes of what a caller gave: one event, without where it stands. Pure.
//!
//! ```text
//! | flags u8 | id 16 | stream | type | [schema u16] [content] [occurred i64] [key] [tags] [metadata] | data
//! ```
//!
//! A name has its length in front, as a varint. What stands in brackets is there if its flag is set. The data is
//! the rest. The SHA-256 digest of these bytes is what the chain of digests is made of (`frame`), so this form
//! never changes: a new field is a new flag.

use std::collections::BTreeMap;

use annals_core::{ContentType, EventId, EventType, IdempotencyKey, Metadata, NewEvent, StreamId, Tag, Text};
use bytes::Bytes;

use crate::encoding::{Malformed, get_time, get_varint, put_varint};

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
    // The length of what may be missing is written one larger, and zero says that it is missing.
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

/// Reads the body of a record, all of the bytes; what comes out shares them.
pub fn decode(body: Bytes) -> Result<(StreamId, Option<IdempotencyKey>, NewEvent), Malformed> {
    let mut reader = Reader { bytes: body };
    let flags = reader.take(1, "flags")?[0];
    if flags & !FLAGS_KNOWN != 0 {
        return Err(Malformed::Field("flags"));
    }
    let has = |flag| flags & flag != 0;
    let id = EventId::from_bytes(reader.array("id")?);
    let stream = StreamId::new(reader.text("stream")?).map_err(|_| Malformed::Field("stream"))?;
    let event_type = EventType::new(reader.text("type")?).map_err(|_| Malformed::Field("type"))?;
    let schema_version =
        if has(HAS_SCHEMA) { u16::from_le_bytes(reader.array("schema version")?) } else { 1 };
    let content_type =
        if has(HAS_CONTENT) { ContentType::new(reader.text("content type")?) } else { ContentType::Json };
    let occurred_at =
        if has(HAS_OCCURRED) { Some(get_time(&reader.array::<8>("occurred time")?)?) } else { None };
    let key = if has(HAS_KEY) {
        let key = IdempotencyKey::new(reader.text("idempotency key")?);
        Some(key.map_err(|_| Malformed::Field("idempotency key"))?)
    } else {
        None
    };
    let mut tags = Vec::new();
    if has(HAS_TAGS) {
        for _ in 0..reader.varint("tags")? {
            tags.push(Tag::new(reader.text("tag")?).map_err(|_| Malformed::Field("tag"))?);
        }
    }
    let metadata = if has(HAS_METADATA) { decode_metadata(&mut reader)? } else { Metadata::default() };
    let data = reader.bytes;
    Ok((
        stream,
        key,
        NewEvent { id, event_type, schema_version, content_type, data, tags, metadata, occurred_at },
    ))
}

fn decode_metadata(reader: &mut Reader) -> Result<Metadata, Malformed> {
    let mut optional = || match reader.varint("metadata")? {
        0 => Ok(None),
        length => reader.sized_text(length - 1, "metadata").map(Some),
    };
    let (process, initiator, predecessor, trace) = (optional()?, optional()?, optional()?, optional()?);
    let mut own = BTreeMap::new();
    for _ in 0..reader.varint("metadata")? {
        let key = reader.text("metadata")?;
        own.insert(key, reader.text("metadata")?);
    }
    Ok(Metadata { process, initiator, predecessor, trace, own })
}

/// Takes bytes from the front, sharing them.
struct Reader {
    bytes: Bytes,
}

impl Reader {
    fn take(&mut self, count: usize, what: &'static str) -> Result<Bytes, Malformed> {
        if self.bytes.len() < count {
            return Err(Malformed::Short(what));
        }
        Ok(self.bytes.split_to(count))
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let bytes = self.take(N, what)?;
        Ok(bytes[..].try_into().expect("as many bytes as were asked for"))
    }

    fn varint(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let (value, length) = get_varint(&self.bytes).ok_or(Malformed::Short(what))?;
        let _ = self.bytes.split_to(length);
        Ok(value)
    }

    fn text(&mut self, what: &'static str) -> Result<Text, Malformed> {
        let length = self.varint(what)?;
        self.sized_text(length, what)
    }

    fn sized_text(&mut self, length: u64, what: &'static str) -> Result<Text, Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed::Short(what))?;
        Text::from_utf8(self.take(length, what)?).map_err(|_| Malformed::Field(what))
    }
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
            assert_eq!(decode(bytes.into()).unwrap(), (stream.clone(), key, event));
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic() {
        let (stream, event, key) = rich();
        let mut bytes = Vec::new();
        encode(&mut bytes, &stream, &event, Some(&key));
        for cut in 0..bytes.len() {
            let _ = decode(Bytes::copy_from_slice(&bytes[..cut]));
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut wrong = bytes.clone();
                wrong[cut] = value;
                let _ = decode(wrong.into());
            }
        }
        assert_eq!(decode(Bytes::from_static(&[0xc0; 40])), Err(Malformed::Field("flags")));
    }
}
