//! An event as the domain reads it: its own type, with everything that the store knows about it.

use annals_core::{EventId, EventMetadata, Position, RecordedEvent, StreamId, Tag, Timestamp, Version};

/// An event that is in the log.
#[doc(alias("envelope", "event message"))]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded<E> {
    /// What happened.
    pub event: E,
    /// Place in the log.
    pub position: Position,
    /// The stream that it belongs to.
    pub stream: StreamId,
    /// Place in the stream.
    pub version: Version,
    /// Identity.
    pub id: EventId,
    /// Which of several, if an upcaster made several of one stored event: they share everything but this and `event`. 0 for the
    /// first, or the only one. A part keeps its number when another one is [dropped](crate::Upcaster::Dropped) later.
    pub part: u32,
    /// When the store recorded it.
    pub recorded_at: Timestamp,
    /// When it happened, if the writer said so.
    pub occurred_at: Option<Timestamp>,
    /// Words to find the event by, as they are stored.
    pub tags: Vec<Tag>,
    /// Why it happened.
    pub metadata: EventMetadata,
}

impl<E> Recorded<E> {
    /// This part of what a stored event is read as.
    pub(crate) fn new(event: E, part: u32, stored: &RecordedEvent) -> Self {
        Self {
            event,
            position: stored.position,
            stream: stored.stream.clone(),
            version: stored.version,
            id: stored.id,
            part,
            recorded_at: stored.recorded_at,
            occurred_at: stored.occurred_at,
            tags: stored.tags.clone(),
            metadata: stored.metadata.clone(),
        }
    }

    /// The id of the aggregate: the name of the stream without its category.
    pub fn aggregate_id(&self) -> &str {
        self.stream.id().unwrap_or_default()
    }

    /// When it happened: as the writer said, or else when it was recorded.
    pub fn time(&self) -> Timestamp {
        self.occurred_at.unwrap_or(self.recorded_at)
    }
}
