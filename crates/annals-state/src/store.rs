//! The state as a whole: the interface of memory, SQLite and databases.

use annals_core::StoreId;

use crate::{CheckpointStore, LeaseStore, SnapshotStore};

/// Durable state beside one log.
///
/// `annals-testkit` checks an implementation against the guarantees of the three traits (`state_contract!`).
pub trait StateStore: CheckpointStore + LeaseStore + SnapshotStore {
    /// The log to which the state belongs.
    fn log(&self) -> StoreId;
}
