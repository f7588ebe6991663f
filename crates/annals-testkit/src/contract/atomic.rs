//! Clauses on atomic appends: several streams, many events, and a dropped call.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use annals_core::{
    Append, Direction, EventStoreExt, Expected, LogRead, Position, RecordedEvent, Version, Write,
};

use crate::Trial;
use crate::given::{
    Picture, Store, at, done, event, events, events_of, joined, key, log, new, race, read, refused, some,
    stream, with_data,
};

/// G2: the events of an append to several streams have consecutive positions, in the order in which they were
/// written, and each of its streams grows by its own events.
pub async fn an_append_to_several_streams_is_one_run(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("b-1", Expected::NoStream, 2)).await);
    let writes: Vec<Write> = ["a-1", "b-1", "a-1", "c-1", "b-1", "a-1"]
        .iter()
        .map(|name| Write { stream: stream(name), event: event("thing.noted") })
        .collect();
    let append = Append { writes: writes.clone(), ..Append::new() }
        .expecting(stream("b-1"), at(2))
        .expecting(stream("a-1"), Expected::NoStream);
    let done = new(store.append(append).await);
    assert_eq!((done.first, done.last, done.count()), (Position::new(3), Position::new(8), 6));
    let version = |name: &str, version| (stream(name), Version::new(version));
    assert_eq!(done.streams, [version("a-1", 3), version("b-1", 4), version("c-1", 1)]);

    let run = &log(store).await[2..];
    let places: Vec<_> = run.iter().map(|e| (e.stream_id(), e.version(), e.append(), e.to_new())).collect();
    let expected: Vec<_> = writes
        .into_iter()
        .zip([1, 3, 2, 1, 4, 3])
        .map(|(write, version)| (write.stream, Version::new(version), Position::new(3), write.event))
        .collect();
    assert_eq!(places, expected);
    let positions: Vec<_> = events_of(store, "a-1").await.iter().map(|e| e.position().get()).collect();
    assert_eq!(positions, [3, 5, 8]);
}

/// G2: if the condition on one of several streams fails, none is written.
pub async fn a_refused_append_to_several_streams_writes_none(trial: &mut Trial) {
    let store = trial.store();
    new(store.append(some("b-1", Expected::NoStream, 2)).await);
    let before = Picture::of(store).await;
    for (first, last) in [("a-1", "b-1"), ("b-1", "a-1")] {
        let append = Append::to(stream(first), Expected::NoStream, events(2)).and_to(
            stream(last),
            Expected::NoStream,
            events(2),
        );
        let conflict = refused(store.append(append).await);
        assert_eq!(conflict.violations.len(), 1);
        assert_eq!(Picture::of(store).await, before);
    }
}

/// G2: an append of many events is one append, even if a page ends inside it.
pub async fn a_large_append_is_one_run(trial: &mut Trial) {
    const COUNT: usize = 10_000;
    let store = trial.store();
    new(store.append(some("a-1", Expected::NoStream, 1)).await);
    let done = new(store.append(some("b-1", Expected::NoStream, COUNT).once(key("large"))).await);
    assert_eq!(done.count(), COUNT as u64);
    let all = log(store).await;
    assert_eq!(all.len(), COUNT + 1);
    for (index, event) in all.iter().enumerate().skip(1) {
        assert_eq!(event.position(), Position::new(index as u64 + 1));
        assert_eq!((event.append(), event.recorded_at()), (done.first, done.recorded_at));
        assert_eq!(event.data(), index.to_string().as_bytes());
        assert_eq!(event.idempotency_key().is_some(), index == 1, "the key stands on the first event");
    }
}

/// G2: no reader sees a part of an append: the head is always at the end of one.
pub async fn readers_never_see_half_an_append(trial: &mut Trial) {
    const APPENDS: usize = 60;
    const EVENTS: usize = 7;
    let store = trial.store();
    let reader = tokio::spawn(watch_whole_appends(store.clone(), (APPENDS * EVENTS) as u64, EVENTS as u64));
    race(3, |writer| {
        let store = store.clone();
        async move {
            for number in 0..APPENDS / 3 {
                let mut append = some(&format!("a-{writer}"), Expected::Any, EVENTS - 1);
                append = append.and_to(stream(&format!("b-{number}")), Expected::Any, events(1));
                new(store.append(append).await);
            }
        }
    })
    .await;
    joined(reader).await;
}

async fn watch_whole_appends(store: Store, end: u64, length: u64) {
    use annals_core::EventStore;
    let mut head = Position::ZERO;
    while head.get() < end {
        head = read(store.wait(head).await);
        assert_eq!(head.get() % length, 0, "the head {head} is inside an append");
        let back = LogRead { direction: Direction::Backward, ..LogRead::forward(Position::MAX) };
        let page = read(store.read_log(back.limit(1)).await);
        assert_eq!(page.head.get() % length, 0, "the head {} of a page is inside an append", page.head);
        let newest = page.events.first().expect("the log is not empty");
        assert_eq!(newest.position(), page.head, "the newest event stands at the head");
    }
}

/// G2: an append whose call is dropped leaves the store consistent: either all of its events exist or none,
/// and the same append sent again writes them once.
pub async fn a_dropped_append_leaves_the_store_whole(trial: &mut Trial) {
    let store = trial.store();
    for polls in 0..40_usize {
        let append = some(&format!("a-{polls}"), Expected::NoStream, 3)
            .and_to(stream("shared-1"), Expected::Any, events(2))
            .once(key(&format!("dropped-{polls}")));
        let dropped = append.clone();
        let store = store.clone();
        joined(tokio::spawn(async move { poll_and_drop(store.append(dropped), polls).await })).await;
        check_whole(&log(trial.store()).await);
        let retried = done(trial.store().append(append).await);
        assert_eq!(retried.count(), 5);
        check_whole(&log(trial.store()).await);
    }
    assert_eq!(log(store).await.len(), 40 * 5, "each append is there once");
    assert_eq!(read(store.stream_version(&stream("shared-1")).await), Version::new(80));
}

/// Polls a future this many times, yielding in between, and drops it.
async fn poll_and_drop<T>(future: impl Future<Output = T>, polls: usize) {
    let mut future = pin!(future);
    for _ in 0..polls {
        // A waker that does nothing is enough, because the future is polled in a loop.
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Checks that every append in the log is complete: five events, positions and versions without gaps.
fn check_whole(events: &[RecordedEvent]) {
    let mut versions = std::collections::HashMap::new();
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.position(), Position::new(index as u64 + 1));
        let version = versions.entry(event.stream_id()).or_insert(Version::ZERO);
        *version = version.next();
        assert_eq!(event.version(), *version);
    }
    for append in events.chunk_by(|a, b| a.append() == b.append()) {
        assert_eq!(append.len(), 5, "half an append: {append:#?}");
    }
}

/// G2: concurrent transfers between two accounts keep their sum.
pub async fn transfers_keep_the_sum(trial: &mut Trial) {
    let store = trial.store();
    race(6, |number| {
        let store = store.clone();
        async move {
            let (from, to) =
                if number % 2 == 0 { ("account-1", "account-2") } else { ("account-2", "account-1") };
            for _ in 0..8 {
                transfer(&store, from, to).await;
            }
        }
    })
    .await;
    let sum = |events: &[RecordedEvent]| -> i64 { events.iter().map(amount).sum() };
    let (one, two) = (events_of(store, "account-1").await, events_of(store, "account-2").await);
    assert_eq!(sum(&one) + sum(&two), 0);
    assert_eq!((one.len(), two.len()), (48, 48));
}

fn amount(event: &RecordedEvent) -> i64 {
    std::str::from_utf8(event.data()).ok().and_then(|text| text.parse().ok()).expect("the amount as written")
}

async fn transfer(store: &Store, from: &str, to: &str) {
    use annals_core::EventStore;
    loop {
        let (left, right) =
            (read(store.stream_version(&stream(from)).await), read(store.stream_version(&stream(to)).await));
        let append = Append::to(stream(from), Expected::Exact(left), [with_data("-1")]).and_to(
            stream(to),
            Expected::Exact(right),
            [with_data("1")],
        );
        match store.append(append).await {
            Ok(_) => return,
            Err(annals_core::Error::Conflict(conflict)) => assert!(conflict.is_stale()),
            Err(error) => panic!("nothing but a conflict may refuse a transfer: {}", error.chain()),
        }
    }
}
