//! G4 where it is hardest: commits that are held up, backends that are killed, several processes on one log,
//! and a subscriber who reads all the time. Nothing is skipped, nothing comes twice, nothing is lost.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Error, EventStore};
use annals_postgres::{Options, PostgresStore};
use annals_testkit::{hostile, outages};
use annals_testservers::kind::Kind;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row};
use tokio::sync::Mutex;

use crate::support::{connect, fresh_log, schema_of};

on_each_server! {
    an_append_that_is_held_open_is_not_skipped,
    an_append_whose_backend_is_killed_leaves_no_hole,
    killed_backends_lose_nothing_and_do_nothing_twice,
    tables_are_made_once_by_many,
}

async fn open(url: &str) -> Arc<dyn EventStore> {
    Arc::new(PostgresStore::open(url, Options::default()).await.unwrap())
}

async fn open_three(url: &str) -> [Arc<dyn EventStore>; 3] {
    [open(url).await, open(url).await, open(url).await]
}

/// Begins an append by hand and leaves its transaction open, the event written and the position taken.
async fn hold_open(connection: &mut PgConnection) {
    let sql = "BEGIN; SELECT * FROM append_group(
        '{held-1}', '{0}', '{1}', '{held-1}', '{held}', '{1}', '{1}', ARRAY[gen_random_uuid()], '{thing.held}',
        '{1}', NULL, '{\"{}\"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        '{2017-04-15}', '{held}')";
    connection.execute(sql).await.unwrap();
}

/// Waits until two writers of this log wait for its lock.
async fn until_two_wait(connection: &mut PgConnection, blocker: i32) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'annals' AND wait_event_type = 'Lock'
        AND query LIKE '%append_group%' AND pid IN (
            WITH RECURSIVE waiting (pid) AS (
                SELECT pid FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))
                UNION
                SELECT a.pid FROM waiting AS w, pg_stat_activity AS a WHERE w.pid = ANY (pg_blocking_pids(a.pid))
            ) SELECT pid FROM waiting)";
    let count = async |connection: &mut PgConnection| {
        sqlx::query(sql).bind(blocker).fetch_one(connection).await.unwrap().get::<i64, _>(0)
    };
    while count(connection).await < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What the eight that wait get, when what was held open ends in this way.
async fn others_wait(
    kind: Kind,
    end: impl AsyncFnOnce(&mut PgConnection, &mut PgConnection),
    last: u64,
) -> Vec<u64> {
    let url = fresh_log(kind);
    let stores = open_three(&url).await;
    let (mut held, mut other, mut looking) = (connect(&url).await, connect(&url).await, connect(&url).await);
    let pid: i32 = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut held).await.unwrap().get(0);
    let held = Mutex::new(&mut held);
    hostile::others_wait(
        stores,
        async || hold_open(*held.lock().await).await,
        async || until_two_wait(&mut looking, pid).await,
        async || end(*held.lock().await, &mut other).await,
        last,
    )
    .await
}

/// G4: the append that began first comes first; the others wait, and the reader sees all of them.
async fn an_append_that_is_held_open_is_not_skipped(kind: Kind) {
    let end = async |held: &mut PgConnection, _: &mut PgConnection| {
        held.execute("COMMIT").await.unwrap();
    };
    assert_eq!(others_wait(kind, end, 10).await, [3, 4, 5, 6, 7, 8, 9, 10], "position 2 was held open");
}

/// G4: an append whose backend is killed leaves no hole.
async fn an_append_whose_backend_is_killed_leaves_no_hole(kind: Kind) {
    let end = async |held: &mut PgConnection, other: &mut PgConnection| {
        let pid: i32 = sqlx::query("SELECT pg_backend_pid()").fetch_one(held).await.unwrap().get(0);
        sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(other).await.unwrap();
    };
    assert_eq!(others_wait(kind, end, 9).await, [2, 3, 4, 5, 6, 7, 8, 9]);
}

/// Kills a backend that writes, a moment from now; says how many.
async fn kill(connection: &mut PgConnection) -> usize {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'annals' AND query LIKE '%append_group%' ORDER BY random() LIMIT 1";
    tokio::time::sleep(Duration::from_millis(15)).await;
    sqlx::query(sql).fetch_all(&mut *connection).await.unwrap().len()
}

/// G1, G4, G5: backends are killed while three processes write.
async fn killed_backends_lose_nothing_and_do_nothing_twice(kind: Kind) {
    // A server of its own: the killing is of every store on it.
    let server = kind.start_quick(&[]);
    let mut connection = connect(&server.url()).await;
    let stores = open_three(&server.url()).await;
    let survived =
        hostile::nothing_is_lost_or_done_twice(&stores, 20, async || kill(&mut connection).await).await;
    println!("{survived:?}");
}

/// Two processes that open a database without tables at once make them once.
async fn tables_are_made_once_by_many(kind: Kind) {
    let alone = annals_postgres::migrate(&fresh_log(kind)).await.unwrap();
    let url = fresh_log(kind);
    let migrate = || {
        let url = url.clone();
        async move { annals_postgres::migrate(&url).await }
    };
    outages::tables_are_made_once_by_many(migrate, alone).await;
    let mut connection = connect(&url).await;
    let logs = connection.fetch_one("SELECT count(*) FROM log").await.unwrap().get::<i64, _>(0);
    assert_eq!(logs, 1);
    let newer = format!("INSERT INTO {}.migrations (step) VALUES (1000)", schema_of(&url));
    connection.execute(AssertSqlSafe(newer)).await.unwrap();
    let refused = PostgresStore::open(&url, Options::default()).await.err().unwrap();
    assert!(matches!(refused, Error::Invalid(_)), "{}", refused.chain());
}
