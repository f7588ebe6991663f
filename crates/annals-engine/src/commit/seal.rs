//! Sealing: writes the index of a finished run to a file, in the background, and merges the indexes of
//! several runs.
//!
//! Until the file is written, and if that fails, the index in memory is used. A file is created atomically;
//! if it is missing or corrupt at the next open, it is rebuilt from the segment. While the writer is idle,
//! more runs are merged and the digest of the log is extended.
//!
//! Next below: `index`.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_core::{Position, StoreId};
use parking_lot::RwLock;

use crate::disk::{self, Disk, File};
use crate::error::Fault;
use crate::index::{self, BlockCache, Ending, FileIndex, Index, MemoryIndex, Pause};
use crate::log::segment::{End, Segment, index_name};
use crate::proof::Proof;
use crate::read::view::{Log, Run, RunIndex};
use crate::thread::mpsc::{self, RecvTimeoutError, TryRecvError};
use crate::thread::{self, Instant, JoinHandle};

/// The most runs that wait to be sealed. Their indexes are in memory, so the writer waits if there are more.
const BEHIND_MAX: usize = 4;
/// Events that are digested before the thread checks again whether a run is to be sealed or the writer is
/// busy.
const DIGEST_EVENTS: u64 = 4_096;
/// How often as many are digested after each run, if the digest lags: more than a run has, as runs that are
/// sealed during a merge are not followed by any.
const DIGEST_STEPS: usize = 64;
/// The most events by which the digest lags while the writer is busy: a caller that requests the digest waits
/// for at most this many, about two seconds.
const DIGEST_LAG_MAX: u64 = 4 << 20;

/// A run whose events are all durable.
pub struct Sealable {
    /// The segment that contains it.
    pub segment: Arc<Segment>,
    /// Where it begins.
    pub from: End,
    /// Where it ends.
    pub end: End,
    /// Its index.
    pub index: Arc<RwLock<MemoryIndex>>,
}

/// The thread that seals runs.
pub struct Sealer {
    finished: Option<mpsc::SyncSender<Sealable>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sealer {
    /// Starts the thread.
    pub fn start(log: Arc<Log>) -> std::io::Result<Self> {
        let (finished, runs) = mpsc::sync_channel::<Sealable>(BEHIND_MAX);
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let thread = thread::Builder::new().name("annals-seal".into()).spawn(move || {
            disk::step_back();
            Sealing::new(log, runs, stop).run();
        })?;
        Ok(Self { finished: Some(finished), stopping, thread: Some(thread) })
    }

    /// Queues a run to be sealed. Waits if the queue is full.
    pub fn seal(&self, run: Sealable) {
        // If the thread has ended, the index stays in memory.
        if let Some(finished) = &self.finished {
            let _ = finished.send(run);
        }
    }
}

impl Drop for Sealer {
    /// Waits until all queued runs are sealed. A merge in progress is cancelled.
    fn drop(&mut self) {
        self.finished = None;
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that seals runs has panicked");
        }
    }
}

/// The state of the thread.
struct Sealing {
    log: Arc<Log>,
    /// The runs to seal.
    runs: mpsc::Receiver<Sealable>,
    stop: Arc<AtomicBool>,
    proof: Option<Proof>,
    /// The first position after the runs that are being merged.
    merging: Cell<Position>,
    /// Bytes that merges in progress write before the next run is sealed.
    owed: Cell<u64>,
}

impl Sealing {
    fn new(log: Arc<Log>, runs: mpsc::Receiver<Sealable>, stop: Arc<AtomicBool>) -> Self {
        Self { log, runs, stop, proof: None, merging: Cell::new(Position::ZERO), owed: Cell::new(0) }
    }

    fn run(mut self) {
        self.load_filters(usize::MAX);
        self.merge_all(BUSY);
        loop {
            let run = match self.runs.try_recv() {
                Err(TryRecvError::Empty) if self.digest_some(DIGEST_LAG_MAX) => continue,
                Err(TryRecvError::Empty) => self.wait(),
                taken => taken.ok(),
            };
            let Some(run) = run else { return };
            self.seal(&run);
            self.merge_all(BUSY);
            // The digest keeps pace with a writer that never rests.
            let _ = (0..DIGEST_STEPS).take_while(|_| self.digest_some(DIGEST_LAG_MAX)).count();
        }
    }

    /// Loads the filters of the newest runs that have a file, as far as they are together no larger than the
    /// cache of blocks.
    fn load_filters(&self, runs: usize) {
        let view = self.log.view();
        let mut left = self.log.cache.bytes() as u64;
        let files = view.runs().iter().rev().filter_map(|run| match &run.index {
            RunIndex::File(index) => Some(index),
            RunIndex::Memory(_) => None,
        });
        for index in files.take(runs) {
            let Some(less) = left.checked_sub(index.filter_bytes()) else { return };
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            index.load_filter();
            left = less;
        }
    }

    /// Waits for a run; while the writer is idle, merges runs and extends the digest. `None` when no more
    /// runs will come.
    fn wait(&mut self) -> Option<Sealable> {
        let (mut since, mut head) = (Instant::now(), self.log.head());
        let mut rests = false;
        loop {
            match self.runs.recv_timeout(if rests { Duration::ZERO } else { REST }) {
                Err(RecvTimeoutError::Timeout) => {}
                taken => return taken.ok(),
            }
            if since.elapsed() >= REST {
                let now = self.log.head();
                rests = now <= head.plus(REST_EVENTS);
                (since, head) = (Instant::now(), now);
            }
            if rests && !self.merge_some(IDLE) && !self.digest_some(0) {
                // Nothing is left to do before the next run.
                return self.runs.recv().ok();
            }
        }
    }

    fn seal(&self, run: &Sealable) {
        let log = &self.log;
        match seal(&*log.disk, log.id, run, &log.cache) {
            Ok(index) => {
                self.owed.set(PACE * index.bytes());
                let index = RunIndex::File(Arc::new(index));
                log.replace(Arc::new(Run { base: run.from.next, index }));
                self.load_filters(1);
            }
            Err(fault) => tracing::warn!(
                base = run.from.next.get(),
                error = &fault as &dyn std::error::Error,
                "the index of a run stays in memory; it is written at the next open"
            ),
        }
    }

    /// Merges runs as long as it is worth it.
    fn merge_all(&self, worth: Worth) {
        while self.merge_some(worth) {}
    }

    /// Merges the newest runs if it is worth it. Returns whether it did.
    fn merge_some(&self, worth: Worth) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return false;
        }
        let Some(runs) = mergeable(&self.log, self.merging.get(), worth) else { return false };
        let before = self.merging.replace(runs.last().expect("there are some").last().next());
        let merged = merge(&self.log, &runs, &|written| self.pause(written));
        self.merging.set(before);
        match merged {
            Ok(()) => {
                self.load_filters(1);
                true
            }
            Err(fault) => {
                if !self.stop.load(Ordering::Relaxed) {
                    tracing::warn!(
                        error = &fault as &dyn std::error::Error,
                        "indexes were not merged; it is tried again when the next is sealed"
                    );
                }
                false
            }
        }
    }

    /// Is called each time a merge has written some bytes: seals runs that wait, so that appends do not wait
    /// for a long merge, and merges what is worth it among the newer runs. Returns whether to continue.
    fn pause(&self, written: u64) -> bool {
        self.owed.set(self.owed.get().saturating_sub(written));
        while self.owed.get() == 0
            && let Ok(run) = self.runs.try_recv()
        {
            self.seal(&run);
            self.merge_all(BUSY);
        }
        !self.stop.load(Ordering::Relaxed)
    }

    /// Extends the digest of the log when it lags the sealed runs by more than `lag` events. Returns whether
    /// it did.
    fn digest_some(&mut self, lag: u64) -> bool {
        let view = self.log.view();
        let newest = view.runs().last().expect("the newest run is there");
        // The runs before the newest may contain events that are not durable yet.
        let sealed = newest.base.min(view.head.next());
        let (disk, id) = (&*self.log.disk, self.log.id);
        let proof = self.proof.get_or_insert_with(|| Proof::read(disk, id, sealed));
        if proof.next().plus(lag) >= sealed || self.stop.load(Ordering::Relaxed) {
            return false;
        }
        let until = sealed.min(proof.next().plus(DIGEST_EVENTS));
        let (segment, positions) = view.segment_of(proof.next());
        let extended = proof.extend(segment, until.min(positions.end));
        let written = extended.and_then(|()| {
            if proof.next().plus(lag) >= sealed { proof.write(&*self.log.disk) } else { Ok(()) }
        });
        if let Err(fault) = &written {
            tracing::warn!(
                error = fault as &dyn std::error::Error,
                "the digest of the log could not be extended"
            );
        }
        written.is_ok()
    }
}

/// Writes the index file of a run durably, and opens it.
pub fn seal(
    disk: &dyn Disk,
    store: StoreId,
    run: &Sealable,
    cache: &Arc<BlockCache>,
) -> Result<FileIndex, Fault> {
    let Sealable { segment, from, end, index } = run;
    let ending = Ending {
        store,
        segment: segment.base(),
        salt: segment.origin.salt,
        byte: end.byte,
        link: end.link,
        recorded_at: end.recorded_at,
        frame: end.frame,
    };
    create(disk, from.next, end.next.previous(), cache, |name, file| {
        index::write(name, file, from.next, &ending, &index.read())
    })
}

/// Creates an index file durably and atomically, and opens it. Replaces a file of the same run.
pub fn create(
    disk: &dyn Disk,
    first: Position,
    last: Position,
    cache: &Arc<BlockCache>,
    write: impl FnOnce(&str, &Arc<dyn File>) -> Result<(), Fault>,
) -> Result<FileIndex, Fault> {
    let name = index_name(first, last);
    let temporary = format!("{name}.tmp");
    let prepare = || {
        let file = disk.create(&temporary).map_err(Fault::io("create", &temporary))?;
        write(&temporary, &file)?;
        disk.rename(&temporary, &name).map_err(Fault::io("rename", &temporary))?;
        Ok(file)
    };
    let file = prepare().inspect_err(|_| {
        // Free the space, as the disk may be full. If this fails, the file is removed at the next open.
        let _ = disk.remove(&temporary);
    })?;
    disk.sync_directory().map_err(Fault::io("sync the directory of", &name))?;
    FileIndex::open(&name, file, first, cache.clone())
}

/// A run is merged with all newer ones if it has at most this many times their events: numerator and
/// denominator.
type Worth = (u64, u64);
/// While the writer is busy, eight runs of the same size are merged into one, so each event is rewritten
/// about once each time the log grows eightfold.
const BUSY: Worth = (1, 7);
/// While the writer is idle, more is merged: then each run has more than eight times the events of all newer
/// runs together.
const IDLE: Worth = (8, 1);
/// The writer is idle if in this time ...
const REST: Duration = Duration::from_millis(100);
/// ... at most this many events were appended.
const REST_EVENTS: u64 = 1_000;

/// Merges write this many times the bytes of a sealed index before the next run is sealed. So they keep pace
/// with any writer: in the worst case it waits for them, a little at each run. An event is rewritten by two
/// to four merges, each of which makes indexes smaller.
const PACE: u64 = 4;

/// The most events of a merged run have this many bytes of the cache of blocks each, within this range: a
/// merge has the filter of the merged run in memory, which has about two and a half bytes for an event.
const MERGE_CACHE_BYTES: u64 = 4;
const MERGE_EVENTS: RangeInclusive<u64> = 8 << 20..=32 << 20;

/// The newest runs from this position on that are worth merging, if any.
fn mergeable(log: &Log, from: Position, (times, by): Worth) -> Option<Vec<Arc<FileIndex>>> {
    let view = log.view();
    let mut newest: Vec<Arc<FileIndex>> = Vec::new();
    let (mut events, mut worth) = (0, 0);
    let events_max =
        (log.cache.bytes() as u64 / MERGE_CACHE_BYTES).clamp(*MERGE_EVENTS.start(), *MERGE_EVENTS.end());
    for run in view.runs().iter().rev().take_while(|run| run.base >= from) {
        let RunIndex::File(index) = &run.index else {
            // Its index is in memory: it is not sealed yet, or sealing failed.
            (events, worth) = (0, 0);
            newest.clear();
            continue;
        };
        let count = u64::from(index.count());
        if events + count > events_max || index.is_old() {
            break;
        }
        newest.push(index.clone());
        if count * by <= events * times {
            worth = newest.len();
        }
        events += count;
    }
    newest.truncate(worth);
    newest.reverse();
    (!newest.is_empty()).then_some(newest)
}

fn merge(log: &Log, runs: &[Arc<FileIndex>], pause: &Pause<'_>) -> Result<(), Fault> {
    let first = runs.first().expect("there are some").base();
    let last = runs.last().expect("there are some").last();
    let index =
        create(&*log.disk, first, last, &log.cache, |name, file| index::merge(name, file, runs, pause))?;
    log.replace(Arc::new(Run { base: first, index: RunIndex::File(Arc::new(index)) }));
    for run in runs {
        // Readers may still have it open. If this fails, the file is removed at the next open.
        let _ = log.disk.remove(run.name());
    }
    Ok(())
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use annals_core::{Append, EventStore, Expected, NewEvent, StreamId};

    use super::*;
    use crate::disk::faulty::FaultyDisk;
    use crate::{EngineStore, Options, recovery};

    /// The number of runs bounds how many indexes a look-up asks.
    #[tokio::test]
    async fn merges_keep_pace_with_a_writer_that_never_rests() {
        let (run_events, appends) = (16, 4_000);
        let options = Options { run_events, ..Options::default() };
        let store = EngineStore::on(Arc::new(FaultyDisk::new()), options).unwrap();
        let levels = (appends as u64 * 16).ilog(8) as usize;
        // Up to seven of each size, those that wait, and the one that is written to.
        let most = 7 * levels + BEHIND_MAX + 2;
        for number in 0..appends {
            let events = (0..16).map(|_| NewEvent::new("thing.happened", "1").unwrap()).collect::<Vec<_>>();
            let stream = StreamId::new(format!("thing-{}", number % 100)).unwrap();
            store.append(Append::to(stream, Expected::Any, events)).await.unwrap();
            let runs = store.log().view().runs().len();
            assert!(runs <= most, "after {number} appends of a run each there are {runs} runs");
        }
    }

    /// A caller that requests the digest resumes from the written one, which never lags by more than is
    /// documented.
    #[tokio::test]
    async fn the_digest_is_written_although_the_writer_never_rests() {
        let disk = FaultyDisk::new();
        let options = Options { run_events: 100, ..Options::default() };
        {
            let store = EngineStore::on(Arc::new(disk.clone()), options.clone()).unwrap();
            for _ in 0..100 {
                let events = (0..100).map(|_| NewEvent::new("thing.happened", "1").unwrap());
                let events = events.collect::<Vec<_>>();
                store.append(Append::to(StreamId::new("a").unwrap(), Expected::Any, events)).await.unwrap();
            }
        }
        let files = disk.files().into_iter().filter(|(name, _)| name != Proof::NAME);
        let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::with_files(files));
        let cache = Arc::new(BlockCache::new(0));
        let recovered = recovery::open(&*disk, &cache, &options).unwrap();
        let head = recovered.tail.next.previous();
        let log = Arc::new(Log::new(recovered.id, disk.clone(), cache, recovered.lists, head));
        let mut sealing = Sealing::new(log.clone(), mpsc::sync_channel(1).1, Arc::default());
        let lag = 2_000;
        while sealing.digest_some(lag) {}
        let written = Proof::read(&*disk, log.id, head.next()).next();
        assert!(
            written.plus(lag) >= head,
            "the digest that is written goes up to {written}, the log to {head}"
        );
    }
}
