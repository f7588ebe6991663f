//! Events as a caller writes them, and the types of their fields.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use crate::name::name_type;
use crate::{Invalid, Text, Timestamp, check_json};

name_type! {
    /// The stored name of a kind of event, in the past tense: `account.opened`. At most 256 bytes.
    EventType, "type", 256
}

name_type! {
    /// A word by which an event can be found, such as `customer:7`. At most 256 bytes.
    Tag, "tag", 256
}

/// Identity of an event: a UUID, given by the caller or generated. Unique within a stream (G5).
///
/// An id also records whether [`generate`](Self::generate) made it: a generated id is not compared when a key
/// is used again. This flag is not part of the identity.
#[derive(Clone, Copy)]
pub struct EventId {
    uuid: uuid::Uuid,
    made: bool,
}

impl EventId {
    /// A new id: UUID version 7, so later ids sort later.
    pub fn generate() -> Self {
        Self { uuid: uuid::Uuid::now_v7(), made: true }
    }

    /// The id for this name, always the same: UUID version 5 of the name.
    ///
    /// For events from another system that have a name there, so that importing them twice writes them once.
    pub fn from_name(name: &[u8]) -> Self {
        const ANNALS: uuid::Uuid = uuid::Uuid::from_u128(0x616e_6e61_6c73_4e53_a5c1_7d3f_0e2b_9c41);
        Self::given(uuid::Uuid::new_v5(&ANNALS, name))
    }

    /// The id with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self::given(uuid::Uuid::from_bytes(bytes))
    }

    /// The 16 bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.uuid.as_bytes()
    }

    const fn given(uuid: uuid::Uuid) -> Self {
        Self { uuid, made: false }
    }

    /// Whether it was generated, not given by the caller.
    pub(crate) fn is_made(self) -> bool {
        self.made
    }
}

impl PartialEq for EventId {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}

impl Eq for EventId {}

impl Hash for EventId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl PartialOrd for EventId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for EventId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.uuid.cmp(&other.uuid)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.uuid, f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.uuid, f)
    }
}

impl std::str::FromStr for EventId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        uuid::Uuid::parse_str(text)
            .map(Self::given)
            .map_err(|_| Invalid::new("id", format!("`{text}` is not a UUID")))
    }
}

/// The format of an event's data.
///
/// Two are equal if their media types are, also if one of them is [`Other`](Self::Other) with the media type
/// of another variant.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum ContentType {
    /// `application/json`, the default.
    #[default]
    Json,
    /// `application/octet-stream`.
    Binary,
    /// Any other media type.
    Other(Text),
}

impl ContentType {
    /// The content type with this media type.
    pub fn new(media_type: impl Into<Text>) -> Self {
        let media_type = media_type.into();
        match media_type.as_str() {
            "application/json" => Self::Json,
            "application/octet-stream" => Self::Binary,
            _ => Self::Other(media_type),
        }
    }

    /// The media type.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Json => "application/json",
            Self::Binary => "application/octet-stream",
            Self::Other(media_type) => media_type,
        }
    }

    /// Whether data of this type is JSON: `application/json` or any `…+json`.
    pub fn is_json(&self) -> bool {
        let essence = self.as_str().split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
    }
}

impl PartialEq for ContentType {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ContentType {}

impl Hash for ContentType {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an event happened, and other facts that its writer keeps beside its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The business process that the event belongs to (correlation).
    #[doc(alias("correlation_id", "conversation id"))]
    pub process: Option<Text>,
    /// The user or service that started it (`user:7`).
    pub initiator: Option<Text>,
    /// The message or event that triggered it (causation; Eventuate's `triggering_event`).
    #[doc(alias("causation_id", "causation id"))]
    pub predecessor: Option<Text>,
    /// Trace context, as in the W3C header `traceparent`.
    pub trace: Option<Text>,
    /// The writer's own keys.
    pub own: BTreeMap<Text, Text>,
}

impl Metadata {
    /// Whether every field is empty.
    pub fn is_empty(&self) -> bool {
        self.process.is_none()
            && self.initiator.is_none()
            && self.predecessor.is_none()
            && self.trace.is_none()
            && self.own.is_empty()
    }
}

/// The metadata of one event. Dereferences to [`Metadata`]; empty metadata, the usual case, takes one
/// pointer.
#[doc(alias("headers", "message metadata"))]
#[derive(Clone, Default)]
pub struct EventMetadata(Option<Box<Metadata>>);

impl From<Metadata> for EventMetadata {
    fn from(metadata: Metadata) -> Self {
        Self((!metadata.is_empty()).then(|| Box::new(metadata)))
    }
}

impl std::ops::Deref for EventMetadata {
    type Target = Metadata;
    fn deref(&self) -> &Metadata {
        static NONE: Metadata =
            Metadata { process: None, initiator: None, predecessor: None, trace: None, own: BTreeMap::new() };
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl std::ops::DerefMut for EventMetadata {
    fn deref_mut(&mut self) -> &mut Metadata {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for EventMetadata {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for EventMetadata {}

impl fmt::Debug for EventMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// An event to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Identity; generated by [`new`](Self::new), or given by the caller so that a retry is recognised.
    pub id: EventId,
    /// What happened, in the past tense.
    pub event_type: EventType,
    /// Version of the shape of `data`; 1 at first.
    pub schema_version: u16,
    /// The format of `data`.
    pub content_type: ContentType,
    /// What happened, in detail.
    pub data: Bytes,
    /// Words by which the event can be found; a set, kept in the given order.
    pub tags: Vec<Tag>,
    /// Why it happened.
    pub metadata: EventMetadata,
    /// When it happened, if this is known and differs from the recorded time.
    pub occurred_at: Option<Timestamp>,
}

impl NewEvent {
    /// An event with a new id, JSON data, no tags and no metadata.
    ///
    /// # Errors
    /// [`Invalid`] if the type's name is not valid.
    pub fn new(
        event_type: impl TryInto<EventType, Error = impl Into<Invalid>>,
        data: impl Into<Bytes>,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            id: EventId::generate(),
            event_type: event_type.try_into().map_err(Into::into)?,
            schema_version: 1,
            content_type: ContentType::Json,
            data: data.into(),
            tags: Vec::new(),
            metadata: EventMetadata::default(),
            occurred_at: None,
        })
    }

    /// The same event with this id.
    #[must_use]
    pub fn with_id(mut self, id: EventId) -> Self {
        self.id = id;
        self
    }

    /// The same event with one more tag; a tag that it already has is not added again.
    #[must_use]
    pub fn with_tag(mut self, tag: Tag) -> Self {
        if !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
        self
    }

    /// Checks that data declared as JSON is JSON that every reader can read ([`check_json`]).
    ///
    /// Stores take any bytes, so that a log can be restored as it is. Each entry point for new events (HTTP,
    /// the command line, an import) calls this first.
    ///
    /// # Errors
    /// [`Invalid`], naming `data`.
    pub fn check_data(&self) -> Result<(), Invalid> {
        if !self.content_type.is_json() {
            return Ok(());
        }
        check_json(&self.data).map_err(|invalid| Invalid::new("data", invalid.to_string()))
    }

    /// The same event with this metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<EventMetadata>) -> Self {
        self.metadata = metadata.into();
        self
    }
}
