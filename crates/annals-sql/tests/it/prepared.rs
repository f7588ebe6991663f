//! How many prepared statements a process keeps on a server of MariaDB, which has a limit for all of its
//! clients together.

use annals::contract::LogRead;
use annals::{Position, Query, Tag};
use annals_testservers::server;
use sqlx::{Connection, Executor, Row};

/// Of the 16,382 that a server allows by default, so that a hundred processes have room.
const FAIR: i64 = 160;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_keeps_few_prepared_statements_whatever_it_asks() {
    let server = server::mariadb(&["innodb-flush-log-at-trx-commit=2"]);
    let store = annals::open_store(&server.url().parse().unwrap()).await.unwrap();
    let any_of = |tags: usize| {
        let tags = (0..tags).flat_map(|tag| Query::tags([Tag::new(format!("seat:{tag}")).unwrap()]).items);
        Query { items: tags.collect() }
    };
    // Baskets of one to a hundred seats, as eight clients ask for them at a time.
    let asked = (0..800).map(|number| {
        let (store, query) = (store.clone(), any_of(number / 8 + 1));
        tokio::spawn(async move {
            store.read_log(LogRead::forward(Position::FIRST).matching(query)).await.unwrap();
        })
    });
    for one in asked.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    let mut beside = sqlx::MySqlConnection::connect(&server.url()).await.unwrap();
    let sql = "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status
        WHERE variable_name = 'PREPARED_STMT_COUNT'";
    let kept: i64 = beside.fetch_one(sql).await.unwrap().get(0);
    assert!(kept <= FAIR, "{kept} prepared statements for one process that only reads");
}
