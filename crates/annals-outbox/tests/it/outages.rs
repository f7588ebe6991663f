//! The database goes away under a publisher, and comes back.

use std::collections::HashSet;
use std::time::Duration;

use annals_outbox::{Options, Outbox, Pool};
use annals_testservers::kind::Kind;
use annals_testservers::proxy::Proxy;
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;

use crate::support::{Place, Taker, assert_in_order, options};

/// The same outbox on a pool that makes no caller wait for a connection: one that would have to gets an error
/// soon that the server is away.
fn impatient(place: &Place) -> Outbox {
    let patience = Duration::from_millis(300);
    let pool: Pool = match &place.pool {
        Pool::Postgres(pool) => PgPoolOptions::new()
            .acquire_timeout(patience)
            .connect_lazy_with((*pool.connect_options()).clone())
            .into(),
        Pool::MySql(pool) => MySqlPoolOptions::new()
            .acquire_timeout(patience)
            .connect_lazy_with((*pool.connect_options()).clone())
            .into(),
        other => panic!("{other:?} has no server"),
    };
    Outbox::named(pool, &place.name).unwrap()
}

/// Writers that write all the time, as far as they can; the server crashes and is started again. What was
/// committed comes.
pub async fn an_outage_is_survived(place: Place) {
    let mut server = place.kind().start_quick(&[]);
    let place = Place::new(&server.url(), None).await;
    let taker = Taker::new();
    let publisher = impatient(&place).publisher(taker.clone()).options(options()).start().await.unwrap();
    let mut known = HashSet::new();
    for round in 0..3 {
        for order in 0..20 {
            known.insert(place.write(&(order % 4).to_string(), "order.changed").await.id);
        }
        if round == 0 {
            taker.count(20).await;
        }
        if round < 2 {
            if round == 0 {
                server.stop()
            } else {
                server.crash()
            }
            crate::support::until("it is noticed", async || publisher.health().problem.is_some()).await;
            server.start();
        }
    }
    let taken =
        taker.until(|taken| known.iter().all(|id| taken.iter().any(|message| message.id == *id))).await;
    publisher.stop().await;
    assert_in_order(&taken);
    let ids: HashSet<_> = taken.iter().map(|message| message.id).collect();
    assert_eq!(ids, known);
    assert_eq!(place.outbox.status().await.unwrap().pending, 0);
}

/// A server that falls silent, on connections that stay open: the publisher says so, and publishes when it is
/// back. Whether a connection is alive is not asked before it is used, as many services have it.
pub async fn a_silent_database_is_noticed(place: Place) {
    let proxy = Proxy::to(&place.url);
    let pool: Pool = match Pool::connect(proxy.url()).await.unwrap() {
        Pool::Postgres(pool) => PgPoolOptions::new()
            .max_connections(2)
            .test_before_acquire(false)
            .connect_lazy_with((*pool.connect_options()).clone())
            .into(),
        Pool::MySql(pool) => MySqlPoolOptions::new()
            .max_connections(2)
            .test_before_acquire(false)
            .connect_lazy_with((*pool.connect_options()).clone())
            .into(),
        other => panic!("{other:?} has no server"),
    };
    let outbox = Outbox::named(pool, &place.name).unwrap();
    let taker = Taker::new();
    let publisher = outbox.publisher(taker.clone()).options(options()).start().await.unwrap();
    place.write("1", "order.placed").await;
    taker.count(1).await;
    proxy.fall_silent();
    crate::support::until("it is noticed", async || publisher.health().problem.is_some()).await;
    assert!(outbox.status().await.is_err(), "the status cannot be read");
    proxy.recover();
    place.write("1", "order.changed").await;
    taker.count(2).await;
    publisher.stop().await;
    assert_eq!(outbox.status().await.unwrap().pending, 0);
}

/// The connection that listens falls silent, and no other: messages go out by looking, and it is made again
/// without a stop.
pub async fn a_silent_listener_is_replaced_and_holds_up_nothing(place: Place) {
    // The publisher has a pool of its own, all of whose connections are there before it listens through the
    // proxy: no other falls silent.
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(4).connect(&place.url).await.unwrap();
    let mut warm = Vec::new();
    for _ in 0..4 {
        warm.push(pool.acquire().await.unwrap());
    }
    drop(warm);
    let outbox = annals_outbox::Outbox::named(Pool::Postgres(pool.clone()), &place.name).unwrap();
    let trigger = include_str!("../../sql/postgres_notify.sql").replace("outbox", &place.name);
    sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(&pool).await.unwrap();
    let proxy = Proxy::to(&place.url);
    let listens = format!("SELECT COUNT(*) FROM pg_stat_activity WHERE query = 'LISTEN \"{}\"'", place.name);
    for poll in [Duration::from_millis(100), Duration::from_secs(100_000)] {
        // It listens where the pool connects to when it is started.
        pool.set_connect_options(proxy.url().parse().unwrap());
        let taker = Taker::new();
        let publisher = outbox.publisher(taker.clone());
        let publisher = publisher.options(Options { poll, ..options() }).start().await.unwrap();
        pool.set_connect_options(place.url.parse().unwrap());
        crate::support::until("it listens", async || place.number(&listens).await == 1).await;
        place.write("1", "order.placed").await;
        taker.count(1).await;
        proxy.silence_open();
        if poll < Duration::from_secs(1) {
            place.write("1", "order.changed").await;
            taker.count(2).await;
        } else {
            // The server knows nothing of the silence, so the first connection is still there.
            crate::support::until("it listens again", async || place.number(&listens).await == 2).await;
            place.write("1", "order.changed").await;
            taker.count(2).await;
        }
        publisher.stop().await;
        // What is silent ends when the network says so.
        proxy.cut();
        crate::support::until("it listens no more", async || place.number(&listens).await == 0).await;
    }
}

#[tokio::test]
async fn a_database_that_accepts_and_says_nothing_is_not_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for scheme in ["postgres", "mysql"] {
        let url = format!("{scheme}://kim:s3cret@{}/shop?", listener.local_addr().unwrap());
        let connected = tokio::time::timeout(Duration::from_secs(120), Pool::connect(&url));
        let refused = connected.await.expect("it ends").unwrap_err();
        assert!(!format!("{refused:?}").contains("s3cret"), "{refused:?}");
    }
}

/// A server on which nothing is committed that no COMMIT commits.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_marked_without_autocommit() {
    let server = annals_testservers::server::mariadb(&["autocommit=0", "innodb-flush-log-at-trx-commit=2"]);
    let place = crate::support::Place::new(&server.url(), None).await;
    for order in ["1", "2", "3"] {
        place.write(order, "order.placed").await;
    }
    let mut taken = Vec::new();
    for _ in 0..2 {
        let taker = crate::support::Taker::new();
        let publisher =
            place.outbox.publisher(taker.clone()).options(crate::support::options()).start().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        drop(publisher);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        taken.push(taker.taken().len());
    }
    let other = crate::support::Place::at(&server.url(), &place.name).await;
    let marked = other.number("SELECT COUNT(*) FROM outbox WHERE processed = TRUE").await;
    assert_eq!((taken, marked), (vec![3, 0], 3), "published by the one and the next, and marked");
}

/// What is asked of an outbox and given up leaves no transaction open: the connections are the caller's.
pub async fn an_abandoned_query_leaves_no_transaction_open(place: Place) {
    let is_open = match place.kind() {
        Kind::Postgres | Kind::NewestPostgres => {
            "SELECT CASE WHEN now() = statement_timestamp() THEN 0 ELSE 1 END::int8"
        }
        Kind::MariaDb | Kind::NewestMariaDb => "SELECT CAST(@@in_transaction AS SIGNED)",
        // It does not say so of the session, but of those that have written or locked.
        Kind::MySql => {
            "SELECT COUNT(*) FROM performance_schema.events_transactions_current AS t \
             JOIN performance_schema.threads AS h ON h.thread_id = t.thread_id \
             WHERE h.processlist_id = CONNECTION_ID() AND t.state = 'ACTIVE' AND t.autocommit = 'NO'"
        }
    };
    for micros in 0..600 {
        let asked = tokio::time::timeout(std::time::Duration::from_micros(5 * micros), place.outbox.status());
        let _ = asked.await;
        for _ in 0..3 {
            assert_eq!(place.number(is_open).await, 0, "given up after {} microseconds", 5 * micros);
        }
    }
}
