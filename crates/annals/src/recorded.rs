//! A recorded event as the domain reads it: of its own type, with everything that the store records about it.

use std::ops::Deref;

use annals_core::RecordedEvent;

/// An event in the log. Dereferences to the [`RecordedEvent`] that was decoded: its position, stream,
/// version, id, tags and metadata, and its data as it is stored.
#[doc(alias("envelope", "event message"))]
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded<E> {
    /// The domain event.
    pub event: E,
    /// The number of the part, if an upcaster turned one stored event into several: they share everything but
    /// this and `event`. 0 for the first, or the only one. A part keeps its number when another one is
    /// [dropped](crate::Upcaster::Dropped) later.
    pub part: u32,
    stored: RecordedEvent,
}

impl<E> Recorded<E> {
    /// One part of a stored event.
    pub(crate) fn new(event: E, part: u32, stored: RecordedEvent) -> Self {
        Self { event, part, stored }
    }
}

impl<E> Deref for Recorded<E> {
    type Target = RecordedEvent;

    fn deref(&self) -> &RecordedEvent {
        &self.stored
    }
}
