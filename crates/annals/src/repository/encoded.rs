//! The encoding of decided events for an append: the one path from a decision to the log, for commands and
//! for the test kit.
//!
//! - E1  An event that cannot be written, read back or folded is refused before it is appended: an event
//!   cannot be removed from the log, and an aggregate whose newest event cannot be folded can never be loaded
//!   again.
//! - E2  The events are folded as read back: the state equals that of a replay of the log, even if a codec
//!   loses something (a skipped field, `Some(NaN)` as `null`).

use annals_core::{Aggregate, CodecError, Event, NewEvent};

use crate::codec::{Beside, encode};
use crate::failure::caught;
use crate::fold::evolve;

/// Decided events.
pub(crate) struct Encoded<A: Aggregate> {
    /// The events to append.
    pub new: Vec<NewEvent>,
    /// The events as read back.
    pub read: Vec<A::Event>,
    /// The state after them.
    pub state: A,
}

impl<A: Aggregate> Encoded<A> {
    /// Encodes these events, reads them back and folds them into a copy of the state.
    pub fn of(state: &A, events: &[A::Event], beside: &Beside) -> Result<Self, CodecError> {
        let mut encoded = Self {
            new: Vec::with_capacity(events.len()),
            read: Vec::with_capacity(events.len()),
            state: state.clone(),
        };
        for event in events {
            let (new, read) = encoded_one(event, beside)?;
            evolve(&mut encoded.state, &read, new.event_type.as_str())?;
            encoded.new.push(new);
            encoded.read.push(read);
        }
        Ok(encoded)
    }
}

/// Encodes an event; a panic of its code is an error of the event.
fn encoded_one<E: Event>(event: &E, beside: &Beside) -> Result<(NewEvent, E), CodecError> {
    let encoded = caught(|| Ok(encode(event, beside)));
    encoded.unwrap_or_else(|panic| {
        let event_type = std::any::type_name::<E>().to_owned();
        Err(CodecError::Encode { event_type, cause: panic.to_string().into() })
    })
}
