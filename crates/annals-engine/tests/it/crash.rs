//! The machine stops at any operation, and any part of what was not synced is lost, torn or reordered.

use std::sync::Arc;

use annals_core::{Append, Error, EventStore, IdempotencyKey};
use annals_engine::disk::faulty::{FaultyDisk, Plan};
use annals_engine::{EngineStore, verify_disk};

use crate::common::{append, check, open, small_segments};

/// Appends from several tasks until the machine stops; what was acknowledged, and what may have been written.
async fn run(
    store: EngineStore,
    tasks: usize,
    each: usize,
) -> (Vec<(Append, annals_core::Appended)>, Vec<Append>) {
    let store = Arc::new(store);
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let (mut done, mut unknown) = (Vec::new(), Vec::new());
                for number in 0..each {
                    let key = IdempotencyKey::new(format!("{task}/{number}")).unwrap();
                    let append = append(&format!("account-{task}"), number, 1 + number % 4).once(key);
                    match store.append(append.clone()).await {
                        Ok(outcome) => done.push((append, outcome)),
                        Err(Error::Indeterminate(_)) => unknown.push(append),
                        Err(Error::Unavailable(_) | Error::Poisoned(_)) => {}
                        Err(other) => panic!("{}", other.chain()),
                    }
                }
                (done, unknown)
            })
        })
        .collect();
    let (mut done, mut unknown) = (Vec::new(), Vec::new());
    for task in tasks {
        let (acknowledged, lost) = task.await.unwrap();
        done.extend(acknowledged);
        unknown.extend(lost);
    }
    (done, unknown)
}

/// G1, G2, G4, G5: at whatever operation the machine stops and whatever survives of the unsynced, everything
/// that was acknowledged is there, nothing is half there, and retries are answered with the original.
#[tokio::test]
async fn the_machine_may_stop_at_any_operation() {
    let total = {
        let disk = FaultyDisk::new();
        run(open(&disk, small_segments()).unwrap(), 3, 12).await;
        disk.operations()
    };
    let mut schedules = 0;
    for stop_at in 1..=total + 1 {
        let disk = FaultyDisk::new();
        disk.plan(Plan { stop_at: Some(stop_at), ..Plan::default() });
        let Ok(store) = open(&disk, small_segments()) else {
            // The machine stopped while the store was created.
            open(&disk.restart(stop_at), small_segments()).unwrap();
            continue;
        };
        let (done, unknown) = run(store, 3, 12).await;
        for seed in (0..20).map(|seed| if seed < 2 { seed } else { stop_at * 1_000 + seed }) {
            schedules += 1;
            let after = disk.restart(seed);
            let store = open(&after, small_segments())
                .unwrap_or_else(|error| panic!("stop {stop_at}, seed {seed}: {}", error.chain()));
            check(&store, &done).await;
            for (append, outcome) in &done {
                let again = store.append(append.clone()).await.unwrap();
                assert!(again.duplicate && again.first == outcome.first, "stop {stop_at}, seed {seed}");
            }
            for append in &unknown {
                store.append(append.clone()).await.unwrap();
            }
            drop(store);
            let report = verify_disk(&after, &mut |_, _| {}).unwrap();
            assert_eq!(report.damage, [], "stop {stop_at}, seed {seed}");
        }
    }
    assert!(schedules > 1_000, "{schedules}");
}
