//! The fold of an aggregate: the state, and the version up to which its stream is folded.
//!
//! - F1  Events are folded in the order of their versions, each once: the version comes from the store, and a
//!   version that is not the next is damage.
//! - F2  An event that cannot be read or folded stops the fold. It is never skipped. An event that upcasters
//!   turn into several or none counts as one: its version is that of the store.
//! - F3  The next events are read together with the last folded event, whose id is compared: a version alone
//!   does not prove that the log still has the folded history.

use annals_core::{
    Aggregate, CodecError, Error, Event as _, EventId, EventStore, Invalid, Location, Position,
    RecordedEvent, StreamId, StreamRead, Timestamp, Version,
};

use crate::codec::{self, Unreadable};
use crate::failure::caught;

/// The state of an aggregate at a version.
#[derive(Clone, Debug)]
pub(crate) struct Folded<A> {
    pub state: A,
    pub version: Version,
    /// Position of the last folded event.
    pub position: Position,
    /// The id of the last folded event.
    pub last: Option<EventId>,
    /// The version of the newest known snapshot; 0 if there is none.
    pub snapshot: Version,
    /// When that snapshot was taken; without one, when the first event was recorded.
    pub since: Option<Timestamp>,
}

impl<A: Aggregate> Folded<A> {
    /// The state before the first event.
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

    /// Folds a stored event.
    pub fn take(&mut self, stored: &RecordedEvent) -> Result<(), LoadError> {
        if stored.version() != self.version.next() {
            let location = Location {
                file: format!("stream {}", stored.stream()),
                offset: 0,
                position: Some(stored.position()),
            };
            let cause = format!("version {} follows version {}", stored.version(), self.version).into();
            return Err(LoadError::Store(Error::Damaged { location, cause }));
        }
        for event in codec::parts::<A::Event>(stored)? {
            let evolved = evolve(&mut self.state, &event, event.event_type());
            evolved.map_err(|cause| Unreadable::new(stored, cause))?;
        }
        self.version = stored.version();
        self.position = stored.position();
        self.last = Some(stored.id());
        self.since.get_or_insert(stored.recorded_at());
        Ok(())
    }

    /// Folds the following events of the stream, up to this version. Returns whether the stream still has the
    /// event that was folded last. If it does not, the log has another history, and this state must be
    /// dropped.
    pub async fn catch_up(
        &mut self,
        store: &dyn EventStore,
        stream: &StreamId,
        up_to: Version,
    ) -> Result<bool, LoadError> {
        let mut known = self.last.map(|last| (self.version, last));
        let mut is_first = true;
        loop {
            let from = known.map_or(self.version.next(), |(version, _)| version);
            let left = up_to.get().saturating_sub(from.get()).saturating_add(1);
            let limit = usize::try_from(left).unwrap_or(usize::MAX).clamp(1, 1_000);
            let page = store.read_stream(StreamRead::forward(stream, from).limit(limit)).await?;
            // Checked after the page was read, so that the page is of the same history as the previous ones.
            if !std::mem::take(&mut is_first) && !self.is_in(store, stream).await? {
                return Ok(false);
            }
            let mut events = page.events.iter();
            if let Some((version, id)) = known.take()
                && events.next().is_none_or(|event| event.version() != version || event.id() != id)
            {
                // Fails if the event was read from a replica that does not have it yet.
                self.is_in(store, stream).await?;
                return Ok(false);
            }
            for stored in events.take_while(|stored| stored.version() <= up_to) {
                self.take(stored)?;
            }
            if page.end || self.version >= up_to {
                return Ok(true);
            }
        }
    }

    /// Whether the stream still has the event that was folded last.
    async fn is_in(&self, store: &dyn EventStore, stream: &StreamId) -> Result<bool, LoadError> {
        let Some(last) = self.last else { return Ok(true) };
        // A backward read is not answered by a replica that does not have this version yet.
        let page = store.read_stream(StreamRead::backward(stream, self.version).limit(1)).await?;
        Ok(page.events.first().is_some_and(|event| event.version() == self.version && event.id() == last))
    }
}

/// Folds an event; a panic of `evolve` is an error of the event.
pub(crate) fn evolve<A: Aggregate>(
    state: &mut A,
    event: &A::Event,
    event_type: &str,
) -> Result<(), CodecError> {
    caught(|| {
        state.evolve(event);
        Ok(())
    })
    .map_err(|panic| CodecError::Fold { event_type: event_type.to_owned(), cause: panic.to_string().into() })
}

/// Why an aggregate could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The program cannot read an event of the stream. It is never skipped: a state without it would be
    /// wrong.
    #[error("event {version} of stream `{stream}` (position {position}) cannot be read: {cause}")]
    Unreadable {
        /// The stream.
        stream: StreamId,
        /// The version of the event in it.
        version: Version,
        /// The position of the event in the log.
        position: Position,
        /// Why.
        cause: CodecError,
    },
    /// The stream has not reached the requested version.
    #[error("stream `{stream}` is at version {actual}, not yet at {wanted}")]
    NotReached {
        /// The stream.
        stream: StreamId,
        /// The requested version.
        wanted: Version,
        /// Its version.
        actual: Version,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<Unreadable> for LoadError {
    fn from(unreadable: Unreadable) -> Self {
        let Unreadable { stream, version, position, cause } = unreadable;
        Self::Unreadable { stream, version, position, cause }
    }
}

impl From<Invalid> for LoadError {
    fn from(invalid: Invalid) -> Self {
        Self::Store(invalid.into())
    }
}
