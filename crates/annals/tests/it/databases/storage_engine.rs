//! MariaDB with a default storage engine that knows no transactions.

use std::sync::atomic::Ordering;
use std::time::Duration;

use annals::Annals;
use annals_testservers::server;

use crate::databases::counter::{QUICKLY, Sums, increase, sum};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tables_of_a_projection_are_transactional_whatever_the_server_prefers() {
    let server = server::mariadb(&["default-storage-engine=Aria", "innodb-flush-log-at-trx-commit=2"]);
    let annals = Annals::open(&server.url()).await.unwrap();
    let sums = Sums::<1>::default();
    let superstitious = sums.superstitious.clone();
    superstitious.store(true, Ordering::SeqCst);
    annals.project(sums).retry(QUICKLY).start().await.unwrap();
    // Its rows are changed, then it fails, again and again; then it is taken.
    let position = increase(&annals, "a", 13).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    superstitious.store(false, Ordering::SeqCst);
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((13, 1)), "sum, and events that it is made of");
}
