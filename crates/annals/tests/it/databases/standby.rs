//! An address that leads to a server which follows another and is behind it, as a load balancer or a name
//! that is stale may do: what it does not have yet is not lost.

use std::sync::Arc;
use std::time::Duration;

use annals::contract::{LogRead, StreamRead, Witness};
use annals::snapshot::every;
use annals::{
    Annals, Append, Error, EventStore, Expected, NewEvent, Position, Recorded, State, StreamId, Version,
};
use annals_testservers::proxy::Proxy;
use annals_testservers::server::{self, Server};
use parking_lot::Mutex;
use sqlx::mysql::MySqlConnection;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};

use crate::databases::counter::{Counter, CounterEvent, Increase, QUICKLY, Sums, increase, sum};

/// Ends a test that hangs.
const HANG: Duration = Duration::from_secs(120);

async fn open(url: &str, directory: &std::path::Path) -> Annals {
    let store = annals::open_store(&url.parse().unwrap()).await.unwrap();
    Annals::with_store(store, State::directory(directory)).await.unwrap()
}

type Heard = Arc<Mutex<Vec<u64>>>;

async fn hear(annals: &Annals, heard: &Heard) -> Result<(), Error> {
    let heard = heard.clone();
    let subscriber = annals.subscribe("hears").retry(QUICKLY).on(move |event: Recorded<CounterEvent>, _| {
        let CounterEvent::Increased { by } = event.event;
        heard.lock().push(by);
        std::future::ready(Ok(()))
    });
    subscriber.start().await
}

async fn until_heard(heard: &Heard, wanted: usize) {
    let all = async {
        while heard.lock().len() < wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANG, all).await.unwrap_or_else(|_| panic!("{:?}", heard.lock()));
}

/// Waits until the standby has this, and lets it get no more.
async fn leave_behind(standby: &Server, position: u64) {
    let mut on_standby = PgConnection::connect(&standby.url()).await.unwrap();
    let sql = "SELECT coalesce(max(position), 0) FROM annals.events";
    while on_standby.fetch_one(sql).await.unwrap().get::<i64, _>(0).unsigned_abs() < position {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    on_standby.execute("SELECT pg_wal_replay_pause()").await.unwrap();
}

/// The server refuses, because it does not have what is asked for. Connections may have been cut before.
async fn refuses<T>(ask: impl AsyncFn() -> Result<T, Error>) {
    loop {
        let Err(error) = ask().await else { panic!("it answers") };
        let message = error.chain();
        assert!(matches!(error, Error::Unavailable(_)), "{message}");
        if message.contains("only reads") {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_standby_does_not_have_yet_is_not_lost() {
    let primary = server::newest_postgres(&["fsync=off"]);
    drop(annals::open_store(&primary.url().parse().unwrap()).await.unwrap());
    let (standby, address) = (primary.standby(), Proxy::to(&primary.url()));
    let directory = tempfile::tempdir().unwrap();
    let (annals, heard) = (open(address.url(), directory.path()).await, Heard::default());
    hear(&annals, &heard).await.unwrap();
    annals.project(Sums::<1>::default()).retry(QUICKLY).start().await.unwrap();
    for by in 1..=3 {
        increase(&annals, "a", by).await;
    }
    leave_behind(&standby, 3).await;
    let mut last = Position::ZERO;
    for by in 4..=5 {
        last = increase(&annals, "a", by).await;
    }
    annals.settle().await.unwrap();
    let seen = Witness::at(&**annals.store(), last).await.unwrap().unwrap();
    let lead_to = |server: &Server| {
        address.lead_to(&server.url());
        address.cut();
    };

    lead_to(&standby);
    refuses(async || annals.status().await).await;
    // Readers look every two seconds whether the log is still the same.
    tokio::time::sleep(Duration::from_secs(3)).await;
    refuses(async || annals.store().read_log(LogRead::forward(Position::FIRST)).await).await;
    lead_to(&primary);
    increase_until_done(&annals, 6).await;
    until_heard(&heard, 6).await;
    annals.settle().await.unwrap();
    annals.shutdown().await;

    // A process that starts there knows what it has seen by its checkpoints only.
    lead_to(&standby);
    let annals = open(address.url(), directory.path()).await;
    let store = annals.store().clone();
    refuses(async || seen.holds(&*store).await).await;
    assert_eq!(store.head().await.unwrap(), Position::new(3));
    refuses(async || store.read_log(LogRead::forward(last.next())).await).await;
    let stream = StreamId::new("counter-a").unwrap();
    let ahead = StreamRead::forward(&stream, Version::new(6));
    refuses(async || store.read_stream(ahead.clone()).await).await;
    let newest = store.read_log(LogRead::backward(Position::MAX)).await.unwrap();
    assert_eq!(newest.events.len(), 3, "what it has is read");
    refuses(async || hear(&annals, &heard).await).await;
    let sums = Sums::<1>::default();
    refuses(async || annals.project(sums.clone()).start().await).await;
    lead_to(&primary);
    while annals.project(sums.clone()).retry(QUICKLY).start().await.is_err() {}
    hear(&annals, &heard).await.unwrap();
    let position = increase_until_done(&annals, 7).await;
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((28, 7)));
    assert_eq!(sums.applied.load(std::sync::atomic::Ordering::SeqCst), 1, "the rows were made again");
    until_heard(&heard, 7).await;
    annals.settle().await.unwrap();
    assert_eq!(*heard.lock(), [1, 2, 3, 4, 5, 6, 7]);
}

/// Connections were cut.
async fn increase_until_done(annals: &Annals, by: u64) -> Position {
    let counters = annals.repository::<crate::databases::counter::Counter>().retries(100);
    counters.execute("a", crate::databases::counter::Increase(by)).await.unwrap().position
}

/// A server that only reads may get what it does not have; one that takes writes will not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_loss_is_believed_of_a_server_that_takes_writes() {
    for server in [
        server::mariadb(&["innodb-flush-log-at-trx-commit=2"]),
        server::newest_mariadb(&["innodb-flush-log-at-trx-commit=2"]),
    ] {
        let store = annals::open_store(&server.url().parse().unwrap()).await.unwrap();
        let append = async || {
            let event = NewEvent::new("thing.done", "{}").unwrap();
            let append = Append::to(StreamId::new("thing-1").unwrap(), Expected::Any, [event]);
            store.append(append).await.unwrap().last
        };
        append().await;
        let last = append().await;
        let seen = Witness::at(&*store, last).await.unwrap().unwrap();
        let mut owner = MySqlConnection::connect(&server.url()).await.unwrap();
        owner.execute("DELETE FROM events WHERE position = 2").await.unwrap();
        owner.execute("UPDATE log SET position = 1").await.unwrap();
        owner.execute("UPDATE entities SET entity_version = 1, position = 1").await.unwrap();
        owner.execute("SET GLOBAL read_only = 1").await.unwrap();
        refuses(async || store.head().await).await;
        refuses(async || seen.holds(&*store).await).await;
        owner.execute("SET GLOBAL read_only = 0").await.unwrap();
        assert_eq!(store.head().await.unwrap(), Position::FIRST);
        assert!(!seen.holds(&*store).await.unwrap());
        append().await;
    }
}

/// A snapshot may be newer than the standby by one event.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_state_that_a_standby_does_not_have_yet_is_not_dropped() {
    let primary = server::newest_postgres(&["fsync=off"]);
    drop(annals::open_store(&primary.url().parse().unwrap()).await.unwrap());
    let (standby, address) = (primary.standby(), Proxy::to(&primary.url()));
    let directory = tempfile::tempdir().unwrap();
    let annals = open(address.url(), directory.path()).await;
    let counters = || annals.repository::<Counter>().snapshots(every(1));
    for by in 1..=3 {
        counters().execute("a", Increase(by)).await.unwrap();
    }
    leave_behind(&standby, 3).await;
    counters().execute("a", Increase(4)).await.unwrap();
    annals.shutdown().await;
    address.lead_to(&standby.url());
    address.cut();
    let annals = open(address.url(), directory.path()).await;
    let counters = annals.repository::<Counter>().snapshots(every(1));
    match counters.load("a").await {
        Err(annals::LoadError::Store(error)) => {
            assert!(error.chain().contains("only reads"), "{}", error.chain())
        }
        loaded => panic!("{loaded:?}, and the snapshot is of version 4"),
    }
    address.lead_to(&primary.url());
    address.cut();
    while !counters.load("a").await.is_ok_and(|loaded| loaded.state.sum == 10) {}
}
