//! G1, G4 and G5 where they are hardest for a store that several processes share: commits that are held up,
//! connections that are cut, and a subscriber who reads all the time.
//!
//! How a commit is held up and a connection is cut, only the tests of the store know; what must come of it is here.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use annals_core::{
    Append, Appended, Clock, Error, EventStore, EventStoreExt, Expected, IdempotencyKey, Position, Query,
    RecordedEvent, Subscription, SystemClock, TestClock, Timestamp,
};

use crate::given::{Store, events, joined, key, stream};

/// An append of one event to this stream, with this key.
pub fn keyed(name: &str, name_of_key: &str) -> Append {
    Append::to(stream(name), Expected::Any, events(1)).once(key(name_of_key))
}

/// Follows the log from its beginning, through all that makes the store unavailable, until `is_last` says so; says which
/// positions it has seen.
///
/// # Panics
/// If a read fails in another way.
pub async fn follow(store: Store, is_last: impl Fn(&RecordedEvent) -> bool) -> Vec<Position> {
    let mut subscription = Subscription::new(store, Position::ZERO, Query::all()).page_limit(3);
    let mut seen = Vec::new();
    loop {
        match subscription.next().await {
            Ok(event) => {
                seen.push(event.position);
                if is_last(&event) {
                    return seen;
                }
            }
            Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("a subscription fails: {}", error.chain()),
        }
    }
}

/// Appends again and again until it is known what became of it; counts the answers that do not say.
///
/// # Panics
/// If the append is refused.
pub async fn persist(store: &dyn EventStore, append: &Append, unknown: &AtomicUsize) -> Appended {
    loop {
        match store.append(append.clone()).await {
            Ok(appended) => return appended,
            Err(Error::Indeterminate(_)) => drop(unknown.fetch_add(1, Ordering::Relaxed)),
            Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("an append is refused: {}", error.chain()),
        }
    }
}

/// A log with one event. `hold` begins an append of one event beside these stores, and leaves it open: the event is
/// written, its position taken. Then two of the stores append, and wait (`until_waiting` knows when). Nobody sees what
/// is not committed. Then `end` ends what was held open, and a subscriber of the third store has seen every position up
/// to `last` once. Returns the positions of the eight that waited.
///
/// # Panics
/// If it is otherwise.
pub async fn others_wait(
    [one, two, reader]: [Store; 3],
    hold: impl AsyncFnOnce(),
    until_waiting: impl AsyncFnOnce(),
    end: impl AsyncFnOnce(),
    last: u64,
) -> Vec<u64> {
    let first = reader.append(keyed("a-1", "first")).await.expect("the first append is carried out");
    assert_eq!(first.last, Position::FIRST);
    hold().await;
    let writers: Vec<_> = (0..8)
        .map(|number| {
            let store = if number % 2 == 0 { one.clone() } else { two.clone() };
            let append = keyed(&format!("b-{number}"), &format!("key-{number}"));
            tokio::spawn(async move { store.append(append).await.expect("who waits gets on") })
        })
        .collect();
    until_waiting().await;
    let events = reader.log_events(Query::all()).await.expect("readers do not wait");
    assert_eq!(events.len(), 1, "what is not committed does not show");
    let following = tokio::spawn(follow(reader, move |event| event.position.get() == last));
    end().await;
    let mut positions = Vec::new();
    for writer in writers {
        positions.push(joined(writer).await.first.get());
    }
    positions.sort_unstable();
    assert_eq!(joined(following).await, (1..=last).map(Position::new).collect::<Vec<_>>());
    positions
}

/// Writers over each of these stores, which are of one log, send every append again until it is answered, while
/// `cut` cuts connections: it says how many it has cut. After so many times, what was acknowledged is there once, where it
/// was said to be, and a subscriber of the last store has seen all of it in order.
///
/// # Panics
/// If it is otherwise.
pub async fn nothing_is_lost_or_done_twice(
    stores: &[Store],
    times: usize,
    mut cut: impl AsyncFnMut() -> usize,
) -> Survived {
    const WRITERS: usize = 12;
    let (stop, unknown) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let reader = stores.last().expect("there are stores").clone();
    let following = tokio::spawn(follow(reader.clone(), |event| event.stream.as_str() == "end-1"));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, stop, unknown) =
                (stores[writer % stores.len()].clone(), stop.clone(), unknown.clone());
            tokio::spawn(async move {
                let mut done = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("{writer}/{}", done.len());
                    let append = keyed(&format!("a-{writer}"), &name);
                    done.push((name, persist(&*store, &append, &unknown).await));
                }
                done
            })
        })
        .collect();
    let mut cuts = 0;
    while cuts < times {
        cuts += cut().await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut done = Vec::new();
    for writer in writers {
        done.extend(joined(writer).await);
    }
    done.push(("end".to_owned(), persist(&*reader, &keyed("end-1", "end"), &unknown).await));
    let (total, unknown) = (done.len() as u64, unknown.load(Ordering::Relaxed));
    let log = reader.log_events(Query::all()).await.expect("the log can be read when all is over");
    assert_eq!(log.len() as u64, total, "each append is there once");
    for (name, appended) in &done {
        let index = usize::try_from(appended.first.get()).expect("few") - 1;
        let event = &log[index];
        assert_eq!(event.idempotency_key.as_ref().map(IdempotencyKey::as_str), Some(name.as_str()));
        assert_eq!((event.position, event.version), (appended.first, appended.version()));
    }
    let keys: HashSet<_> = log.iter().map(|event| event.idempotency_key.clone()).collect();
    assert_eq!(keys.len() as u64, total, "nothing is there twice");
    let seen = joined(following).await;
    assert_eq!(
        seen,
        (1..=total).map(Position::new).collect::<Vec<_>>(),
        "nothing is skipped, nothing comes twice"
    );
    Survived { cuts, unknown, acknowledged: done.len() }
}

/// What a store has survived.
#[derive(Clone, Copy, Debug)]
pub struct Survived {
    /// Connections that were cut.
    pub cuts: usize,
    /// Answers that did not say what became of the append.
    pub unknown: usize,
    /// Appends that were acknowledged.
    pub acknowledged: usize,
}

/// Appends large events until the database has no room for more: each is acknowledged or refused as unavailable with what to
/// do, reads go on, and what was refused is not there. After `make_room`, what was refused is taken.
///
/// # Panics
/// If it is otherwise.
pub async fn a_full_disk_refuses_appends_and_nothing_else(store: Store, make_room: impl AsyncFnOnce()) {
    let large = |number: usize| {
        let mut append = keyed("a-1", &format!("key-{number}"));
        // What cannot be made smaller: a database may compress.
        let bytes = (0..400_000_u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8);
        append.writes[0].event.data = bytes.map(|byte| byte ^ number as u8).collect::<Vec<_>>().into();
        append
    };
    let mut acknowledged = 0;
    let refused = loop {
        assert!(acknowledged < 1_000, "the disk is never full");
        match store.append(large(acknowledged)).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(acknowledged > 0, "there was room for some");
    assert!(matches!(refused, Error::Unavailable(_)), "{}", refused.chain());
    assert!(refused.chain().contains("has run out of something"), "{}", refused.chain());
    let again = store.append(large(acknowledged)).await;
    assert!(matches!(again, Err(Error::Unavailable(_))), "it stays so: {again:?}");
    let log = store.log_events(Query::all()).await.expect("reads go on");
    assert_eq!(log.len(), acknowledged, "what was refused is not there");
    make_room().await;
    // To make room may have cost a connection.
    let appended = persist(&*store, &large(acknowledged), &AtomicUsize::new(0)).await;
    assert_eq!(appended.first, Position::new(acknowledged as u64 + 1), "there is no gap");
}

/// Two stores of one log, of which one has a clock that jumps back by a day and forward by a year: positions are as they
/// were, and recorded times never decrease.
///
/// # Panics
/// If it is otherwise.
pub async fn a_clock_that_jumps_changes_no_order(open: impl AsyncFn(Arc<dyn Clock>) -> Store) {
    const START: i64 = 1_700_000_000_000_000;
    const DAY: i64 = 24 * 60 * 60 * 1_000_000;
    let clock = Arc::new(TestClock::at(Timestamp::from_micros(START)));
    let (jumping, steady) = (open(clock.clone()).await, open(Arc::new(SystemClock)).await);
    let mut positions = Vec::new();
    for (number, time) in [0, -1, 1, 365, 0, 10_000, -1, 0].into_iter().enumerate() {
        clock.set(Timestamp::from_micros(START + time * DAY));
        positions.push(
            jumping.append(keyed("a-1", &format!("jumping-{number}"))).await.expect("it is taken").first,
        );
        positions
            .push(steady.append(keyed("b-1", &format!("steady-{number}"))).await.expect("it is taken").first);
    }
    assert_eq!(positions, (1..=16).map(Position::new).collect::<Vec<_>>());
    let log = steady.log_events(Query::all()).await.expect("the log can be read");
    assert!(log.is_sorted_by_key(|event| event.recorded_at), "recorded times decrease");
}
