//! Why a group was not written, for the callers of its appends.

use annals_core::{Cause, Error, Invalid, Witness, chain};
use annals_state::Fault;

use crate::Stopped;
use crate::cause::SharedCause;

/// The step during which a database failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A step that cannot have committed anything.
    Read,
    /// A commit, or a statement that commits by itself.
    Commit,
}

/// Why a group was not written. It can be cloned, because several appends may get it.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Nothing was written, independently of the appends. A retry may succeed.
    Unavailable(SharedCause),
    /// Nothing was written, and a retry fails too until an operator changes privileges, a setting or the
    /// tables.
    Unusable(SharedCause),
    /// There is no log.
    NoStore(SharedCause),
    /// The store was closed.
    Closed,
    /// Nothing was written: the group exceeded a limit of time or memory of the database. A single append may
    /// not exceed it.
    Exhausted(SharedCause),
    /// Nothing was written: the database refused the rows of an append; a retry fails too.
    Refused(SharedCause),
    /// Nothing was written: the log no longer has this event.
    Lost(Witness),
    /// It may have been committed.
    Indeterminate(SharedCause),
}

/// The meaning of an error of a database for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server did not answer: it may have committed.
    Unknown,
    /// The server answered, or nothing was sent: nothing was committed.
    Undone,
    /// The same, and a retry fails too until an operator changes something.
    Unusable,
    /// The same, and the cause is one append that needs too much.
    Exhausted,
    /// The same, and the cause is the rows of one append.
    Refused,
}

impl Failure {
    /// Nothing was written, with this cause.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(SharedCause::new(cause))
    }

    /// The group may have been committed, with this cause.
    pub fn indeterminate(cause: impl Into<Cause>) -> Self {
        Self::Indeterminate(SharedCause::new(cause))
    }

    /// Maps an error at this step. `hint` is what an operator can do about it.
    pub fn at(step: Step, error: impl Into<Cause>, verdict: Verdict, hint: &'static str) -> Self {
        let cause = SharedCause::new(WithHint { hint, error: error.into() });
        match (verdict, step) {
            (Verdict::Unknown, Step::Commit) => Self::Indeterminate(cause),
            (Verdict::Refused, _) => Self::Refused(cause),
            (Verdict::Unusable, _) => Self::Unusable(cause),
            (Verdict::Exhausted, _) => Self::Exhausted(cause),
            _ => Self::Unavailable(cause),
        }
    }

    /// Maps a step that the store itself stopped.
    pub fn stopped(step: Step, stopped: Stopped) -> Self {
        match (stopped, step) {
            (Stopped::OtherHistory { seen }, _) => Self::Lost(seen),
            (silent @ Stopped::Silent(_), Step::Commit) => Self::indeterminate(silent),
            (large @ Stopped::TooLarge { .. }, _) => Self::Refused(SharedCause::new(large)),
            (none @ Stopped::NoLog, _) => Self::NoStore(SharedCause::new(none)),
            (Stopped::Closed, _) => Self::Closed,
            (stopped, _) if stopped.needs_somebody() => Self::Unusable(SharedCause::new(stopped)),
            (stopped, _) => Self::unavailable(stopped),
        }
    }

    /// Whether the cause is the rows of one append of a group, so that the others can be written without it.
    pub(crate) fn may_be_of_one(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// An error of the driver, and what an operator can do about it.
#[derive(Debug, thiserror::Error)]
#[error("{hint}")]
struct WithHint {
    hint: &'static str,
    #[source]
    error: Cause,
}

impl Stopped {
    /// Maps it to the error of a statement.
    pub fn fault(self) -> Fault {
        match self {
            stopped if stopped.needs_somebody() => Fault::Store(Failure::stopped(Step::Read, stopped).into()),
            Self::Closed => Fault::Store(Error::Closed),
            stopped => Fault::unavailable(stopped),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(cause) | Failure::Exhausted(cause) => Self::Unavailable(Box::new(cause)),
            Failure::Unusable(cause) => Self::Unusable(Box::new(cause)),
            Failure::NoStore(cause) => Self::NoStore(Box::new(cause)),
            Failure::Closed => Self::Closed,
            Failure::Refused(cause) => Invalid::new("events", chain(&cause)).into(),
            Failure::Lost(seen) => Self::Unavailable(Box::new(Stopped::OtherHistory { seen })),
            Failure::Indeterminate(cause) => Self::Indeterminate(Box::new(cause)),
        }
    }
}
