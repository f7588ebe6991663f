//! A recorded event as the domain reads it: of its own type, with everything that the store records about it.

use annals_core::{EventId, EventMetadata, Position, RecordedEvent, StreamId, Tag, Timestamp, Version};

/// An event in the log.
#[doc(alias("envelope", "event message"))]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded<E> {
    /// The domain event.
    pub event: E,
    /// Its position in the log.
    pub position: Position,
    /// Its stream.
    pub stream: StreamId,
    /// Its version in the stream.
    pub version: Version,
    /// Its id.
    pub id: EventId,
    /// The number of the part, if an upcaster turned one stored event into several: they share everything but this and `event`. 0
    /// for the first, or the only one. A part keeps its number when another one is [dropped](crate::Upcaster::Dropped) later.
    pub part: u32,
    /// The time at which the store recorded it.
    pub recorded_at: Timestamp,
    /// The time of occurrence, if the writer set one.
    pub occurred_at: Option<Timestamp>,
    /// Its tags, as stored.
    pub tags: Vec<Tag>,
    /// Its cause and other metadata.
    pub metadata: EventMetadata,
}

impl<E> Recorded<E> {
    /// One part of a stored event.
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

    /// The time of occurrence, or else the recorded time.
    pub fn time(&self) -> Timestamp {
        self.occurred_at.unwrap_or(self.recorded_at)
    }
}
