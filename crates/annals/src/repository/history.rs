//! What happened to an aggregate: each event with the state before and after.

use std::collections::VecDeque;
use std::sync::Arc;

use annals_core::{Aggregate, EventStore, RecordedEvent, StreamId, StreamRead, Version};

use super::LoadError;
use crate::Recorded;

/// One thing that happened to an aggregate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change<A: Aggregate> {
    /// What happened, when and why.
    pub event: Recorded<A::Event>,
    /// The state before.
    pub before: A,
    /// The state after.
    pub after: A,
}

/// The changes of an aggregate, oldest first. Reads page by page.
pub struct History<A: Aggregate> {
    store: Arc<dyn EventStore>,
    stream: StreamId,
    state: A,
    from: Version,
    read: VecDeque<RecordedEvent>,
}

impl<A: Aggregate> History<A> {
    pub(super) fn new(store: Arc<dyn EventStore>, stream: StreamId, initial: A) -> Self {
        Self { store, stream, state: initial, from: Version::FIRST, read: VecDeque::new() }
    }

    /// The next change; nothing after the newest. What happens later is found when asked again.
    ///
    /// # Errors
    /// If the store cannot be read, or the event cannot. An event that cannot be read is not passed over: it is
    /// met again when asked again.
    pub async fn next(&mut self) -> Result<Option<Change<A>>, LoadError> {
        if self.read.is_empty() {
            let page = self.store.read_stream(StreamRead::forward(&self.stream, self.from)).await?;
            self.from = page.next;
            self.read = page.events.into();
        }
        let Some(stored) = self.read.front().cloned() else { return Ok(None) };
        let (version, position) = (stored.version, stored.position);
        let event = Recorded::<A::Event>::read(stored).map_err(|cause| LoadError::Unreadable {
            stream: self.stream.clone(),
            version,
            position,
            cause,
        })?;
        self.read.pop_front();
        let before = self.state.clone();
        self.state.evolve(&event.event);
        Ok(Some(Change { event, before, after: self.state.clone() }))
    }

    /// All changes up to now. They are held in memory: for a long history, take one after the other.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn all(mut self) -> Result<Vec<Change<A>>, LoadError> {
        let mut changes = Vec::new();
        while let Some(change) = self.next().await? {
            changes.push(change);
        }
        Ok(changes)
    }
}
