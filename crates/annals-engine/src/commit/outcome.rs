//! The outcome of an append, on its way from the decision (`stage`) through `sync` to the caller that waits for it (`store`).

use annals_core::{Append, Error, Invalid, Position, Timestamp, Version, Violated};

use crate::log::frame::Encoded;

/// What became of an append.
#[derive(Debug)]
pub enum Outcome {
    /// It was written: from this position on, at this time, with these versions of its events.
    Written(Position, Timestamp, Vec<Version>),
    /// It is a duplicate by its key: of the append that begins here.
    Keyed(Position),
    /// It is a duplicate by its events: they stand from here on.
    Repeated(Position),
    /// These conditions do not hold.
    Refused(Vec<(usize, Violated)>),
    /// It is invalid: an event id is used already.
    Invalid(Invalid),
}

/// What an append is answered.
pub struct Answered {
    /// What became of it.
    pub outcome: Outcome,
    /// The append itself, for the caller that has to explain the outcome.
    pub append: Append,
    /// Its bytes, to be dropped by the thread that made them: that is cheaper there.
    pub _encoded: Encoded,
}

/// The same, or why it cannot be answered.
pub type Reply = Result<Answered, Error>;
