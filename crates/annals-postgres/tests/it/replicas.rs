//! A log that is read from a replica: what a read says of its age is so, nobody goes back in time, and a
//! replica that is behind or away holds nobody up.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Error, EventStore, EventStoreExt, LogRead, Position, Query, StreamList, StreamRead, Version,
};
use annals_postgres::{Options, PostgresStore};
use annals_sql::{OpenReplica, Replicated};
use annals_testkit::hostile;
use annals_testservers::server::{self, Server};
use sqlx::postgres::PgConnection;
use sqlx::{Executor, Row};

use crate::support::connect;

async fn open(url: &str) -> Result<Arc<dyn EventStore>, Error> {
    let options = Options { patience: Duration::from_secs(2), ..Options::default() };
    Ok(Arc::new(PostgresStore::open(url, options).await?))
}

/// A log of this server that is read from the other.
async fn replicated(primary: &Server, replica: &Server) -> Arc<dyn EventStore> {
    let url = replica.url();
    let replica: OpenReplica = Arc::new(move || {
        let url = url.clone();
        let options = Options { patience: Duration::from_secs(2), replica: true, ..Options::default() };
        Box::pin(
            async move { Ok(Arc::new(PostgresStore::open(&url, options).await?) as Arc<dyn EventStore>) },
        )
    });
    Arc::new(Replicated::open(open(&primary.url()).await.unwrap(), replica).await.unwrap())
}

/// Appends an event to the stream, and returns its position.
async fn append(store: &Arc<dyn EventStore>, number: usize) -> Position {
    store.append(hostile::keyed("a-1", &format!("key-{number}"))).await.unwrap().last
}

/// Waits until the replica has this.
async fn until(replica: &mut PgConnection, position: Position) {
    let sql = "SELECT coalesce(max(position), 0) FROM annals.events";
    while replica.fetch_one(sql).await.unwrap().get::<i64, _>(0).unsigned_abs() < position.get() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_answers_what_it_has_and_holds_up_nothing() {
    let primary = server::newest_postgres(&["fsync=off"]);
    drop(open(&primary.url()).await.unwrap());
    let mut replica = primary.standby();
    let mut on_replica = connect(&replica.url()).await;
    let store = replicated(&primary, &replica).await;
    let first = append(&store, 0).await;
    until(&mut on_replica, first).await;

    // The log is read from the replica: it does not know what it was not sent.
    on_replica.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    let second = append(&store, 1).await;
    let page = store.read_log(LogRead::forward(Position::FIRST)).await.unwrap();
    assert_eq!((page.head, page.events.len()), (first, 1), "the page says how old it is");
    let listed = store.list_streams(StreamList { category: None, after: None, limit: 10 }).await.unwrap();
    assert_eq!(listed[0].version, Version::FIRST, "the list is the replica's");
    // What a command is decided on is not.
    let stream = annals_core::StreamId::new("a-1").unwrap();
    let page = store.read_stream(StreamRead::forward(&stream, Version::FIRST)).await.unwrap();
    assert_eq!(page.version, Version::new(2));
    assert_eq!(store.head().await.unwrap(), second);
    // A reader that has seen more than the replica has is not answered with less.
    let page = store.read_log(LogRead::forward(second.next())).await.unwrap();
    assert_eq!((page.head, page.end), (second, true));

    // A replica that stays behind is not waited for longer than a second or so.
    assert_eq!(store.wait(first).await.unwrap(), second);
    let page = store.read_log(LogRead::forward(second)).await.unwrap();
    assert_eq!(page.events.len(), 1, "the primary answers");
    on_replica.execute("SELECT pg_wal_replay_resume()").await.unwrap();
    until(&mut on_replica, second).await;

    // A subscriber keeps running while the replica is away, and when it is back.
    let following =
        tokio::spawn(hostile::follow(store.clone(), |event| event.position() == Position::new(40)));
    for number in 2..15 {
        append(&store, number).await;
    }
    replica.crash();
    for number in 15..30 {
        append(&store, number).await;
    }
    assert_eq!(store.log_events(Query::all()).await.unwrap().len(), 30);
    replica.start();
    for number in 30..40 {
        append(&store, number).await;
    }
    following.await.unwrap();
}

/// Waiting on a replica hears of what is written soon, although nothing can be listened to there.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_a_standby_alone_reads_and_waits_and_says_that_it_only_reads() {
    let primary = server::newest_postgres(&["fsync=off"]);
    let store = open(&primary.url()).await.unwrap();
    let first = append(&store, 0).await;
    let standby = primary.standby();
    let mut on_standby = connect(&standby.url()).await;
    until(&mut on_standby, first).await;
    let reading = open(&standby.url()).await.unwrap();
    assert_eq!(reading.id(), store.id());
    assert_eq!(reading.head().await.unwrap(), first);
    let waiting = tokio::spawn({
        let reading = reading.clone();
        async move { reading.wait(first).await }
    });
    let second = append(&store, 1).await;
    assert_eq!(waiting.await.unwrap().unwrap(), second);
    let refused = reading.append(hostile::keyed("a-1", "key-2")).await.unwrap_err();
    assert!(matches!(&refused, Error::Unavailable(_)), "{}", refused.chain());
    assert!(refused.chain().contains("read-only standby"), "{}", refused.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_another_log_is_refused() {
    let (one, other) = (server::newest_postgres(&["fsync=off"]), server::newest_postgres(&["fsync=off"]));
    let primary = open(&one.url()).await.unwrap();
    let url = other.url();
    let replica: OpenReplica = Arc::new(move || {
        let url = url.clone();
        Box::pin(async move { open(&url).await })
    });
    let refused = Replicated::open(primary, replica).await.err().unwrap();
    assert!(matches!(&refused, Error::Invalid(_)), "{}", refused.chain());
}

/// A service does not wait for a replica to start.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_away_at_the_start_is_used_once_it_answers() {
    let primary = server::newest_postgres(&["fsync=off"]);
    drop(open(&primary.url()).await.unwrap());
    let mut replica = primary.standby();
    replica.stop();
    let store = replicated(&primary, &replica).await;
    let first = append(&store, 0).await;
    assert_eq!(store.read_log(LogRead::forward(Position::FIRST)).await.unwrap().head, first);
    replica.start();
    let mut on_replica = connect(&replica.url()).await;
    until(&mut on_replica, first).await;
    on_replica.execute("SELECT pg_wal_replay_pause()").await.unwrap();
    append(&store, 1).await;
    // The replica is found, for the page is as old as it is.
    while store.read_log(LogRead::forward(Position::FIRST)).await.unwrap().head != first {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
