//! Checkpoints: how far something has consumed its source, under a name.
//!
//! - C1  A checkpoint that was written is read as it was written, from then on and by every handle, also after a crash of the
//!       process.
//! - C2  [`advance`](CheckpointStore::advance) never moves one back, and makes none. [`replace`](CheckpointStore::replace) does
//!       move it back, from the position at which the caller has seen it.
//! - C3  A write under a lease that is lost changes nothing. Lease and checkpoint are compared in the transaction that writes.
//! - C4  Names are bytes: case, accents and blanks at the end count.

use annals_core::{EventId, Position};
use async_trait::async_trait;

use crate::{Lease, StateError};

/// How far a consumer is: everything up to the position is handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything up to here is handled.
    pub position: Position,
    /// The event there. `None` at the beginning of the log, and if nothing was stored of it.
    pub event: Option<EventId>,
    /// What else the consumer needs to resume, which only it can read: older events of a log, as a rule. `None` in rows of versions
    /// of Annals that stored none.
    pub ladder: Option<Vec<u8>>,
}

/// The outcome of an advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// The checkpoint is there now.
    Moved,
    /// It was there or further already, and stays where it was.
    Behind,
    /// There is no checkpoint of this name.
    Missing,
}

/// Checkpoints by name.
///
/// A name has 1 to [`NAME_BYTES_MAX`](crate::NAME_BYTES_MAX) bytes and no NUL. Where a lease is given, nothing is written once
/// another has acquired it: [`StateError::LeaseLost`].
#[async_trait]
pub trait CheckpointStore: Send + Sync + 'static {
    /// The checkpoint of this name.
    async fn checkpoint(&self, name: &str) -> Result<Option<Checkpoint>, StateError>;

    /// Makes a checkpoint unless there is one, which then stays. Returns whether it was made.
    async fn create(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError>;

    /// Moves a checkpoint further. It never moves back by this.
    async fn advance(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<Advanced, StateError>;

    /// Puts a checkpoint, which may be further back, in the place of the one that is at this position. Returns whether it was: if
    /// others have moved it meanwhile, theirs stays.
    async fn replace(
        &self,
        name: &str,
        at: Position,
        checkpoint: &Checkpoint,
        lease: Option<&Lease>,
    ) -> Result<bool, StateError>;

    /// The checkpoint of this name, and those of its parts, `NAME/PART`, in the order of the bytes of their names.
    async fn parts(&self, name: &str) -> Result<Vec<(String, Checkpoint)>, StateError>;

    /// Puts these checkpoints in the place of all that [`parts`](Self::parts) has found, if they are still as they were found.
    /// All of it happens or nothing. Returns whether it did.
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
