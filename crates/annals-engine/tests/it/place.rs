//! A store belongs to one process, and to the directory that it was opened in.

use std::path::Path;

use annals_core::{Append, Error, EventStore, Expected, Version};
use annals_engine::{EngineStore, Options};

use crate::common::{all, append, event, open, stream};

fn open_in(directory: &Path) -> annals_core::Result<EngineStore> {
    EngineStore::open(directory, Options::default())
}

/// What `/health/ready` asks: an append that every working store refuses.
fn impossible() -> Append {
    Append::to(stream("account-1"), Expected::Exact(Version::MAX), [event("impossible")])
}

/// G1, G4: the lock is not in a file that can be removed without the store.
#[tokio::test]
async fn a_store_whose_lock_file_was_removed_is_open_once() {
    let place = tempfile::tempdir().unwrap();
    let store = open_in(place.path()).unwrap();
    store.append(append("account-1", 0, 1)).await.unwrap();
    for _ in 0..2 {
        std::fs::remove_file(place.path().join("LOCK")).unwrap();
        let refused = open_in(place.path()).err().unwrap();
        assert!(refused.chain().contains("open in another process"), "{}", refused.chain());
    }
    let looked = annals_engine::verify(place.path(), &mut |_, _| {}).unwrap_err();
    assert!(looked.chain().contains("open in another process"), "{}", looked.chain());
    store.append(append("account-1", 1, 1)).await.unwrap();
    drop(store);
    assert_eq!(all(&open_in(place.path()).unwrap()).await.len(), 2);
}

/// G1, G9: the directory is removed, renamed or replaced by another: nothing is acknowledged from then on,
/// and a server that asks whether the store works hears that it does not.
#[tokio::test]
async fn nothing_is_acknowledged_when_the_files_are_gone() {
    type Away = fn(&Path, &Path);
    let removed: Away = |store, _| std::fs::remove_dir_all(store).unwrap();
    let log_removed: Away = |store, _| std::fs::remove_dir_all(store.join("log")).unwrap();
    let renamed: Away = |store, other| std::fs::rename(store, other).unwrap();
    let replaced: Away = |store, other| {
        std::fs::rename(store, other).unwrap();
        drop(open_in(store).unwrap());
    };
    let segment_removed: Away =
        |store, _| std::fs::remove_file(store.join("log/00000000000000000001.seg")).unwrap();
    for (which, away) in [removed, log_removed, renamed, replaced, segment_removed].into_iter().enumerate() {
        for ask_first in [true, false] {
            let place = tempfile::tempdir().unwrap();
            let (directory, other) = (place.path().join("st"), place.path().join("other"));
            let store = open_in(&directory).unwrap();
            let asked = store.append(impossible()).await.unwrap_err();
            assert!(matches!(asked, Error::Conflict(_)), "{which}: {}", asked.chain());
            store.append(append("account-1", 0, 1)).await.unwrap();
            away(&directory, &other);
            if ask_first {
                let asked = store.append(impossible()).await.unwrap_err();
                assert!(asked.chain().contains("removed, renamed"), "{which}: {}", asked.chain());
            }
            for number in 1..4 {
                let refused = store.append(append("account-1", number, 1)).await.unwrap_err();
                assert!(refused.chain().contains("removed, renamed"), "{which}: {}", refused.chain());
            }
            let asked = store.append(impossible()).await.unwrap_err();
            assert!(!matches!(asked, Error::Conflict(_)), "{which}: {}", asked.chain());
        }
    }
}

/// Nor is that of a place for backups.
#[test]
fn backups_are_written_by_one_process_without_its_lock_file() {
    let place = tempfile::tempdir().unwrap();
    let storage = annals_engine::DiskBackupStorage::open(place.path()).unwrap();
    std::fs::remove_file(place.path().join("LOCK")).unwrap();
    let refused = annals_engine::DiskBackupStorage::open(place.path()).err().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
    annals_engine::DiskBackupStorage::reading(place.path()).unwrap();
    drop(storage);
    annals_engine::DiskBackupStorage::open(place.path()).unwrap();
}

/// A store that is closed and opened elsewhere works.
#[tokio::test]
async fn a_store_may_be_moved_while_it_is_closed() {
    let place = tempfile::tempdir().unwrap();
    let (first, second) = (place.path().join("first"), place.path().join("second"));
    open_in(&first).unwrap().append(append("account-1", 0, 1)).await.unwrap();
    std::fs::rename(&first, &second).unwrap();
    let store = open_in(&second).unwrap();
    store.append(append("account-1", 1, 1)).await.unwrap();
    assert_eq!(all(&store).await.len(), 2);
    // Nor does a name of its own have to be the one that it is opened by.
    drop(store);
    std::os::unix::fs::symlink(&second, &first).unwrap();
    open_in(&first).unwrap().append(append("account-1", 2, 1)).await.unwrap();
    drop(open(&annals_engine::disk::faulty::FaultyDisk::new(), Options::default()).unwrap());
}
