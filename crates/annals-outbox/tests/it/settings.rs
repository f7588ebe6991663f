//! Servers and sessions that are set otherwise: the pool is the caller's, and nothing is set on its
//! connections.

use std::time::Duration;

use annals_testservers::server::{self, Server};

use crate::support::{Place, Taker, options, until};

/// What is published is marked, refused, held, let go and deleted under these settings; a second publisher
/// finds nothing left.
async fn all_is_done(server: &Server) {
    let place = Place::new(&server.url(), None).await;
    for order in ["1", "2", "3"] {
        place.write(order, "order.placed").await;
        place.write(order, "order.paid").await;
    }
    let good = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let taker = Taker::judging({
        let good = good.clone();
        move |message| match message.aggregate_id.as_str() {
            "2" if !good.load(std::sync::atomic::Ordering::SeqCst) => crate::support::Verdict::Refuse,
            _ => crate::support::Verdict::Take,
        }
    });
    let quick = annals_outbox::Options { attempts_max: 2, keep: Duration::from_millis(1), ..options() };
    let publisher = place.outbox.publisher(taker.clone()).options(quick).start().await.unwrap();
    taker.count(4).await;
    until("it is a dead letter", async || place.outbox.status().await.unwrap().dead_letters == 1).await;
    good.store(true, std::sync::atomic::Ordering::SeqCst);
    let letter = place.outbox.dead_letters(10).await.unwrap().remove(0);
    place.outbox.retry(letter.message.id).await.unwrap();
    taker.count(6).await;
    publisher.stop().await;
    assert_eq!(place.outbox.status().await.unwrap().lease, None, "the lease is given back");
    // Seen by others: what is not committed is not.
    let other = Place::at(&server.url(), &place.name).await;
    assert_eq!(other.number("SELECT COUNT(*) FROM outbox WHERE processed = FALSE").await, 0);
    let taker = Taker::new();
    let again = other.outbox.publisher(taker.clone()).options(quick).start().await.unwrap();
    until("what was published is deleted", async || other.number("SELECT COUNT(*) FROM outbox").await == 0)
        .await;
    again.stop().await;
    assert_eq!(taker.taken().len(), 0, "nothing comes again");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_done_on_a_mariadb_that_is_set_otherwise() {
    all_is_done(&server::mariadb(&[
        "autocommit=0",
        "completion-type=CHAIN",
        "innodb-flush-log-at-trx-commit=2",
        "innodb-force-primary-key=1",
        "init-connect=SET SESSION sql_safe_updates=1, sql_select_limit=1, sql_mode=''",
        "transaction-isolation=SERIALIZABLE",
    ]))
    .await;
}

/// PostgreSQL refuses to change rows of a table that is published and has no key.
#[tokio::test(flavor = "multi_thread")]
async fn all_is_done_on_a_postgres_that_is_set_otherwise() {
    let server = server::newest_postgres(&[
        "fsync=off",
        "wal_level=logical",
        "default_transaction_isolation=serializable",
    ]);
    let place = Place::new(&server.url(), None).await;
    place.run("CREATE PUBLICATION everything FOR ALL TABLES").await;
    all_is_done(&server).await;
}

/// Only what the service does itself must say that it writes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_marked_where_transactions_are_for_reading() {
    let server = server::newest_postgres(&["fsync=off"]);
    let place = Place::new(&server.url(), None).await;
    place.write("1", "order.placed").await;
    place.run("ALTER DATABASE postgres SET default_transaction_read_only = on").await;
    let other = Place::at(&server.url(), &place.name).await;
    let taker = Taker::new();
    let publisher = other.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    until("it is marked", async || {
        other.number("SELECT COUNT(*) FROM outbox WHERE processed = TRUE").await == 1
    })
    .await;
    publisher.stop().await;
}

/// A transaction that is rolled back leaves no message.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_not_published_where_it_can_be_read() {
    let server =
        server::mariadb(&["transaction-isolation=READ-UNCOMMITTED", "innodb-flush-log-at-trx-commit=2"]);
    let place = Place::new(&server.url(), None).await;
    let mut transaction = place.begin().await;
    transaction.write(&place.outbox, &crate::support::about("1", "order.placed")).await.unwrap();
    let taker = Taker::new();
    let publisher = place.outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    place.write("2", "order.placed").await;
    taker.count(1).await;
    place.write("3", "order.placed").await;
    let taken = taker.count(2).await;
    transaction.rollback().await;
    publisher.stop().await;
    assert!(taken.iter().all(|message| message.aggregate_id != "1"), "{taken:?}");
}
