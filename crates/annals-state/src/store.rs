//! The state as a whole: what memory, SQLite and databases have in common.

use annals_core::StoreId;

use crate::{CheckpointStore, LeaseStore, SnapshotStore};

/// Durable state beside one log.
///
/// `annals-testkit` holds an implementation to what the three traits promise (`state_contract!`).
pub trait StateStore: CheckpointStore + LeaseStore + SnapshotStore {
    /// The log that it is the state of.
    fn log(&self) -> StoreId;
}
