//! What released versions have written is opened and read.

use std::path::Path;
use std::sync::Arc;

use annals_core::{EventStore, IdempotencyKey, LogRead, Position, Query, TestClock};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{Options, verify_disk};
use annals_testservers::fixtures;

use crate::common::{all, append, check, open, stream};
use crate::lookups::each_is_found;

/// The files of a fixture.
pub fn fixture(name: &str) -> FaultyDisk {
    files(&fixtures::folder(name))
}

fn files(directory: &Path) -> FaultyDisk {
    FaultyDisk::with_files(std::fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    }))
}

/// Options with a clock that is not years ahead of the fixtures: the store would refuse appends.
pub fn options() -> Options {
    let clock = Arc::new(TestClock::at("2026-12-02T12:00:00Z".parse().unwrap()));
    Options { run_events: 20, clock, ..Options::default() }
}

fn key(number: usize) -> IdempotencyKey {
    IdempotencyKey::new(format!("key {number}")).unwrap()
}

/// Indexes of the oldest version, whose filters have no checksum of their own and whose ids have the hash of
/// the id alone: they answer, are no damage, and are used beside newer ones.
#[tokio::test]
async fn indexes_of_the_oldest_version_are_read() {
    old_indexes_are_read("index-2", b"ANNALSX2", 3).await;
}

/// So are those of the version before, which are ordered by the hash of id and stream and have no
/// predecessors.
#[tokio::test]
async fn indexes_of_the_version_before_are_read() {
    old_indexes_are_read("index-3", b"ANNALSX3", 6).await;
}

async fn old_indexes_are_read(name: &str, magic: &'static [u8], count: usize) {
    let disk = fixture(name);
    assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, []);
    let is_old = |(_, bytes): &(String, Vec<u8>)| bytes.starts_with(magic);
    let before: Vec<_> = disk.files().into_iter().filter(is_old).collect();
    assert_eq!(before.len(), count);
    for _ in 0..2 {
        let store = open(&disk, options()).unwrap();
        let log = all(&store).await;
        assert!(log.len() >= 132);
        check(&store, &[]).await;
        for number in 0..90 {
            let known = store.outcome(&key(number)).await.unwrap().unwrap();
            let events: Vec<_> = log.iter().filter(|event| event.append() == known.first).collect();
            // It is known by its key, and without it by its events.
            let mut again = append(&format!("account-{}", number % 30), number, events.len());
            for (write, event) in again.writes.iter_mut().zip(&events) {
                write.event = event.to_new();
            }
            let repeated = store.append(again).await.unwrap();
            assert!(repeated.duplicate && repeated.first == known.first, "append {number}");
        }
        // The same id in another stream is another event.
        let mut other = append("other", 0, 1);
        other.writes[0].event.id = log[3].id();
        store.append(other).await.unwrap();
        assert_eq!(store.old_indexes().0, count);
        // What they do not know is refused, also if the event is beyond them: never answered with less.
        for query in [Query::id(log[3].id()), Query::id(log[131].id()), Query::predecessor("message 3")] {
            let read = LogRead::forward(Position::FIRST).matching(query.clone());
            let refused = store.read_log(read).await.unwrap_err();
            assert!(matches!(refused, annals_core::Error::Unusable(_)), "{refused:?}");
            assert!(refused.chain().contains("run `annals migrate`"), "{}", refused.chain());
            let guarded = append("guarded", 0, 1).unless(query, Position::ZERO);
            assert!(store.append(guarded).await.unwrap_err().chain().contains("run `annals migrate`"));
        }
        assert!(store.outcome(&key(1_000)).await.unwrap().is_none());
        let none = annals_core::StreamRead::forward(stream("none"), annals_core::Version::FIRST);
        assert!(store.read_stream(none).await.unwrap().events.is_empty());
        for number in 0..30 {
            store.append(append(&format!("new-{number}"), number, 1)).await.unwrap();
        }
        store.close().await.unwrap();
    }
    assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, []);
    let after: Vec<_> = disk.files().into_iter().filter(is_old).collect();
    assert_eq!(before, after, "they are as they were");
    let newer = |(name, bytes): (String, Vec<u8>)| name.ends_with(".idx") && bytes.starts_with(b"ANNALSX5");
    assert!(disk.files().into_iter().any(newer));
}

/// The log of each release: whole, found by its indexes as they are, and written to.
#[tokio::test]
async fn logs_of_releases_are_whole_and_are_read_by_their_own_indexes() {
    for folder in fixtures::of_releases("embedded") {
        let disk = files(&folder.join("data/log"));
        let before = disk.files();
        let sealed = before.keys().filter(|name| name.ends_with(".idx")).count();
        assert!(sealed > 0, "{} has an index of a finished run", folder.display());
        assert_eq!(
            verify_disk(&disk, &mut |_, _| {}).unwrap().damage,
            [],
            "{}",
            fixtures::lost("the log", &folder)
        );
        let store = open(&disk, options()).unwrap_or_else(|error| {
            panic!("{}: {}", fixtures::lost("the whole log", &folder), error.chain());
        });
        let log = all(&store).await;
        check(&store, &[]).await;
        each_is_found(&store, &log, 1).await;
        for number in 0..40 {
            store.append(append("account-new", number, 1)).await.unwrap();
        }
        store.close().await.unwrap();
        let after = disk.files();
        for (name, bytes) in before.iter().filter(|(name, _)| name.ends_with(".idx")) {
            assert_eq!(after.get(name), Some(bytes), "{name}: {}", fixtures::lost("an index", &folder));
        }
        assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, []);
    }
}
