//! Sealing: turns the index of a finished run into a file, in the background, and merges those of many.
//!
//! Until that is done, and if it fails, the index in memory serves on. A file appears whole or not at all; if it is
//! missing or broken at the next open, it is built again from the segment. With a run its part of the log is read once
//! more, and its digest made.
//!
//! Next below: `index`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use annals_core::{Position, StoreId};
use parking_lot::RwLock;

use crate::digest::LogDigest;
use crate::disk::{Disk, File};
use crate::error::Fault;
use crate::index::{
    self, BlockCache, Ending, FileIndex, Index, MERGE_EVENTS_MAX, MERGED_AT_ONCE, MemoryIndex,
};
use crate::log::{Log, Run, RunIndex};
use crate::segment::{End, Segment, index_name, walk};

/// Sealing is never more than so many runs behind: the writer waits, for their indexes are in memory.
const BEHIND_MAX: usize = 8;

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

/// How far the digest of the log has come.
#[derive(Clone, Default)]
pub struct Digested {
    segment: Position,
    digest: LogDigest,
}

impl Digested {
    /// As far as the end of a sealed run.
    pub fn at(ending: &Ending) -> Self {
        Self { segment: ending.segment, digest: ending.digest.clone() }
    }

    /// Goes on with what lies between two places of a segment.
    pub fn extend(&mut self, segment: &Segment, from: End, until: Position) -> Result<(), Fault> {
        if self.segment != segment.base() && self.segment != Position::ZERO {
            self.digest.next_segment();
        }
        self.segment = segment.base();
        walk(&*segment.file, &segment.header, from, until, |frame| {
            let mut bodies = Vec::with_capacity(frame.header.count as usize);
            let mut recorded_at = from.recorded_at;
            frame.records(|_, record| {
                recorded_at = record.recorded_at;
                bodies.push(record.body);
                Ok(())
            })?;
            self.digest.append(frame.header.first, recorded_at, bodies);
            Ok(())
        })?;
        Ok(())
    }

    /// The digest so far.
    pub fn digest(&self) -> &LogDigest {
        &self.digest
    }
}

/// A thread that seals runs one after another.
pub struct Sealer {
    finished: Option<mpsc::SyncSender<Sealable>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sealer {
    /// Starts the thread. The log was digested so far.
    pub fn start(log: Arc<Log>, mut digested: Digested) -> std::io::Result<Self> {
        let (finished, runs) = mpsc::sync_channel::<Sealable>(BEHIND_MAX);
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let thread = std::thread::Builder::new().name("annals-seal".into()).spawn(move || {
            step_back();
            while let Ok(run) = runs.recv() {
                seal_one(&log, &run, &mut digested);
                drop(run);
                merge_some(&log, &stop);
            }
        })?;
        Ok(Self { finished: Some(finished), stopping, thread: Some(thread) })
    }

    /// Seals a run, soon. Waits if many are waiting already.
    pub fn seal(&self, run: Sealable) {
        // If the thread is gone, the index stays in memory.
        let _ = self.finished.as_ref().map(|finished| finished.send(run));
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

fn seal_one(log: &Log, run: &Sealable, digested: &mut Digested) {
    match seal(&*log.disk, log.id, run, digested, &log.cache) {
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

/// Writes the index file of a run, durably, and opens it. What was digested goes on to the end of the run.
pub fn seal(
    disk: &dyn Disk,
    store: StoreId,
    run: &Sealable,
    digested: &mut Digested,
    cache: &Arc<BlockCache>,
) -> Result<FileIndex, Fault> {
    let Sealable { segment, from, end, index } = run;
    digested.extend(segment, *from, end.next)?;
    let ending = Ending {
        store,
        segment: segment.base(),
        salt: segment.origin.salt,
        byte: end.byte,
        link: end.link,
        recorded_at: end.recorded_at,
        frame: end.frame,
        digest: digested.digest.clone(),
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

/// Merges the newest runs of one level as long as there are enough of them.
fn merge_some(log: &Log, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let runs = mergeable(log);
        if runs.is_empty() {
            return;
        }
        if let Err(fault) = merge(log, &runs, stop) {
            if !stop.load(Ordering::Relaxed) {
                tracing::warn!(
                    error = &fault as &dyn std::error::Error,
                    "indexes were not merged; it is tried again when the next is sealed"
                );
            }
            return;
        }
    }
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
