//! Why a group was not carried out, as all of its callers are told.

use std::fmt;
use std::sync::Arc;

use annals_core::{Cause, Error};

/// What was under way when a database failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that writes, or nothing that could have been committed yet.
    Read,
    /// A commit, or a statement that commits by itself.
    Commit,
}

/// Why a group was not carried out. All of its appends get the same answer, so it can be copied.
#[derive(Clone, Debug)]
pub enum Failure {
    /// Nothing was written.
    Unavailable(SharedCause),
    /// It may have been committed.
    Indeterminate(SharedCause),
}

impl Failure {
    /// Nothing was written, because of this.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(SharedCause(cause.into().into()))
    }

    /// It may have been committed: this came in between.
    pub fn indeterminate(cause: impl Into<Cause>) -> Self {
        Self::Indeterminate(SharedCause(cause.into().into()))
    }

    /// This error came at this step; `hint` says what can be done about it. `refused` says that nothing was committed for
    /// certain: the server has answered so, or was sent nothing.
    pub fn at(step: Step, error: impl Into<Cause>, refused: bool, hint: &'static str) -> Self {
        let told = Told { hint, error: error.into() };
        match step {
            Step::Commit if !refused => Self::indeterminate(told),
            _ => Self::unavailable(told),
        }
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

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(cause) => Self::Unavailable(Box::new(cause)),
            Failure::Indeterminate(cause) => Self::Indeterminate(Box::new(cause)),
        }
    }
}

/// Why a log takes no appends: it goes on in another database.
#[derive(Debug, thiserror::Error)]
#[error("the log has moved to another database: ask where, and send it there")]
pub struct Moved;

/// Whether an append was not carried out because the log has moved.
pub fn has_moved(error: &Error) -> bool {
    let Error::Unavailable(cause) = error else { return false };
    cause.downcast_ref::<SharedCause>().is_some_and(|shared| shared.0.is::<Moved>())
}

/// A cause that several callers are told.
#[derive(Clone)]
pub struct SharedCause(Arc<dyn std::error::Error + Send + Sync>);

impl fmt::Display for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SharedCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for SharedCause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
