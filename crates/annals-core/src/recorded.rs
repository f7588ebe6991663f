//! Events as a store returns them.

use std::fmt;

use bytes::Bytes;

use crate::body::encoding::Malformed;
use crate::body::{self, Body};
use crate::stream::{category_of, split};
use crate::{
    ContentType, EventId, EventMetadata, EventType, IdempotencyKey, NewEvent, Position, StreamId, Tag, Text,
    Timestamp, Version,
};

/// An event as the store returns it.
///
/// It is a view over a block of bytes that events which were read together share, and reads a field when it
/// is asked for. A clone costs one reference count. An event that is kept keeps its block, which has about a
/// mebibyte at most.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    position: Position,
    version: Version,
    append: Position,
    recorded_at: Timestamp,
    /// What the caller gave, checked.
    body: Bytes,
    /// Where in the body the data begins.
    data_at: u32,
}

impl RecordedEvent {
    /// The event as recorded at this position. For store implementers.
    pub fn record(
        event: &NewEvent,
        stream: &StreamId,
        position: Position,
        version: Version,
        append: Position,
        recorded_at: Timestamp,
        idempotency_key: Option<&IdempotencyKey>,
    ) -> Self {
        let mut body = Vec::with_capacity(event.data.len() + 128);
        body::encode(&mut body, stream, event, idempotency_key);
        let data_at = body.len() - event.data.len();
        Self { position, version, append, recorded_at, body: body.into(), data_at: data_at as u32 }
    }

    /// The event with this [body](crate::body). For store implementers.
    ///
    /// # Errors
    /// If the bytes are not a body.
    pub fn of_body(
        body: Bytes,
        position: Position,
        version: Version,
        append: Position,
        recorded_at: Timestamp,
    ) -> Result<Self, Malformed> {
        let read = Body::read(&body)?;
        read.check()?;
        let data_at =
            u32::try_from(body.len() - read.data.len()).map_err(|_| Malformed::Field("metadata"))?;
        Ok(Self { position, version, append, recorded_at, body, data_at })
    }

    /// Position in the log.
    #[inline]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Name of the stream to which it belongs.
    #[inline]
    pub fn stream(&self) -> &str {
        body::str_of(body::stream(&self.body).0)
    }

    /// The stream to which it belongs.
    pub fn stream_id(&self) -> StreamId {
        StreamId::new(self.text(self.stream())).expect(NAME)
    }

    /// Version in the stream.
    #[inline]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Position of the first event of the same append; the events of an append share it.
    #[inline]
    pub fn append(&self) -> Position {
        self.append
    }

    /// When the store recorded it. Never decreases along the log (G4).
    #[inline]
    pub fn recorded_at(&self) -> Timestamp {
        self.recorded_at
    }

    /// The idempotency key of the append, on the append's first event.
    pub fn idempotency_key(&self) -> Option<IdempotencyKey> {
        let key = self.having(body::HAS_KEY)?.key?;
        Some(IdempotencyKey::new(self.text(body::str_of(key))).expect(NAME))
    }

    /// Identity.
    #[inline]
    pub fn id(&self) -> EventId {
        body::id(&self.body)
    }

    /// The name of its type: what happened, in the past tense.
    #[inline]
    pub fn event_type(&self) -> &str {
        body::str_of(body::event_type(&self.body).0)
    }

    /// Version of the shape of the data.
    #[inline]
    pub fn schema_version(&self) -> u16 {
        body::schema_version(&self.body)
    }

    /// The format of the data.
    #[inline]
    pub fn content_type(&self) -> ContentType {
        let media_type = self.having(body::HAS_CONTENT).and_then(|body| body.content_type);
        media_type
            .map_or(ContentType::Json, |media_type| ContentType::new(self.text(body::str_of(media_type))))
    }

    /// What happened, in detail.
    #[inline]
    pub fn data(&self) -> &[u8] {
        &self.body[self.data_at as usize..]
    }

    /// The data, which shares memory with the event.
    pub fn data_bytes(&self) -> Bytes {
        self.body.slice(self.data_at as usize..)
    }

    /// Words by which the event can be found, in the order in which they were given.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.body().tags().map(body::str_of)
    }

    /// Whether it has this tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags().any(|other| other == tag)
    }

    /// The category of its stream: the part of the name before the first `-`.
    pub fn category(&self) -> &str {
        category_of(self.stream())
    }

    /// The id of the aggregate: the name of the stream without its category.
    pub fn aggregate_id(&self) -> &str {
        split(self.stream()).map_or("", |(_, id)| id)
    }

    /// Why it happened.
    pub fn metadata(&self) -> EventMetadata {
        let body = self.having(body::HAS_METADATA);
        body.map_or_else(EventMetadata::default, |body| body.metadata(&self.body).into())
    }

    /// When it happened, if the writer gave a time.
    pub fn occurred_at(&self) -> Option<Timestamp> {
        self.having(body::HAS_OCCURRED)?.occurred_at
    }

    /// When it happened: the time that the writer gave, else the recorded time.
    pub fn time(&self) -> Timestamp {
        self.occurred_at().unwrap_or(self.recorded_at)
    }

    /// The approximate size in bytes: data, names, tags and metadata.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The event as the store received it.
    pub fn to_new(&self) -> NewEvent {
        NewEvent {
            id: self.id(),
            event_type: EventType::new(self.text(self.event_type())).expect(NAME),
            schema_version: self.schema_version(),
            content_type: self.content_type(),
            data: self.data_bytes(),
            tags: self.tags().map(|tag| Tag::new(self.text(tag)).expect(NAME)).collect(),
            metadata: self.metadata(),
            occurred_at: self.occurred_at(),
        }
    }

    pub(crate) fn body(&self) -> Body<'_> {
        Body::read(&self.body).expect("it was read before")
    }

    /// The body if it has this field.
    #[inline]
    fn having(&self, field: u8) -> Option<Body<'_>> {
        body::has(&self.body, field).then(|| self.body())
    }

    /// A part of the body as text that shares its memory.
    fn text(&self, part: &str) -> Text {
        Text::from_utf8(self.body.slice_ref(part.as_bytes())).expect("it was a text before")
    }
}

const NAME: &str = "the names in a body are checked when it becomes an event";

impl fmt::Debug for RecordedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedEvent")
            .field("position", &self.position)
            .field("stream", &self.stream())
            .field("version", &self.version)
            .field("append", &self.append)
            .field("recorded_at", &self.recorded_at)
            .field("idempotency_key", &self.idempotency_key())
            .field("id", &self.id())
            .field("event_type", &self.event_type())
            .field("schema_version", &self.schema_version())
            .field("content_type", &self.content_type())
            .field("data", &self.data_bytes())
            .field("tags", &self.tags().collect::<Vec<_>>())
            .field("metadata", &self.metadata())
            .field("occurred_at", &self.occurred_at())
            .finish()
    }
}
