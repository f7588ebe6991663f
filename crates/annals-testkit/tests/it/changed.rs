//! Events and names that a wrong store has changed.

use annals_core::{EventId, IdempotencyKey, RecordedEvent, StreamId, Timestamp, Version};

/// The event with another id, version and recorded time.
pub fn with(event: &RecordedEvent, id: EventId, version: Version, recorded_at: Timestamp) -> RecordedEvent {
    let (new, key) = (event.to_new().with_id(id), event.idempotency_key());
    let (stream, position, append) = (event.stream_id(), event.position(), event.append());
    RecordedEvent::record(&new, &stream, position, version, append, recorded_at, key.as_ref())
}

pub fn number_from_zero(events: &mut [RecordedEvent]) {
    for event in events {
        *event = with(event, event.id(), event.version().previous(), event.recorded_at());
    }
}

pub fn lower(stream: &StreamId) -> StreamId {
    StreamId::new(stream.as_str().to_lowercase()).unwrap()
}

pub fn cut(key: &IdempotencyKey) -> IdempotencyKey {
    let text: String = key.as_str().chars().take(64).collect();
    IdempotencyKey::new(text).unwrap()
}
