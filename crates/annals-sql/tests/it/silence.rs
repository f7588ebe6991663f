//! A server that falls silent: connections stay open, and nothing comes any more. Every call ends in an error
//! of the right kind, opening and migrating too, and later calls work.

use std::sync::Arc;
use std::time::Duration;

use annals::contract::{LogRead, StreamList, StreamRead};
use annals::{
    Append, Error, EventStore, EventStoreExt, Expected, IdempotencyKey, NewEvent, Position, Query, StreamId,
    Version,
};
use annals_mysql::MySqlStore;
use annals_postgres::PostgresStore;
use annals_testservers::proxy::Proxy;

use annals_testservers::place::Place;

/// Ends a call that hangs.
const HANG: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(1);

annals_testservers::on_each_database! {
    every_call_to_a_server_that_has_fallen_silent_ends,
    an_append_whose_answer_is_lost_is_indeterminate,
    a_statement_whose_answer_is_lost_is_ended_on_the_server,
}

async fn open(place: &Place, url: &str) -> Result<Arc<dyn EventStore>, Error> {
    if place.is_postgres() {
        let options = annals_postgres::Options { patience: PATIENCE, ..Default::default() };
        Ok(Arc::new(PostgresStore::open(url, options).await?))
    } else {
        let options = annals_mysql::Options { patience: PATIENCE, ..Default::default() };
        Ok(Arc::new(MySqlStore::open(url, options).await?))
    }
}

fn append(key: &str) -> Append {
    let event = NewEvent::new("thing.done", "{}").unwrap();
    let stream = StreamId::new("thing-1").unwrap();
    Append::to(stream, Expected::Any, [event]).once(IdempotencyKey::new(key).unwrap())
}

async fn ends<T>(call: impl Future<Output = Result<T, Error>>) -> Error {
    let answer = tokio::time::timeout(HANG, call).await.expect("the call hangs");
    answer.err().expect("a server that says nothing has answered")
}

#[track_caller]
fn assert_unavailable(error: &Error) {
    assert!(matches!(error, Error::Unavailable(_)), "{}", error.chain());
}

async fn every_call_to_a_server_that_has_fallen_silent_ends(place: Place) {
    let proxy = Proxy::to(&place.url);
    let store = open(&place, proxy.url()).await.unwrap();
    let last = store.append(append("one")).await.unwrap().last;
    let stream = StreamId::new("thing-1").unwrap();
    proxy.fall_silent();
    // What was open is silent, and so is what is opened after that.
    for _ in 0..2 {
        let error = ends(store.append(append("two"))).await;
        assert!(matches!(error, Error::Unavailable(_) | Error::Indeterminate(_)), "{}", error.chain());
        let conditional = append("three").unless(Query::tags([annals::Tag::new("a").unwrap()]), last);
        let error = ends(store.append(conditional)).await;
        assert!(matches!(error, Error::Unavailable(_) | Error::Indeterminate(_)), "{}", error.chain());
        assert_unavailable(&ends(store.read_log(LogRead::forward(Position::FIRST))).await);
        assert_unavailable(&ends(store.read_stream(StreamRead::forward(&stream, Version::FIRST))).await);
        assert_unavailable(&ends(store.list_streams(StreamList::default())).await);
        assert_unavailable(&ends(store.outcome(&IdempotencyKey::new("one").unwrap())).await);
        assert_unavailable(&ends(store.head()).await);
        assert_unavailable(&ends(store.wait(last)).await);
    }
    assert_unavailable(&ends(open(&place, proxy.url())).await);
    let url = proxy.url().to_owned();
    let migrating = async {
        if place.is_postgres() {
            annals_postgres::migrate(&url).await
        } else {
            annals_mysql::migrate(&url).await
        }
    };
    assert_unavailable(&ends(migrating).await);
    proxy.recover();
    while store.append(append("four")).await.is_err() {}
    assert!(store.wait(last).await.unwrap() > last);
}

async fn an_append_whose_answer_is_lost_is_indeterminate(place: Place) {
    let proxy = Proxy::to(&place.url);
    let store = open(&place, proxy.url()).await.unwrap();
    store.append(append("one")).await.unwrap();
    proxy.lose_answers();
    let error = ends(store.append(append("two"))).await;
    assert!(matches!(error, Error::Indeterminate(_)), "{}", error.chain());
    proxy.recover();
    let appended = loop {
        if let Ok(appended) = store.append(append("two")).await {
            break appended;
        }
    };
    assert!(appended.duplicate, "it was written although its answer was lost");
    assert_eq!(store.log_events(Query::all()).await.unwrap().len(), 2);
}

/// The server would else hold the lock of the log, or work on, for one who has given it up.
async fn a_statement_whose_answer_is_lost_is_ended_on_the_server(place: Place) {
    let proxy = Proxy::to(&place.url);
    let store = open(&place, proxy.url()).await.unwrap();
    store.append(append("one")).await.unwrap();
    let before = crate::gone::connections(&place).await;
    proxy.lose_answers();
    assert_unavailable(&ends(store.head()).await);
    proxy.recover();
    while crate::gone::connections(&place).await > before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
