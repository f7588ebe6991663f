//! What a handler sees beside the event.

use std::collections::HashSet;
use std::sync::Arc;

use annals_core::{Aggregate, Decide, EventId, EventMetadata, Position, StreamId};
use parking_lot::Mutex;

use crate::repository::{Cause, Execute, Repository};
use crate::shared::Shared;

/// The delivery of one event to one subscriber.
#[derive(Clone)]
pub struct Handling {
    pub(super) shared: Arc<Shared>,
    pub(super) subscriber: Arc<str>,
    pub(super) stream: StreamId,
    pub(super) position: Position,
    pub(super) event_id: EventId,
    pub(super) metadata: EventMetadata,
    pub(super) attempt: u32,
    /// The aggregates that were given a command for this event already.
    pub(super) commanded: Arc<Mutex<HashSet<String>>>,
}

impl Handling {
    /// The name of the subscriber.
    pub fn subscriber(&self) -> &str {
        &self.subscriber
    }

    /// How often the event has been delivered to this subscriber since it was started, this time included. An
    /// event whose handling was cut short by the end of the process comes again with 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The aggregates of one kind.
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        Repository::new(self.shared.clone())
    }

    /// Gives a command to an aggregate because of the event. The event becomes the predecessor; process and
    /// initiator are its own, unless something else is said; and however often the event is delivered, the
    /// command is carried out once for this subscriber.
    ///
    /// If the event leads to several commands for one aggregate, tell them apart: `.once("refund")`. Otherwise
    /// the second is refused.
    pub fn execute<A, C>(&self, id: impl Into<String>, command: C) -> Execute<A, C>
    where
        A: Decide<C>,
    {
        self.execute_in(&self.repository(), id, command)
    }

    /// The same through a repository of one's own, with its snapshots and its cache.
    pub fn execute_in<A, C>(
        &self,
        repository: &Repository<A>,
        id: impl Into<String>,
        command: C,
    ) -> Execute<A, C>
    where
        A: Decide<C>,
    {
        let id = id.into();
        // A name that is not acceptable is refused when the command is awaited.
        let stream = StreamId::of(A::NAME, &id).map_or_else(|_| id.clone(), |stream| stream.to_string());
        let again = !self.commanded.lock().insert(stream);
        let cause = Cause {
            stream: self.stream.clone(),
            id: self.event_id,
            position: Some(self.position),
            subscriber: self.subscriber.to_string(),
            again,
        };
        repository.execute(id, command).caused(cause, &self.metadata)
    }
}
