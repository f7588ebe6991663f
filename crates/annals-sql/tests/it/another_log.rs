//! The address of a log leads to another server, which has another log.

use std::sync::Arc;
use std::time::Duration;

use annals::{Append, EventStore, Expected, NewEvent, StreamId};
use annals_testkit::server;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};

fn place_of(url: &str) -> String {
    url.split_once('@').unwrap().1.split('/').next().unwrap().to_owned()
}

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
    let now = Arc::new(Mutex::new(place_of(&one.url())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = one.url().replace(&place_of(&one.url()), &listener.local_addr().unwrap().to_string());
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
    let store = annals::open_store(&url.parse().unwrap()).await.unwrap();
    for _ in 0..3 {
        store.append(append("thing-1")).await.unwrap();
    }
    let other = annals::open_store(&two.url().parse().unwrap()).await.unwrap();
    other.append(append("other-1")).await.unwrap();
    assert_ne!(other.id(), store.id());
    // A name that was pointed elsewhere, a failover to the wrong machine.
    *now.lock() = place_of(&two.url());
    one.crash();
    for _ in 0..20 {
        if let Ok(appended) = store.append(append("thing-1")).await {
            panic!("the event is at {} of the log {}, not in {}", appended.last, other.id(), store.id());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(other.head().await.unwrap().get(), 1);
}
