//! The machine stops again and again: a process is killed, or gives up after a failed sync, and the power fails after
//! another has opened the store; recovery itself is interrupted; and it all happens on one disk for many rounds.

use annals_core::{Append, Appended, Error, EventStore};
use annals_engine::disk::faulty::{FaultyDisk, Plan};

use crate::common::{all, append, check, open, small_segments};

/// Appends until the plan puts an end to it; which appends nobody knows of.
async fn run(disk: &FaultyDisk) -> Vec<Append> {
    let mut unknown = Vec::new();
    let Ok(store) = open(disk, small_segments()) else { return unknown };
    for number in 0..16 {
        let append = append("account-1", number, 2);
        if let Err(Error::Indeterminate(_)) = store.append(append.clone()).await {
            unknown.push(append);
        }
    }
    unknown
}

/// Opens the store on a disk whose machine is still up; everything that it shows and acknowledges must be there
/// when the power fails after that, between two appends and in the middle of one.
async fn open_and_cut_the_power(disk: &FaultyDisk, unknown: &[Append], plan: Plan) {
    let store = open(disk, small_segments()).unwrap();
    let shown = all(&store).await;
    let look = async |acknowledged: &[(Append, Appended)]| {
        for seed in 0..8 {
            let store = open(&disk.restart(seed), small_segments())
                .unwrap_or_else(|error| panic!("{plan:?}, seed {seed}: {}", error.chain()));
            let log = all(&store).await;
            assert!(log.starts_with(&shown), "{plan:?}, seed {seed}: events that were read are gone");
            check(&store, acknowledged).await;
        }
    };
    look(&[]).await;
    let mut acknowledged = Vec::new();
    for append in unknown {
        acknowledged.push((append.clone(), store.append(append.clone()).await.unwrap()));
    }
    look(&acknowledged).await;
    disk.plan(Plan { stop_at: Some(disk.operations() + 2), ..Plan::default() });
    let _ = store.append(append("account-2", 0, 3)).await;
    look(&acknowledged).await;
}

/// G1, G4, G9: a process is killed at any operation, another opens the store and answers from it, and then the power
/// fails: what the second one has shown or acknowledged is still there, and the store opens.
#[tokio::test]
async fn what_is_read_after_a_kill_survives_a_power_cut() {
    let disk = FaultyDisk::new();
    run(&disk).await;
    for operation in 1..=disk.operations() {
        for fails in [false, true] {
            let at = Some(operation);
            let plan = if fails {
                Plan { fail_at: at, ..Plan::default() }
            } else {
                Plan { stop_at: at, ..Plan::default() }
            };
            let disk = FaultyDisk::new();
            disk.plan(plan);
            let unknown = run(&disk).await;
            // What was written is in the system's cache, synced or not.
            disk.plan(Plan::default());
            open_and_cut_the_power(&disk, &unknown, plan).await;
        }
    }
}
