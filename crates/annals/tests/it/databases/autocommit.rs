//! MariaDB with `autocommit=0`: what is not committed by a COMMIT is rolled back.

use std::time::Duration;

use annals::{Annals, Append, Expected, NewEvent, StreamId, Tenants};
use annals_testservers::server;
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::databases::counter::{Sums, increase};

const SETTINGS: [&str; 2] = ["autocommit=0", "innodb-flush-log-at-trx-commit=2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_are_made_on_a_server_that_does_not_commit_by_itself() {
    let server = server::mariadb(&SETTINGS);
    let annals = Annals::open(&server.url()).await.unwrap();
    annals.project(Sums::<1>::default()).start().await.unwrap();
    let position = increase(&annals, "a", 5).await;
    let view = annals.view::<Sums<1>>().at_least(position).within(Duration::from_secs(20));
    let seen = view.one("SELECT amount FROM sums", (), |row| row.read::<(u64,)>()).await;
    assert_eq!(seen.map_err(|error| error.to_string()), Ok(Some((5,))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_that_is_moved_to_such_a_server_keeps_its_identity() {
    let server = server::mariadb(&SETTINGS);
    let mut beside = sqlx::MySqlConnection::connect(&server.url()).await.unwrap();
    for name in ["directory", "one", "two"] {
        beside.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    }
    let url = server.url();
    let at = |name: &str| format!("{}/{name}", url.rsplit_once('/').unwrap().0);
    let tenants = Tenants::open(&at("directory")).await.unwrap();
    tenants.add("acme", &at("one")).await.unwrap();
    let log = tenants.log("acme").await.unwrap();
    let event = NewEvent::new("thing.done", "{}").unwrap();
    log.append(Append::to(StreamId::new("thing-1").unwrap(), Expected::Any, [event])).await.unwrap();
    tenants.move_to("acme", &at("two"), |_| {}).await.unwrap();
    let moved = annals::open_store(&at("two").parse().unwrap()).await.unwrap();
    assert_eq!(moved.id(), log.id());
}
