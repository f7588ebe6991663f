//! G9 for a store on a database: a server that goes away, one that makes everybody wait, tables that many make at once.
//! Every call ends in an error of the right kind, and later calls work.
//!
//! How a table is locked or a log is migrated, only the tests of the store know; what must come of it is here.

use std::future::Future;

use annals_core::{Append, Appended, Error, EventStoreExt, LogRead, Position, Query, Result};

use crate::given::{Store, joined};
use crate::hostile::keyed;
use crate::server::Server;

/// An append of one event, with the key of this number.
pub fn append(number: usize) -> Append {
    keyed("a-1", &format!("key-{number}"))
}

/// Holds an answer to be `unavailable`, and to say why.
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

fn written(answer: Result<Appended>) -> Appended {
    answer.expect("the append is carried out")
}

async fn count(store: &Store) -> usize {
    store.log_events(Query::all()).await.expect("the log can be read").len()
}

/// A server that goes away takes nothing with it that was acknowledged, and when it is back everything goes on, for a
/// store that `open` opens on it.
///
/// # Panics
/// If it is otherwise.
pub async fn a_restart_is_survived(mut server: Server, open: impl AsyncFn(&str) -> Store) {
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
        unavailable(store.append(append(200 + number)).await, "there is none");
        unavailable(store.head().await, "connection");
        unavailable(store.read_log(LogRead::forward(Position::FIRST)).await, "connection");
        server.start();
        acknowledged += usize::from(!written(store.append(append(100 + number)).await).duplicate);
        assert_eq!(count(&store).await, acknowledged);
    }
    // Whoever waits is woken by what comes after all of this.
    let head = store.head().await.expect("the server is there again");
    let waiting = tokio::spawn({
        let waiter = open(&server.url()).await;
        async move { waiter.wait(head).await.expect("waiting does not fail") }
    });
    let last = written(store.append(append(1_000)).await).last;
    assert!(joined(waiting).await >= last);
}

/// While `lock` holds the tables of this empty log, calls end in time, and write nothing; when `unlock` has let go of them,
/// they work.
///
/// # Panics
/// If it is otherwise.
pub async fn whoever_has_to_wait_for_too_long_is_told(
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
    unavailable(store.append(append(1)).await, "another process holds the log for too long");
    unlock().await;
    assert_eq!(count(&store).await, 1);
    assert!(!written(store.append(append(1)).await).duplicate, "nothing was written before");
}

/// Of six that migrate a database without tables at once, one makes them.
///
/// # Panics
/// If it is otherwise.
pub async fn tables_are_made_once_by_many<M>(migrate: impl Fn() -> M)
where
    M: Future<Output = Result<usize>> + Send + 'static,
{
    let migrating: Vec<_> = (0..6).map(|_| tokio::spawn(migrate())).collect();
    let mut steps = Vec::new();
    for migrated in migrating {
        steps.push(joined(migrated).await.expect("the tables are made"));
    }
    assert_eq!(steps.iter().filter(|missing| **missing > 0).count(), 1, "{steps:?}");
}
