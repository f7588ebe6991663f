//! The delivery of an event from which a repository was obtained: the event is the cause of every command of
//! that repository.

use std::collections::HashSet;
use std::sync::Arc;

use annals_core::{EventId, EventMetadata, Position, StoreId, StreamId};
use parking_lot::Mutex;

use super::key::Cause;

/// One delivery of an event to a subscriber.
pub(crate) struct Delivered {
    pub subscriber: Arc<str>,
    /// The log of the event.
    pub log: StoreId,
    pub stream: StreamId,
    pub position: Position,
    pub event_id: EventId,
    /// The index of the part, if it was read as several events.
    pub part: u32,
    /// The delivery of the first part, if this is another part.
    pub first: Option<Arc<Delivered>>,
    pub metadata: EventMetadata,
    /// The aggregates on which a command was already executed because of this event, each with the part of
    /// the event. Recorded for all parts in the delivery of the first.
    pub commanded: Mutex<HashSet<(u32, String)>>,
}

impl Delivered {
    /// The delivery of another part of the same event.
    pub fn of_part(first: &Arc<Self>, part: u32) -> Arc<Self> {
        if part == first.part {
            return first.clone();
        }
        Arc::new(Self {
            subscriber: first.subscriber.clone(),
            log: first.log,
            stream: first.stream.clone(),
            position: first.position,
            event_id: first.event_id,
            part,
            first: Some(first.clone()),
            metadata: first.metadata.clone(),
            commanded: Mutex::default(),
        })
    }

    /// The event as the cause of a command for the aggregate with this name, in this log.
    pub fn cause(&self, category: &str, id: &str, log: StoreId) -> Cause {
        // An invalid name is refused when the command is awaited.
        let noted_with = self.first.as_deref().unwrap_or(self);
        let again = !noted_with.commanded.lock().insert((self.part, format!("{category}-{id}")));
        Cause {
            stream: self.stream.clone(),
            id: self.event_id,
            part: self.part,
            position: (log == self.log).then_some(self.position),
            subscriber: self.subscriber.to_string(),
            again,
        }
    }
}
