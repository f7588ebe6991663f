//! The address of a log leads to another server, which has another log.

use std::time::Duration;

use annals::{Append, EventStore, Expected, NewEvent, StreamId};
use annals_testservers::proxy::Proxy;

use annals_testservers::place::Place;

fn append(stream: &str) -> Append {
    let event = NewEvent::new("thing.done", "{}").unwrap();
    Append::to(StreamId::new(stream).unwrap(), Expected::Any, [event])
}

annals_testservers::on_each_database! {
    a_server_with_another_log_is_not_gone_on_with,
}

async fn a_server_with_another_log_is_not_gone_on_with(place: Place) {
    let (mut one, two) = (place.kind().start_quick(&[]), place.kind().start_quick(&[]));
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
