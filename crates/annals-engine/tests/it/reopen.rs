//! What a store holds is there when it is opened again.

use annals_core::{
    Append, Category, Error, EventStore, EventStoreExt, EventType, Expected, IdempotencyKey, Limits,
    Position, Query, StreamList, Timestamp, Version,
};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{EngineStore, Options, verify, verify_disk};

use crate::common::{all, append, check, event, open, small_segments, stream};

/// G1, G5: events, versions, keys and ids survive, over many segments, and are found through their indexes.
#[tokio::test]
async fn everything_is_kept_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let mut done = Vec::new();
    let id = {
        let store = EngineStore::open(directory.path(), small_segments()).unwrap();
        for number in 0..200 {
            let name = format!("account-{}", number % 7);
            let key = IdempotencyKey::new(format!("key-{number}")).unwrap();
            let append = append(&name, number, 1 + number % 3).once(key);
            let outcome = store.append(append.clone()).await.unwrap();
            done.push((append, outcome));
        }
        check(&store, &done).await;
        store.id()
    };
    let files = std::fs::read_dir(directory.path().join("log")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let segments = names.filter(|name| name.ends_with(".seg")).count();
    assert!(segments > 10, "{segments} segments");
    for _ in 0..2 {
        let store = EngineStore::open(directory.path(), small_segments()).unwrap();
        assert_eq!(store.id(), id);
        check(&store, &done).await;
        for (append, outcome) in &done {
            let again = store.append(append.clone()).await.unwrap();
            assert!(again.duplicate);
            assert_eq!(
                (again.first, again.last, &again.streams),
                (outcome.first, outcome.last, &outcome.streams)
            );
            let known = store.outcome(append.key.as_ref().unwrap()).await.unwrap().unwrap();
            assert_eq!(known, again);
            // Without its key it is known by its events.
            let keyless = Append { key: None, ..append.clone() };
            assert_eq!(store.append(keyless).await.unwrap().first, outcome.first);
        }
        let listed = store.list_streams(StreamList::default()).await.unwrap();
        assert_eq!(listed.len(), 7);
        let versions: u64 = listed.iter().map(|info| info.version.get()).sum();
        assert_eq!(versions, all(&store).await.len() as u64);
        let typed = Query::types([EventType::new("thing.happened").unwrap()]);
        assert_eq!(store.log_events(typed).await.unwrap().len(), all(&store).await.len());
        let category = Query::category(Category::new("account").unwrap());
        assert_eq!(store.log_events(category).await.unwrap().len(), all(&store).await.len());
    }
    let verification = verify(directory.path(), &mut |_, _| {}).unwrap();
    assert_eq!(verification.damage, []);
    assert_eq!(verification.appends, 200);
    let merged = verification.indexes > 0 && verification.indexes < verification.segments;
    assert!(merged, "{verification:?}: indexes of many runs are merged into few");
}

/// An index that is missing or broken is built again from the segment.
#[tokio::test]
async fn a_lost_index_is_built_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut done = Vec::new();
    {
        let store = EngineStore::open(directory.path(), small_segments()).unwrap();
        for number in 0..60 {
            let append = append("account-1", number, 1);
            done.push((append.clone(), store.append(append).await.unwrap()));
        }
    }
    // How many files there are depends on how far runs were merged in the background.
    let index = || {
        let files = std::fs::read_dir(directory.path().join("log")).unwrap();
        let paths = files.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "idx")).min().unwrap()
    };
    for is_removed in [true, false] {
        let path = index();
        let bytes = std::fs::read(&path).unwrap();
        match is_removed {
            true => std::fs::remove_file(&path).unwrap(),
            false => std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
        }
        let store = EngineStore::open(directory.path(), small_segments()).unwrap();
        check(&store, &done).await;
        match std::fs::read(&path) {
            Ok(again) => assert_eq!(again, bytes, "the same bytes for the same segment"),
            // The run was merged with the next one meanwhile, whose index is there.
            Err(error) => assert!(error.kind() == std::io::ErrorKind::NotFound && index() != path, "{error}"),
        }
        drop(store);
    }
}

/// One process at a time: the second opener gets an error that says so, and the store once the first has
/// closed.
#[tokio::test]
async fn a_store_is_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let first = EngineStore::open(directory.path(), Options::default()).unwrap();
    let refused = EngineStore::open(directory.path(), Options::default()).err().unwrap();
    assert!(refused.chain().contains("open in another process"), "{}", refused.chain());
    drop(first);
    EngineStore::open(directory.path(), Options::default()).unwrap();
}

/// A closed store answers reads and refuses appends.
#[tokio::test]
async fn a_closed_store_refuses_appends() {
    let directory = tempfile::tempdir().unwrap();
    let store = EngineStore::open(directory.path(), Options::default()).unwrap();
    store.append(append("account-1", 0, 1)).await.unwrap();
    store.close().await.unwrap();
    let refused = store.append(append("account-1", 1, 1)).await.unwrap_err();
    assert!(matches!(refused, Error::Closed), "{refused:?}");
    assert!(matches!(store.wait(Position::FIRST).await.unwrap_err(), Error::Closed));
    assert_eq!(store.stream_version(&stream("account-1")).await.unwrap(), Version::FIRST);
}

/// An append that is larger than a segment has one of its own.
#[tokio::test]
async fn an_append_may_be_larger_than_a_segment() {
    let directory = tempfile::tempdir().unwrap();
    let large = "x".repeat(20_000);
    let mut done = Vec::new();
    {
        let store = EngineStore::open(directory.path(), small_segments()).unwrap();
        for number in 0..3 {
            let small = append("account-1", number, 2);
            done.push((small.clone(), store.append(small).await.unwrap()));
            let append = Append::to(stream("account-2"), Expected::Any, [event(&large), event("small")]);
            done.push((append.clone(), store.append(append).await.unwrap()));
        }
    }
    let store = EngineStore::open(directory.path(), small_segments()).unwrap();
    check(&store, &done).await;
}

/// Whatever time can be given to an append can be read again.
#[tokio::test]
async fn every_time_that_is_accepted_can_be_read() {
    let disk = FaultyDisk::new();
    let store = open(&disk, Options::default()).unwrap();
    let times =
        ["-009999-01-02T01:59:59Z", "-000044-03-15T12:00:00Z", "-000044-03-15", "0000-01-01", "9999-12-30"];
    let mut done = Vec::new();
    for (number, text) in times.into_iter().enumerate() {
        let Ok(time) = text.parse::<Timestamp>() else { continue };
        let mut append = append("account-1", number, 1);
        append.writes[0].event.occurred_at = Some(time);
        done.push((append.clone(), store.append(append).await.unwrap()));
    }
    check(&store, &done).await;
    drop(store);
    check(&open(&disk, Options::default()).unwrap(), &done).await;
}

/// G1: a segment without events, but with the marks of closes, is not started again when an append does not
/// fit.
#[tokio::test]
async fn a_large_append_after_empty_closes_is_kept() {
    let disk = FaultyDisk::new();
    for _ in 0..3 {
        open(&disk, small_segments()).unwrap().close().await.unwrap();
    }
    let mut done = Vec::new();
    {
        let store = open(&disk, small_segments()).unwrap();
        for number in 0..4 {
            let large = "x".repeat(if number % 2 == 0 { 3_900 } else { 20 });
            let append = Append::to(stream("account-1"), Expected::Any, [event(&large)]);
            done.push((append.clone(), store.append(append).await.unwrap()));
        }
        check(&store, &done).await;
        store.close().await.unwrap();
        check(&store, &done).await;
    }
    check(&open(&disk, small_segments()).unwrap(), &done).await;
    assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, []);
}

/// The index of a segment grows with its keys, also if these are as long as they may be.
#[tokio::test]
async fn the_longest_keys_are_indexed() {
    let disk = FaultyDisk::new();
    let key = |number: usize| IdempotencyKey::new(format!("{number:0>2048}")).unwrap();
    let options = Options { segment_bytes: 400 << 10, ..Options::default() };
    let mut done = Vec::new();
    {
        let store = open(&disk, options.clone()).unwrap();
        for number in 0..200 {
            let append = append("account-1", number, 1).once(key(number));
            done.push((append.clone(), store.append(append).await.unwrap()));
        }
    }
    let bytes = |ending: &str| {
        let files = disk.files();
        files.iter().filter(|(name, _)| name.ends_with(ending)).map(|(_, bytes)| bytes.len()).sum::<usize>()
    };
    let (log, index) = (bytes(".seg"), bytes(".idx"));
    assert!(index > 0 && index < 6 * log, "an index of {index} bytes for a log of {log}");
    let store = open(&disk, options).unwrap();
    for (number, (_, outcome)) in done.iter().enumerate() {
        let known = store.outcome(&key(number)).await.unwrap().unwrap();
        assert_eq!(known.first, outcome.first);
    }
    assert_eq!(store.outcome(&key(200)).await.unwrap(), None);
}

/// Limits that the form of a frame cannot keep are refused when the store is opened.
#[tokio::test]
async fn limits_beyond_the_format_are_refused() {
    let limits = Limits { append_events_max: 65_537, ..Limits::default() };
    let refused = open(&FaultyDisk::new(), Options { limits, ..Options::default() }).err().unwrap();
    assert!(matches!(refused, Error::Invalid(_)), "{refused:?}");
}

/// An append of as many events as there may be is written, answered again and read, in segments of any size.
#[tokio::test]
async fn an_append_of_the_most_events() {
    let disk = FaultyDisk::new();
    let append =
        append("account-1", 0, Limits::default().append_events_max).once(IdempotencyKey::new("k").unwrap());
    let outcome = {
        let store = open(&disk, small_segments()).unwrap();
        store.append(crate::common::append("account-2", 0, 1)).await.unwrap();
        let outcome = store.append(append.clone()).await.unwrap();
        assert_eq!(store.append(append.clone()).await.unwrap().last, outcome.last);
        store.append(crate::common::append("account-2", 1, 1)).await.unwrap();
        outcome
    };
    let store = open(&disk, small_segments()).unwrap();
    let keyless = Append { key: None, ..append };
    let again = store.append(keyless).await.unwrap();
    assert_eq!((again.first, again.last, again.duplicate), (outcome.first, outcome.last, true));
    assert_eq!(store.stream_version(&stream("account-1")).await.unwrap().get(), outcome.count());
}

/// The directories above a store are created with it.
#[tokio::test]
async fn a_store_is_created_below_new_directories() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("of/many/names");
    let done = {
        let store = EngineStore::open(&below, Options::default()).unwrap();
        let append = append("account-1", 0, 1);
        vec![(append.clone(), store.append(append).await.unwrap())]
    };
    check(&EngineStore::open(&below, Options::default()).unwrap(), &done).await;
}

/// G8: an index is that of its own log. Segments of another log beside it, brought back from elsewhere and of
/// just the same shape, are not read by it.
#[tokio::test]
async fn the_index_of_another_log_is_built_again() {
    let mut logs = Vec::new();
    for name in ["account", "parcels"] {
        let disk = FaultyDisk::new();
        let store = open(&disk, small_segments()).unwrap();
        let mut done = Vec::new();
        for number in 0..60 {
            let append = append(&format!("{name}-{}", number % 3), 0, 1);
            done.push((append.clone(), store.append(append).await.unwrap()));
        }
        drop(store);
        logs.push((disk.files(), done));
    }
    let (theirs, ours) = (logs.pop().unwrap(), logs.pop().unwrap());
    let segments = ours.0.iter().filter(|(name, _)| name.ends_with(".seg"));
    let indexes = theirs.0.iter().filter(|(name, _)| name.ends_with(".idx"));
    let both = segments.chain(indexes).map(|(name, bytes)| (name.clone(), bytes.clone()));
    let disk = FaultyDisk::with_files(both);
    check(&open(&disk, small_segments()).unwrap(), &ours.1).await;
    assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, []);
}

/// A run that ends with the last event of its segment, before the mark of a close, which the next segment
/// links to.
#[tokio::test]
async fn a_segment_follows_a_run_that_ends_before_a_mark() {
    let disk = FaultyDisk::new();
    let options = Options { run_events: 4, ..small_segments() };
    let mut done = Vec::new();
    for bytes in [10, 5_000, 10] {
        let store = open(&disk, options.clone()).unwrap_or_else(|error| panic!("{}", error.chain()));
        check(&store, &done).await;
        let mut append = append("account-1", bytes, 4);
        append.writes[0].event.data = vec![b' '; bytes].into();
        done.push((append.clone(), store.append(append).await.unwrap()));
    }
    check(&open(&disk, options).unwrap(), &done).await;
}
