//! The delivery of an event that a repository was taken from: every command that it is given has the event as its cause.

use std::collections::HashSet;
use std::sync::Arc;

use annals_core::{EventId, EventMetadata, Position, StoreId, StreamId};
use parking_lot::Mutex;

use super::key::Cause;

/// One delivery of an event to a subscriber.
pub(crate) struct Delivered {
    pub subscriber: Arc<str>,
    /// The log that the event is in.
    pub log: StoreId,
    pub stream: StreamId,
    pub position: Position,
    pub event_id: EventId,
    pub metadata: EventMetadata,
    /// The aggregates that were given a command for this event already.
    pub commanded: Mutex<HashSet<String>>,
}

impl Delivered {
    /// The event as the cause of a command for the aggregate with this name, in this log.
    pub fn cause(&self, category: &str, id: &str, log: StoreId) -> Cause {
        // A name that is not acceptable is refused when the command is awaited.
        let again = !self.commanded.lock().insert(format!("{category}-{id}"));
        Cause {
            stream: self.stream.clone(),
            id: self.event_id,
            position: (log == self.log).then_some(self.position),
            subscriber: self.subscriber.to_string(),
            again,
        }
    }
}
