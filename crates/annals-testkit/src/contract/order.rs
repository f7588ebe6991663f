//! Clauses on the order of the log: positions, visibility and recorded time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_core::{
    Append, EventStore, EventStoreExt, Expected, LogRead, Position, RecordedEvent, StreamRead, Timestamp,
    Version,
};

use crate::Trial;
use crate::given::{
    Store, at, event, events, invalid, joined, key, log, named, new, race, read, refused, some, stream,
};

/// G4: positions have no gaps, and a concurrent reader sees each exactly once, in order, while many writers
/// append.
pub async fn positions_have_no_gaps_under_concurrent_writers(trial: &mut Trial) {
    const WRITERS: usize = 8;
    const APPENDS: usize = 25;
    let store = trial.store();
    let total: usize = (0..APPENDS).map(|number| number % 4 + 1).sum::<usize>() * WRITERS;
    let follower = tokio::spawn(follow(store.clone(), total));
    race(WRITERS, |writer| {
        let store = store.clone();
        async move {
            for number in 0..APPENDS {
                let own = Append::to(stream(&format!("own-{writer}")), Expected::Any, events(1));
                let append = own.and_to(stream("shared-1"), Expected::Any, events(number % 4));
                new(store.append(append).await);
                // A refused append in between must not leave a gap.
                refused(store.append(some(&format!("own-{writer}"), Expected::NoStream, 1)).await);
            }
        }
    })
    .await;
    let followed = joined(follower).await;
    assert_eq!(followed, log(store).await, "what the reader saw while it grew is what the log is");
}

/// Reads the log while it grows, until it has this many events.
async fn follow(store: Store, total: usize) -> Vec<RecordedEvent> {
    let mut seen: Vec<RecordedEvent> = Vec::new();
    while seen.len() < total {
        let next = Position::new(seen.len() as u64 + 1);
        let page = read(store.read_log(LogRead::forward(next)).await);
        for event in &page.events {
            assert_eq!(event.position().get(), seen.len() as u64 + 1, "a gap, or a position that came late");
            seen.push(event.clone());
        }
        assert!(page.head >= page.next.previous(), "a page does not read beyond its head");
        if page.end && seen.len() < total {
            read(store.wait(page.next.previous()).await);
        }
    }
    seen
}

/// G4: a reader that has seen the head finds every event up to it, at once and forever.
pub async fn a_reader_that_has_seen_the_head_finds_all_before_it(trial: &mut Trial) {
    let store = trial.store();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (store, done) = (store.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut last = Position::ZERO;
                while !done.load(Ordering::SeqCst) {
                    let head = read(store.head().await);
                    assert!(head >= last, "the head went back from {last} to {head}");
                    last = head;
                    if head > Position::ZERO {
                        let page = read(store.read_log(LogRead::forward(head).limit(1)).await);
                        assert_eq!(page.events.first().map(|event| event.position()), Some(head));
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    race(4, |writer| {
        let store = store.clone();
        async move {
            for _ in 0..30 {
                new(store.append(some(&format!("a-{writer}"), Expected::Any, 2)).await);
            }
        }
    })
    .await;
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        joined(reader).await;
    }
}

/// G4: an acknowledged append can be read at once, by every way of reading.
pub async fn an_acknowledged_append_can_be_read_at_once(trial: &mut Trial) {
    let store = trial.store();
    race(4, |writer| {
        let store = store.clone();
        async move {
            let mine = stream(&format!("mine-{writer}"));
            for number in 1..=20_u64 {
                let name = key(&format!("{writer}-{number}"));
                let append = Append::to(&mine, at(number - 1), [event("thing.noted")]).once(name.clone());
                let done = new(store.append(append).await);
                assert!(read(store.head().await) >= done.last);
                assert!(read(store.wait(done.last.previous()).await) >= done.last);
                assert_eq!(read(store.stream_version(&mine).await), Version::new(number));
                let page = read(store.read_log(LogRead::forward(done.first).limit(1)).await);
                assert_eq!(page.events.first().map(|event| event.stream_id()), Some(mine.clone()));
                let page = read(store.read_stream(StreamRead::forward(&mine, done.version())).await);
                assert_eq!(page.events.len(), 1);
                let outcome = read(store.outcome(&name).await).expect("the key is known at once");
                assert_eq!(outcome.first, done.first);
            }
        }
    })
    .await;
}

/// G4: an append that is sent after another one was acknowledged has a greater position.
pub async fn later_appends_stand_behind_earlier_ones(trial: &mut Trial) {
    let store = trial.store();
    let mut last = Position::ZERO;
    for number in 0..20 {
        let answers = race(3, |writer| {
            let store = store.clone();
            async move { new(store.append(some(&format!("a-{writer}"), Expected::Any, number % 3 + 1)).await) }
        })
        .await;
        let mut runs: Vec<_> = answers.iter().map(|done| (done.first, done.last)).collect();
        runs.sort();
        for (first, end) in runs {
            assert_eq!(first, last.next(), "runs follow on each other");
            last = end;
        }
    }
    assert_eq!(read(store.head().await), last);
}

/// G4: an append that is refused, invalid or a duplicate takes no position.
pub async fn refused_appends_leave_no_gap(trial: &mut Trial) {
    let store = trial.store();
    let append = Append::to(stream("order-7"), Expected::NoStream, [named("a")]).once(key("request-1"));
    new(store.append(append.clone()).await);
    for _ in 0..3 {
        refused(store.append(some("order-7", Expected::NoStream, 5)).await);
        invalid(store.append(Append::to(stream("order-7"), Expected::Any, [named("b"), named("a")])).await);
        assert!(crate::given::done(store.append(append.clone()).await).duplicate);
        assert_eq!(read(store.head().await), Position::FIRST);
    }
    assert_eq!(new(store.append(some("order-8", Expected::NoStream, 1)).await).first, Position::new(2));
}

/// G4: recorded time is the time of the store's clock, and the same for all events of an append.
pub async fn recorded_time_is_the_clocks(trial: &mut Trial) {
    let (store, clock) = (trial.store(), trial.clock());
    for number in 0..4_usize {
        let now = annals_core::Clock::now(clock);
        let append = some("a-1", Expected::Any, 2).and_to(stream("b-1"), Expected::Any, events(1));
        assert_eq!(new(store.append(append).await).recorded_at, now);
        assert!(log(store).await[number * 3..].iter().all(|event| event.recorded_at() == now));
        clock.advance(Duration::from_micros(1));
    }
}

/// G4: recorded time never decreases: when the clock jumps back it stays the same until the clock has caught
/// up.
pub async fn recorded_time_is_held_when_the_clock_jumps_back(trial: &mut Trial) {
    let (store, clock) = (trial.store(), trial.clock());
    let noon: Timestamp = "2020-01-01T12:00:00Z".parse().expect("a time");
    let hour = Duration::from_secs(3600);
    let mut times = Vec::new();
    for now in [noon, noon.plus(hour), noon, Timestamp::MIN, noon.plus(hour / 2), noon.plus(hour * 2)] {
        clock.set(now);
        times.push(new(store.append(some("a-1", Expected::Any, 1)).await).recorded_at);
    }
    let one = noon.plus(hour);
    assert_eq!(times, [noon, one, one, one, one, noon.plus(hour * 2)]);
    let recorded: Vec<_> = log(store).await.into_iter().map(|event| event.recorded_at()).collect();
    assert_eq!(recorded, times);
}

/// G4: a caller that restores an old log gives its recorded times; they are clamped between the time of the
/// log's last event and now.
pub async fn a_given_recorded_time_is_held_between_last_and_now(trial: &mut Trial) {
    let (store, clock) = (trial.store(), trial.clock());
    let time = |text: &str| -> Timestamp { text.parse().expect("a time") };
    clock.set(time("2020-01-01"));
    for (given, recorded) in [
        ("1997-01-12", "1997-01-12"),
        ("1997-03-01", "1997-03-01"),
        ("1997-02-01", "1997-03-01"),
        ("2031-01-01", "2020-01-01"),
        ("1997-02-01", "2020-01-01"),
    ] {
        let append = Append { recorded_at: Some(time(given)), ..some("a-1", Expected::Any, 2) };
        assert_eq!(new(store.append(append).await).recorded_at, time(recorded), "given {given}");
    }
    clock.set(time("2019-01-01"));
    let append = Append { recorded_at: Some(time("2019-06-01")), ..some("a-1", Expected::Any, 1) };
    assert_eq!(new(store.append(append).await).recorded_at, time("2020-01-01"), "the last one holds");
}

/// G4: because recorded time never decreases, a time determines a position.
pub async fn a_time_names_a_position(trial: &mut Trial) {
    let (store, clock) = (trial.store(), trial.clock());
    let start = annals_core::Clock::now(clock);
    let day = Duration::from_secs(86_400);
    assert_eq!(read(store.position_at(Timestamp::MAX).await), Position::ZERO);
    for _ in 0..10 {
        new(store.append(some("a-1", Expected::Any, 3)).await);
        clock.advance(day);
    }
    assert_eq!(read(store.position_at(Timestamp::MIN).await), Position::ZERO);
    assert_eq!(read(store.position_at(start).await), Position::new(3));
    assert_eq!(read(store.position_at(start.plus(day * 4 + day / 2)).await), Position::new(15));
    assert_eq!(read(store.position_at(Timestamp::MAX).await), Position::new(30));
}
