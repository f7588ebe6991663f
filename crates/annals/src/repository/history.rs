//! The history of an aggregate: each event with the state before and after.

use std::collections::VecDeque;
use std::sync::Arc;

use annals_core::{
    Aggregate, Error, Event as _, EventId, EventStore, RecordedEvent, StreamId, StreamRead, Version,
};

use crate::Recorded;
use crate::codec;
use crate::fold::{LoadError, evolve};

/// One event of an aggregate, with the states around it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change<A: Aggregate> {
    /// The event, with its time and cause.
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
    /// The newest event that was decoded, even if it was dropped or some of its parts were not returned yet.
    last: Option<(Version, EventId)>,
    read: VecDeque<RecordedEvent>,
    /// The parts of that event that were not returned yet.
    parts: VecDeque<Recorded<A::Event>>,
}

impl<A: Aggregate> History<A> {
    pub(super) fn new(store: Arc<dyn EventStore>, stream: StreamId, initial: A) -> Self {
        Self { store, stream, state: initial, last: None, read: VecDeque::new(), parts: VecDeque::new() }
    }

    /// The next change; `None` after the newest. A later call returns changes that have happened since. A
    /// stored event that is decoded as several yields one change for each.
    ///
    /// # Errors
    /// If the store or the event cannot be read. An unreadable event is not skipped: the next call
    /// fails at it again. `Unavailable` if the log has lost events that were returned: start again.
    pub async fn next(&mut self) -> Result<Option<Change<A>>, LoadError> {
        while self.parts.is_empty() {
            if self.read.is_empty() {
                self.read = self.page().await?;
            }
            let Some(stored) = self.read.front() else { return Ok(None) };
            let (version, id) = (stored.version(), stored.id());
            self.parts = codec::recorded(stored)?.into_iter().collect();
            self.read.pop_front();
            self.last = Some((version, id));
        }
        let event = &self.parts[0];
        let (before, mut after) = (self.state.clone(), self.state.clone());
        evolve(&mut after, &event.event, event.event.event_type()).map_err(|cause| {
            LoadError::Unreadable {
                stream: event.stream_id(),
                version: event.version(),
                position: event.position(),
                cause,
            }
        })?;
        self.state = after;
        let event = self.parts.pop_front().expect("it was looked at just now");
        Ok(Some(Change { event, before, after: self.state.clone() }))
    }

    /// Reads the next events, together with the newest event that was read before, so that another history is
    /// noticed.
    async fn page(&self) -> Result<VecDeque<RecordedEvent>, LoadError> {
        let from = self.last.map_or(Version::FIRST, |(version, _)| version);
        let page = self.store.read_stream(StreamRead::forward(&self.stream, from)).await?;
        let mut events = VecDeque::from(page.events);
        let Some((version, id)) = self.last else { return Ok(events) };
        if events.pop_front().is_none_or(|event| event.version() != version || event.id() != id) {
            return Err(other_history());
        }
        if events.is_empty() && !page.end {
            let read = StreamRead::forward(&self.stream, version.next());
            events = self.store.read_stream(read).await?.events.into();
            // The last event is read again after the page, so that the page is of the same history.
            let read = StreamRead::forward(&self.stream, version).limit(1);
            let page = self.store.read_stream(read).await?;
            if page.events.first().is_none_or(|event| event.version() != version || event.id() != id) {
                return Err(other_history());
            }
        }
        Ok(events)
    }

    /// All changes up to now, in memory. For a long history, call [`next`](Self::next) instead.
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

fn other_history() -> LoadError {
    let problem = "the log has another history than before: begin again with the first change";
    Error::Unavailable(problem.into()).into()
}
