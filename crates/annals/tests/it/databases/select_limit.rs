//! MariaDB with a global `sql_select_limit`, by which a DBA protects the server from large answers.

use std::sync::Arc;

use annals::{Annals, EventStoreExt, Query, Recorded};
use annals_testservers::server;
use parking_lot::Mutex;
use sqlx::{Connection, Executor};

use crate::databases::counter::{Counter, CounterEvent, increase};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_answers_few_rows_hides_no_event() {
    let server = server::mariadb(&["innodb-flush-log-at-trx-commit=2"]);
    let mut beside = sqlx::MySqlConnection::connect(&server.url()).await.unwrap();
    beside.execute("SET GLOBAL sql_select_limit = 5").await.unwrap();
    let annals = Annals::open(&server.url()).await.unwrap();
    for _ in 0..20 {
        increase(&annals, "a", 1).await;
    }
    let delivered = Arc::new(Mutex::new(Vec::new()));
    let heard = delivered.clone();
    let subscriber = annals.subscribe("told").on(move |event: Recorded<CounterEvent>, _| {
        heard.lock().push(event.position().get());
        std::future::ready(Ok(()))
    });
    subscriber.start().await.unwrap();
    annals.settle().await.unwrap();
    let read = annals.store().log_events(Query::all()).await.unwrap().len();
    let sum = annals.repository::<Counter>().load("a").await.map(|loaded| loaded.state.sum);
    let delivered = delivered.lock().len();
    assert_eq!(
        (delivered, read, sum.unwrap()),
        (20, 20, 20),
        "events told, events read, sum of the aggregate"
    );
}
