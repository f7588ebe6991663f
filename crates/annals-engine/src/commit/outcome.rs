//! The outcome of an append, passed from the decision (`stage`) through `sync` to the waiting caller
//! (`store`).

use annals_core::{Append, Error, Invalid, Position, Timestamp, Version, Violated};

use crate::log::frame::Encoded;

/// The outcome of an append.
#[derive(Debug)]
pub enum Outcome {
    /// It was written: the position of its first event, its recorded time, and the versions of its events.
    Written(Position, Timestamp, Vec<Version>),
    /// Its key was used by the append whose first event is at this position.
    Keyed(Position),
    /// Its events are in the log already, from this position on.
    Repeated(Position),
    /// These conditions do not hold.
    Refused(Vec<(usize, Violated)>),
    /// It is invalid; for example, an event id is used already.
    Invalid(Invalid),
}

/// The answer to an append.
pub struct Answered {
    /// The outcome.
    pub outcome: Outcome,
    /// The append itself, from which the caller builds its result.
    pub append: Append,
    /// Its encoding, returned so that the thread that allocated it drops it, which is cheaper.
    pub _encoded: Encoded,
}

/// The answer, or the error.
pub type Reply = Result<Answered, Error>;
