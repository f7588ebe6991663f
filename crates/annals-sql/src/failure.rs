//! Why a group was not written, for the callers of its appends.

use annals_core::{Cause, Error, Invalid, Witness, chain};
use annals_state::Fault;

use crate::Stopped;
use crate::cause::SharedCause;

/// What was under way when a database failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that writes, or nothing that could have been committed yet.
    Read,
    /// A commit, or a statement that commits by itself.
    Commit,
}

/// Why a group was not written. Several appends may get the same answer, so it can be copied.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Nothing was written, whatever the appends of the group.
    Unavailable(SharedCause),
    /// Nothing was written, and nothing will be until somebody changes something: rights, a setting, the tables.
    Unusable(SharedCause),
    /// There is no log.
    NoStore(SharedCause),
    /// The store was closed.
    Closed,
    /// Nothing was written: the group took more time or memory than the database gives. One of its appends by itself
    /// may not.
    Exhausted(SharedCause),
    /// Nothing was written: the database refuses the rows of an append, and would again.
    Refused(SharedCause),
    /// Nothing was written: the log no longer has this event.
    Lost(Witness),
    /// It may have been committed.
    Indeterminate(SharedCause),
}

/// What an error of a database says about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server has not answered: whether it has committed is not known.
    Unknown,
    /// The server has answered, or was sent nothing: nothing was committed.
    Undone,
    /// The same, and it will be so until somebody changes something.
    Unusable,
    /// The same, and the reason is one append that needs too much.
    Exhausted,
    /// The same, and the reason is the rows of one append.
    Refused,
}

impl Failure {
    /// Nothing was written, because of this.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(SharedCause::new(cause))
    }

    /// It may have been committed: this came in between.
    pub fn indeterminate(cause: impl Into<Cause>) -> Self {
        Self::Indeterminate(SharedCause::new(cause))
    }

    /// This error came at this step; `hint` says what can be done about it.
    pub fn at(step: Step, error: impl Into<Cause>, verdict: Verdict, hint: &'static str) -> Self {
        let cause = SharedCause::new(Told { hint, error: error.into() });
        match (verdict, step) {
            (Verdict::Unknown, Step::Commit) => Self::Indeterminate(cause),
            (Verdict::Refused, _) => Self::Refused(cause),
            (Verdict::Unusable, _) => Self::Unusable(cause),
            (Verdict::Exhausted, _) => Self::Exhausted(cause),
            _ => Self::Unavailable(cause),
        }
    }

    /// The store itself has stopped this step.
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

    /// Whether the reason is the rows of one append of a group, so that the others may be written without it.
    pub(crate) fn may_be_of_one(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// An error of the driver and what can be done about it.
#[derive(Debug, thiserror::Error)]
#[error("{hint}")]
struct Told {
    hint: &'static str,
    #[source]
    error: Cause,
}

impl Stopped {
    /// What it means for the sender of a statement.
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
