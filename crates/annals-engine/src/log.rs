//! The log: the sequence of segments, as readers see it.
//!
//! Readers work on a [`View`], an immutable list of segments, below the head, which the writer moves once events
//! are durable. A view that is held stays right while the log goes on: segments only grow, and a sealed one
//! differs from what it was only in where its index lies.
//!
//! Next below: `segment`. `read` answers reads from a view; `commit` moves the head and adds segments.

use std::sync::Arc;

use annals_core::{Position, StoreId};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::disk::Disk;
use crate::index::BlockCache;
use crate::segment::Segment;

/// How far the log has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Position of the newest event that is durable and may be read.
    pub head: Position,
    /// Whether the store was closed.
    pub closed: bool,
}

/// The log as readers see it.
pub struct Log {
    /// Identity.
    pub id: StoreId,
    /// Where the segments are.
    pub disk: Arc<dyn Disk>,
    /// Blocks of index files.
    pub cache: Arc<BlockCache>,
    /// How far it has come.
    pub progress: watch::Sender<Progress>,
    segments: RwLock<Arc<Vec<Arc<Segment>>>>,
}

/// The segments of the log and its head, at one time.
pub struct View {
    /// All segments in order. Never empty.
    pub segments: Arc<Vec<Arc<Segment>>>,
    /// Position of the newest event that may be read.
    pub head: Position,
}

impl Log {
    /// A log of these segments.
    pub fn new(
        id: StoreId,
        disk: Arc<dyn Disk>,
        cache: Arc<BlockCache>,
        segments: Vec<Arc<Segment>>,
        head: Position,
    ) -> Self {
        let progress = watch::Sender::new(Progress { head, closed: false });
        Self { id, disk, cache, progress, segments: RwLock::new(Arc::new(segments)) }
    }

    /// The log now.
    pub fn view(&self) -> View {
        // The head first: the segments that are read after it hold at least what lies below it.
        let head = self.progress.borrow().head;
        View { segments: self.segments.read().clone(), head }
    }

    /// Adds a segment at the end.
    pub fn push(&self, segment: Arc<Segment>) {
        let mut segments = self.segments.write();
        let mut longer = Vec::clone(&segments);
        longer.push(segment);
        *segments = Arc::new(longer);
    }

    /// Puts a segment in the place of the one that begins where it does.
    pub fn replace(&self, segment: Arc<Segment>) {
        let mut segments = self.segments.write();
        let mut changed = Vec::clone(&segments);
        for slot in &mut changed {
            if slot.base == segment.base {
                *slot = segment.clone();
            }
        }
        *segments = Arc::new(changed);
    }
}

impl View {
    /// Which segment holds the event at this position, which must be at least 1.
    pub fn segment_of(&self, position: Position) -> usize {
        self.segments.partition_point(|segment| segment.base <= position) - 1
    }

    /// How many events of the segment may be read.
    pub fn visible(&self, segment: &Segment) -> u32 {
        let below_head = (self.head.get() + 1).saturating_sub(segment.base.get());
        u32::try_from(below_head).unwrap_or(u32::MAX).min(segment.index.count())
    }
}
