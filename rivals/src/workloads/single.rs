//! The size of a store whose events came one an append from 64 writers.

use std::time::Duration;

use anyhow::Result;

use crate::bench::{Bench, check_count};
use crate::disk;
use crate::report::{Round, Who};
use crate::workloads::append::write;

const NAME: &str = "size-single";
const WRITERS: usize = 64;

/// Runs the workload.
///
/// # Errors
/// As the stores'.
pub fn run(bench: &mut Bench) -> Result<()> {
    for peer in bench.embedded() {
        let place = bench.place(NAME, peer);
        let store = bench.opener.open(peer, &place)?;
        let appends = (bench.scale.singles as usize).div_ceil(WRITERS);
        let until = (Duration::MAX, appends);
        let written = write(bench, &store, store.drives()[0], (WRITERS, 1), 0, until)?;
        let events = written.figures.events;
        bench.runtime.block_on(check_count(&*store, &place, events))?;
        drop(store);
        let size = disk::size(&place)?;
        bench.report.add(NAME, Who::Store(peer), Round::of(size.allocated as f64 / events as f64));
        let apparent = size.apparent as f64 / events as f64;
        let note = format!("{peer}: {events} events, lengths of files {apparent:.1} bytes/event");
        bench.report.note(NAME, note);
    }
    bench.show(NAME);
    bench.remove(NAME)
}
