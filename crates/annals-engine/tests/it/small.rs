//! A small scope, explored as a whole: every way of doing three things, over several segments and runs; the
//! machine stops at every operation, and of the sectors and names that were not synced every subset survives;
//! then recovery is stopped in the same way.

use annals_core::{Append, TestClock};
use annals_engine::Options;
use annals_engine::disk::faulty::{FaultyDisk, Plan};

use crate::common::append;
use crate::sim::{Count, Setting, Witness, open, say};

/// With this many unsynced writes or fewer, every subset of them is tried.
const ALL_OF: u32 = 10;
/// With more, this many subsets.
const SOME: u64 = 64;

fn setting() -> Setting {
    let clock = std::sync::Arc::new(TestClock::default());
    let options = Options { segment_bytes: 420, run_events: 2, clock, ..Options::default() };
    Setting { options, slow: false, uniform: false }
}

/// What a process does.
#[derive(Clone)]
enum Deed {
    Append(Append),
    /// Closes the store and opens it again.
    Reopen,
}

/// All ways of doing three things.
fn deeds() -> Vec<Vec<Deed>> {
    let deed = |kind: usize, number: usize| match kind {
        0 => Deed::Append(append("a", number, 1)),
        1 => Deed::Append(append("b", number, 2)),
        2 => {
            // Of several sectors, and larger than a segment.
            let mut append = append("a", number, 1);
            append.writes[0].event.data = vec![b' '; 900].into();
            Deed::Append(append)
        }
        _ => Deed::Reopen,
    };
    let ways = 0..4 * 4 * 4;
    ways.map(|way| (0..3).map(|number| deed(way >> (2 * number) & 3, number)).collect()).collect()
}

/// Everything that a stop here may leave on the disk; whether that is all.
fn survivors(disk: &FaultyDisk, all_of: u32, some: u64) -> (Vec<FaultyDisk>, bool) {
    let unsynced = disk.unsynced();
    if unsynced <= all_of {
        ((0..1 << unsynced).map(|subset| disk.restart_with(subset)).collect(), true)
    } else {
        ((0..some).map(|seed| disk.restart(seed)).collect(), false)
    }
}

/// Works until the machine stops; what is known then.
async fn live(disk: &FaultyDisk, deeds: &[Deed]) -> Witness {
    let mut witness = Witness::default();
    let Ok(mut store) = open(disk, &setting()) else { return witness };
    for deed in deeds {
        match deed {
            Deed::Append(append) => witness.append(&store, vec![append.clone()]).await,
            Deed::Reopen => {
                drop(store);
                let Ok(again) = open(disk, &setting()) else { return witness };
                store = again;
            }
        }
        witness.consume(&store).await;
    }
    drop(store);
    witness
}

/// G1, G2, G4, G5, G7: in this scope there is no stop, and nothing that may survive it, after which anything
/// that was acknowledged is lost; nor if recovery is stopped after it.
#[test]
fn every_stop_and_every_survivor_of_a_small_scope() {
    let deeds = deeds();
    let half = |deeds: &[Vec<Deed>]| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(explore(deeds))
    };
    let (first, second) = deeds.split_at(deeds.len() / 2);
    let explored = std::thread::scope(|scope| {
        let other = scope.spawn(|| half(second));
        let explored = half(first);
        explored.with(other.join().unwrap())
    });
    let Explored { count, stops, whole, again } = explored;
    say(&format!(
        "explored a small scope: {again} schedules of stopped recovery, all survivors at {whole} of {stops} stops: {count}"
    ));
    assert!(count.schedules > 1_000, "{}", count.schedules);
}

/// What was explored.
#[derive(Clone, Copy, Default)]
struct Explored {
    count: Count,
    /// Stops.
    stops: u64,
    /// Those of them for which every subset of what was not synced has survived.
    whole: u64,
    /// Schedules of stopped recovery.
    again: u64,
}

impl Explored {
    fn with(self, other: Self) -> Self {
        let count = Count {
            schedules: self.count.schedules + other.count.schedules,
            crashes: self.count.crashes + other.count.crashes,
            checked: self.count.checked + other.count.checked,
        };
        let (stops, whole) = (self.stops + other.stops, self.whole + other.whole);
        Self { count, stops, whole, again: self.again + other.again }
    }
}

/// Does all of these, and stops everywhere.
async fn explore(deeds: &[Vec<Deed>]) -> Explored {
    let mut explored = Explored::default();
    for deeds in deeds {
        for stop_at in 1.. {
            let disk = FaultyDisk::new();
            disk.plan(Plan { stop_at: Some(stop_at), ..Plan::default() });
            let witness = live(&disk, deeds).await;
            let (left, all) = survivors(&disk, ALL_OF, SOME);
            explored.stops += 1;
            explored.whole += u64::from(all);
            for (number, disk) in left.iter().enumerate() {
                let mut witness = Witness { checked: 0, ..witness.clone() };
                witness.examine(disk, &setting(), true).await;
                explored.count.checked += witness.checked;
                explored.count.schedules += 1;
                explored.count.crashes += 1;
                if stop_at % 8 == 0 && number % 16 == 0 {
                    explored.again += stop_recovery(disk, &witness).await;
                }
            }
            if disk.operations() < stop_at - 1 {
                break;
            }
        }
    }
    explored
}

/// Stops recovery from here at every operation; how many schedules that makes.
async fn stop_recovery(disk: &FaultyDisk, witness: &Witness) -> u64 {
    let mut count = 0;
    for stop_at in 1.. {
        let disk = FaultyDisk::with_files(disk.files());
        disk.plan(Plan { stop_at: Some(stop_at), ..Plan::default() });
        let opened = open(&disk, &setting()).is_ok();
        for disk in survivors(&disk, 3, 8).0 {
            witness.clone().examine(&disk, &setting(), true).await;
            count += 1;
        }
        if opened {
            return count;
        }
    }
    count
}
