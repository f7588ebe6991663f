//! G1, G4 and G5 in the hardest cases for a store that several processes share: delayed commits, cut
//! connections, and a subscriber that reads all the time.
//!
//! The tests of a store implement how a commit is delayed and a connection is cut; this file checks the
//! results.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use annals_consume::{Ladder, Subscription};
use annals_core::{
    Append, Appended, Error, EventStore, EventStoreExt, Expected, IdempotencyKey, Position, Query,
    RecordedEvent,
};

use crate::given::{Store, events, joined, key, stream};

/// An append of one event to this stream, with this key.
pub fn keyed(name: &str, name_of_key: &str) -> Append {
    Append::to(stream(name), Expected::Any, events(1)).once(key(name_of_key))
}

/// Follows the log from its beginning, retrying while the store is unavailable, until `is_last` returns true;
/// returns the positions that it has seen.
///
/// # Panics
/// If a read fails in another way.
pub async fn follow(store: Store, is_last: impl Fn(&RecordedEvent) -> bool) -> Vec<Position> {
    let mut subscription = Subscription::new(store, Ladder::default(), Query::all()).page_limit(3);
    let mut seen = Vec::new();
    loop {
        match subscription.next().await {
            Ok(event) => {
                seen.push(event.position());
                if is_last(&event) {
                    return seen;
                }
            }
            Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("a subscription fails: {}", error.chain()),
        }
    }
}

/// Repeats an append until its outcome is known; counts the indeterminate results.
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

/// Starts with a log of one event. `hold` begins an append of one event beside these stores and leaves it
/// open: the event is written, its position taken. Then two of the stores append and wait (`until_waiting`
/// returns when they do). No reader sees uncommitted events. Then `end` ends the open append, and a
/// subscriber of the third store has seen every position up to `last` once. Returns the positions of the
/// eight waiting appends.
///
/// # Panics
/// If a check fails.
pub async fn others_wait(
    [one, two, reader]: [Store; 3],
    hold: impl AsyncFnOnce(),
    until_waiting: impl AsyncFnOnce(),
    end: impl AsyncFnOnce(),
    last: u64,
) -> Vec<u64> {
    let first = reader.append(keyed("a-1", "first")).await.expect("the first append is committed");
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
    let following = tokio::spawn(follow(reader, move |event| event.position().get() == last));
    end().await;
    let mut positions = Vec::new();
    for writer in writers {
        positions.push(joined(writer).await.first.get());
    }
    positions.sort_unstable();
    assert_eq!(joined(following).await, (1..=last).map(Position::new).collect::<Vec<_>>());
    positions
}

/// Writers over each of these stores, which share one log, repeat every append until its outcome is known,
/// while `cut` cuts connections and returns how many it has cut. After `times` cuts, every acknowledged
/// append is in the log once, at its acknowledged position, and a subscriber of the last store has seen all
/// of them in order.
///
/// # Panics
/// If a check fails.
pub async fn nothing_is_lost_or_done_twice(
    stores: &[Store],
    times: usize,
    mut cut: impl AsyncFnMut() -> usize,
) -> Survived {
    const WRITERS: usize = 12;
    let (stop, unknown) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let reader = stores.last().expect("there are stores").clone();
    let following = tokio::spawn(follow(reader.clone(), |event| event.stream() == "end-1"));
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
        assert_eq!(event.idempotency_key().as_ref().map(IdempotencyKey::as_str), Some(name.as_str()));
        assert_eq!((event.position(), event.version()), (appended.first, appended.version()));
    }
    let keys: HashSet<_> = log.iter().map(|event| event.idempotency_key()).collect();
    assert_eq!(keys.len() as u64, total, "nothing is there twice");
    let seen = joined(following).await;
    assert_eq!(
        seen,
        (1..=total).map(Position::new).collect::<Vec<_>>(),
        "nothing is skipped, nothing comes twice"
    );
    Survived { cuts, unknown, acknowledged: done.len() }
}

/// The result of a run with cut connections.
#[derive(Clone, Copy, Debug)]
pub struct Survived {
    /// Connections that were cut.
    pub cuts: usize,
    /// Indeterminate results.
    pub unknown: usize,
    /// Appends that were acknowledged.
    pub acknowledged: usize,
}
