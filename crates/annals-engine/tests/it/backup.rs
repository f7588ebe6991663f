//! Backup and restore: what was copied comes back, event by event, and nothing that is half looks whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use annals_core::{Error, EventStore, Position, RecordedEvent};
use annals_engine::disk::faulty::{FaultyDisk, Plan};
use annals_engine::{
    BackupOptions, DiskBackupStorage, EngineStore, Manifest, RestoreOptions, RestorePoint, Restored,
    VerifyOptions, restore, verify_backup, verify_disk,
};

use crate::common::{all, append, open, segments, several_segments, small_segments};

fn storage(disk: &FaultyDisk) -> DiskBackupStorage {
    DiskBackupStorage::new(Arc::new(disk.clone()))
}

fn backups(disk: &FaultyDisk) -> Vec<Manifest> {
    let listed = annals_engine::backups(&storage(disk)).unwrap();
    listed.into_iter().map(|one| one.manifest.unwrap()).collect()
}

fn back_up(store: &EngineStore, to: &FaultyDisk) -> annals_core::Result<annals_engine::Backup> {
    store.backup(&storage(to), &BackupOptions { verify: true, ..BackupOptions::default() })
}

fn bring_back(from: &FaultyDisk, options: &RestoreOptions) -> annals_core::Result<(FaultyDisk, Restored)> {
    let target = FaultyDisk::new();
    let restored = restore(&storage(from), Arc::new(target.clone()), options)?;
    Ok((target, restored))
}

fn to(point: RestorePoint) -> RestoreOptions {
    RestoreOptions { to: Some(point), ..RestoreOptions::default() }
}

/// The events of the appends that end at or before this position.
fn up_to(log: &[RecordedEvent], position: u64) -> &[RecordedEvent] {
    let ends =
        (0..=log.len()).filter(|&end| log.get(end).is_none_or(|event| event.append() == event.position()));
    &log[..ends.take_while(|&end| end as u64 <= position).last().unwrap()]
}

/// A backup that is taken while others write holds exactly the log up to a head.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_taken_while_others_write() {
    let (disk, place) = (FaultyDisk::new(), FaultyDisk::new());
    let store = Arc::new(open(&disk, small_segments()).unwrap());
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..800 {
                store
                    .append(append(&format!("account-{}", number % 7), number, 1 + number % 4))
                    .await
                    .unwrap();
            }
        }
    });
    let mut taken: Vec<Manifest> = Vec::new();
    while !writer.is_finished() || taken.len() < 2 {
        let before = store.head().await.unwrap();
        let (source, place) = (store.clone(), place.clone());
        let backup = tokio::task::spawn_blocking(move || back_up(&source, &place)).await.unwrap().unwrap();
        assert!(backup.manifest.head >= before);
        taken.push(backup.manifest);
    }
    writer.await.unwrap();
    let log = all(&store).await;
    assert_eq!(backups(&place), taken);
    for manifest in &taken {
        let options = RestoreOptions { backup: Some(manifest.number), ..RestoreOptions::default() };
        let (target, restored) = bring_back(&place, &options).unwrap();
        assert_eq!((restored.head, restored.store), (manifest.head, store.id()));
        let copy = open(&target, small_segments()).unwrap();
        assert_eq!(all(&copy).await, log[..manifest.head.get() as usize]);
    }
}

/// A sealed segment is copied once and never again, and an unchanged one is not even read.
#[tokio::test]
async fn a_sealed_segment_is_copied_once() {
    let (disk, _) = several_segments(60).await;
    let place = FaultyDisk::new();
    let store = open(&disk, small_segments()).unwrap();
    let first = back_up(&store, &place).unwrap();
    let count = first.manifest.segments.len() as u64;
    assert_eq!((first.manifest.number, first.copied), (1, count));
    let before: Vec<_> = place.files().into_iter().collect();
    let second = back_up(&store, &place).unwrap();
    assert_eq!((second.manifest.number, second.copied, second.copied_bytes), (2, 0, 0));
    for number in 0..30 {
        store.append(append("account-1", number, 2)).await.unwrap();
    }
    let third = back_up(&store, &place).unwrap();
    let more = third.manifest.segments.len() as u64 - count;
    assert!(
        more > 0 && third.copied == more + 1,
        "the one that was active, and what is new: {}",
        third.copied
    );
    for (name, bytes) in before {
        assert_eq!(place.files()[&name], bytes, "{name} was written again");
    }
    // Damage that comes later shows that the others are not read, but for their headers.
    for name in &segments(&disk)[..count as usize - 1] {
        let file = annals_engine::disk::Disk::open(&disk, name).unwrap();
        file.write_at(&[0; 64], 200).unwrap();
    }
    assert_eq!(back_up(&store, &place).unwrap().copied, 0);
}

/// At every position and every time: the log is there up to the last append that ends by then, whole, and
/// takes appends.
#[tokio::test]
async fn a_log_is_restored_up_to_any_point() {
    let (disk, log) = several_segments(40).await;
    let place = FaultyDisk::new();
    let store = open(&disk, small_segments()).unwrap();
    back_up(&store, &place).unwrap();
    let head = log.len() as u64;
    for position in 0..=head {
        let (target, restored) =
            bring_back(&place, &to(RestorePoint::Position(Position::new(position)))).unwrap();
        let expected = up_to(&log, position);
        assert_eq!(restored.head.get(), expected.len() as u64);
        assert_eq!(restored.recorded_at, expected.last().map(|event| event.recorded_at()));
        let copy = open(&target, small_segments()).unwrap();
        assert_eq!((all(&copy).await, copy.id()), (expected.to_vec(), store.id()));
        let appended = copy.append(append("account-9", 1, 1)).await.unwrap();
        assert_eq!(appended.first, restored.head.next());
        assert_eq!(copy.verify(&VerifyOptions::default()).unwrap().damage, []);
        if let Some(event) = log.get(position as usize) {
            let (_, by_time) = bring_back(&place, &to(RestorePoint::Time(event.recorded_at()))).unwrap();
            let expected = log.iter().rfind(|other| other.recorded_at() <= event.recorded_at()).unwrap();
            assert_eq!(by_time.head, expected.position());
        }
    }
    let before = annals_core::Timestamp::from_micros(log[0].recorded_at().as_micros() - 1);
    assert_eq!(bring_back(&place, &to(RestorePoint::Time(before))).unwrap().1.head, Position::ZERO);
    let beyond = bring_back(&place, &to(RestorePoint::Position(Position::new(head + 1)))).err().unwrap();
    assert!(beyond.to_string().contains(&format!("backup 1 ends at position {head}")), "{beyond}");
    let later = bring_back(&place, &to(RestorePoint::Time(annals_core::Timestamp::MAX))).err().unwrap();
    assert!(matches!(later, Error::Invalid(_)), "{later}");
}

/// The machine stops at any operation of a backup: the backups before it are as they were, and the next one
/// is made.
#[tokio::test]
async fn a_backup_may_stop_at_any_operation() {
    let disk = FaultyDisk::new();
    let store = open(&disk, small_segments()).unwrap();
    let write = async |from: usize, to: usize| {
        for number in from..to {
            store.append(append(&format!("account-{}", number % 3), number, 1 + number % 3)).await.unwrap();
        }
    };
    write(0, 30).await;
    let place = FaultyDisk::new();
    let first = back_up(&store, &place).unwrap().manifest;
    write(30, 60).await;
    let log = all(&store).await;
    let operations = {
        let whole = FaultyDisk::with_files(place.files());
        back_up(&store, &whole).unwrap();
        whole.operations()
    };
    let mut finished = BTreeSet::new();
    for stop_at in 1..=operations + 1 {
        let stopping = FaultyDisk::with_files(place.files());
        stopping.plan(Plan { stop_at: Some(stop_at), ..Plan::default() });
        let done = back_up(&store, &stopping).is_ok();
        for seed in [0, 1, stop_at + 1_000, stop_at + 2_000] {
            let after = stopping.restart(seed);
            let found = backups(&after);
            assert_eq!(found[0], first);
            finished.insert(found.len());
            assert!(found.len() == 2 || !done, "stop {stop_at}, seed {seed}: a finished backup is gone");
            for manifest in &found {
                verify_backup(&storage(&after), manifest, &annals_engine::Work::new(None)).unwrap();
            }
            let (target, restored) = bring_back(&after, &RestoreOptions::default()).unwrap();
            let copy = open(&target, small_segments()).unwrap();
            assert_eq!(all(&copy).await, log[..restored.head.get() as usize], "stop {stop_at}, seed {seed}");
            let next = back_up(&store, &after).unwrap();
            assert_eq!(next.manifest.number, found.len() as u64 + 1);
            assert!(
                after.files().keys().all(|name| !name.ends_with(".tmp")),
                "what was left is cleared away"
            );
        }
    }
    assert_eq!(finished, BTreeSet::from([1, 2]));
}

/// A backup and a restore that are told to stop do so, and leave what was there as it was.
#[tokio::test]
async fn a_backup_and_a_restore_stop_on_request() {
    let (disk, _) = several_segments(30).await;
    let store = open(&disk, small_segments()).unwrap();
    let place = FaultyDisk::new();
    back_up(&store, &place).unwrap();
    store.append(append("account-1", 1_000, 2)).await.unwrap();
    let before = place.files();
    let options = BackupOptions::default();
    options.work.stop();
    let stopped = store.backup(&storage(&place), &options).err().unwrap();
    assert!(stopped.chain().ends_with("it was stopped"), "{}", stopped.chain());
    assert_eq!(place.files(), before);
    let options = RestoreOptions::default();
    options.work.stop();
    let stopped = bring_back(&place, &options).err().unwrap();
    assert!(stopped.chain().ends_with("it was stopped"), "{}", stopped.chain());
}

/// Any operation of a backup may fail: the backups before it are as they were, and the next one is made.
#[tokio::test]
async fn any_operation_of_a_backup_may_fail_once() {
    let (disk, log) = several_segments(40).await;
    let store = open(&disk, small_segments()).unwrap();
    let place = FaultyDisk::new();
    let first = back_up(&store, &place).unwrap().manifest;
    store.append(append("account-1", 1_000, 2)).await.unwrap();
    let operations = {
        let whole = FaultyDisk::with_files(place.files());
        back_up(&store, &whole).unwrap();
        whole.operations()
    };
    for fail_at in 1..=operations {
        let failing = FaultyDisk::with_files(place.files());
        failing.plan(Plan { fail_at: Some(fail_at), ..Plan::default() });
        assert!(back_up(&store, &failing).is_err(), "operation {fail_at}");
        assert_eq!(backups(&failing)[0], first);
        let next = back_up(&store, &failing).unwrap().manifest;
        assert_eq!(next.head.get(), log.len() as u64 + 2);
        bring_back(&failing, &RestoreOptions::default()).unwrap();
    }
}

/// A rotten manifest is reported and skipped: the next backup is made, and nothing that it may need is
/// removed.
#[tokio::test]
async fn a_manifest_that_rots_does_not_stop_the_next_backup() {
    let (disk, _) = several_segments(30).await;
    let store = open(&disk, small_segments()).unwrap();
    let place = FaultyDisk::new();
    for _ in 0..3 {
        back_up(&store, &place).unwrap();
    }
    let mut files = place.files();
    files.get_mut("backup-000003.manifest").unwrap()[40] ^= 1;
    let place = FaultyDisk::with_files(files);
    let options = BackupOptions { keep: Some(1), ..BackupOptions::default() };
    let made = store.backup(&storage(&place), &options).unwrap();
    assert_eq!((made.manifest.number, made.copied, made.unreadable), (4, 0, vec![3]));
    assert!(made.removed.is_empty());
    let listed = annals_engine::backups(&storage(&place)).unwrap();
    let readable: Vec<_> = listed.iter().map(|one| one.manifest.is_ok()).collect();
    assert_eq!(readable, [true, true, false, true]);
}

/// The machine stops at any operation of a restore: what is left does not open, or it is the whole log.
#[tokio::test]
async fn a_restore_may_stop_at_any_operation() {
    let (disk, log) = several_segments(40).await;
    let place = FaultyDisk::new();
    let store = open(&disk, small_segments()).unwrap();
    back_up(&store, &place).unwrap();
    let head = log.len() as u64 - 5;
    let options = to(RestorePoint::Position(Position::new(head)));
    let operations = bring_back(&place, &options).unwrap().0.operations();
    let (mut whole, mut broken, mut nothing) = (0, 0, 0);
    for stop_at in 1..=operations + 1 {
        let target = FaultyDisk::new();
        target.plan(Plan { stop_at: Some(stop_at), ..Plan::default() });
        let done = restore(&storage(&place), Arc::new(target.clone()), &options).is_ok();
        for seed in [0, 1, stop_at + 1_000, stop_at + 2_000, stop_at + 3_000] {
            let after = target.restart(seed);
            match open(&after, small_segments()) {
                Ok(copy) if copy.id() == store.id() => {
                    assert_eq!(all(&copy).await, up_to(&log, head), "stop {stop_at}, seed {seed}");
                    drop(copy);
                    assert_eq!(verify_disk(&after, &mut |_, _| {}).unwrap().damage, []);
                    whole += 1;
                }
                Ok(fresh) => {
                    assert_eq!(fresh.head().await.unwrap(), Position::ZERO);
                    assert!(!done, "stop {stop_at}, seed {seed}");
                    nothing += 1;
                }
                Err(Error::Damaged { .. }) => {
                    assert!(!done, "stop {stop_at}, seed {seed}");
                    broken += 1;
                }
                Err(other) => panic!("stop {stop_at}, seed {seed}: {}", other.chain()),
            }
        }
    }
    assert!(whole > 5 && broken > 5 && nothing > 0, "{whole} {broken} {nothing}");
}

/// Whatever byte of a backup rots: the restore says so, and names the object.
#[tokio::test]
async fn a_backup_that_rots_is_not_restored() {
    let (disk, _) = several_segments(25).await;
    let place = FaultyDisk::new();
    back_up(&open(&disk, small_segments()).unwrap(), &place).unwrap();
    for (name, bytes) in place.files() {
        for byte in (0..bytes.len()).step_by(101) {
            let mut files = place.files();
            files.get_mut(&name).unwrap()[byte] ^= 1 << (byte % 8);
            let error = bring_back(&FaultyDisk::with_files(files), &RestoreOptions::default()).err().unwrap();
            assert!(
                matches!(&error, Error::Damaged { location, .. } if location.file == name),
                "{}",
                error.chain()
            );
        }
        let mut files = place.files();
        files.remove(&name);
        assert!(
            bring_back(&FaultyDisk::with_files(files), &RestoreOptions::default()).is_err(),
            "{name} is gone"
        );
    }
}

/// A damaged log is not backed up, and the backups that there are stay.
#[tokio::test]
async fn nothing_broken_is_copied() {
    let (disk, log) = several_segments(60).await;
    let place = FaultyDisk::new();
    let mut files = disk.files();
    let name = segments(&disk)[1].clone();
    files.get_mut(&name).unwrap()[400] ^= 1;
    let store = open(&FaultyDisk::with_files(files), small_segments()).unwrap();
    let error = back_up(&store, &place).err().unwrap();
    assert!(matches!(&error, Error::Damaged { location, .. } if location.file == name), "{}", error.chain());
    assert_eq!(backups(&place), []);
    // What was copied of it before is not copied again: the damage came later, and the backup is whole.
    let whole = open(&disk, small_segments()).unwrap();
    back_up(&whole, &place).unwrap();
    back_up(&store, &place).unwrap();
    let (target, _) = bring_back(&place, &RestoreOptions::default()).unwrap();
    assert_eq!(all(&open(&target, small_segments()).unwrap()).await, log);
}

/// A backup storage holds the backups of one log.
#[tokio::test]
async fn the_backups_of_another_log_are_not_mixed_in() {
    let ((one, _), (other, _)) = (several_segments(20).await, several_segments(20).await);
    let place = FaultyDisk::new();
    back_up(&open(&one, small_segments()).unwrap(), &place).unwrap();
    let before = place.files();
    let error = back_up(&open(&other, small_segments()).unwrap(), &place).err().unwrap();
    assert!(error.to_string().contains("holds backups of the log"), "{error}");
    assert_eq!(place.files(), before);
}

/// A log that was restored to an earlier point and has diverged since is backed up to the same backup
/// storage.
#[tokio::test]
async fn a_log_that_went_another_way_is_backed_up_as_it_is() {
    let (disk, log) = several_segments(40).await;
    let place = FaultyDisk::new();
    back_up(&open(&disk, small_segments()).unwrap(), &place).unwrap();
    let (target, _) = bring_back(&place, &to(RestorePoint::Position(Position::new(30)))).unwrap();
    let copy = open(&target, small_segments()).unwrap();
    for number in 0..60 {
        copy.append(append("account-2", 1_000 + number, 1)).await.unwrap();
    }
    let now = all(&copy).await;
    assert_eq!(back_up(&copy, &place).unwrap().manifest.number, 2);
    let (target, _) = bring_back(&place, &RestoreOptions::default()).unwrap();
    assert_eq!(all(&open(&target, small_segments()).unwrap()).await, now);
    let (target, _) =
        bring_back(&place, &RestoreOptions { backup: Some(1), ..RestoreOptions::default() }).unwrap();
    assert_eq!(all(&open(&target, small_segments()).unwrap()).await, log);
}

/// Old backups are removed with what only they need, and those that stay are whole.
#[tokio::test]
async fn old_backups_are_removed_with_what_only_they_need() {
    let (disk, _) = several_segments(30).await;
    let store = open(&disk, small_segments()).unwrap();
    let place = FaultyDisk::new();
    for number in 0..5 {
        store.append(append("account-1", number, 1)).await.unwrap();
        back_up(&store, &place).unwrap();
    }
    let options = BackupOptions { keep: Some(2), ..BackupOptions::default() };
    let backup = store.backup(&storage(&place), &options).unwrap();
    assert_eq!(backup.removed, [1, 2, 3, 4]);
    let left = backups(&place);
    assert_eq!(left.iter().map(|manifest| manifest.number).collect::<Vec<_>>(), [5, 6]);
    let needed: BTreeSet<_> =
        left.iter().flat_map(|manifest| &manifest.segments).map(|one| one.name()).collect();
    let there = place.files().into_keys().filter(|name| name.starts_with("segment-")).collect();
    assert_eq!(needed, there);
    for manifest in &left {
        verify_backup(&storage(&place), manifest, &annals_engine::Work::new(None)).unwrap();
    }
}

/// An empty log has a backup too.
#[tokio::test]
async fn an_empty_log_is_backed_up_and_restored() {
    let (disk, place) = (FaultyDisk::new(), FaultyDisk::new());
    let store = open(&disk, small_segments()).unwrap();
    assert_eq!(back_up(&store, &place).unwrap().manifest.head, Position::ZERO);
    let (target, restored) = bring_back(&place, &RestoreOptions::default()).unwrap();
    assert_eq!((restored.head, restored.recorded_at), (Position::ZERO, None));
    assert_eq!(open(&target, small_segments()).unwrap().id(), store.id());
}

/// A store that is closed after each append has marks at the ends of its segments: they are copied, or the
/// next segment would not follow. What was restored knows again that each segment but the last is followed by
/// another.
#[tokio::test]
async fn segments_are_restored_with_their_marks() {
    let disk = FaultyDisk::new();
    for number in 0..60 {
        let store = open(&disk, small_segments()).unwrap();
        store.append(append(&format!("account-{}", number % 3), number, 1 + number % 2)).await.unwrap();
        store.close().await.unwrap();
    }
    let place = FaultyDisk::new();
    let store = open(&disk, small_segments()).unwrap();
    let log = all(&store).await;
    back_up(&store, &place).unwrap();
    // Segment by segment as it was, but for the end of the last: it has no mark of a close.
    let (target, _) = bring_back(&place, &RestoreOptions::default()).unwrap();
    let names = segments(&disk);
    assert!(segments(&target) == names && names.len() > 3);
    for name in &names[..names.len() - 1] {
        assert_eq!(target.files()[name], disk.files()[name], "{name}");
    }
    for name in &names {
        let base: u64 = name[..20].parse().unwrap();
        let end = to(RestorePoint::Position(Position::new(base - 1)));
        let (cut, restored) = bring_back(&place, &end).unwrap();
        assert_eq!(restored.head.get(), base - 1);
        let store = open(&cut, small_segments()).unwrap();
        assert_eq!(all(&store).await, log[..base as usize - 1]);
    }
    // Only the segments are left: the last one is missed all the same.
    let mut files = target.files();
    files.retain(|file, _| file.ends_with(".seg") && file != names.last().unwrap());
    let error = open(&FaultyDisk::with_files(files), small_segments()).err().unwrap();
    assert!(matches!(error, Error::Damaged { .. }), "{}", error.chain());
}

/// A log that was set back is not backed up over the longer history. When it is as long again, by another
/// way, the backups of the longer history stay, however few are to be kept.
#[tokio::test]
async fn a_log_that_was_set_back_does_not_replace_the_longer_history() {
    let (disk, log) = several_segments(60).await;
    let place = FaultyDisk::new();
    let manifest = back_up(&open(&disk, small_segments()).unwrap(), &place).unwrap().manifest;
    let before = place.files();
    for back_to in [1, 7, log.len() as u64 / 2, log.len() as u64 - 4] {
        for more in [0, 1, 200] {
            let place = FaultyDisk::with_files(before.clone());
            let (target, restored) =
                bring_back(&place, &to(RestorePoint::Position(Position::new(back_to)))).unwrap();
            assert!(restored.head < manifest.head);
            let store = open(&target, small_segments()).unwrap();
            for number in 0..more {
                store.append(append("another-way", number, 1)).await.unwrap();
            }
            if store.head().await.unwrap() < manifest.head {
                let refused = back_up(&store, &place).unwrap_err();
                assert!(matches!(refused, Error::Invalid(_)), "{back_to}, {more}: {}", refused.chain());
                assert!(refused.chain().contains("set back"), "{}", refused.chain());
                assert_eq!(place.files(), before, "{back_to}, {more}: nothing was written");
                // Elsewhere it may go.
                back_up(&store, &FaultyDisk::new()).unwrap();
                continue;
            }
            for _ in 0..3 {
                store.append(append("another-way", 1_000, 1)).await.unwrap();
                store
                    .backup(&storage(&place), &BackupOptions { keep: Some(1), ..Default::default() })
                    .unwrap();
            }
            let numbers: Vec<_> = backups(&place).iter().map(|backup| backup.number).collect();
            assert_eq!(numbers, [1, 4], "{back_to}, {more}");
            let longer = RestoreOptions { backup: Some(1), ..RestoreOptions::default() };
            let (target, _) = bring_back(&place, &longer).unwrap();
            assert_eq!(all(&open(&target, small_segments()).unwrap()).await, log);
        }
    }
    // All of it, restored, is the same history, and can be continued.
    let (target, _) = bring_back(&place, &RestoreOptions::default()).unwrap();
    let store = open(&target, small_segments()).unwrap();
    store.append(append("account-1", 99, 1)).await.unwrap();
    assert_eq!(back_up(&store, &place).unwrap().manifest.number, 2);
}

/// A segment that had no events yet when it was backed up is made again by a restore: that is no other
/// history.
#[tokio::test]
async fn an_empty_segment_that_is_created_again_is_no_other_history() {
    let (disk, _) = several_segments(60).await;
    let last = segments(&disk).pop().unwrap();
    let first = last.trim_end_matches(".seg").to_owned();
    let mut files = disk.files();
    files.get_mut(&last).unwrap().truncate(128);
    files.retain(|name, _| name != "durable" && !(name.ends_with(".idx") && *name >= first));
    let place = FaultyDisk::new();
    let store = open(&FaultyDisk::with_files(files), small_segments()).unwrap();
    let backup = back_up(&store, &place).unwrap().manifest;
    assert!(backup.segments.last().unwrap().last < backup.segments.last().unwrap().base);
    let (target, _) = bring_back(&place, &RestoreOptions::default()).unwrap();
    let store = open(&target, small_segments()).unwrap();
    for number in 0..30 {
        store.append(append("account-1", number, 2)).await.unwrap();
    }
    assert!(segments(&target).contains(&last), "the segment was made again");
    back_up(&store, &place).unwrap();
    let kept: Vec<_> = place.files().into_keys().filter(|name| name.starts_with("kept-")).collect();
    assert_eq!(kept, Vec::<String>::new());
}

/// A manifest whose sum is right and which says what cannot be, and an object that is longer than it: they
/// are damage, whatever is done with them.
#[tokio::test]
async fn a_manifest_that_says_what_cannot_be_is_damage() {
    use sha2::Digest as _;

    let (disk, _) = several_segments(60).await;
    let place = FaultyDisk::new();
    let store = open(&disk, small_segments()).unwrap();
    back_up(&store, &place).unwrap();
    let name = "backup-000001.manifest";
    let text = String::from_utf8(place.files()[name].clone()).unwrap();
    let body = &text[..text.rfind("sum ").unwrap()];
    let lines: Vec<&str> = body.lines().collect();
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        let body = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let sum: String = sha2::Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut files = place.files();
        files.insert(name.to_owned(), format!("{body}sum {sum}\n").into_bytes());
        FaultyDisk::with_files(files)
    };
    let word = |line: &str, index: usize, word: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        words[index] = word;
        words.join(" ")
    };
    let last = lines.len() - 1;
    type Change = Box<dyn Fn(&mut Vec<String>)>;
    let changes: Vec<Change> = vec![
        Box::new(|lines| lines.truncate(6)),
        Box::new(|lines| lines.swap(6, 7)),
        Box::new(|lines| drop(lines.remove(7))),
        Box::new(|lines| lines[7] = lines[6].clone()),
        Box::new(move |lines| lines[last] = word(&lines[last], 2, "18446744073709551615")),
        Box::new(move |lines| lines[last] = word(&lines[last], 2, "0")),
        Box::new(move |lines| lines[6] = word(&lines[6], 3, "18446744073709551615")),
        Box::new(move |lines| lines[6] = word(&lines[6], 3, "0")),
        Box::new(|lines| lines[4] = "head 18446744073709551615".to_owned()),
        Box::new(|lines| lines[4] = "head 0".to_owned()),
    ];
    for (which, change) in changes.iter().enumerate() {
        let place = changed(&**change);
        for options in [RestoreOptions::default(), to(RestorePoint::Position(Position::new(3)))] {
            let refused = bring_back(&place, &options).err().unwrap_or_else(|| panic!("{which} is restored"));
            assert!(matches!(refused, Error::Damaged { .. }), "{which}: {}", refused.chain());
        }
    }
    // What it says of the end of a segment is compared with the segment.
    let place = changed(&|lines| {
        lines[last] = word(&lines[last], 2, "100000");
        lines[4] = "head 100000".to_owned();
    });
    let refused = bring_back(&place, &RestoreOptions::default()).err().unwrap();
    assert!(matches!(refused, Error::Damaged { .. }), "{}", refused.chain());
    // An object that is longer than it was written.
    let mut files = changed(&|_| {}).files();
    let (_, object) = files.iter_mut().find(|(name, _)| name.starts_with("segment-")).unwrap();
    object.extend([0; 100_000]);
    let refused = bring_back(&FaultyDisk::with_files(files), &RestoreOptions::default()).err().unwrap();
    assert!(refused.chain().contains("more than the"), "{}", refused.chain());
}
