//! What a database does for the committer: it writes what is assumed to be right, or is locked, asked, and written.

use std::fmt;
use std::sync::Arc;

use annals_core::{Cause, Error, Position, Timestamp, Version};
use async_trait::async_trait;

use crate::{Asked, Facts, Staged};

/// A connection of the committer's own, over which groups of appends are written.
///
/// After a failure the connection is given up with whatever was not committed on it, and the next call begins anew.
#[async_trait]
pub trait Database: Send + 'static {
    /// Checks under the lock of the log what the group assumes, and writes it: one transaction, one round trip.
    /// Nothing if what it assumes is not so; then nothing was written.
    async fn write(&mut self, staged: &Staged<'_>) -> Result<Option<Tail>, Failure>;

    /// Locks the log and reads what a group must know of it. The lock is held until [`commit`](Self::commit).
    async fn lock(&mut self, asked: &Asked<'_>) -> Result<Facts, Failure>;

    /// Writes what was staged on the facts that were read under the lock, if anything, commits and unlocks.
    async fn commit(&mut self, staged: &Staged<'_>) -> Result<Tail, Failure>;
}

/// The end of the log as a group found it.
#[derive(Clone, Debug)]
pub struct Tail {
    /// Position of the last event in front of the group.
    pub position: Position,
    /// When that was recorded; the group's times are held to it.
    pub recorded_at: Timestamp,
    /// The version of each of the group's streams in front of it, in their order.
    pub versions: Vec<Version>,
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
