//! A reader at the end of the log waits, also after a notification of a head that the log does not have.

use std::time::Duration;

use annals::{Annals, Recorded};
use annals_testservers::server;
use sqlx::{Connection, Executor, Row};

use crate::databases::counter::{CounterEvent, increase};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_waiting_caller_does_not_poll_without_end() {
    let server = server::newest_postgres(&["fsync=off"]);
    let annals = Annals::open(&server.url()).await.unwrap();
    increase(&annals, "a", 1).await;
    let subscriber = annals.subscribe("told");
    subscriber.on(|_: Recorded<CounterEvent>, _| std::future::ready(Ok(()))).start().await.unwrap();
    annals.settle().await.unwrap();
    // As a process would say that has seen the log before its tail was lost; any role that connects can.
    let mut beside = sqlx::PgConnection::connect(&server.url()).await.unwrap();
    beside.execute("SELECT pg_notify('annals annals', '1000')").await.unwrap();
    let mut commits = async || {
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'";
        beside.fetch_one(sql).await.unwrap().get::<i64, _>(0)
    };
    let before = commits().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = commits().await - before;
    assert!(asked < 200, "{asked} transactions in ten seconds in which nothing happens");
}
