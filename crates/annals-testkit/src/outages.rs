//! G9 for a store on a database: a server that stops, one that blocks all clients, a full disk, a clock that
//! jumps, tables that several processes create at once. Every call ends with an error of the correct kind,
//! and later calls succeed.
//!
//! The tests of a store implement how a table is locked or a log is migrated; this file checks the results.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use annals_core::{
    Append, Appended, Clock, Error, EventStoreExt, LogRead, Position, Query, Result, SystemClock, TestClock,
    Timestamp,
};

use crate::given::{Store, joined};
use crate::hostile::{keyed, persist};

/// A server that a test stops and starts again.
pub trait Restart {
    /// The address at which a store on it is opened; it is the same after a restart.
    fn url(&self) -> String;
    /// Starts it again, and returns when it accepts connections.
    fn start(&mut self);
    /// Kills it without a shutdown, as a loss of power would.
    fn crash(&mut self);
    /// Shuts it down, as an operator does.
    fn stop(&mut self);
}

/// An append of one event, with the key of this number.
pub fn append(number: usize) -> Append {
    keyed("a-1", &format!("key-{number}"))
}

/// Checks that a result is `unavailable`, for this reason.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn unavailable<T: std::fmt::Debug>(answer: Result<T>, why: &str) {
    match answer {
        Err(Error::Unavailable(cause)) => assert!(cause.to_string().contains(why), "{cause}"),
        other => panic!("it should be unavailable because {why}, and is {other:?}"),
    }
}

/// Checks that a result is `unusable`, for this reason.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn unusable<T: std::fmt::Debug>(answer: Result<T>, why: &str) {
    match answer {
        Err(Error::Unusable(cause)) => assert!(cause.to_string().contains(why), "{cause}"),
        other => panic!("it should be unusable because {why}, and is {other:?}"),
    }
}

fn written(answer: Result<Appended>) -> Appended {
    answer.expect("the append is committed")
}

async fn count(store: &Store) -> usize {
    store.log_events(Query::all()).await.expect("the log can be read").len()
}

/// A server that stops loses no acknowledged append, and after its restart all calls succeed, for a store
/// that `open` opens on it.
///
/// # Panics
/// If a check fails.
pub async fn a_restart_is_survived(mut server: impl Restart, open: impl AsyncFn(&str) -> Store) {
    let store = open(&server.url()).await;
    let mut acknowledged = 0;
    for number in 0..3 {
        written(store.append(append(number)).await);
        acknowledged += 1;
        if number == 1 {
            server.crash()
        } else {
            server.stop()
        }
        let answer = store.append(append(100 + number)).await;
        assert!(matches!(answer, Err(Error::Unavailable(_) | Error::Indeterminate(_))), "{answer:?}");
        unavailable(store.append(append(200 + number)).await, "connection");
        unavailable(store.head().await, "connection");
        unavailable(store.read_log(LogRead::forward(Position::FIRST)).await, "connection");
        server.start();
        acknowledged += usize::from(!written(store.append(append(100 + number)).await).duplicate);
        assert_eq!(count(&store).await, acknowledged);
    }
    // A waiting reader is woken by an append after all of this.
    let head = store.head().await.expect("the server is there again");
    let waiting = tokio::spawn({
        let waiter = open(&server.url()).await;
        async move { waiter.wait(head).await.expect("waiting does not fail") }
    });
    let last = written(store.append(append(1_000)).await).last;
    assert!(joined(waiting).await >= last);
}

/// While `lock` holds the tables of this empty log, calls end in time and write nothing; after `unlock` has
/// released them, calls succeed.
///
/// # Panics
/// If a check fails.
pub async fn a_caller_that_waits_for_too_long_gets_an_error(
    store: Store,
    lock: impl AsyncFnOnce(),
    unlock: impl AsyncFnOnce(),
) {
    written(store.append(append(0)).await);
    lock().await;
    let reads: Vec<_> = (0..12)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.read_log(LogRead::forward(Position::FIRST)).await })
        })
        .collect();
    for read in reads {
        unavailable(joined(read).await, "");
    }
    unavailable(store.append(append(1)).await, "timed out waiting for the lock of the log");
    unlock().await;
    assert_eq!(count(&store).await, 1);
    assert!(!written(store.append(append(1)).await).duplicate, "nothing was written before");
}

/// Six tasks migrate a database without tables at once: together they execute as many steps as one does
/// `alone`.
///
/// # Panics
/// If a check fails.
pub async fn tables_are_made_once_by_many<M>(migrate: impl Fn() -> M, alone: usize)
where
    M: Future<Output = Result<usize>> + Send + 'static,
{
    let migrating: Vec<_> = (0..6).map(|_| tokio::spawn(migrate())).collect();
    let mut steps = Vec::new();
    for migrated in migrating {
        steps.push(joined(migrated).await.expect("the tables are made"));
    }
    assert_eq!(steps.iter().sum::<usize>(), alone, "{steps:?}");
}

/// Appends large events until the database is full: each is acknowledged or refused as unavailable with a
/// remedy, reads continue, and refused appends are not in the log. After `make_room`, the refused append is
/// committed.
///
/// # Panics
/// If a check fails.
pub async fn a_full_disk_refuses_appends_and_nothing_else(store: Store, make_room: impl AsyncFnOnce()) {
    let large = |number: usize| {
        let mut append = keyed("a-1", &format!("key-{number}"));
        // Incompressible data, because a database may compress it.
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
    assert!(refused.chain().contains("is out of a resource"), "{}", refused.chain());
    let again = store.append(large(acknowledged)).await;
    assert!(matches!(again, Err(Error::Unavailable(_))), "it stays so: {again:?}");
    let log = store.log_events(Query::all()).await.expect("reads go on");
    assert_eq!(log.len(), acknowledged, "what was refused is not there");
    make_room().await;
    // `make_room` may have cost a connection.
    let appended = persist(&*store, &large(acknowledged), &AtomicUsize::new(0)).await;
    assert_eq!(appended.first, Position::new(acknowledged as u64 + 1), "there is no gap");
}

/// Two stores of one log, one of which has a clock that jumps back by a day and forward by a year: positions
/// are not affected, and recorded times never decrease.
///
/// # Panics
/// If a check fails.
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
    assert!(log.is_sorted_by_key(|event| event.recorded_at()), "recorded times decrease");
}
