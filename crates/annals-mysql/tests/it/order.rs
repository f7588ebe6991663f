//! G4 where it is hardest: commits that are held up, connections that are killed, several processes on one
//! log, and a subscriber who reads all the time. Nothing is skipped, nothing comes twice, nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Error, EventStore};
use annals_mysql::{MySqlStore, Options};
use annals_testkit::{hostile, outages};
use annals_testservers::kind::Kind;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::sync::Mutex;

use crate::support::{SETTINGS, connect, fresh_log};

on_each_server! {
    an_append_that_is_held_open_is_not_skipped,
    an_append_whose_connection_is_killed_leaves_no_hole,
    killed_connections_lose_nothing_and_do_nothing_twice,
    tables_are_made_once_by_many,
}

async fn open(url: &str) -> Arc<dyn EventStore> {
    Arc::new(MySqlStore::open(url, Options::default()).await.unwrap())
}

async fn open_three(url: &str) -> [Arc<dyn EventStore>; 3] {
    [open(url).await, open(url).await, open(url).await]
}

/// Begins an append by hand and leaves its transaction open, the event written and the position taken.
async fn hold_open(connection: &mut MySqlConnection) {
    let append = "START TRANSACTION;
        CALL append_begin('held-1', 0, NULL);
        INSERT INTO events (position, append_position, entity_type, entity_id, entity_version, event_id, event_type,
            schema_version, event_data, event_bytes, recorded_at, idempotency_key)
        VALUES (@annals_position + 1, @annals_position + 1, 'held', 'held-1', 1, x'0190d7c27b1c7e9c8f6e1d4b5e3a2c10',
            'thing.held', 1, '{}', 2, @annals_recorded, 'held');
        INSERT INTO entities VALUES ('held', 'held-1', 1, @annals_position + 1);
        UPDATE log SET position = @annals_position + 1";
    assert_eq!(connection.fetch_all(sqlx::raw_sql(append)).await.unwrap().len(), 1);
}

/// Waits until two writers of this log wait for its lock.
async fn until_two_wait(connection: &mut MySqlConnection) {
    let sql = "SELECT COUNT(*) FROM information_schema.innodb_trx AS t
        JOIN information_schema.processlist AS p ON p.id = t.trx_mysql_thread_id
        WHERE t.trx_state = 'LOCK WAIT' AND p.db = DATABASE()";
    // The server repeats its last answer to a question within a tenth of a second: one test asks at a time.
    static ASKING: Mutex<()> = Mutex::const_new(());
    let _alone = ASKING.lock().await;
    while sqlx::query(sql).fetch_one(&mut *connection).await.unwrap().get::<i64, _>(0) < 2 {
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// What the eight that wait get, when what was held open ends in this way.
async fn others_wait(
    kind: Kind,
    end: impl AsyncFnOnce(&mut MySqlConnection, &mut MySqlConnection),
    last: u64,
) -> Vec<u64> {
    let url = fresh_log(kind).await;
    let stores = open_three(&url).await;
    let (mut held, mut other, mut looking) = (connect(&url).await, connect(&url).await, connect(&url).await);
    let held = Mutex::new(&mut held);
    hostile::others_wait(
        stores,
        async || hold_open(*held.lock().await).await,
        async || until_two_wait(&mut looking).await,
        async || end(*held.lock().await, &mut other).await,
        last,
    )
    .await
}

/// G4: the append that began first comes first; the others wait, and the reader sees all of them.
async fn an_append_that_is_held_open_is_not_skipped(kind: Kind) {
    let end = async |held: &mut MySqlConnection, _: &mut MySqlConnection| {
        held.execute("COMMIT").await.unwrap();
    };
    assert_eq!(others_wait(kind, end, 10).await, [3, 4, 5, 6, 7, 8, 9, 10], "position 2 was held open");
}

/// G4: an append whose connection is killed leaves no hole.
async fn an_append_whose_connection_is_killed_leaves_no_hole(kind: Kind) {
    let end = async |held: &mut MySqlConnection, other: &mut MySqlConnection| {
        let id: i64 =
            sqlx::query("SELECT CAST(CONNECTION_ID() AS SIGNED)").fetch_one(held).await.unwrap().get(0);
        other.execute(AssertSqlSafe(format!("KILL {id}"))).await.unwrap();
    };
    assert_eq!(others_wait(kind, end, 9).await, [2, 3, 4, 5, 6, 7, 8, 9]);
}

/// Kills a connection that writes, a moment from now, if there is one; says how many.
async fn kill(connection: &mut MySqlConnection) -> usize {
    let sql = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist
        WHERE db = 'annals' AND id <> CONNECTION_ID() AND info REGEXP 'append_begin|FOR UPDATE|INTO events|INTO entities|UPDATE log|COMMIT' LIMIT 1";
    tokio::time::sleep(Duration::from_millis(5)).await;
    let Some(row) = sqlx::query(sql).fetch_optional(&mut *connection).await.unwrap() else { return 0 };
    let kill = format!("KILL {}", row.get::<i64, _>(0));
    // It may have ended by itself meanwhile.
    usize::from(connection.execute(AssertSqlSafe(kill)).await.is_ok())
}

/// G1, G4, G5: connections are killed while three processes write.
async fn killed_connections_lose_nothing_and_do_nothing_twice(kind: Kind) {
    // A server of its own: the killing is of every store on it.
    let server = kind.start(&SETTINGS);
    let mut connection = connect(&server.url()).await;
    let stores = open_three(&server.url()).await;
    let survived =
        hostile::nothing_is_lost_or_done_twice(&stores, 20, async || kill(&mut connection).await).await;
    println!("{survived:?}");
}

/// Two processes that open a database without tables at once make them once.
async fn tables_are_made_once_by_many(kind: Kind) {
    let alone = annals_mysql::migrate(&fresh_log(kind).await).await.unwrap();
    let url = fresh_log(kind).await;
    let migrate = || {
        let url = url.clone();
        async move { annals_mysql::migrate(&url).await }
    };
    outages::tables_are_made_once_by_many(migrate, alone).await;
    let mut connection = connect(&url).await;
    let logs = connection.fetch_one("SELECT COUNT(*) FROM log").await.unwrap().get::<i64, _>(0);
    assert_eq!(logs, 1);
    connection.execute("INSERT INTO migrations (step) VALUES (1000)").await.unwrap();
    let refused = MySqlStore::open(&url, Options::default()).await.err().unwrap();
    assert!(matches!(refused, Error::Invalid(_)), "{}", refused.chain());
}
