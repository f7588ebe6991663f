//! The errors of the engine, and one `match` that maps them to those of the contract.

use std::io;

use annals_core::{Error, Location, Position};

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// An I/O operation failed.
    #[error("cannot {action} {file}")]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file.
        file: String,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// Bytes contradict an invariant.
    #[error("{problem}")]
    Damaged {
        /// The location of the damage.
        location: Location,
        /// A description of the damage.
        problem: String,
    },
    /// An index of an earlier version does not support the query.
    #[error(
        "{file} is an index of an earlier version, by which no event is found by its id alone or by its predecessor: \
         run `annals migrate` for this store"
    )]
    OldIndex {
        /// The index file.
        file: String,
    },
}

impl Fault {
    /// Wraps an error of the disk.
    pub fn io(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, file: file.to_owned(), source }
    }

    /// Damage at this byte of this file.
    pub fn damaged(file: &str, offset: u64, position: Option<Position>, problem: impl Into<String>) -> Self {
        let location = Location { file: file.to_owned(), offset, position };
        Self::Damaged { location, problem: problem.into() }
    }
}

/// Whether an error of the operating system lasts until an operator changes something. Errors that may pass
/// by themselves are excluded: a full disk, too many open files, a device that does not respond.
fn needs_somebody(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        InvalidFilename, IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem,
        Unsupported,
    };
    matches!(
        kind,
        InvalidFilename
            | IsADirectory
            | NotADirectory
            | NotFound
            | PermissionDenied
            | ReadOnlyFilesystem
            | Unsupported
    )
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Damaged { location, problem } => Self::Damaged { location, cause: problem.into() },
            Fault::OldIndex { .. } => Self::Unusable(Box::new(fault)),
            Fault::Io { ref source, .. } if needs_somebody(source.kind()) => Self::Unusable(Box::new(fault)),
            Fault::Io { .. } => Self::Unavailable(Box::new(fault)),
        }
    }
}
