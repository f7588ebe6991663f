//! Marks of closes, and what recovery leaves behind when it fails itself: both must be as durable as what is
//! written behind them.

use annals_core::EventStore;
use annals_engine::disk::faulty::{FaultyDisk, Plan};
use annals_engine::{Options, verify_disk};

use crate::common::{append, check, open, small_segments};

/// G1: a run that was full when the store was closed ends before the mark of the close. The next segment
/// follows the mark, and is known as the next one all the same.
#[tokio::test]
async fn a_segment_follows_a_full_run_and_a_mark() {
    let options = Options { run_events: 4, ..small_segments() };
    let disk = FaultyDisk::new();
    let mut done = Vec::new();
    let mut next = append("account-1", 0, 4);
    for number in 1..6 {
        let store = open(&disk, options.clone()).unwrap_or_else(|error| panic!("{}", error.chain()));
        done.push((next.clone(), store.append(next).await.unwrap()));
        store.close().await.unwrap();
        next = append("account-1", number, 4);
        // Larger than what is left of the segment.
        next.writes[0].event.data = vec![b' '; 3 << 10].into();
    }
    check(&open(&disk, options).unwrap(), &done).await;
    assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, []);
}

/// G1: the sync of the mark of a close fails, and loses it. The next process to open the store reads it, from
/// memory, and what it acknowledges after the mark survives a power failure.
#[tokio::test]
async fn a_mark_that_was_lost_loses_nothing_behind_it() {
    let unharmed = FaultyDisk::new();
    let before = {
        let store = open(&unharmed, small_segments()).unwrap();
        store.append(append("account-1", 0, 1)).await.unwrap();
        unharmed.operations()
    };
    for fail_at in before + 1..=unharmed.operations() {
        for seed in 0..8 {
            let disk = FaultyDisk::new();
            disk.plan(Plan { fail_at: Some(fail_at), seed, ..Plan::default() });
            let mut done = Vec::new();
            for number in 0..3 {
                let store = open(&disk, small_segments()).unwrap();
                let append = append("account-1", number, 1);
                done.push((append.clone(), store.append(append).await.unwrap()));
                drop(store);
            }
            let after = disk.restart(0);
            let store = open(&after, small_segments()).unwrap_or_else(|error| panic!("{}", error.chain()));
            check(&store, &done).await;
        }
    }
}

/// G2, G5: recovery clears the torn tail of appends that were not acknowledged, and its sync fails: the zeros
/// are read, and the torn tail is still on the disk. What is opened after that clears it again: it comes back
/// neither behind new appends nor as a part of them.
#[tokio::test]
async fn a_torn_tail_that_was_not_cleared_does_not_come_back() {
    let options = || Options { segment_bytes: 32 << 10, ..Options::default() };
    for seed in 2..60 {
        // An append of several sectors is written, and the machine stops before the sync: some of them
        // survive.
        let disk = FaultyDisk::new();
        let store = open(&disk, options()).unwrap();
        let first = append("account-1", 0, 1);
        let done = vec![(first.clone(), store.append(first).await.unwrap())];
        disk.plan(Plan { stop_at: Some(disk.operations() + 2), ..Plan::default() });
        let mut lost = append("account-2", 0, 2);
        lost.writes[0].event.data = vec![b'x'; 900].into();
        lost.writes[1].event.data = vec![b'y'; 900].into();
        store.append(lost).await.unwrap_err();
        let disk = disk.restart(seed);
        let opening = {
            let copy = FaultyDisk::with_files(disk.files());
            std::mem::forget(open(&copy, options()).unwrap());
            copy.operations()
        };
        for fail_at in 1..=opening {
            let disk = FaultyDisk::with_files(disk.files());
            disk.plan(Plan { fail_at: Some(fail_at), seed, ..Plan::default() });
            drop(open(&disk, options()));
            disk.plan(Plan::default());
            drop(open(&disk, options()).unwrap());
            // Nothing that is durable now is different from what is read.
            assert_eq!(disk.files(), disk.restart(0).files(), "seed {seed}, operation {fail_at}");
            check(&open(&disk, options()).unwrap(), &done).await;
        }
    }
}
