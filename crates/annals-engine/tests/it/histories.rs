//! Random concurrent histories on the engine: many threads ask at once while segments are rolled, runs are
//! sealed and merged, and the disk fails in the middle; whatever was answered, one order explains it.
//!
//! The checker and its model are those of the contract (`annals_testkit::History`).

use std::sync::Arc;

use annals_core::EventStore;
use annals_engine::Options;
use annals_engine::disk::faulty::{FaultyDisk, Plan};
use annals_testkit::History;

use crate::common::{Random, all, open};
use crate::sim::say;

/// Runs one history, of which this operation fails if one is given; the store is opened again in the end, and
/// its log is the order. Returns how many requests were made, and how many of them have an unknown outcome.
async fn one_order(seed: u64, fail_at: Option<u64>) -> (usize, usize) {
    let mut random = Random::new(seed);
    let options = Options {
        segment_bytes: [700, 2 << 10, 64 << 10][random.below(3) as usize],
        run_events: [3, 10, 1 << 16][random.below(3) as usize],
        ..Options::default()
    };
    let disk = FaultyDisk::new();
    let sync_micros = [0, 600][random.below(2) as usize];
    let store = Arc::new(open(&disk, options.clone()).unwrap());
    let fail_at = fail_at.map(|at| disk.operations() + 1 + at);
    disk.plan(Plan { fail_at, seed, sync_micros, ..Plan::default() });
    let shared: Arc<dyn EventStore> = store.clone();
    let history = History::of(&shared, seed).await;
    let shown = all(&store).await;
    drop((shared, store));
    let (disk, power_fails) = if seed.is_multiple_of(2) { (disk.restart(seed), true) } else { (disk, false) };
    disk.plan(Plan::default());
    let log = all(&open(&disk, options).unwrap()).await;
    assert!(log.starts_with(&shown), "what was read is gone; the power failed: {power_fails}");
    history.check(&log);
    history.count()
}

/// Runs this many histories; the first that has no order, if there is one.
pub fn without_order(seeds: u64, faults: bool) -> Result<(usize, usize), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let (mut requests, mut unknown) = (0, 0);
    for seed in 0..seeds {
        let fail_at = faults.then(|| Random::new(seed ^ 0xfa11).below(240));
        // On this thread, so that what is planted here is planted in the store.
        let history = std::panic::AssertUnwindSafe(|| runtime.block_on(one_order(seed, fail_at)));
        let Ok(count) = std::panic::catch_unwind(history) else {
            return Err(format!("history {seed}, failing operation {fail_at:?}"));
        };
        requests += count.0;
        unknown += count.1;
    }
    Ok((requests, unknown))
}

/// G2 to G5: one order explains every answer while all background work runs.
#[test]
fn histories_on_small_runs_have_one_order() {
    let (requests, _) = without_order(30, false).unwrap();
    say(&format!("histories: 30 with {requests} requests have one order each"));
}

/// G1, G5, G9: so it is if an operation fails in the middle: an append whose outcome is unknown is there or
/// not, and what was refused is not.
#[test]
fn histories_on_a_failing_disk_have_one_order() {
    let (requests, unknown) = without_order(60, true).unwrap();
    say(&format!(
        "histories: 60 with {requests} requests and {unknown} unknown outcomes have one order each"
    ));
    assert!(unknown > 0, "no operation failed in the middle of an append");
}
