//! Snapshots: folded state of streams. They are a cache, and may be dropped.
//!
//! - N1  The nearest snapshot is the newest of its stream and schema that is not beyond the version asked
//!       for. One that is stored late never hides a newer one; one of the same version replaces the one
//!       before it.
//! - N2  Of each stream the newest [`SNAPSHOTS_KEPT`] of one schema are kept.

mod memory;

use annals_core::{Bytes, Cause, EventId, Position, Result, StreamId, Timestamp, Version};
use async_trait::async_trait;

pub use memory::MemorySnapshots;

/// How many snapshots are kept of one stream: the newest.
pub const SNAPSHOTS_KEPT: usize = 4;

/// A snapshot as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The stream that was folded.
    pub stream: StreamId,
    /// The schema of the state: the aggregate's name, its snapshot version, and, if an event has another
    /// shape than its first, a digest of the versions and upcasters of its events.
    pub schema: String,
    /// The version up to which it was folded, inclusive.
    pub version: Version,
    /// The event of that version.
    pub event_id: EventId,
    /// Position of that event.
    pub position: Position,
    /// When the snapshot was taken.
    pub taken_at: Timestamp,
    /// The state, as JSON.
    pub state: Bytes,
}

/// A store of snapshots, apart from the log. It may drop any of them.
#[async_trait]
pub trait SnapshotStore: Send + Sync + 'static {
    /// Stores a snapshot, and deletes all but the newest few of its stream. Those of another schema may be
    /// deleted.
    async fn put(&self, snapshot: StoredSnapshot) -> Result<(), Cause>;

    /// Returns the newest snapshot of this stream and schema that is not beyond this version.
    async fn nearest(
        &self,
        stream: &StreamId,
        schema: &str,
        up_to: Version,
    ) -> Result<Option<StoredSnapshot>, Cause>;

    /// Deletes all snapshots of a stream, because one of them is wrong.
    async fn forget(&self, stream: &StreamId) -> Result<(), Cause>;
}
