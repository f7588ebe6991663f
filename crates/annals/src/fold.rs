//! An aggregate while its events are folded: the state, and how far in its stream it has come.
//!
//! - F1  Events are taken in the order of their versions, each once: the version comes from the store, and one
//!   that is not the next is damage.
//! - F2  An event that cannot be read or folded stops the fold. It is never passed over. One that upcasters read as several or
//!   as none counts as one: its version is the store's.
//! - F3  What follows is read together with the last event that was taken, and its id is compared: a version alone does not
//!   tell whether the log still has the history that was folded.

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
            let location = Location {
                file: format!("stream {}", stored.stream),
                offset: 0,
                position: Some(stored.position),
            };
            let cause = format!("version {} follows version {}", stored.version, self.version).into();
            return Err(LoadError::Store(Error::Damaged { location, cause }));
        }
        for event in codec::parts::<A::Event>(stored)? {
            let evolved = evolve(&mut self.state, &event, event.event_type());
            evolved.map_err(|cause| Unreadable::new(stored, cause))?;
        }
        self.version = stored.version;
        self.position = stored.position;
        self.last = Some(stored.id);
        self.since.get_or_insert(stored.recorded_at);
        Ok(())
    }

    /// Takes everything that follows in the stream, up to this version. Returns whether the stream still has the event that
    /// was taken last. If it does not, the log has another history, and this state is to be dropped.
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
            // After the page was read, so that it is of the history of the pages before.
            if !std::mem::take(&mut is_first) && !self.is_in(store, stream).await? {
                return Ok(false);
            }
            let mut events = page.events.iter();
            if let Some((version, id)) = known.take()
                && events.next().is_none_or(|event| event.version != version || event.id != id)
            {
                // A server that does not have it yet says so.
                self.is_in(store, stream).await?;
                return Ok(false);
            }
            for stored in events.take_while(|stored| stored.version <= up_to) {
                self.take(stored)?;
            }
            if page.end || self.version >= up_to {
                return Ok(true);
            }
        }
    }

    /// Whether the stream still has the event that was taken last.
    async fn is_in(&self, store: &dyn EventStore, stream: &StreamId) -> Result<bool, LoadError> {
        let Some(last) = self.last else { return Ok(true) };
        // Backward: a server that follows another and does not have this version yet does not answer then.
        let page = store.read_stream(StreamRead::backward(stream, self.version).limit(1)).await?;
        Ok(page.events.first().is_some_and(|event| event.version == self.version && event.id == last))
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
    /// The program cannot read an event of the stream. It is never passed over: a state without it would be
    /// wrong.
    #[error("event {version} of stream `{stream}` (position {position}) cannot be read: {cause}")]
    Unreadable {
        /// The stream.
        stream: StreamId,
        /// Place of the event in it.
        version: Version,
        /// Place of the event in the log.
        position: Position,
        /// Why.
        cause: CodecError,
    },
    /// The stream has not come as far as was asked for.
    #[error("stream `{stream}` is at version {actual}, not yet at {wanted}")]
    NotReached {
        /// The stream.
        stream: StreamId,
        /// The version that was asked for.
        wanted: Version,
        /// The version that it has.
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
