//! The embedded store. This is the signature only, over the store in memory, until the engine lands.

use std::path::Path;
use std::sync::Arc;

use annals_core::{
    Append, Appended, Clock, EventStore, IdempotencyKey, Limits, LogPage, LogRead, MemoryStore, Place, Position,
    Result, StoreId, StreamInfo, StreamList, StreamPage, StreamRead, SystemClock,
};

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Bytes of one segment file.
    pub segment_bytes: u64,
    /// How large an append may be.
    pub limits: Limits,
    /// Where recorded times come from.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 256 << 20, limits: Limits::default(), clock: Arc::new(SystemClock) }
    }
}

/// The embedded store: a directory that one process at a time has open.
pub struct EngineStore(MemoryStore);

impl EngineStore {
    /// Opens the store in this directory; creates both if need be.
    ///
    /// # Errors
    /// `Unavailable` if another process has it open or the directory cannot be used; `Damaged`.
    pub fn open(_directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        Ok(Self(MemoryStore::with(options.limits, options.clock)))
    }

    /// Finishes the appends that are under way and closes the log. Dropping the store does the same.
    ///
    /// # Errors
    /// As a write.
    pub async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// What a verification looked at and found.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Identity of the log.
    pub store: Option<StoreId>,
    /// Segment files read.
    pub segments: u64,
    /// Appends whose checksums were checked.
    pub appends: u64,
    /// Events whose checksums, positions and versions were checked.
    pub events: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Indexes compared with the log.
    pub indexes: u64,
    /// What is wrong. Empty if the store is whole.
    pub damage: Vec<(Place, String)>,
}

/// Checks every checksum, position, version and index of the store in this directory, which no process may
/// have open. `progress` is told bytes read and bytes in all.
///
/// # Errors
/// If the directory cannot be read.
pub fn verify(_directory: impl AsRef<Path>, _progress: &mut dyn FnMut(u64, u64)) -> Result<Verification> {
    Ok(Verification::default())
}

#[async_trait::async_trait]
impl EventStore for EngineStore {
    fn id(&self) -> StoreId {
        self.0.id()
    }
    async fn append(&self, append: Append) -> Result<Appended> {
        self.0.append(append).await
    }
    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        self.0.read_log(read).await
    }
    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        self.0.read_stream(read).await
    }
    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        self.0.list_streams(list).await
    }
    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        self.0.outcome(key).await
    }
    async fn head(&self) -> Result<Position> {
        self.0.head().await
    }
    async fn wait(&self, after: Position) -> Result<Position> {
        self.0.wait(after).await
    }
}
