//! The log as readers see it: segments, which contain the events, and runs, which index them.
//!
//! Readers work on a [`View`]: immutable lists of both, and the head, which is advanced once events are
//! durable. A view stays valid while the log grows: the segments and runs in it are only appended to, and
//! sealing or merging a run changes only the location of its index. Readers do not wait for the writer.
//!
//! Next below: `segment` and `index`. `read` answers reads from a view; `sync` moves the head, and `writer`
//! adds to the lists.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use annals_core::{Direction, Position, Query, StoreId, Timestamp};
use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::disk::Disk;
use crate::error::Fault;
use crate::index::{BlockCache, FileIndex, Index, MemoryIndex, hashes_in_filters};
use crate::log::segment::Segment;
use crate::thread::AtomicU64;

/// The head of the log, and whether the store is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Position of the newest event that is durable and may be read.
    pub head: Position,
    /// Whether the store was closed.
    pub closed: bool,
}

/// Consecutive events and their index.
pub struct Run {
    /// Position of its first event.
    pub base: Position,
    /// Its index.
    pub index: RunIndex,
}

/// The index of a run.
pub enum RunIndex {
    /// In memory: the newest run, or one that is not sealed yet.
    Memory(Arc<RwLock<MemoryIndex>>),
    /// On disk.
    File(Arc<FileIndex>),
}

impl Run {
    /// The position of the event at this place.
    pub fn position(&self, place: u32) -> Position {
        self.base.plus(u64::from(place))
    }

    /// Name of its index file; `None` if the index is in memory.
    pub fn file_name(&self) -> Option<&str> {
        match &self.index {
            RunIndex::Memory(_) => None,
            RunIndex::File(index) => Some(index.name()),
        }
    }

    /// Its index.
    pub fn index(&self) -> &dyn Index {
        match &self.index {
            RunIndex::Memory(index) => &**index,
            RunIndex::File(index) => &**index,
        }
    }
}

/// The segments and runs of the log, without the head.
#[derive(Clone)]
pub struct Lists {
    /// All segments in order. Never empty.
    pub segments: Vec<Arc<Segment>>,
    /// All runs in order. Never empty; the last one is in memory.
    pub runs: Vec<Arc<Run>>,
}

/// The log as readers see it.
pub struct Log {
    /// Identity of the log.
    pub id: StoreId,
    /// The directory of the log.
    pub disk: Arc<dyn Disk>,
    /// Cache for the blocks of index files.
    pub cache: Arc<BlockCache>,
    /// Its progress, for readers that wait for new events.
    pub progress: watch::Sender<Progress>,
    /// Position up to which the file `durable` records the log as durable.
    pub durable: Mutex<Position>,
    /// Recorded time of the newest event, in microseconds.
    recorded_at: AtomicI64,
    head: AtomicU64,
    lists: ArcSwap<Lists>,
    changing: Mutex<()>,
}

/// A snapshot of the log.
pub struct View {
    lists: Arc<Lists>,
    /// Position of the newest event that may be read.
    pub head: Position,
}

impl Log {
    /// A log of these segments and runs.
    pub fn new(
        id: StoreId,
        disk: Arc<dyn Disk>,
        cache: Arc<BlockCache>,
        lists: Lists,
        head: Position,
    ) -> Self {
        Self {
            id,
            disk,
            cache,
            progress: watch::Sender::new(Progress { head, closed: false }),
            durable: Mutex::default(),
            recorded_at: AtomicI64::new(Timestamp::MIN.as_micros()),
            head: AtomicU64::new(head.get()),
            lists: ArcSwap::from_pointee(lists),
            changing: Mutex::new(()),
        }
    }

    /// Position of the newest event that is durable.
    pub fn head(&self) -> Position {
        Position::new(self.head.load(Ordering::Acquire))
    }

    /// Makes everything up to `head` visible to readers. It must be durable.
    pub fn publish(&self, head: Position) {
        self.head.store(head.get(), Ordering::Release);
        self.progress.send_replace(Progress { head, closed: false });
    }

    /// Recorded time of the newest event.
    pub fn recorded_at(&self) -> Timestamp {
        Timestamp::from_micros(self.recorded_at.load(Ordering::Relaxed))
    }

    /// Sets the recorded time of the newest event.
    pub fn set_recorded_at(&self, time: Timestamp) {
        self.recorded_at.store(time.as_micros(), Ordering::Relaxed);
    }

    /// Whether the segment's name in the directory still refers to its open file.
    pub fn is_in_place(&self, segment: &Segment) -> Result<bool, Fault> {
        let name = &segment.name;
        self.disk.is_in_place(name, &*segment.file).map_err(Fault::io("look for", name))
    }

    /// Returns an error if the segment's name no longer refers to its open file.
    pub fn check_place(&self, segment: &Segment) -> Result<(), Fault> {
        if self.is_in_place(segment)? {
            return Ok(());
        }
        let why = "the file that is written to is not the one of this name any more: its directory was removed, renamed, \
                   replaced or unmounted; put it back or restore a backup, and open the store again";
        Err(Fault::io("keep", &segment.name)(std::io::Error::new(std::io::ErrorKind::NotFound, why)))
    }

    /// The current view.
    pub fn view(&self) -> View {
        // The head first: lists that are loaded after it contain at least the events up to it.
        let head = self.head();
        View { head, lists: self.lists.load_full() }
    }

    /// The log including staged events, for the writer.
    pub fn view_of_staged(&self) -> View {
        View { head: Position::MAX, lists: self.lists.load_full() }
    }

    /// Changes the lists, for views created after this call.
    pub fn change(&self, change: impl FnOnce(&mut Lists)) {
        let _one_at_a_time = self.changing.lock();
        let mut lists = Lists::clone(&self.lists.load());
        change(&mut lists);
        self.lists.store(Arc::new(lists));
    }

    /// Replaces the runs that this run covers with it.
    pub fn replace(&self, run: Arc<Run>) {
        let end = run.position(run.index().count());
        self.change(|lists| {
            let from = lists.runs.partition_point(|other| other.base < run.base);
            let to = lists.runs.partition_point(|other| other.base < end);
            lists.runs.splice(from..to, [run]);
        });
    }
}

/// Prefetches the filters of these runs for a term with this hash.
fn bring_near(runs: &[Arc<Run>], hash: u64) {
    for run in runs {
        run.index().bring_near(hash);
    }
}

impl View {
    /// All segments in order.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.lists.segments
    }

    /// All runs in order.
    pub fn runs(&self) -> &[Arc<Run>] {
        &self.lists.runs
    }

    /// The segment that contains the event at this position, which must be at least 1, and the range of its
    /// positions.
    pub fn segment_of(&self, position: Position) -> (&Arc<Segment>, Range<Position>) {
        let next = self.lists.segments.partition_point(|segment| segment.base() <= position);
        let segment = &self.lists.segments[next - 1];
        let end = self.lists.segments.get(next).map_or(Position::MAX, |next| next.base());
        (segment, segment.base()..end)
    }

    /// All runs, newest first, to look in each of them for a stream or a key with this hash. Their filters
    /// are prefetched, so that the waits for memory overlap.
    pub fn runs_back(&self, hash: u64) -> impl Iterator<Item = &Arc<Run>> {
        let mut is_near = false;
        self.runs().iter().enumerate().rev().map(move |(index, run)| {
            // What was written lately is often in memory.
            if !is_near && run.file_name().is_some() {
                bring_near(&self.runs()[..index], hash);
                is_near = true;
            }
            run
        })
    }

    /// Prefetches the filters of the runs for a query, from this position on in its direction.
    pub fn bring_near(&self, query: &Query, from: Position, direction: Direction) {
        let at = self.lists.runs.partition_point(|run| run.base <= from);
        let later = match direction {
            Direction::Forward => &self.runs()[at.saturating_sub(1)..],
            Direction::Backward => &self.runs()[..at],
        };
        for hash in hashes_in_filters(query) {
            bring_near(later, hash);
        }
    }

    /// The run that contains the event at this position, which must be at least 1.
    pub fn run_of(&self, position: Position) -> &Arc<Run> {
        &self.lists.runs[self.lists.runs.partition_point(|run| run.base <= position) - 1]
    }

    /// Number of events of the run that are visible.
    pub fn visible(&self, run: &Run) -> u32 {
        let below_head = (self.head.get().saturating_add(1)).saturating_sub(run.base.get());
        u32::try_from(below_head).unwrap_or(u32::MAX).min(run.index().count())
    }
}
