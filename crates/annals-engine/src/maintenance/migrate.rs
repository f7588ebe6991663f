//! Migration: rewrites the indexes of earlier versions, run by run, while the store is in use.
//!
//! - N1  Data that the old index lacks is computed from the events of the run; the rest is copied from it. So
//!       a migration needs at most 16 bytes of memory per event of one run, and a run has at most about eight
//!       million events.
//! - N2  The new file is synced before it replaces the old one: at any time one of them exists and is
//!       complete. A migration that was stopped or killed resumes with the first run that has an old index.
//! - N3  Appends and reads do not wait for it. Reads in progress finish with the old index; the sealer does
//!       not change old indexes.
//!
//! Next below: `index` (`renew`) and `seal`, which creates the files.

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
    /// The number of indexes of an earlier version, and the number of events in them: these events cannot be
    /// found by id alone or by predecessor until [`migrate`](Self::migrate) has rewritten the indexes.
    pub fn old_indexes(&self) -> (usize, u64) {
        let old = old(&self.log().view());
        (old.len(), events(&old))
    }

    /// Rewrites all indexes of an earlier version, while the store is in use; returns their number. It blocks
    /// this thread. `work` counts the events that are read. If it is stopped or killed, the next call resumes
    /// after the last rewritten index.
    ///
    /// # Errors
    /// `Unavailable` if a read or write fails, or if it was stopped; `Unusable` if the store is read-only;
    /// `Damaged`.
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

/// Computes the data that the old index of a run lacks, from its events.
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
    let pause = |_| !work.is_stopped();
    create(&*log.disk, first, last, &log.cache, |name, file| renew(name, file, run, hashes, &pause))
}
