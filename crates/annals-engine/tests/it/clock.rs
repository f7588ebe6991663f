//! A clock that is years ahead, behind, or before 1970: it is reported, and does not hold the log's time for
//! years.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Error, EventStore, TestClock, Timestamp};
use annals_engine::disk::Disk as _;
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{Options, Work, repair_disk};

use crate::common::{all, append, open};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A clock, and options with it.
fn clocked(now: Timestamp) -> (Arc<TestClock>, Options) {
    let clock = Arc::new(TestClock::at(now));
    (clock.clone(), Options { clock, ..Options::default() })
}

/// G4, G9: an append with a clock that is years ahead is refused, and says what to do; the next one has the
/// right time.
#[tokio::test]
async fn a_clock_that_is_years_ahead_holds_no_time() {
    let disk = FaultyDisk::new();
    let now = time("2026-12-01T10:00:00Z");
    let (clock, options) = clocked(now);
    for reopens in [false, true] {
        let store = open(&disk, options.clone()).unwrap();
        store.append(append("account-1", 0, 1)).await.unwrap();
        clock.set(time("2030-01-01T00:00:00Z"));
        let store = if reopens {
            drop(store);
            open(&disk, options.clone()).unwrap()
        } else {
            store
        };
        let head = store.head().await.unwrap();
        let refused = store.append(append("account-1", 1, 1)).await.unwrap_err();
        assert!(matches!(refused, Error::Unavailable(_)), "{}", refused.chain());
        assert!(refused.chain().contains("clock_ahead_max"), "{}", refused.chain());
        assert_eq!(store.head().await.unwrap(), head);
        // A server that asks whether the store works hears that it does not.
        let impossible = append("account-1", 1, 1).expecting(
            crate::common::stream("account-1"),
            annals_core::Expected::Exact(annals_core::Version::MAX),
        );
        let asked = store.append(impossible).await.unwrap_err();
        assert!(matches!(asked, Error::Unavailable(_)), "{}", asked.chain());
        clock.set(now.plus(DAY));
        store.append(append("account-1", 2, 1)).await.unwrap();
        assert_eq!(all(&store).await.last().unwrap().recorded_at(), now.plus(DAY));
        assert_eq!(store.clock_behind(), Duration::ZERO);
        clock.set(now);
    }
    // Who is sure of the clock says so.
    clock.set(time("2030-01-01T00:00:00Z"));
    let sure = Options { clock_ahead_max: Duration::MAX, ..options };
    let store = open(&disk, sure).unwrap();
    store.append(append("account-1", 3, 1)).await.unwrap();
    assert_eq!(all(&store).await.last().unwrap().recorded_at(), time("2030-01-01T00:00:00Z"));
}

/// G4: a clock that is less far ahead, or behind, is followed or held, and there is a figure of it.
#[tokio::test]
async fn by_how_much_the_clock_is_behind_is_known() {
    let disk = FaultyDisk::new();
    let now = time("2026-12-01T10:00:00Z");
    let (clock, options) = clocked(now);
    let store = open(&disk, options.clone()).unwrap();
    assert_eq!(store.clock_behind(), Duration::ZERO, "of an empty log");
    store.append(append("account-1", 0, 1)).await.unwrap();
    clock.set(now.plus(30 * DAY));
    store.append(append("account-1", 1, 1)).await.unwrap();
    clock.set(now);
    assert_eq!(store.clock_behind(), 30 * DAY);
    store.append(append("account-1", 2, 1)).await.unwrap();
    assert_eq!(store.clock_behind(), 30 * DAY);
    assert_eq!(all(&store).await.last().unwrap().recorded_at(), now.plus(30 * DAY), "it never decreases");
    drop(store);
    let store = open(&disk, options).unwrap();
    assert_eq!(store.clock_behind(), 30 * DAY);
    clock.set(now.plus(31 * DAY));
    store.append(append("account-1", 3, 1)).await.unwrap();
    assert_eq!(store.clock_behind(), Duration::ZERO);
}

/// A machine that begins in 1970, or before, and then gets its time, is not taken for one that is ahead; nor
/// is a log whose events are old, in a segment that is new.
#[tokio::test]
async fn a_log_that_knows_nothing_of_the_time_refuses_none() {
    for begins in ["1969-12-31T23:00:00Z", "1970-01-01T00:00:07Z", "2000-01-01T00:00:00Z"] {
        let disk = FaultyDisk::new();
        let (clock, options) = clocked(time(begins));
        let store = open(&disk, options).unwrap();
        store.append(append("account-1", 0, 1)).await.unwrap();
        clock.set(time("2026-12-01T10:00:00Z"));
        store.append(append("account-1", 1, 1)).await.unwrap();
        assert_eq!(all(&store).await[1].recorded_at(), time("2026-12-01T10:00:00Z"));
    }
    let disk = FaultyDisk::new();
    let (_, options) = clocked(time("2026-12-01T10:00:00Z"));
    let store = open(&disk, options).unwrap();
    let mut old = append("account-1", 0, 1);
    old.recorded_at = Some(time("2021-01-01T00:00:00Z"));
    store.append(old).await.unwrap();
    store.append(append("account-1", 1, 1)).await.unwrap();
    assert_eq!(all(&store).await[0].recorded_at(), time("2021-01-01T00:00:00Z"));
}

/// A log whose time was held for years is repaired as it is.
#[tokio::test]
async fn a_log_that_is_ahead_is_repaired_with_its_times() {
    let disk = FaultyDisk::new();
    let (clock, options) = clocked(time("2026-12-01T10:00:00Z"));
    let store = open(&disk, Options { clock_ahead_max: Duration::MAX, ..options }).unwrap();
    store.append(append("account-1", 0, 1)).await.unwrap();
    clock.set(time("2080-01-01T00:00:00Z"));
    store.append(append("account-1", 1, 1)).await.unwrap();
    let log = all(&store).await;
    store.close().await.unwrap();
    let (target, work, mut tell) = (FaultyDisk::new(), Work::new(None), |_| Ok(()));
    repair_disk(&disk, Arc::new(target.clone()), 1 << 20, &work, &mut tell).await.unwrap();
    assert_eq!(all(&open(&target, Options::default()).unwrap()).await, log);
}

/// Checks that an append is refused because the clock is ahead, by an error that says what to do.
async fn refuses(store: &annals_engine::EngineStore, what: &str) {
    let refused = store.append(append("account-1", 9, 1)).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{what}: {}", refused.chain());
    assert!(refused.chain().contains("ANNALS_CLOCK_AHEAD_MAX_DAYS"), "{what}: {}", refused.chain());
}

/// T3: neither the creation of a store nor that of a segment says what time it is.
#[tokio::test]
async fn a_segment_that_a_clock_ahead_has_made_hides_nothing() {
    let (now, ahead) = (time("2026-12-01T10:00:00Z"), time("2030-01-01T00:00:00Z"));
    // The store was created with the clock ahead.
    let disk = FaultyDisk::new();
    let (clock, options) = clocked(ahead);
    let store = open(&disk, options.clone()).unwrap();
    clock.set(now);
    store.append(append("account-1", 0, 1)).await.unwrap();
    clock.set(ahead);
    refuses(&store, "created with a clock ahead").await;
    drop(store);
    let store = open(&disk, options).unwrap();
    refuses(&store, "opened again").await;
    // A segment was, by appends that give their time, as a copy of another log does.
    let disk = FaultyDisk::new();
    let (clock, options) = clocked(now);
    let options = Options { segment_bytes: 2 << 10, ..options };
    let store = open(&disk, options.clone()).unwrap();
    store.append(append("account-1", 0, 1)).await.unwrap();
    clock.set(ahead);
    while crate::common::segments(&disk).len() < 2 {
        let mut copied = append("account-2", 0, 1);
        copied.recorded_at = Some(now);
        store.append(copied).await.unwrap();
    }
    refuses(&store, "a segment made with a clock ahead").await;
    for _ in 0..2 {
        // Neither does a close or an open with that clock.
        store.close().await.unwrap();
        let store = open(&disk, options.clone()).unwrap();
        refuses(&store, "the segment opened again").await;
    }
    clock.set(now.plus(DAY));
    let store = open(&disk, options).unwrap();
    store.append(append("account-1", 2, 1)).await.unwrap();
    assert_eq!(all(&store).await.last().unwrap().recorded_at(), now.plus(DAY));
}

/// T3: a store that was opened meanwhile, if only to be read, or that somebody opened knowingly, takes
/// appends.
#[tokio::test]
async fn a_store_that_rested_takes_appends_when_it_was_in_use_meanwhile() {
    let place = tempfile::tempdir().unwrap();
    let now = time("2021-03-01T00:00:00Z");
    let (clock, options) = clocked(now);
    let open = |options: &Options| annals_engine::EngineStore::open(place.path(), options.clone()).unwrap();
    open(&options).append(append("account-1", 0, 1)).await.unwrap();
    for days in [300, 600] {
        clock.set(now.plus(days * DAY));
        drop(open(&options));
    }
    open(&options).append(append("account-1", 1, 1)).await.unwrap();
    // It rested for too long.
    let later = now.plus(1_000 * DAY);
    clock.set(later);
    for _ in 0..2 {
        refuses(&open(&options), "rested").await;
    }
    drop(open(&Options { clock_ahead_max: 500 * DAY, ..options.clone() }));
    open(&options).append(append("account-1", 2, 1)).await.unwrap();
    assert_eq!(all(&open(&options)).await.last().unwrap().recorded_at(), later);
    // What is seen goes with the lock file, and is text.
    let lock = std::fs::read_to_string(place.path().join("LOCK")).unwrap();
    assert!(lock.starts_with(&later.to_string()), "{lock}");
    // The file of an earlier version is empty, and its time is that of its creation.
    std::fs::write(place.path().join("LOCK"), "").unwrap();
    let recent = annals_core::Clock::now(&annals_core::SystemClock).plus(DAY);
    clock.set(recent);
    open(&options).append(append("account-1", 3, 1)).await.unwrap();
    assert_eq!(all(&open(&options)).await.last().unwrap().recorded_at(), recent);
}

/// T4: a machine that begins in 1970, at each start, knows what it knew before when it has got its time.
#[tokio::test]
async fn a_clock_that_begins_in_1970_forgets_nothing() {
    let disk = FaultyDisk::new();
    let now = time("2021-03-01T00:00:00Z");
    let (clock, options) = clocked(now);
    open(&disk, options.clone()).unwrap().append(append("account-1", 0, 1)).await.unwrap();
    for days in [300, 600, 900] {
        clock.set(time("1970-01-01T00:00:07Z"));
        let store = open(&disk, options.clone()).unwrap();
        drop(store);
        clock.set(now.plus(days * DAY));
        drop(open(&disk, options.clone()).unwrap());
    }
    clock.set(time("1970-01-01T00:00:07Z"));
    let store = open(&disk, options).unwrap();
    clock.set(now.plus(900 * DAY));
    store.append(append("account-1", 1, 1)).await.unwrap();
    assert_eq!(all(&store).await[1].recorded_at(), now.plus(900 * DAY));
}

/// T4: nor does one that starts with a time after the newest event, and before the store was last in use.
#[tokio::test]
async fn a_clock_that_starts_with_an_old_time_forgets_nothing() {
    let disk = FaultyDisk::new();
    let now = time("2021-03-01T00:00:00Z");
    let (clock, options) = clocked(now);
    open(&disk, options.clone()).unwrap().append(append("account-1", 0, 1)).await.unwrap();
    for days in [300, 600, 900] {
        clock.set(now.plus(days * DAY));
        drop(open(&disk, options.clone()).unwrap());
    }
    // It is only read, and then closed, opened again, and set right.
    clock.set(now.plus(DAY));
    drop(open(&disk, options.clone()).unwrap());
    let store = open(&disk, options.clone()).unwrap();
    store.append(append("account-1", 1, 1)).await.unwrap();
    clock.set(now.plus(901 * DAY));
    store.append(append("account-1", 2, 1)).await.unwrap();
    drop(store);
    clock.set(now.plus(2 * DAY));
    drop(open(&disk, options.clone()).unwrap());
    clock.set(now.plus(902 * DAY));
    open(&disk, options.clone()).unwrap().append(append("account-1", 3, 1)).await.unwrap();
    // One that is years ahead is still refused.
    clock.set(now.plus(2_000 * DAY));
    refuses(&open(&disk, options).unwrap(), "ahead").await;
}

/// T5: what a clock that was ahead has noted is not believed for years, and a week of use with a right clock
/// ends it.
#[tokio::test]
async fn a_last_use_in_the_future_is_corrected_after_a_week() {
    let (now, ahead) = (time("2026-12-01T10:00:00Z"), time("2099-01-01T00:00:00Z"));
    for reopens in [true, false] {
        let disk = FaultyDisk::new();
        let (clock, options) = clocked(now);
        open(&disk, options.clone()).unwrap().append(append("account-1", 0, 1)).await.unwrap();
        clock.set(ahead);
        drop(open(&disk, Options { clock_ahead_max: Duration::MAX, ..options.clone() }).unwrap());
        assert_eq!(disk.last_use().unwrap().at, ahead);
        clock.set(now.plus(DAY));
        let mut store = open(&disk, options.clone()).unwrap();
        store.append(append("account-1", 1, 1)).await.unwrap();
        for (days, is_corrected) in [(3, false), (7, false), (9, true)] {
            clock.set(now.plus(days * DAY));
            if reopens {
                drop(store);
                store = open(&disk, options.clone()).unwrap();
            }
            store.append(append("account-1", days as usize, 1)).await.unwrap();
            let last = disk.last_use().unwrap();
            assert_eq!(last.at, if is_corrected { now.plus(days * DAY) } else { ahead }, "{days}");
            assert_eq!(last.doubted_since.is_some(), !is_corrected, "{days}");
            assert_eq!(store.last_use_in_the_future(), is_corrected.then_some(ahead), "{days}");
        }
        clock.set(ahead);
        refuses(&store, "ahead again").await;
    }
}

/// T5: a clock that is behind the newest event, or only now and then behind the last use, corrects nothing.
#[tokio::test]
async fn a_clock_that_is_wrong_itself_corrects_no_last_use() {
    let disk = FaultyDisk::new();
    let now = time("2026-12-01T10:00:00Z");
    let (clock, options) = clocked(now);
    open(&disk, options.clone()).unwrap().append(append("account-1", 0, 1)).await.unwrap();
    let last = now.plus(100 * DAY);
    clock.set(last);
    drop(open(&disk, options.clone()).unwrap());
    // Behind the newest event for weeks.
    for days in 0..30 {
        clock.set(now.minus((60 - days) * DAY));
        drop(open(&disk, options.clone()).unwrap());
    }
    // At each start of the machine after it, until the clock is set.
    for days in 0..30 {
        clock.set(now.plus(DAY));
        drop(open(&disk, options.clone()).unwrap());
        clock.set(last.plus(days * DAY));
        drop(open(&disk, options.clone()).unwrap());
    }
    assert_eq!(disk.last_use().unwrap().at, last.plus(29 * DAY));
}

/// T3: a backup that is years old is restored to a store that takes appends.
#[tokio::test]
async fn an_old_backup_is_restored_to_a_store_that_takes_appends() {
    let (_, options) = clocked(time("2021-03-01T00:00:00Z"));
    let store = open(&FaultyDisk::new(), options).unwrap();
    store.append(append("account-1", 0, 1)).await.unwrap();
    let storage = annals_engine::DiskBackupStorage::new(Arc::new(FaultyDisk::new()));
    store.backup(&storage, &annals_engine::BackupOptions::default()).unwrap();
    let target = FaultyDisk::new();
    annals_engine::restore(&storage, Arc::new(target.clone()), &annals_engine::RestoreOptions::default())
        .unwrap();
    let restored = open(&target, Options::default()).unwrap();
    restored.append(append("account-1", 1, 1)).await.unwrap();
}
