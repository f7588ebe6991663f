//! Callers that go away: what the server does for them is ended there too.

use std::sync::Arc;
use std::time::Duration;

use annals::contract::LogRead;
use annals::{Append, Error, EventStore, EventStoreExt, Expected, NewEvent, Position, Query, StreamId, Tag};
use annals_mysql::MySqlStore;
use annals_postgres::PostgresStore;
use annals_testservers::proxy::Proxy;
use annals_testservers::server::{self, Server};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Executor, Row};

use annals_testservers::place::Place;

/// So long that nothing ends by itself while a test runs.
const PATIENCE: Duration = Duration::from_secs(600);
/// Ends a test in which nothing is ended.
const HANG: Duration = Duration::from_secs(120);

annals_testservers::on_each_database! {
    a_read_whose_caller_has_gone_is_ended,
    an_append_whose_caller_has_gone_is_ended,
    a_read_is_ended_although_no_more_connections_are_let_in,
    a_group_of_which_a_caller_waits_is_written,
}

async fn open(place: &Place) -> Arc<dyn EventStore> {
    open_at(place, &place.url).await
}

/// The log of this place, by an address that leads there; it waits for everything for as long as it takes.
pub async fn open_at(place: &Place, url: &str) -> Arc<dyn EventStore> {
    if place.is_postgres() {
        let options = annals_postgres::Options { patience: PATIENCE, ..Default::default() };
        Arc::new(PostgresStore::open(url, options).await.unwrap())
    } else {
        let options = annals_mysql::Options { patience: PATIENCE, ..Default::default() };
        Arc::new(MySqlStore::open(url, options).await.unwrap())
    }
}

/// How many connections of the role of this place the server has.
pub async fn connections(place: &Place) -> i64 {
    let sql = if place.is_postgres() {
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", place.name)
    } else {
        format!("SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{}'", place.name)
    };
    place.beside().await.number(&sql).await
}

/// How many statements of the role of this place the server executes.
async fn statements(place: &Place) -> i64 {
    let sql = if place.is_postgres() {
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND state = 'active'", place.name)
    } else {
        let of_role = format!("user = '{}' AND command = 'Query'", place.name);
        format!("SELECT COUNT(*) FROM information_schema.processlist WHERE {of_role}")
    };
    place.beside().await.number(&sql).await
}

async fn until(place: &Place, wanted: i64) {
    let reached = async {
        while statements(place).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(HANG, reached).await;
    assert!(in_time.is_ok(), "{} statements, should be {wanted}", statements(place).await);
}

fn append(stream: &str) -> Append {
    let event = NewEvent::new("thing.done", "{}").unwrap();
    Append::to(StreamId::new(stream).unwrap(), Expected::Any, [event])
}

/// Locks the events, so that everybody waits.
async fn lock(place: &Place) -> annals_testservers::place::Beside {
    let mut holder = place.beside().await;
    if place.is_postgres() {
        holder.run(&format!("BEGIN; LOCK TABLE {}.events IN ACCESS EXCLUSIVE MODE", place.name)).await;
    } else {
        holder.run(&format!("LOCK TABLES {}.events WRITE", place.name)).await;
    }
    holder
}

async fn a_read_whose_caller_has_gone_is_ended(place: Place) {
    let store = open(&place).await;
    store.append(append("thing-1")).await.unwrap();
    let _holder = lock(&place).await;
    let reads: Vec<_> = (0..3)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.read_log(LogRead::forward(Position::FIRST)).await })
        })
        .collect();
    until(&place, 3).await;
    for read in reads {
        read.abort();
    }
    until(&place, 0).await;
}

/// All connections that a role may have are taken, by statements that nobody waits for.
async fn a_read_is_ended_although_no_more_connections_are_let_in(place: Place) {
    let store = open(&place).await;
    store.append(append("thing-1")).await.unwrap();
    let _holder = lock(&place).await;
    let read = || {
        let store = store.clone();
        tokio::spawn(async move { store.read_log(LogRead::forward(Position::FIRST)).await })
    };
    let reads: Vec<_> = (0..3).map(|_| read()).collect();
    until(&place, 3).await;
    // The writer, those that read, the one that ends what they do, and on PostgreSQL the one that listens.
    let all = if place.is_postgres() { 6 } else { 5 };
    let made = async {
        while connections(&place).await != all {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(HANG, made).await;
    assert!(in_time.is_ok(), "{} connections, should be {all}", connections(&place).await);
    let limit = match place.is_postgres() {
        true => format!("ALTER ROLE {} CONNECTION LIMIT {all}", place.name),
        false => format!("ALTER USER {} WITH MAX_USER_CONNECTIONS {all}", place.name),
    };
    place.beside().await.run(&limit).await;
    for read in reads {
        read.abort();
    }
    until(&place, 0).await;
}

/// Its sessions are those of the role that has logged in.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_read_of_a_role_that_acts_as_another_is_ended() {
    let place = Place::postgres().await;
    place.act_as_another().await;
    a_read_whose_caller_has_gone_is_ended(place).await;
}

async fn an_append_whose_caller_has_gone_is_ended(place: Place) {
    let store = open(&place).await;
    store.append(append("thing-1")).await.unwrap();
    for conditional in [false, true] {
        let holder = lock(&place).await;
        let mut append = append("thing-1");
        if conditional {
            append = append.unless(Query::tags([Tag::new("a").unwrap()]), Position::ZERO);
        }
        let appending = tokio::spawn({
            let store = store.clone();
            async move { store.append(append).await }
        });
        until(&place, 1).await;
        appending.abort();
        until(&place, 0).await;
        drop(holder);
        assert_eq!(store.log_events(Query::all()).await.unwrap().len(), 1, "it was written for nobody");
    }
    // The log is free, and the store as good as before.
    store.append(append_of_two()).await.unwrap();
}

fn append_of_two() -> Append {
    let events = (0..2).map(|_| NewEvent::new("thing.done", "{}").unwrap());
    Append::to(StreamId::new("thing-2").unwrap(), Expected::NoStream, events)
}

async fn a_group_of_which_a_caller_waits_is_written(place: Place) {
    let store = open(&place).await;
    store.append(append("thing-1")).await.unwrap();
    let mut holder = lock(&place).await;
    let appending: Vec<tokio::task::JoinHandle<Result<_, Error>>> = (0..8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.append(append(&format!("thing-{number}"))).await })
        })
        .collect();
    until(&place, 1).await;
    let mut appending = appending.into_iter();
    let kept = appending.next_back().unwrap();
    appending.for_each(|gone| gone.abort());
    holder.run(if place.is_postgres() { "ROLLBACK" } else { "UNLOCK TABLES" }).await;
    tokio::time::timeout(HANG, kept).await.expect("it is written").unwrap().unwrap();
}

/// A session of this server, and its number.
async fn session(server: &Server) -> (MySqlConnection, u64) {
    let mut session = MySqlConnection::connect(&server.url()).await.unwrap();
    let number = session.fetch_one("SELECT CONNECTION_ID()").await.unwrap().get(0);
    (session, number)
}

/// How many sessions a server has had.
async fn sessions(on: &mut MySqlConnection) -> u64 {
    let status = on.fetch_one("SHOW GLOBAL STATUS LIKE 'Connections'").await.unwrap();
    status.get::<String, _>(1).parse().unwrap()
}

/// After a failover the address leads to a server that has given the number to a session of somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_of_another_server_is_not_ended() {
    let settings = ["innodb-flush-log-at-trx-commit=2"];
    let (server, other) = (server::mariadb(&settings), server::mariadb(&settings));
    let (_, taken) = session(&other).await;
    while session(&server).await.1 < taken + 10 {}
    let address = Proxy::to(&server.url());
    let store = Arc::new(MySqlStore::open(address.url(), Default::default()).await.unwrap());
    store.append(append("thing-1")).await.unwrap();
    let (mut holder, _) = session(&server).await;
    holder.execute("LOCK TABLES annals.events WRITE").await.unwrap();
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.read_log(LogRead::forward(Position::FIRST)).await }
    });
    let number = loop {
        let waits = "SELECT CAST(id AS UNSIGNED) FROM information_schema.processlist \
            WHERE command = 'Query' AND id <> CONNECTION_ID()";
        if let Some(waiting) = holder.fetch_optional(waits).await.unwrap() {
            break waiting.get::<u64, _>(0);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut stranger = loop {
        let (stranger, at) = session(&other).await;
        assert!(at <= number, "session {at} of the other server");
        if at == number {
            break stranger;
        }
    };
    let (mut looking, _) = session(&other).await;
    let before = sessions(&mut looking).await;
    address.lead_to(&other.url());
    // The connection that is kept for this is lost with the server.
    let idle = "SELECT CAST(id AS UNSIGNED) FROM information_schema.processlist \
        WHERE command = 'Sleep' AND user = 'annals' AND id <> CONNECTION_ID()";
    for row in holder.fetch_all(idle).await.unwrap() {
        let kill = format!("KILL {}", row.get::<u64, _>(0));
        // It may have ended by itself.
        let _ = holder.execute(sqlx::AssertSqlSafe(kill)).await;
    }
    reading.abort();
    let tried = async {
        while sessions(&mut looking).await == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The session that came has asked.
        let asks = "SELECT COUNT(*) FROM information_schema.processlist \
            WHERE user = 'annals' AND command = 'Query' AND id <> CONNECTION_ID()";
        while looking.fetch_one(asks).await.unwrap().get::<i64, _>(0) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HANG, tried).await.expect("the other server is asked to end it");
    stranger.execute("SELECT 1").await.expect("the session of somebody else is ended");
}
