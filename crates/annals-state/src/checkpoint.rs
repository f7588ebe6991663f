//! Checkpoints: how far a consumer has read its source, by the name of the consumer.
//!
//! - C1  A checkpoint is read as it was written, by every handle, also after a crash of the process.
//! - C2  [`advance`](CheckpointStore::advance) never moves one back, and creates none.
//!       [`replace`](CheckpointStore::replace) may move it back, from the position that the caller read.
//! - C3  A write under a lease that is lost changes nothing. Lease and checkpoint are compared in the
//!       transaction that writes.
//! - C4  Names are bytes: case, accents and blanks at the end count.

use annals_core::{EventId, Position};
use async_trait::async_trait;

use crate::{Lease, StateError};

/// How far a consumer has read: everything up to the position is handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything up to here is handled.
    pub position: Position,
    /// The event at the position. `None` at the beginning of the log, and if its id was not stored.
    pub event: Option<EventId>,
    /// Further data by which the consumer resumes, opaque to the store; usually older events of the log.
    /// `None` in rows of versions of Annals that stored none.
    pub ladder: Option<Vec<u8>>,
}

/// The outcome of an advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// The checkpoint is at the new position.
    Moved,
    /// It was at that position or a later one already, and is unchanged.
    Behind,
    /// There is no checkpoint of this name.
    Missing,
}

/// Checkpoints by name.
///
/// A name has 1 to [`NAME_BYTES_MAX`](crate::NAME_BYTES_MAX) bytes and no NUL. If a lease is given, nothing
/// is written once another holder has acquired it: [`StateError::LeaseLost`].
#[async_trait]
pub trait CheckpointStore: Send + Sync + 'static {
    /// Returns the checkpoint of this name.
    async fn checkpoint(&self, name: &str) -> Result<Option<Checkpoint>, StateError>;

    /// Creates a checkpoint unless there is one. Returns whether it was created.
    async fn create(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError>;

    /// Advances a checkpoint. Never moves it back.
    async fn advance(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<Advanced, StateError>;

    /// Replaces the checkpoint that is at this position by another, which may be at an earlier one. If it was
    /// moved meanwhile, changes nothing and returns `false`.
    async fn replace(
        &self,
        name: &str,
        at: Position,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError>;

    /// Returns the checkpoint of this name, and those of its parts, `NAME/PART`, in the order of the bytes of
    /// their names.
    async fn parts(&self, name: &str) -> Result<Vec<(String, Checkpoint)>, StateError>;

    /// Atomically replaces all checkpoints that [`parts`](Self::parts) returned by these. If any of them has
    /// changed since, changes nothing and returns `false`.
    async fn replace_parts(
        &self,
        name: &str,
        found: &[(String, Checkpoint)],
        instead: &[(String, Checkpoint)],
    ) -> Result<bool, StateError>;
}

/// The names of parts are between these, both excluded.
pub(crate) fn part_bounds(name: &str) -> (String, String) {
    // `0` is the byte after `/`.
    (format!("{name}/"), format!("{name}0"))
}
