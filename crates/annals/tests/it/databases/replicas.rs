//! State that is made of a log which is read from a replica: what the replica does not have yet is neither
//! passed over nor taken for another history.

use std::time::{Duration, Instant};

use annals::{Annals, Append, Event, EventStore, Expected, NewEvent, Phase, Position, StreamId};
use annals_core::LogRead;
use annals_testservers::server::{self, Server};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};

use crate::databases::counter::{CounterEvent, QUICKLY, Sums, sum, until};

/// A server, one that follows it, and the address of a log on the one that is read from the other.
async fn servers() -> (Server, Server, String) {
    let primary = server::newest_postgres(&["fsync=off"]);
    drop(Annals::open(&primary.url()).await.unwrap());
    let replica = primary.standby();
    let (_, place) =
        replica.url().split_once('@').map(|(user, place)| (user.to_owned(), place.to_owned())).unwrap();
    let (place, _) = place.split_once('/').unwrap();
    let url = format!("{}?replica={place}", primary.url());
    (primary, replica, url)
}

async fn append(store: &dyn EventStore) -> Position {
    let event = CounterEvent::Increased { by: 1 };
    let event = NewEvent::new(event.event_type(), event.encode().unwrap()).unwrap();
    let append = Append::to(StreamId::new("counter-a").unwrap(), Expected::Any, [event]);
    store.append(append).await.unwrap().last
}

/// The replica has this, and gets no more from now on.
async fn paused_at(replica: &Server, position: Position) -> PgConnection {
    let mut on_replica = PgConnection::connect(&replica.url()).await.unwrap();
    let sql = "SELECT coalesce(max(position), 0) FROM annals.events";
    while on_replica.fetch_one(sql).await.unwrap().get::<i64, _>(0).unsigned_abs() < position.get() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    on_replica.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    on_replica
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_inline_projection_passes_over_nothing_that_a_replica_does_not_have() {
    let (primary, replica, url) = servers().await;
    let other = Annals::open(&primary.url()).await.unwrap();
    let annals = Annals::open(&url).await.unwrap();
    annals.project(Sums::<1>::default()).retry(QUICKLY).inline().start().await.unwrap();
    until(&annals, "sums", |status| status.phase == Phase::Live).await;
    let first = append(&**annals.store()).await;
    let mut on_replica = paused_at(&replica, first).await;
    // Another process, without the projection, and then this one.
    append(&**other.store()).await;
    let last = append(&**annals.store()).await;
    on_replica.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    assert_eq!(sum::<1>(&annals, "a", last).await, Some((3, 3)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_whose_newest_event_a_replica_does_not_have_are_kept() {
    let (primary, replica, url) = servers().await;
    let other = Annals::open(&primary.url()).await.unwrap();
    other.project(Sums::<1>::default()).start().await.unwrap();
    let first = append(&**other.store()).await;
    let mut on_replica = paused_at(&replica, first).await;
    let last = append(&**other.store()).await;
    assert_eq!(sum::<1>(&other, "a", last).await, Some((2, 2)));
    other.shutdown().await;
    let (annals, sums) = (Annals::open(&url).await.unwrap(), Sums::<1>::default());
    annals.project(sums.clone()).start().await.unwrap();
    on_replica.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    assert_eq!(sum::<1>(&annals, "a", last).await, Some((2, 2)));
    let applied = sums.applied.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(applied, 0, "the rows were made again");
}

/// Only the first read waits for a replica that has gone away.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_that_goes_away_is_not_waited_for_again_and_again() {
    let (_primary, mut replica, url) = servers().await;
    let store = annals::open_store(&url.parse().unwrap()).await.unwrap();
    let first = append(&*store).await;
    drop(paused_at(&replica, first).await);
    replica.crash();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(store.read_log(LogRead::forward(Position::FIRST)).await.unwrap().head, first);
    }
    // A replica that is looked for each time takes ten seconds each.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    replica.start();
    drop(paused_at(&replica, first).await);
    append(&*store).await;
    // It is asked again, for the page is as old as it is.
    while store.read_log(LogRead::forward(Position::FIRST)).await.unwrap().head != first {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
