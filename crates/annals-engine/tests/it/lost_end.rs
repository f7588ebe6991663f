//! What a log knows of its own length is used: one that has lost its end is damaged, and no position is given
//! out twice.

use std::sync::Arc;

use annals_core::{Error, EventStore};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{
    BackupOptions, DiskBackupStorage, Lost, Options, VerifyOptions, Work, repair_disk, verify_disk,
    verify_disk_with,
};

use crate::common::{all, append, open};

const SEGMENT: &str = "00000000000000000001.seg";

/// A log of 50 events, and how it ends.
async fn fifty(end: impl AsyncFnOnce(annals_engine::EngineStore, &FaultyDisk)) -> FaultyDisk {
    let disk = FaultyDisk::new();
    let store = open(&disk, Options::default()).unwrap();
    for number in 0..50 {
        store.append(append("account-1", number, 1)).await.unwrap();
    }
    end(store, &disk).await;
    disk
}

/// The process is killed: nothing is done any more, and what was written stays.
fn killed(store: annals_engine::EngineStore) {
    std::mem::forget(store);
}

/// The same disk, of which the segment ends before this text.
fn cut(disk: &FaultyDisk, text: &str) -> FaultyDisk {
    let mut files = disk.files();
    let bytes = files.get_mut(SEGMENT).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes.truncate(at);
    FaultyDisk::with_files(files)
}

/// Checks that everybody notices that the events from 39 on are gone.
async fn is_missed(disk: &FaultyDisk, how: &str) {
    let cut = cut(disk, "account-1 38.0");
    let before = cut.files();
    let error =
        open(&cut, Options::default()).err().unwrap_or_else(|| panic!("{how}: it is opened without a word"));
    let Error::Damaged { location, .. } = &error else { panic!("{how}: {}", error.chain()) };
    assert_eq!((&*location.file, location.position.unwrap().get()), (SEGMENT, 39), "{how}");
    assert!(error.chain().contains("restore a backup"), "{}", error.chain());
    assert_eq!(cut.files(), before, "{how}: nothing is cleared");
    // Again and again: what is found does not make it whole.
    for _ in 0..2 {
        let found = verify_disk_with(&cut, &VerifyOptions::default()).unwrap();
        assert_eq!(found.damage.len(), 1, "{how}: {:?}", found.damage);
        assert!(
            matches!(found.damage[0].lost, Lost::Events { first, .. } if first.get() == 39),
            "{how}: {:?}",
            found.damage
        );
    }
    let (target, work, mut tell) = (FaultyDisk::new(), Work::new(None), |_| Ok(()));
    let repaired = repair_disk(&cut, Arc::new(target.clone()), 1 << 20, &work, &mut tell).await.unwrap();
    assert_eq!(repaired.events, 38);
    assert!(repaired.lost > 0, "{how}: {repaired:?}");
    assert_eq!(all(&open(&target, Options::default()).unwrap()).await.len(), 38);
    // Who removes the file says that it is meant to be so.
    let accepted = FaultyDisk::with_files(cut.files().into_iter().filter(|(name, _)| name != "durable"));
    let store = open(&accepted, Options::default()).unwrap();
    assert_eq!(store.head().await.unwrap().get(), 38, "{how}");
    store.append(append("account-1", 99, 1)).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    assert_eq!(verify_disk(&accepted, &mut |_, _| {}).unwrap().damage, []);
}

/// G9: after a close.
#[tokio::test]
async fn a_closed_log_that_lost_its_end_is_damaged() {
    let disk = fifty(async |store, _| store.close().await.unwrap()).await;
    is_missed(&disk, "closed").await;
    // Nothing is missed of one that is whole, whatever was allocated behind its end.
    assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, []);
    assert_eq!(all(&open(&disk, Options::default()).unwrap()).await.len(), 50);
}

/// G9: after a kill, of what was verified or backed up, or found when it was opened.
#[tokio::test]
async fn a_killed_log_that_lost_what_was_known_to_be_there_is_damaged() {
    let verified = fifty(async |store, _| {
        store.verify(&VerifyOptions::default()).unwrap();
        killed(store);
    });
    is_missed(&verified.await, "verified while it was open").await;
    let backed_up = fifty(async |store, _| {
        let storage = DiskBackupStorage::new(Arc::new(FaultyDisk::new()));
        store.backup(&storage, &BackupOptions::default()).unwrap();
        killed(store);
    });
    is_missed(&backed_up.await, "backed up").await;
    let killed_and_verified = fifty(async |store, disk| {
        killed(store);
        assert_eq!(verify_disk_with(disk, &VerifyOptions::default()).unwrap().damage, []);
    });
    is_missed(&killed_and_verified.await, "verified after a kill").await;
    let killed_and_opened = fifty(async |store, disk| {
        killed(store);
        killed(open(disk, Options::default()).unwrap());
    });
    is_missed(&killed_and_opened.await, "opened after a kill").await;
}

/// G9: a verification after a kill proves nothing of the last group, which may never have been synced: the
/// power may fail after it, and what is lost then was not acknowledged.
#[tokio::test]
async fn what_was_never_synced_is_not_missed() {
    let disk = FaultyDisk::new();
    let store = open(&disk, Options::default()).unwrap();
    for number in 0..5 {
        store.append(append("account-1", number, 1)).await.unwrap();
    }
    // It is written, and the machine stops before the sync.
    let plan =
        annals_engine::disk::faulty::Plan { stop_at: Some(disk.operations() + 2), ..Default::default() };
    disk.plan(plan);
    store.append(append("account-1", 5, 1)).await.unwrap_err();
    killed(store);
    disk.plan(Default::default());
    let found = verify_disk_with(&disk, &VerifyOptions::default()).unwrap();
    assert_eq!((found.events, found.damage), (6, vec![]));
    let after = disk.restart(0);
    assert_eq!(verify_disk(&after, &mut |_, _| {}).unwrap().damage, []);
    assert_eq!(all(&open(&after, Options::default()).unwrap()).await.len(), 5);
}

/// U2: as many events, and other ones: a log with the same identity that went another way.
#[tokio::test]
async fn another_history_is_not_taken_for_the_one_that_was_there() {
    let disk = fifty(async |store, _| store.close().await.unwrap()).await;
    let other = {
        let other = cut(&disk, "account-1 38.0");
        let other = FaultyDisk::with_files(other.files().into_iter().filter(|(name, _)| name != "durable"));
        let store = open(&other, Options::default()).unwrap();
        for number in 100..120 {
            store.append(append("account-1", number, 1)).await.unwrap();
        }
        store.close().await.unwrap();
        other
    };
    let mut files = other.files();
    files.insert("durable".to_owned(), disk.files()["durable"].clone());
    let mixed = FaultyDisk::with_files(files);
    let error = open(&mixed, Options::default()).err().unwrap();
    assert!(
        matches!(error, Error::Damaged { .. }) && error.chain().contains("another history"),
        "{}",
        error.chain()
    );
    let found = verify_disk(&mixed, &mut |_, _| {}).unwrap();
    assert_eq!(found.damage.len(), 1, "{:?}", found.damage);
    assert_eq!(found.damage[0].location.file, "durable");
}

/// U3: one that is broken, or of another log, says nothing, and is written again.
#[tokio::test]
async fn a_broken_file_of_what_is_durable_is_written_again() {
    let disk = fifty(async |store, _| store.close().await.unwrap()).await;
    let whole = disk.files()["durable"].clone();
    let other = fifty(async |store, _| store.close().await.unwrap()).await.files()["durable"].clone();
    let mut flipped = whole.clone();
    flipped[30] ^= 1;
    for (broken, is_named) in [(flipped, true), (whole[..20].to_vec(), true), (vec![], true), (other, false)]
    {
        let mut files = disk.files();
        files.insert("durable".to_owned(), broken);
        let disk = FaultyDisk::with_files(files);
        let found = verify_disk(&disk, &mut |_, _| {}).unwrap();
        assert_eq!(found.damage.len(), usize::from(is_named), "{:?}", found.damage);
        assert!(found.damage.iter().all(|damage| damage.lost == Lost::Nothing));
        drop(open(&disk, Options::default()).unwrap());
        assert_eq!(disk.files()["durable"], whole);
    }
}
