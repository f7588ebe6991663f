//! Events are found by id and by predecessor in every run: the newest, sealed ones, and merged ones.

use std::time::{Duration, Instant};

use annals_core::{
    Append, Direction, EventId, EventStore, Expected, LogRead, Position, Query, RecordedEvent, Write,
};
use annals_engine::disk::faulty::FaultyDisk;
use annals_engine::{EngineStore, Options, verify_disk};

use crate::common::{all, append, event, open, stream};

/// The positions that all pages of a query give.
pub async fn positions(store: &EngineStore, query: Query, direction: Direction, limit: usize) -> Vec<u64> {
    let mut read = match direction {
        Direction::Forward => LogRead::forward(Position::FIRST),
        Direction::Backward => LogRead::backward(Position::MAX),
    };
    read = read.matching(query).limit(limit);
    let mut positions = Vec::new();
    loop {
        let page = store.read_log(read.clone()).await.unwrap();
        assert!(page.events.len() <= limit);
        positions.extend(page.events.iter().map(|event| event.position().get()));
        if page.end {
            return positions;
        }
        assert_ne!(page.next, read.from);
        read.from = page.next;
    }
}

/// Every event of the log is found by its id and by its predecessor, and nothing else is; each `step`th is
/// looked for.
pub async fn each_is_found(store: &EngineStore, log: &[RecordedEvent], step: usize) {
    let expected = |query: &Query| {
        log.iter()
            .filter(|event| query.matches(event))
            .map(|event| event.position().get())
            .collect::<Vec<_>>()
    };
    for event in log.iter().step_by(step) {
        let query = Query::id(event.id());
        assert_eq!(positions(store, query.clone(), Direction::Forward, 100).await, expected(&query));
        if let Some(predecessor) = &event.metadata().predecessor {
            let query = Query::predecessor(predecessor.clone());
            assert_eq!(positions(store, query.clone(), Direction::Forward, 100).await, expected(&query));
        }
    }
    for query in [Query::id(EventId::generate()), Query::predecessor("nothing")] {
        assert!(positions(store, query, Direction::Backward, 100).await.is_empty());
    }
}

#[tokio::test]
async fn events_are_found_by_id_and_predecessor_in_runs_of_every_kind() {
    let disk = FaultyDisk::new();
    let options = Options { run_events: 30, ..Options::default() };
    let store = open(&disk, options.clone()).unwrap();
    for number in 0..200_usize {
        let mut append = append(&format!("account-{}", number % 7), number, 1 + number % 3);
        for (index, write) in append.writes.iter_mut().enumerate() {
            let metadata = &mut write.event.metadata;
            metadata.predecessor = (index != 1).then(|| format!("message {}", number / 2).into());
        }
        store.append(append).await.unwrap();
    }
    let log = all(&store).await;
    each_is_found(&store, &log, 1).await;
    // When nothing is appended, runs are merged.
    let merged = || disk.files().keys().filter(|name| name.ends_with(".idx")).count() < 5;
    for _ in 0..1_000 {
        if merged() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(merged(), "{:?}", disk.files().keys());
    each_is_found(&store, &log, 1).await;
    store.close().await.unwrap();
    drop(store);
    each_is_found(&open(&disk, options).unwrap(), &log, 1).await;
    assert_eq!(verify_disk(&disk, &mut |_, _| {}).unwrap().damage, []);
}

/// Many events of one id, or of one predecessor, in sealed runs: each page costs what it holds, and the
/// writer is not held up.
#[tokio::test]
async fn many_events_of_one_id_and_one_predecessor_are_read_page_by_page() {
    const STREAMS: u64 = 12_000;
    let disk = FaultyDisk::new();
    let store = open(&disk, Options { run_events: 5_000, ..Options::default() }).unwrap();
    let make = |from: u64, id: Option<EventId>| {
        let mut append = Append::new();
        for number in from..from + 4_000 {
            let mut event = event("x");
            event.id = id.unwrap_or(event.id);
            event.metadata.predecessor = Some("the migration".into());
            append.writes.push(Write { stream: stream(&format!("s-{number}")), event });
        }
        append
    };
    let shared = EventId::from_bytes([0; 16]);
    for from in (0..STREAMS).step_by(4_000) {
        store.append(make(from, Some(shared))).await.unwrap();
    }
    let began = Instant::now();
    for from in (0..STREAMS).step_by(4_000) {
        store.append(make(from, None)).await.unwrap();
    }
    let again = Append::to(
        stream("s-7"),
        Expected::Any,
        [{
            let mut event = event("another");
            event.id = shared;
            event
        }],
    );
    assert!(matches!(store.append(again).await, Err(annals_core::Error::Reused(_))));
    assert!(began.elapsed() < Duration::from_secs(60), "a writer that is held up: {:?}", began.elapsed());
    for direction in [Direction::Forward, Direction::Backward] {
        let mut by_id = positions(&store, Query::id(shared), direction, 700).await;
        let mut by_cause = positions(&store, Query::predecessor("the migration"), direction, 5_000).await;
        if direction == Direction::Backward {
            by_id.reverse();
            by_cause.reverse();
        }
        assert_eq!(by_id, (1..=STREAMS).collect::<Vec<_>>());
        assert_eq!(by_cause, (1..=2 * STREAMS).collect::<Vec<_>>());
    }
}
