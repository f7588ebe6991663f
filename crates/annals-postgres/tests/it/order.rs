//! G4 where it is hardest: commits that are held up, backends that are killed, several processes on one log, and a
//! subscriber who reads all the time. Nothing is skipped, nothing comes twice, nothing is lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use annals_core::{
    Append, Appended, Error, EventStore, EventStoreExt, Expected, IdempotencyKey, NewEvent, Position, Query,
    StreamId, Subscription,
};
use annals_postgres::{Options, PostgresStore};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::support::{Which, connect, fresh_log, schema_of};

async fn open(url: &str) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(url, Options::default()).await.unwrap())
}

fn append(stream: &str, key: &str) -> Append {
    let noted = NewEvent::new("thing.noted", "{}").unwrap();
    Append::to(StreamId::new(stream).unwrap(), Expected::Any, [noted]).once(IdempotencyKey::new(key).unwrap())
}

/// Follows the log from its beginning through whatever happens, until it has seen this position.
async fn follow(store: Arc<PostgresStore>, until: Position) -> Vec<Position> {
    let mut subscription = Subscription::new(store, Position::ZERO, Query::all()).page_limit(3);
    let mut seen = Vec::new();
    while seen.last() != Some(&until) {
        match subscription.next().await {
            Ok(event) => seen.push(event.position),
            Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{}", error.chain()),
        }
    }
    seen
}

fn all_up_to(head: u64) -> Vec<Position> {
    (1..=head).map(Position::new).collect()
}

/// Begins an append by hand and leaves its transaction open, the event written and the position taken.
async fn hold_open(connection: &mut PgConnection) {
    let sql = "BEGIN; SELECT * FROM append_group(
        '{held-1}', '{held}', '{0}', '{1}', '{1}', '{1}', '{1}', '{1}', ARRAY[gen_random_uuid()], '{thing.held}',
        '{1}', '{NULL}', '{\"{}\"}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}',
        '{2017-04-15}', '{held}')";
    connection.execute(sql).await.unwrap();
}

/// Waits until that many others wait for the lock of this log.
async fn until_waiting(connection: &mut PgConnection, count: i64) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'annals'";
    while sqlx::query(sql).fetch_one(&mut *connection).await.unwrap().get::<i64, _>(0) < count {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Two processes append while the append of a third is held open, and a subscriber reads. `end` ends the third.
async fn others_wait(
    end: impl AsyncFnOnce(&mut PgConnection, &mut PgConnection),
) -> (Vec<Appended>, Vec<Position>) {
    let url = fresh_log(Which::Oldest);
    let stores = [open(&url).await, open(&url).await];
    let reader = open(&url).await;
    let first = reader.append(append("a-1", "first")).await.unwrap();
    assert_eq!(first.last, Position::FIRST);
    let (mut held, mut other) = (connect(&url).await, connect(&url).await);
    hold_open(&mut held).await;
    let writers: Vec<_> = (0..8)
        .map(|number| {
            let store = stores[number % 2].clone();
            let append = append(&format!("b-{number}"), &format!("key-{number}"));
            tokio::spawn(async move { store.append(append).await.unwrap() })
        })
        .collect();
    until_waiting(&mut other, 2).await;
    assert_eq!(reader.head().await.unwrap(), Position::FIRST, "what is not committed does not show");
    assert_eq!(reader.log_events(Query::all()).await.unwrap().len(), 1);
    let following = tokio::spawn(follow(reader.clone(), Position::new(9)));
    end(&mut held, &mut other).await;
    let mut done = Vec::new();
    for writer in writers {
        done.push(writer.await.unwrap());
    }
    done.sort_by_key(|appended| appended.first);
    (done, following.await.unwrap())
}

/// G4: whoever began first comes first; the others wait, and the reader sees all of them.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_held_open_is_not_skipped() {
    let (done, seen) = others_wait(async |held, _| drop(held.execute("COMMIT").await.unwrap())).await;
    let positions: Vec<_> = done.iter().map(|appended| appended.first.get()).collect();
    assert_eq!(positions, [3, 4, 5, 6, 7, 8, 9, 10], "the one that was held open has position 2");
    assert_eq!(seen, all_up_to(9));
}

/// G4: an append whose backend is killed leaves no hole.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_backend_is_killed_leaves_no_hole() {
    let (done, seen) = others_wait(async |held, other| {
        let pid: i32 = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut *held).await.unwrap().get(0);
        sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&mut *other).await.unwrap();
    })
    .await;
    let positions: Vec<_> = done.iter().map(|appended| appended.first.get()).collect();
    assert_eq!(positions, [2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(seen, all_up_to(9));
}

const WRITERS: usize = 12;
const APPENDS: usize = 40;

/// Appends with a key until it is known what became of it; counts the answers that say that it is not.
async fn persist(store: &PostgresStore, append: &Append, unknown: &AtomicUsize) -> Appended {
    loop {
        match store.append(append.clone()).await {
            Ok(appended) => return appended,
            Err(Error::Indeterminate(_)) => drop(unknown.fetch_add(1, Ordering::Relaxed)),
            Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{}", error.chain()),
        }
    }
}

/// Kills backends of this log's stores, one after the other, until it is told to stop; says how many.
async fn kill(url: String, stop: Arc<AtomicBool>) -> usize {
    let mut connection = connect(&url).await;
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE application_name = 'annals' AND query LIKE '%append_group%' AND pid <> pg_backend_pid()
        ORDER BY random() LIMIT 1";
    let mut killed = 0;
    while !stop.load(Ordering::Relaxed) {
        killed += sqlx::query(sql).fetch_all(&mut connection).await.unwrap().len();
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    killed
}

/// G1, G4, G5: backends are killed while three processes write, and each append is sent again until it is answered:
/// what was acknowledged is there, once, where it was said to be, and a subscriber has seen all of it in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_backends_lose_nothing_and_do_nothing_twice() {
    // A server of its own: the killing is of every store on it.
    let server = annals_testkit::server::newest_postgres(&["fsync=off"]);
    let url = server.url();
    let stores = [open(&url).await, open(&url).await, open(&url).await];
    let (stop, unknown) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let total = (WRITERS * APPENDS) as u64;
    let following = tokio::spawn(follow(open(&url).await, Position::new(total)));
    let killing = tokio::spawn(kill(url.clone(), stop.clone()));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, unknown) = (stores[writer % stores.len()].clone(), unknown.clone());
            tokio::spawn(async move {
                let mut done = Vec::new();
                for number in 0..APPENDS {
                    let append = append(&format!("a-{writer}"), &format!("{writer}/{number}"));
                    done.push((format!("{writer}/{number}"), persist(&store, &append, &unknown).await));
                }
                done
            })
        })
        .collect();
    let mut done = Vec::new();
    for writer in writers {
        done.extend(writer.await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    let killed = killing.await.unwrap();
    println!("{killed} backends killed, {} outcomes unknown", unknown.load(Ordering::Relaxed));
    assert!(killed > 0, "the writers were done before anybody was killed");
    let log = open(&url).await.log_events(Query::all()).await.unwrap();
    assert_eq!(log.len() as u64, total);
    for (key, appended) in &done {
        let event = &log[usize::try_from(appended.first.get()).unwrap() - 1];
        assert_eq!(event.idempotency_key.as_ref().map(IdempotencyKey::as_str), Some(key.as_str()));
        assert_eq!((event.position, event.version), (appended.first, appended.version()));
    }
    let keys: HashSet<_> = log.iter().map(|event| event.idempotency_key.clone()).collect();
    assert_eq!(keys.len() as u64, total, "nothing is there twice");
    assert_eq!(following.await.unwrap(), all_up_to(total));
}

/// Two processes that open a database without tables at once make them once.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_made_once_by_many() {
    let url = fresh_log(Which::Newest);
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { annals_postgres::migrate(&url).await.unwrap() })
        })
        .collect();
    let mut steps = Vec::new();
    for opened in opening {
        steps.push(opened.await.unwrap());
    }
    assert_eq!(steps.iter().filter(|missing| **missing > 0).count(), 1, "{steps:?}");
    let mut connection = connect(&url).await;
    let logs = connection.fetch_one("SELECT count(*) FROM log").await.unwrap().get::<i64, _>(0);
    assert_eq!(logs, 1);
    let newer = format!("INSERT INTO {}.migrations (step) VALUES (1000)", schema_of(&url));
    connection.execute(AssertSqlSafe(newer)).await.unwrap();
    let refused = PostgresStore::open(&url, Options::default()).await.err().unwrap();
    assert!(matches!(refused, Error::Invalid(_)), "{}", refused.chain());
}
