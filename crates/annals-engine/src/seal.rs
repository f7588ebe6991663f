//! Sealing: turns the index of a finished run into a file, in the background, and merges those of many.
//!
//! Until that is done, and if it fails, the index in memory serves on. A file appears whole or not at all; if it is
//! missing or broken at the next open, it is built again from the segment. When there is nothing to seal or to merge, the
//! digest of the log goes on.
//!
//! Next below: `index`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use annals_core::{Position, StoreId};
use parking_lot::RwLock;

use crate::disk::{Disk, File};
use crate::error::Fault;
use crate::index::{
    self, BlockCache, Ending, FileIndex, Index, MERGE_EVENTS_MAX, MERGED_AT_ONCE, MemoryIndex,
};
use crate::log::{Log, Run, RunIndex};
use crate::proof::Proof;
use crate::segment::{End, Segment, index_name};

/// Sealing is never more than so many runs behind: the writer waits, for their indexes are in memory.
const BEHIND_MAX: usize = 8;
/// Events that are digested before it is looked whether a run waits to be sealed.
const DIGEST_EVENTS: u64 = 4_096;

/// A run in which everything is durable.
pub struct Sealable {
    /// The segment in which it lies.
    pub segment: Arc<Segment>,
    /// Where it begins.
    pub from: End,
    /// Where it ends.
    pub end: End,
    /// Its index.
    pub index: Arc<RwLock<MemoryIndex>>,
}

/// A thread that seals runs one after another.
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
        let thread = std::thread::Builder::new().name("annals-seal".into()).spawn(move || {
            step_back();
            Sealing { log, stop, proof: None }.run(&runs);
        })?;
        Ok(Self { finished: Some(finished), stopping, thread: Some(thread) })
    }

    /// Seals a run, soon. Waits if many are waiting already.
    pub fn seal(&self, run: Sealable) {
        if let Some(finished) = &self.finished {
            // If the thread is gone, the index stays in memory.
            let _ = finished.send(run);
        }
    }

    /// Waits until all is sealed. What is being merged is given up.
    pub fn finish(&mut self) {
        self.finished = None;
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that seals runs has panicked");
        }
    }
}

/// Lets other threads go first: nobody waits for what is sealed, as long as it is not far behind.
fn step_back() {
    // On Linux this is a matter of the thread. Where it cannot be done, all go on alike.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}

/// What the thread does.
struct Sealing {
    log: Arc<Log>,
    stop: Arc<AtomicBool>,
    proof: Option<Proof>,
}

impl Sealing {
    fn run(mut self, runs: &mpsc::Receiver<Sealable>) {
        loop {
            let run = match runs.try_recv() {
                Ok(run) => run,
                Err(mpsc::TryRecvError::Disconnected) => return,
                Err(mpsc::TryRecvError::Empty) if self.merge_some() || self.digest_some() => continue,
                // Nothing is left to do.
                Err(mpsc::TryRecvError::Empty) => match runs.recv() {
                    Ok(run) => run,
                    Err(mpsc::RecvError) => return,
                },
            };
            self.seal(&run);
        }
    }

    fn seal(&self, run: &Sealable) {
        let log = &self.log;
        match seal(&*log.disk, log.id, run, &log.cache) {
            Ok(index) => {
                let index = RunIndex::File(Arc::new(index));
                log.replace(Arc::new(Run { base: run.from.next, index }));
            }
            Err(fault) => tracing::warn!(
                base = run.from.next.get(),
                error = &fault as &dyn std::error::Error,
                "the index of a run stays in memory; it is written at the next open"
            ),
        }
    }

    /// Merges the newest runs of one level, if there are enough of them; whether it has.
    fn merge_some(&self) -> bool {
        let runs = mergeable(&self.log);
        if runs.is_empty() || self.stop.load(Ordering::Relaxed) {
            return false;
        }
        let merged = merge(&self.log, &runs, &self.stop);
        if let Err(fault) = &merged
            && !self.stop.load(Ordering::Relaxed)
        {
            tracing::warn!(
                error = fault as &dyn std::error::Error,
                "indexes were not merged; it is tried again when the next is sealed"
            );
        }
        merged.is_ok()
    }

    /// Goes on with the digest of the log, as far as runs are sealed; whether there was anything to do.
    fn digest_some(&mut self) -> bool {
        let view = self.log.view();
        let sealed = view.runs().last().expect("the newest run is there").base;
        let (disk, id) = (&*self.log.disk, self.log.id);
        let proof = self.proof.get_or_insert_with(|| Proof::read(disk, id, sealed));
        if proof.next() >= sealed || self.stop.load(Ordering::Relaxed) {
            return false;
        }
        let until = sealed.min(proof.next().plus(DIGEST_EVENTS));
        let (segment, positions) = view.segment_of(proof.next());
        let extended = proof.extend(segment, until.min(positions.end));
        let written = extended
            .and_then(|()| if proof.next() == sealed { proof.write(&*self.log.disk) } else { Ok(()) });
        if let Err(fault) = &written {
            tracing::warn!(error = fault as &dyn std::error::Error, "the digest of the log does not go on");
        }
        written.is_ok()
    }
}

/// Writes the index file of a run, durably, and opens it.
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

/// Creates an index file, durably, as a whole or not at all.
fn create(
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
        // On a full disk every block counts. What cannot be removed now is removed at the next open.
        let _ = disk.remove(&temporary);
    })?;
    disk.sync_directory().map_err(Fault::io("sync the directory of", &name))?;
    FileIndex::open(&name, file, first, cache.clone())
}

/// The newest runs that are of one level and that many.
fn mergeable(log: &Log) -> Vec<Arc<FileIndex>> {
    let view = log.view();
    let mut newest: Vec<Arc<FileIndex>> = Vec::new();
    let mut events = 0;
    for run in view.runs().iter().rev() {
        let RunIndex::File(index) = &run.index else {
            newest.clear();
            events = 0;
            continue;
        };
        if newest.last().is_some_and(|newer| newer.level() != index.level()) {
            // Whatever is newer and of a lower level is too few: look at the older ones.
            newest.clear();
            events = 0;
        }
        events += u64::from(index.count());
        if events > MERGE_EVENTS_MAX {
            break;
        }
        newest.push(index.clone());
        if newest.len() == MERGED_AT_ONCE {
            newest.reverse();
            return newest;
        }
    }
    Vec::new()
}

fn merge(log: &Log, runs: &[Arc<FileIndex>], stop: &AtomicBool) -> Result<(), Fault> {
    let first = runs.first().expect("there are some").base();
    let last = runs.last().expect("there are some").last();
    let index =
        create(&*log.disk, first, last, &log.cache, |name, file| index::merge(name, file, runs, stop))?;
    log.replace(Arc::new(Run { base: first, index: RunIndex::File(Arc::new(index)) }));
    for run in runs {
        // Readers may still hold it; one that cannot be removed now is removed at the next open.
        let _ = log.disk.remove(run.name());
    }
    Ok(())
}
