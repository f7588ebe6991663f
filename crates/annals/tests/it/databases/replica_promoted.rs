//! A replica that was promoted, as in a drill or by a failover tool that has lost sight of the primary: it is
//! none any more.

use std::sync::Arc;
use std::time::Duration;

use annals::{Annals, Recorded};
use annals_testservers::server;
use parking_lot::Mutex;
use sqlx::{Connection, Executor};

use crate::databases::counter::{CounterEvent, increase};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_no_replica_any_more_is_not_read() {
    let primary = server::newest_postgres(&["fsync=off"]);
    let replica = primary.standby();
    let place = replica.url().split_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    let annals = Annals::open(&format!("{}?replica={place}", primary.url())).await.unwrap();
    let delivered = Arc::new(Mutex::new(Vec::new()));
    let heard = delivered.clone();
    let subscriber = annals.subscribe("told").on(move |event: Recorded<CounterEvent>, _| {
        let CounterEvent::Increased { by } = event.event;
        heard.lock().push(by);
        std::future::ready(Ok(()))
    });
    subscriber.start().await.unwrap();
    for by in 1..=3 {
        increase(&annals, "a", by).await;
    }
    annals.settle().await.unwrap();
    let mut owner = sqlx::PgConnection::connect(&replica.url()).await.unwrap();
    owner.execute("SELECT pg_promote()").await.unwrap();
    // Somebody writes to it, who takes it for the primary.
    let astray = Annals::open(&replica.url()).await.unwrap();
    for by in 901..=905 {
        increase(&astray, "b", by).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for by in 4..=8 {
        increase(&annals, "a", by).await;
    }
    annals.settle().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let delivered = delivered.lock().clone();
    assert_eq!(delivered, [1, 2, 3, 4, 5, 6, 7, 8], "{:?}", annals.status().await);
}
