//! Why an aggregate could not be loaded, or a command not be carried out.

use annals_core::{CodecError, Error, Invalid, Position, StreamId, Version};

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

impl From<Invalid> for LoadError {
    fn from(invalid: Invalid) -> Self {
        Self::Store(invalid.into())
    }
}

/// Why a command was not carried out. `R` is the refusal of the aggregate itself.
///
/// Nothing was written, unless it is `Store(Error::Indeterminate)`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<R> {
    /// The aggregate refused: an answer of the domain.
    #[error(transparent)]
    Rejected(R),
    /// `create` was asked for something that exists.
    #[error("`{stream}` exists already, at version {actual}")]
    Exists {
        /// The stream.
        stream: StreamId,
        /// The version that it has.
        actual: Version,
    },
    /// `update` was asked for something that does not exist.
    #[error("`{stream}` does not exist")]
    Missing {
        /// The stream.
        stream: StreamId,
    },
    /// The aggregate is not at the version that the caller asked for, or has another event there; or, if the caller asked
    /// for none, others were faster every time that it was tried.
    #[error("{}", conflict(stream, *expected, *actual))]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// The version that the command was decided at.
        expected: Version,
        /// The version that the stream has.
        actual: Version,
    },
    /// The program cannot read an event of the stream.
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
    /// The aggregate panicked while it decided: an error in its code.
    #[error("the aggregate of `{stream}` {message}")]
    Panicked {
        /// The stream.
        stream: StreamId,
        /// What the panic said.
        message: String,
    },
    /// An event that was decided cannot be written, read back or folded.
    #[error("an event for stream `{stream}` cannot be written: {cause}")]
    Unwritable {
        /// The stream.
        stream: StreamId,
        /// Why.
        cause: CodecError,
    },
    /// The store refused.
    #[error(transparent)]
    Store(Error),
}

fn conflict(stream: &StreamId, expected: Version, actual: Version) -> String {
    match expected == actual {
        true => format!(
            "`{stream}` has another event at version {actual} than before: the log has another history"
        ),
        false => format!("`{stream}` is at version {actual}, not {expected}"),
    }
}

impl<R> ExecuteError<R> {
    /// The refusal of the aggregate, if it is one.
    pub fn rejection(&self) -> Option<&R> {
        match self {
            Self::Rejected(refusal) => Some(refusal),
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
