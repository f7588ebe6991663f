//! The files of a store are copied while it is open, one at one time and one at another.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_core::{Error, EventStore, EventStoreExt, Query};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{Options, VerifyOptions, Work, repair_disk};

use crate::common::{Random, all, append, open, small_segments};

/// The files as they are at some times in the life of an open store, and the events of the log at its end.
async fn lives(options: Options) -> (Vec<BTreeMap<String, Vec<u8>>>, Vec<annals_core::RecordedEvent>) {
    let disk = FaultyDisk::new();
    let store = open(&disk, options).unwrap();
    let mut times = Vec::new();
    for number in 0..40 {
        store.append(append(&format!("account-{}", number % 3), number, 1 + number % 3)).await.unwrap();
        if number % 8 == 7 {
            // Writes beside the log how far it is durable.
            store.verify(&VerifyOptions::default()).unwrap();
            times.push(disk.files());
        }
    }
    (times, all(&store).await)
}

/// G9: a copy of an open store, whichever time each of its files is of, opens with events of the log up to
/// some position, or says what is wrong and what to do; and then that can be done.
#[tokio::test]
async fn a_copy_of_an_open_store_is_whole_or_says_what_to_do() {
    let (times, log) = lives(Options { run_events: 5, ..small_segments() }).await;
    let mut random = Random::new(7);
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..150 {
        let mut files = BTreeMap::new();
        for name in times.last().unwrap().keys() {
            let at = random.below(times.len() as u64) as usize;
            if let Some(bytes) = times[at].get(name) {
                files.insert(name.clone(), bytes.clone());
            }
        }
        let copy = FaultyDisk::with_files(files);
        let error = match open(&copy, small_segments()) {
            Ok(store) => match store.log_events(Query::all()).await {
                Ok(found) => {
                    assert_eq!(found, log[..found.len()]);
                    opened += 1;
                    continue;
                }
                // What is sealed is looked at when it is read.
                Err(error) => error,
            },
            Err(error) => {
                for remedy in ["annals repair", "annals backup"] {
                    assert!(error.chain().contains(remedy), "{}", error.chain());
                }
                error
            }
        };
        assert!(matches!(error, Error::Damaged { .. }), "{}", error.chain());
        refused += 1;
        let (target, work, mut tell) = (FaultyDisk::new(), Work::new(None), |_| Ok(()));
        repair_disk(&copy, Arc::new(target.clone()), 1 << 20, &work, &mut tell).await.unwrap();
        for event in all(&open(&target, Options::default()).unwrap()).await {
            assert!(log.iter().any(|other| other.id() == event.id()), "{} was never appended", event.id());
        }
    }
    assert!(opened > 0 && refused > 0, "{opened} opened, {refused} refused");
}

/// G9: a log of which one segment is gone, whichever it is and whatever says so, is refused with what to do,
/// when it is opened or when what is missing is read.
#[tokio::test]
async fn a_log_without_one_of_its_segments_says_what_to_do() {
    let (times, _) = lives(Options { run_events: 5, ..small_segments() }).await;
    let mut refused = 0;
    for files in times {
        let segments: Vec<String> = files.keys().filter(|name| name.ends_with(".seg")).cloned().collect();
        // The last one may be missing without a trace, if nothing but its own events says that it was there.
        for gone in &segments[..segments.len() - 1] {
            let mut files = files.clone();
            files.remove(gone);
            let Err(error) = open(&FaultyDisk::with_files(files), small_segments()) else { continue };
            assert!(matches!(error, Error::Damaged { .. }), "{}", error.chain());
            for remedy in ["annals repair", "annals backup"] {
                assert!(error.chain().contains(remedy), "without {gone}: {}", error.chain());
            }
            refused += 1;
        }
    }
    assert!(refused > 0);
}

/// G1: files that are copied all at one time, as a snapshot of the volume does, are a whole store.
#[tokio::test]
async fn a_snapshot_of_an_open_store_is_whole() {
    let (times, log) = lives(small_segments()).await;
    for files in times {
        let store = open(&FaultyDisk::with_files(files), small_segments()).unwrap();
        let found = all(&store).await;
        assert_eq!(found, log[..found.len()]);
    }
}
