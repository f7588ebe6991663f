//! Events that were decided, as they are appended: the one way from a decision to the log, for commands and for the test kit.
//!
//! - E1  An event that cannot be written, read back or folded is refused before it is appended: what is in the log cannot be
//!   taken out of it, and an aggregate whose newest event cannot be folded can never be loaded again.
//! - E2  What is folded is what was read back: the state is what a replay makes of the log, also where a codec loses
//!   something (a skipped field, `Some(NaN)` as `null`).

use annals_core::{
    Aggregate, CodecError, Event, EventMetadata, Invalid, NewEvent, Tag, Timestamp, refuse_reserved,
};

use crate::failure::caught;
use crate::fold::evolve;

/// Events that were decided.
pub(crate) struct Encoded<A: Aggregate> {
    /// As they are appended.
    pub new: Vec<NewEvent>,
    /// As they are read back.
    pub read: Vec<A::Event>,
    /// The state after them.
    pub state: A,
}

/// What is appended with every event of a command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside {
    pub metadata: EventMetadata,
    pub occurred_at: Option<Timestamp>,
    pub tags: Vec<Tag>,
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

/// Encodes an event and reads it back.
pub(crate) fn encode<E: Event>(event: &E, beside: &Beside) -> Result<(NewEvent, E), CodecError> {
    let event_type = event.event_type();
    let failed = |cause: annals_core::Cause| CodecError::Encode { event_type: event_type.to_owned(), cause };
    if !E::TYPES.contains(&event_type) {
        return Err(failed("it is not one of `Event::TYPES`, so nobody would find it".into()));
    }
    let invalid = |invalid: Invalid| failed(Box::new(invalid));
    refuse_reserved("type", event_type).map_err(invalid)?;
    let data = event.encode()?;
    // JSON writes some values that it cannot read, such as a number that is none.
    let read_back = E::decode(event_type, event.schema_version(), &data)?;
    let mut new = NewEvent::new(event_type, data).map_err(invalid)?;
    new.schema_version = event.schema_version();
    new.metadata = beside.metadata.clone();
    new.occurred_at = beside.occurred_at;
    for tag in event.tags()?.into_iter().chain(beside.tags.iter().cloned()) {
        new = new.with_tag(tag);
    }
    Ok((new, read_back))
}
