//! The size of a store whose events came one an append from 64 writers.

use std::time::Duration;

use anyhow::Result;

use crate::bench::{Bench, check_count};
use crate::disk;
use crate::workloads::append::write;
use crate::workloads::spread::weigh;

/// What this family measures.
pub const NAMES: [&str; 2] = ["size-single", "size-single-written"];

const PURPOSE: &str = "size-single";
const WRITERS: usize = 64;

/// Runs the workload.
///
/// # Errors
/// As the stores'.
pub fn run(bench: &mut Bench) -> Result<()> {
    for peer in bench.embedded() {
        let place = bench.place(PURPOSE, peer);
        let store = bench.opener.open(peer, &place)?;
        let appends = (bench.scale.singles as usize).div_ceil(WRITERS);
        let until = (Duration::MAX, appends);
        let written = write(bench, &store, store.drives()[0], (WRITERS, 1), 0, until)?;
        let events = written.figures.events;
        bench.runtime.block_on(check_count(&*store, &place, events))?;
        drop(store);
        let size = disk::size(&place)?;
        weigh(bench, NAMES, peer, size, events);
    }
    for name in NAMES {
        bench.show(name);
    }
    bench.remove(PURPOSE)
}
