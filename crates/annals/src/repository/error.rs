//! Why a command was not executed.

use std::fmt;

use annals_core::{CodecError, Decide, Error, Invalid, Position, StreamId, Version, chain};

use super::Refusal;
use crate::failure::Refused;
use crate::fold::LoadError;

/// Why a command was not executed. `R` is the refusal of the aggregate itself.
///
/// Nothing was written, with two exceptions: after `Store(Error::Indeterminate)` the outcome is unknown, and
/// a refusal of a command with a key or a cause is stored in the log as an [`Answer`](crate::Answer).
#[derive(Debug)]
#[non_exhaustive]
pub enum ExecuteError<R> {
    /// The aggregate refused: a result of the domain.
    Rejected(R),
    /// The aggregate refused this command before: a retry with the same key, or the same cause, returns the
    /// first answer. The aggregate might decide otherwise now.
    RefusedBefore {
        /// The stream.
        stream: StreamId,
        /// The first refusal.
        refusal: Refusal,
    },
    /// `create` was called for an aggregate that exists.
    Exists {
        /// The stream.
        stream: StreamId,
        /// Its version.
        actual: Version,
    },
    /// `update` was called for an aggregate that does not exist.
    Missing {
        /// The stream.
        stream: StreamId,
    },
    /// The aggregate is not at the version that the caller requires, or has another event there; or, if the
    /// caller requires none, every attempt conflicted with another writer.
    Conflict {
        /// The stream.
        stream: StreamId,
        /// The version on which the command was decided.
        expected: Version,
        /// The version of the stream.
        actual: Version,
    },
    /// The program cannot read an event of the stream.
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
    /// The aggregate panicked while it decided: an error in its code.
    Panicked {
        /// The stream.
        stream: StreamId,
        /// The message of the panic.
        message: String,
    },
    /// A decided event cannot be written, read back or folded.
    Unwritable {
        /// The stream.
        stream: StreamId,
        /// Why.
        cause: CodecError,
    },
    /// The store refused.
    Store(Error),
}

impl<R: std::error::Error> fmt::Display for ExecuteError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The whole chain, because `source` does not return the sources of the refusal.
            Self::Rejected(refusal) => f.write_str(&chain(refusal)),
            Self::RefusedBefore { refusal, .. } => f.write_str(&refusal.text),
            Self::Exists { stream, actual } => write!(f, "`{stream}` exists already, at version {actual}"),
            Self::Missing { stream } => write!(f, "`{stream}` does not exist"),
            Self::Conflict { stream, expected, actual } if expected == actual => write!(
                f,
                "`{stream}` has another event at version {actual} than before: the log has another history"
            ),
            Self::Conflict { stream, expected, actual } => {
                write!(f, "`{stream}` is at version {actual}, not {expected}")
            }
            Self::Unreadable { stream, version, position, cause } => {
                write!(
                    f,
                    "event {version} of stream `{stream}` (position {position}) cannot be read: {cause}"
                )
            }
            Self::Panicked { stream, message } => write!(f, "the aggregate of `{stream}` {message}"),
            Self::Unwritable { stream, cause } => {
                write!(f, "an event for stream `{stream}` cannot be written: {cause}")
            }
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<R: std::error::Error> std::error::Error for ExecuteError<R> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if self.is_refusal() { Some(&Refused) } else { None }
    }
}

impl<R> ExecuteError<R> {
    /// The refusal of the aggregate, if it was decided now.
    pub fn rejection(&self) -> Option<&R> {
        match self {
            Self::Rejected(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the aggregate refused, now or before. Otherwise it is a conflict, a failure or an outage, and
    /// a retry may succeed.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Rejected(_) | Self::RefusedBefore { .. })
    }

    /// The code and the text of the refusal, if it is one: the same whether the aggregate refused now or
    /// before. Name the aggregate and the command: `error.refusal::<Account, Withdraw>()`.
    pub fn refusal<A, C>(&self) -> Option<Refusal>
    where
        A: Decide<C, Error = R>,
    {
        match self {
            Self::Rejected(error) => Some(Refusal::of::<A, C>(error)),
            Self::RefusedBefore { refusal, .. } => Some(refusal.clone()),
            _ => None,
        }
    }
}

impl<R> From<LoadError> for ExecuteError<R> {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unreadable { stream, version, position, cause } => {
                Self::Unreadable { stream, version, position, cause }
            }
            LoadError::NotReached { stream, wanted, actual } => {
                Self::Conflict { stream, expected: wanted, actual }
            }
            LoadError::Store(error) => Self::Store(error),
        }
    }
}

impl<R> From<Error> for ExecuteError<R> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl<R> From<Invalid> for ExecuteError<R> {
    fn from(invalid: Invalid) -> Self {
        Self::Store(invalid.into())
    }
}
