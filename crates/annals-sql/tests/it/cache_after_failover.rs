//! A failover to a standby that did not have the last events yet, while a service keeps aggregates in memory.

use std::sync::Arc;
use std::time::Duration;

use annals::{Annals, Position};
use annals_testkit::server::{self, Server};
use parking_lot::Mutex;
use sqlx::{Connection, Executor};
use tokio::net::{TcpListener, TcpStream};

use crate::counter::{Counter, Increase};

/// A primary, a standby that is not waited for, and an address that leads to the one that is the primary now.
struct Pair {
    primary: Server,
    standby: Server,
    now: Arc<Mutex<String>>,
    url: String,
}

fn place_of(url: &str) -> String {
    url.split_once('@').unwrap().1.split('/').next().unwrap().to_owned()
}

impl Pair {
    async fn new() -> Self {
        let primary = server::newest_postgres(&["fsync=off"]);
        let standby = primary.standby();
        let now = Arc::new(Mutex::new(place_of(&primary.url())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let url = primary.url().replace(&place_of(&primary.url()), &here);
        let to = now.clone();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let to = to.lock().clone();
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { primary, standby, now, url }
    }

    /// The standby has what there is up to here, and gets no more.
    async fn leave_behind(&mut self, position: Position) {
        let store = annals::open_store(&self.standby.url().parse().unwrap()).await.unwrap();
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
        *self.now.lock() = place_of(&self.standby.url());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_failover_that_has_lost_events_nothing_is_decided_on_them() {
    let mut pair = Pair::new().await;
    let annals = Annals::open(&pair.url).await.unwrap();
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
