//! The address of a log leads to another server, which has another log.

use std::time::Duration;

use annals::{Append, EventStore, Expected, NewEvent, StreamId};
use annals_testkit::proxy::Proxy;
use annals_testkit::server;

fn append(stream: &str) -> Append {
    let event = NewEvent::new("thing.done", "{}").unwrap();
    Append::to(StreamId::new(stream).unwrap(), Expected::Any, [event])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres() {
    let kind = || server::newest_postgres(&["fsync=off"]);
    a_server_with_another_log_is_not_gone_on_with(kind(), kind()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mariadb() {
    let kind = || server::mariadb(&["innodb-flush-log-at-trx-commit=2"]);
    a_server_with_another_log_is_not_gone_on_with(kind(), kind()).await;
}

async fn a_server_with_another_log_is_not_gone_on_with(mut one: server::Server, two: server::Server) {
    let address = Proxy::to(&one.url());
    let store = annals::open_store(&address.url().parse().unwrap()).await.unwrap();
    for _ in 0..3 {
        store.append(append("thing-1")).await.unwrap();
    }
    let other = annals::open_store(&two.url().parse().unwrap()).await.unwrap();
    other.append(append("other-1")).await.unwrap();
    assert_ne!(other.id(), store.id());
    // A name that was pointed elsewhere, a failover to the wrong machine.
    address.lead_to(&two.url());
    one.crash();
    for _ in 0..20 {
        if let Ok(appended) = store.append(append("thing-1")).await {
            panic!("the event is at {} of the log {}, not in {}", appended.last, other.id(), store.id());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(other.head().await.unwrap().get(), 1);
}
