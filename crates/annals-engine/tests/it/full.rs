//! The disk fills, writes fail, syncs fail (G9).

use annals_core::{Error, EventStore};
use annals_engine::Options;
use annals_engine::disk::faulty::{FaultyDisk, Plan};

use crate::common::{append, check, open, small_segments};

/// When the disk is full, appends are refused and nothing breaks; reads go on; with room again, so do
/// appends.
#[tokio::test]
async fn a_full_disk_refuses_appends_and_nothing_else() {
    for options in [Options::default(), small_segments()] {
        let disk = FaultyDisk::new();
        let store = open(&disk, options.clone()).unwrap();
        let mut done = Vec::new();
        for number in 0..20 {
            let append = append("account-1", number, 1);
            done.push((append.clone(), store.append(append).await.unwrap()));
        }
        let used: usize = disk.files().values().map(Vec::len).sum();
        disk.plan(Plan { capacity: Some(used as u64), ..Plan::default() });
        let mut refused = 0;
        let large = |number| {
            let mut append = append("account-2", number, 1);
            append.writes[0].event.data = vec![b' '; 3 << 10].into();
            append
        };
        for number in 0..2_000 {
            let append = large(number);
            match store.append(append.clone()).await {
                Ok(outcome) => done.push((append, outcome)),
                Err(Error::Unavailable(_)) => refused += 1,
                Err(other) => panic!("{}", other.chain()),
            }
            if refused > 3 {
                break;
            }
        }
        assert!(refused > 3, "the disk was never full");
        check(&store, &done).await;
        disk.plan(Plan::default());
        let append = large(9_999);
        done.push((append.clone(), store.append(append).await.unwrap()));
        check(&store, &done).await;
        drop(store);
        check(&open(&disk, options).unwrap(), &done).await;
    }
}

/// After any one operation has failed, nothing that was acknowledged is lost, and the store either keeps
/// working or reports that it is poisoned; opened again, it is whole.
#[tokio::test]
async fn any_operation_may_fail_once() {
    let total = {
        let disk = FaultyDisk::new();
        let store = open(&disk, small_segments()).unwrap();
        for number in 0..30 {
            store.append(append("account-1", number, 1)).await.unwrap();
        }
        drop(store);
        disk.operations()
    };
    let mut poisoned = 0;
    for fail_at in 1..=total {
        let disk = FaultyDisk::new();
        disk.plan(Plan { fail_at: Some(fail_at), ..Plan::default() });
        let Ok(store) = open(&disk, small_segments()) else { continue };
        let mut done = Vec::new();
        let mut unknown = Vec::new();
        for number in 0..30 {
            let append = append("account-1", number, 1);
            match store.append(append.clone()).await {
                Ok(outcome) => done.push((append, outcome)),
                Err(Error::Indeterminate(_)) => unknown.push(append),
                Err(Error::Unavailable(_)) => {}
                Err(Error::Poisoned(_)) => {
                    poisoned += 1;
                    break;
                }
                Err(other) => panic!("operation {fail_at}: {}", other.chain()),
            }
        }
        check(&store, &done).await;
        drop(store);
        let disk = disk.restart(fail_at);
        let store = open(&disk, small_segments()).unwrap();
        check(&store, &done).await;
        for append in unknown {
            store.append(append).await.unwrap();
        }
        check(&store, &done).await;
    }
    assert!(poisoned > 10, "{poisoned}: failed syncs and writes poison the store");
}

/// A store opens on a full disk, also if an index could not be written there; and it is written later.
#[tokio::test]
async fn a_store_opens_on_a_full_disk() {
    let disk = FaultyDisk::new();
    let mut done = Vec::new();
    {
        let store = open(&disk, small_segments()).unwrap();
        for number in 0..60 {
            let append = append("account-1", number, 1);
            done.push((append.clone(), store.append(append).await.unwrap()));
        }
    }
    let whole = disk.files();
    let disk = FaultyDisk::with_files(whole.clone().into_iter().filter(|(name, _)| name.ends_with(".seg")));
    let used: usize = disk.files().values().map(Vec::len).sum();
    disk.plan(Plan { capacity: Some(used as u64), ..Plan::default() });
    let store = open(&disk, small_segments()).unwrap_or_else(|error| panic!("{}", error.chain()));
    check(&store, &done).await;
    let again = store.append(done[3].0.clone()).await.unwrap();
    assert!(again.duplicate && again.first == done[3].1.first);
    let after: usize = disk.files().values().map(Vec::len).sum();
    assert_eq!(after, used, "nothing is left of what did not fit");
    disk.plan(Plan::default());
    drop(store);
    check(&open(&disk, small_segments()).unwrap(), &done).await;
    let indexes = |files: std::collections::BTreeMap<String, Vec<u8>>| {
        files.into_iter().filter(|(name, _)| name.ends_with(".idx")).collect::<Vec<_>>()
    };
    assert_eq!(indexes(disk.files()), indexes(whole));
}
