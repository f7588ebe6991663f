//! What goes wrong below the contract, and what it means to a caller: one `match`.

use std::io;

use annals_core::{Error, Location, Position};

/// What goes wrong below the contract.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The disk refused.
    #[error("cannot {action} {file}")]
    Io {
        /// What was tried.
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
        /// Where.
        location: Location,
        /// What is wrong.
        problem: String,
    },
    /// An index of an earlier version lacks what is requested.
    #[error(
        "{file} is an index of an earlier version, by which no event is found by its id alone or by its predecessor: \
         run `annals migrate` for this store"
    )]
    OldIndex {
        /// Which.
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

/// Whether the operating system refuses until somebody changes something. A disk may get room, a process may close files, and a
/// medium may answer again: that is not meant.
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
