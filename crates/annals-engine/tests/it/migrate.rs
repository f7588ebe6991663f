//! Indexes of an earlier version are written again: while the store is in use, and in whatever step it ends.

use std::sync::Arc;

use annals_core::{EventStore, LogRead, Position, Query};
use annals_engine::disk::faulty::{FaultyDisk, Plan};
use annals_engine::{Work, verify_disk};

use crate::common::{all, append, check, open};
use crate::fixtures::{fixture, options};
use crate::lookups::each_is_found;

fn old(disk: &FaultyDisk) -> usize {
    let is_old = |bytes: &Vec<u8>| bytes.starts_with(b"ANNALSX2") || bytes.starts_with(b"ANNALSX3");
    disk.files().values().filter(|bytes| is_old(bytes)).count()
}

#[tokio::test]
async fn old_indexes_are_written_again_and_find_everything() {
    for (name, count) in [("index-2", 3), ("index-3", 6)] {
        let disk = fixture(name);
        let store = open(&disk, options()).unwrap();
        let log = all(&store).await;
        let events = store.old_indexes().1;
        let work = Work::new(None);
        assert_eq!(store.migrate(&work).unwrap(), count);
        assert_eq!(work.progress(), (events, events));
        assert_eq!((store.old_indexes(), old(&disk)), ((0, 0), 0));
        assert_eq!(store.migrate(&Work::new(None)).unwrap(), 0, "there is nothing left to do");
        each_is_found(&store, &log, 1).await;
        assert_eq!(all(&store).await, log);
        store.append(append("account-3", 1_000, 2)).await.unwrap();
        check(&store, &[]).await;
        store.close().await.unwrap();
        drop(store);
        assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, []);
        let store = open(&disk, options()).unwrap();
        each_is_found(&store, &all(&store).await, 1).await;
        assert_eq!(old(&disk), 0);
    }
}

/// The machine stops, or the disk refuses, at each of the operations: the store opens, nothing is lost, and
/// the next migration continues.
#[tokio::test]
async fn a_migration_that_ends_in_any_step_is_continued() {
    let opened = |disk: &FaultyDisk| {
        let store = open(disk, options()).unwrap();
        (disk.operations(), store)
    };
    let disk = fixture("index-3");
    let (first, store) = opened(&disk);
    let log = all(&store).await;
    store.migrate(&Work::new(None)).unwrap();
    let last = disk.operations();
    drop(store);
    assert!(last - first >= 6 * 4, "each index is created, written, synced and renamed");
    let mut left = std::collections::BTreeSet::new();
    for operation in first + 1..=last {
        for (seed, fails) in [(0, false), (1, false), (operation, false), (operation, true)] {
            let disk = fixture("index-3");
            let (_, store) = opened(&disk);
            let stop_at = (!fails).then_some(operation);
            let fail_at = fails.then_some(operation);
            disk.plan(Plan { stop_at, fail_at, seed, ..Plan::default() });
            let place = format!("operation {operation}, seed {seed}, fails {fails}");
            assert!(store.migrate(&Work::new(None)).is_err(), "{place}");
            let disk = if fails {
                // It is in use: what was migrated answers, what was not says so.
                disk.plan(Plan::default());
                assert_eq!(all(&store).await, log, "{place}");
                disk.clone()
            } else {
                disk.restart(seed)
            };
            drop(store);
            left.insert(old(&disk));
            let store = open(&disk, options()).unwrap();
            assert_eq!(all(&store).await, log, "{place}");
            let before = store.old_indexes().0;
            assert_eq!(store.migrate(&Work::new(None)).unwrap(), before, "{place}");
            each_is_found(&store, &log, 9).await;
            store.close().await.unwrap();
            drop(store);
            assert_eq!(old(&disk), 0, "{place}");
            assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, [], "{place}");
            assert!(disk.files().keys().all(|name| !name.ends_with(".tmp")), "{place}");
        }
    }
    assert!(left.len() >= 6, "it was stopped before each of the indexes: {left:?}");
}

#[tokio::test]
async fn a_stopped_migration_keeps_what_is_done() {
    let disk = fixture("index-3");
    let store = Arc::new(open(&disk, options()).unwrap());
    let work = Work::new(None);
    work.stop();
    assert!(store.migrate(&work).unwrap_err().chain().contains("it was stopped"));
    assert_eq!(old(&disk), 6);
    assert!(disk.files().keys().all(|name| !name.ends_with(".tmp")));
    assert_eq!(store.migrate(&Work::new(None)).unwrap(), 6);
}

/// It is in use meanwhile: others append and read, and two migrate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_migrated_while_it_is_in_use() {
    let disk = fixture("index-3");
    let store = Arc::new(open(&disk, options()).unwrap());
    let before = all(&store).await;
    let migrations: Vec<_> = (0..2)
        .map(|_| {
            let store = store.clone();
            tokio::task::spawn_blocking(move || store.migrate(&Work::new(None)).unwrap())
        })
        .collect();
    for number in 0..200 {
        store.append(append(&format!("new-{number}"), number, 1)).await.unwrap();
        let read = LogRead::forward(Position::new(number as u64 % 100 + 1)).limit(7);
        let page = store.read_log(read).await.unwrap();
        let from = number % 100;
        assert_eq!(page.events[..], before[from..from + 7]);
    }
    let mut renewed = 0;
    for migration in migrations {
        renewed += migration.await.unwrap();
    }
    assert_eq!(renewed, 6, "each index is written again once");
    let log = all(&store).await;
    assert_eq!(log.len(), before.len() + 200);
    let read = LogRead::forward(Position::FIRST).matching(Query::id(log[before.len() + 3].id()));
    assert_eq!(store.read_log(read).await.unwrap().events[..], log[before.len() + 3..][..1]);
    each_is_found(&store, &log, 5).await;
}
