//! A failover to a standby that did not have the last events yet, while a service keeps aggregates in memory.

use std::time::Duration;

use annals::{Annals, Position};
use annals_testservers::proxy::Proxy;
use annals_testservers::server::{self, Server};
use sqlx::{Connection, Executor};

use crate::databases::counter::{Counter, Increase};

/// A primary, a standby that is not waited for, and an address that leads to the one that is the primary now.
struct Pair {
    primary: Server,
    standby: Server,
    address: Proxy,
}

impl Pair {
    async fn new() -> Self {
        let primary = server::newest_postgres(&["fsync=off"]);
        let standby = primary.standby();
        let address = Proxy::to(&primary.url());
        Self { primary, standby, address }
    }

    /// The standby has what there is up to here, and gets no more.
    async fn leave_behind(&mut self, position: Position) {
        let url = self.standby.url().parse().unwrap();
        let store = loop {
            // It may not have the tables of the log yet, and cannot make them.
            match annals::open_store(&url).await {
                Ok(store) => break store,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        while store.head().await.unwrap() < position {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.standby.crash();
    }

    async fn fail_over(&mut self) {
        self.primary.crash();
        self.standby.start();
        let mut standby = sqlx::PgConnection::connect(&self.standby.url()).await.unwrap();
        standby.execute("SELECT pg_promote()").await.unwrap();
        self.address.lead_to(&self.standby.url());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_failover_that_has_lost_events_nothing_is_decided_on_them() {
    let mut pair = Pair::new().await;
    let annals = Annals::open(pair.address.url()).await.unwrap();
    let counters = annals.repository::<Counter>().cache(10).retries(100);
    let kept = counters.execute("a", Increase(1)).await.unwrap().position;
    pair.leave_behind(kept).await;
    for _ in 0..2 {
        counters.execute("a", Increase(1_000)).await.unwrap();
    }
    pair.fail_over().await;
    // Another process has written as many events meanwhile.
    let other = Annals::open(&pair.standby.url()).await.unwrap();
    for _ in 0..2 {
        while other.repository::<Counter>().execute("a", Increase(1)).await.is_err() {}
    }
    let done = counters.execute("a", Increase(1)).await.unwrap();
    let replayed = other.repository::<Counter>().load("a").await.unwrap();
    assert_eq!(
        (done.version, done.state.sum),
        (replayed.version, replayed.state.sum),
        "decided on, replayed"
    );
}
