//! An aggregate while its events are folded: the state, and how far in its stream it has come.
//!
//! - F1  Events are taken in the order of their versions, each once: the version comes from the store, and one
//!   that is not the next is damage.
//! - F2  An event that cannot be read stops the fold. It is never passed over.

use annals_core::{
    Aggregate, Error, Event, EventId, EventStore, Place, Position, RecordedEvent, StreamId, StreamRead,
    Timestamp, Version,
};

use super::LoadError;

/// The state of an aggregate at a version.
#[derive(Clone, Debug)]
pub(crate) struct Folded<A> {
    pub state: A,
    pub version: Version,
    /// Position of the last event taken.
    pub position: Position,
    /// The last event taken.
    pub last: Option<EventId>,
    /// The version of the newest snapshot that is known of; 0 if none is.
    pub snapshot: Version,
    /// When that snapshot was taken; without one, when the first event was recorded.
    pub since: Option<Timestamp>,
}

impl<A: Aggregate> Folded<A> {
    /// Before anything has happened.
    pub fn initial(id: &str) -> Self {
        Self {
            state: A::initial(id),
            version: Version::ZERO,
            position: Position::ZERO,
            last: None,
            snapshot: Version::ZERO,
            since: None,
        }
    }

    /// Takes a stored event.
    pub fn take(&mut self, stored: &RecordedEvent) -> Result<(), LoadError> {
        if stored.version != self.version.next() {
            let place = Place {
                file: format!("stream {}", stored.stream),
                offset: 0,
                position: Some(stored.position),
            };
            let cause = format!("version {} follows version {}", stored.version, self.version).into();
            return Err(LoadError::Store(Error::Damaged { place, cause }));
        }
        let event = A::Event::decode(stored.event_type.as_str(), stored.schema_version, &stored.data)
            .map_err(|cause| LoadError::Unreadable {
                stream: stored.stream.clone(),
                version: stored.version,
                position: stored.position,
                cause,
            })?;
        self.state.evolve(&event);
        self.version = stored.version;
        self.position = stored.position;
        self.last = Some(stored.id);
        self.since.get_or_insert(stored.recorded_at);
        Ok(())
    }

    /// Takes everything that follows in the stream, up to this version. Returns the version that the stream
    /// has, which may be below the one folded if the stream is not the one that was folded before.
    pub async fn catch_up(
        &mut self,
        store: &dyn EventStore,
        stream: &StreamId,
        up_to: Version,
    ) -> Result<Version, LoadError> {
        loop {
            let left = up_to.get().saturating_sub(self.version.get());
            let limit = usize::try_from(left).unwrap_or(usize::MAX).clamp(1, 1_000);
            let page =
                store.read_stream(StreamRead::forward(stream, self.version.next()).limit(limit)).await?;
            for stored in page.events.iter().take_while(|stored| stored.version <= up_to) {
                self.take(stored)?;
            }
            if page.end || self.version >= up_to {
                return Ok(page.version);
            }
        }
    }
}
