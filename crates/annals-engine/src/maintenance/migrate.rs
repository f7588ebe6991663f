//! Migration: the indexes of an earlier version are written again, one run after the other, while the store is in use.
//!
//! - N1  The events of the run are read for what the old index does not know; what it knows is taken from it. So memory holds
//!       16 bytes an event of one run at most, and a run has at most about eight million.
//! - N2  The new file is synced before it takes the name of the old one: at any time one of them is there, whole. A migration
//!       that was stopped or killed continues with the first run that has an old index.
//! - N3  Nothing waits for it. Reads that use the old index finish with it; the sealer touches no old index.
//!
//! Next below: `index` (`renew`) and `seal`, which puts files in their place.

use std::ops::ControlFlow;
use std::sync::Arc;

use annals_core::{Position, Result};

use super::work::Work;
use crate::commit::seal::create;
use crate::error::Fault;
use crate::index::{FileIndex, Hashes, Index as _, renew};
use crate::read::scan;
use crate::read::view::{Log, Run, RunIndex, View};
use crate::store::EngineStore;

impl EngineStore {
    /// How many indexes are of an earlier version, and of how many events: among these nothing is found by its id alone or by
    /// its predecessor, until [`migrate`](Self::migrate) has written them again.
    pub fn old_indexes(&self) -> (usize, u64) {
        let old = old(&self.log().view());
        (old.len(), events(&old))
    }

    /// Writes all indexes of an earlier version again, on this thread, while the store is in use; returns how many. `work` says
    /// how many events have been read. What is done stays done if it is stopped or killed: the next call continues.
    ///
    /// # Errors
    /// `Unavailable` if the disk refuses, if nothing can be written, or if it was told to stop; `Damaged`.
    pub fn migrate(&self, work: &Work) -> Result<usize> {
        let _one_at_a_time = self.begin_migration()?;
        let mut renewed = 0;
        loop {
            let view = self.log().view();
            let old = old(&view);
            work.set_total(work.progress().0 + events(&old));
            let Some(run) = old.first() else { return Ok(renewed) };
            let hashes = read(&view, run, work)?;
            let index = write(self.log(), run, hashes, work)?;
            self.log().replace(Arc::new(Run { base: run.base(), index: RunIndex::File(Arc::new(index)) }));
            renewed += 1;
        }
    }
}

/// The indexes of an earlier version.
fn old(view: &View) -> Vec<Arc<FileIndex>> {
    let of = |run: &Arc<Run>| match &run.index {
        RunIndex::File(index) if index.is_old() => Some(index.clone()),
        _ => None,
    };
    view.runs().iter().filter_map(of).collect()
}

fn events(runs: &[Arc<FileIndex>]) -> u64 {
    runs.iter().map(|run| run.last().get() - run.base().get() + 1).sum()
}

/// What the old index of a run does not know, from its events.
fn read(view: &View, run: &FileIndex, work: &Work) -> Result<Hashes> {
    let mut hashes = Hashes::with_capacity(run.count() as usize);
    let mut stopped = Ok(());
    let (base, last) = (run.base(), run.last());
    scan::scan(view, base, |event| {
        stopped = work.spend(event.body().data.len() as u64).map_err(Fault::io("read", run.name()));
        if stopped.is_err() {
            return ControlFlow::Break(());
        }
        hashes.add((event.position().get() - base.get()) as u32, event.body());
        work.advance(1);
        if event.position() == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    stopped?;
    Ok(hashes)
}

fn write(log: &Log, run: &Arc<FileIndex>, hashes: Hashes, work: &Work) -> Result<FileIndex, Fault> {
    let (first, last): (Position, Position) = (run.base(), run.last());
    create(&*log.disk, first, last, &log.cache, |name, file| renew(name, file, run, hashes, work.stop_flag()))
}
