//! Snapshots: folded state of streams, which may be forgotten.
//!
//! - N1  The nearest snapshot is the newest of its stream and schema that is not beyond the version asked for. One that is put
//!       late never hides a newer one; one of the same version takes the place of the one before it.
//! - N2  Of a stream the newest [`SNAPSHOTS_KEPT`] are kept, of one schema.

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
    /// What the bytes are of: the aggregate's name, its snapshot version, and, if an event has another shape than its first,
    /// a digest of the versions and upcasters of its events.
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

/// Where snapshots are kept: apart from the log, and allowed to forget.
#[async_trait]
pub trait SnapshotStore: Send + Sync + 'static {
    /// Keeps a snapshot, and of the same stream only the newest few beside it. Those of another schema may go.
    async fn put(&self, snapshot: StoredSnapshot) -> Result<(), Cause>;

    /// The newest snapshot of this stream and schema that is not beyond this version.
    async fn nearest(
        &self,
        stream: &StreamId,
        schema: &str,
        up_to: Version,
    ) -> Result<Option<StoredSnapshot>, Cause>;

    /// Forgets all snapshots of a stream: one of them has turned out wrong.
    async fn forget(&self, stream: &StreamId) -> Result<(), Cause>;
}
