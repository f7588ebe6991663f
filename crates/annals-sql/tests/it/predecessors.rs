//! The index of predecessors: a log of an earlier version has none, answers everything else, and gets it by a
//! migration only, while it is in use.

use std::sync::Arc;
use std::time::Duration;

use annals::{Append, EventStore, EventStoreExt, Expected, NewEvent, Query, StreamId};

use annals_testservers::place::{Beside, Place};

annals_testservers::on_each_database! {
    a_log_of_an_earlier_version_gets_the_index_by_a_migration_only,
    a_killed_migration_is_repeated_and_appends_continue_meanwhile,
    several_migrate_at_once,
}

fn caused(stream: &str, predecessor: &str) -> Append {
    let mut event = NewEvent::new("thing.done", "{}").unwrap();
    event.metadata.predecessor = Some(predecessor.into());
    Append::to(StreamId::new(stream).unwrap(), Expected::Any, [event])
}

async fn open(place: &Place) -> Arc<dyn EventStore> {
    annals::open_store(&place.url.parse().unwrap()).await.unwrap_or_else(|error| panic!("{}", error.chain()))
}

async fn migrate(place: &Place) -> annals::Result<usize> {
    match place.is_postgres() {
        true => annals_postgres::migrate(&place.url).await,
        false => annals_mysql::migrate(&place.url).await,
    }
}

/// The log as the version before would have made it, with three events.
async fn older(place: &Place) -> Arc<dyn EventStore> {
    let store = open(place).await;
    for (stream, predecessor) in [("a-1", "message 7"), ("b-1", "message 8"), ("c-1", "message 7")] {
        store.append(caused(stream, predecessor)).await.unwrap();
    }
    drop(store);
    let drop = match place.is_postgres() {
        true => "DROP INDEX %.events_by_predecessor",
        false => {
            "ALTER TABLE %.events DROP INDEX events_by_predecessor; ALTER TABLE %.events DROP COLUMN predecessor"
        }
    };
    place.beside().await.run(&drop.replace('%', &place.name)).await;
    assert_eq!(indexes(place).await, 0);
    open(place).await
}

async fn indexes(place: &Place) -> i64 {
    let sql = match place.is_postgres() {
        true => {
            "SELECT count(*) FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = '%' AND c.relname = 'events_by_predecessor' AND x.indisvalid"
        }
        false => {
            "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = '%'
            AND index_name = 'events_by_predecessor' AND seq_in_index = 1"
        }
    };
    place.beside().await.number(&sql.replace('%', &place.name)).await
}

async fn refused(store: &dyn EventStore) {
    let query = || Query::predecessor("message 7");
    let error = store.log_events(query()).await.unwrap_err();
    assert!(matches!(error, annals::Error::Unusable(_)), "{error:?}");
    assert!(error.chain().contains("run `annals migrate`"), "{}", error.chain());
    let guarded = caused("d-1", "message 9").unless(query(), annals::Position::ZERO);
    let error = store.append(guarded).await.unwrap_err();
    assert!(error.chain().contains("run `annals migrate`"), "{}", error.chain());
}

async fn found(store: &dyn EventStore) -> Vec<u64> {
    let events = store.log_events(Query::predecessor("message 7")).await.unwrap();
    events.iter().map(|event| event.position().get()).collect()
}

async fn a_log_of_an_earlier_version_gets_the_index_by_a_migration_only(place: Place) {
    let store = older(&place).await;
    store.append(caused("a-1", "message 7")).await.unwrap();
    let log = store.log_events(Query::all()).await.unwrap();
    assert_eq!(
        store.log_events(Query::id(log[1].id())).await.unwrap()[..],
        log[1..2],
        "ids have their index"
    );
    refused(&*store).await;
    let again = open(&place).await;
    refused(&*again).await;
    assert_eq!(indexes(&place).await, 0, "opening the log does not make it");
    assert_eq!(migrate(&place).await.unwrap(), 1 + 3, "the index, and the tables of the state");
    assert_eq!(migrate(&place).await.unwrap(), 0);
    assert_eq!(indexes(&place).await, 1);
    // Also those who have had it open all the time.
    for store in [&store, &again, &open(&place).await] {
        assert_eq!(found(&**store).await, [1, 3, 4]);
    }
    store.append(caused("d-1", "message 7")).await.unwrap();
    assert_eq!(found(&*store).await, [1, 3, 4, 5]);
}

async fn several_migrate_at_once(place: Place) {
    let store = older(&place).await;
    let migrating: Vec<_> = (0..4)
        .map(|_| {
            let place = place.clone();
            tokio::spawn(async move { migrate(&place).await })
        })
        .collect();
    let mut steps = 0;
    for one in migrating {
        steps += one.await.unwrap().unwrap_or_else(|error| panic!("{}", error.chain()));
    }
    assert_eq!(steps, 1 + 3, "one of them has done each step");
    assert_eq!(found(&*store).await, [1, 3]);
}

/// A transaction that somebody has left open keeps the index from being finished, or begun; then the
/// migration is killed.
async fn a_killed_migration_is_repeated_and_appends_continue_meanwhile(place: Place) {
    let store = older(&place).await;
    let mut reader = place.beside().await;
    let begin = match place.is_postgres() {
        true => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        false => "SET autocommit = 0",
    };
    reader.run(begin).await;
    reader.number(&format!("SELECT COUNT(*) FROM {}.events", place.name)).await;
    let migrating = {
        let place = place.clone();
        tokio::spawn(async move { migrate(&place).await })
    };
    let mut beside = place.beside().await;
    let waits = match place.is_postgres() {
        true => {
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '%' AND query LIKE 'CREATE INDEX CONCURRENTLY%'
            AND wait_event_type = 'Lock'"
        }
        false => {
            "SELECT COUNT(*) FROM information_schema.processlist WHERE user = '%' AND info LIKE 'ALTER TABLE events%'
            AND state LIKE '%metadata lock%'"
        }
    };
    let waits = waits.replacen('%', &place.name, 1);
    for _ in 0..2_000 {
        if beside.number(&waits).await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(beside.number(&waits).await, 1, "the index waits for the reader");
    if place.is_postgres() {
        store.append(caused("a-1", "message 7")).await.unwrap();
    }
    let kill = match &mut beside {
        Beside::Postgres(_) => {
            let pid = waits.replace("count(*)", "pid::bigint");
            format!("SELECT pg_terminate_backend({})", beside.number(&pid).await)
        }
        Beside::MySql(_) => {
            let id = waits.replace("COUNT(*)", "CAST(id AS SIGNED)");
            format!("KILL {}", beside.number(&id).await)
        }
    };
    beside.run(&kill).await;
    migrating.await.unwrap().unwrap_err();
    assert_eq!(indexes(&place).await, 0);
    refused(&*store).await;
    drop(reader);
    if !place.is_postgres() {
        store.append(caused("a-1", "message 7")).await.unwrap();
    }
    migrate(&place).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(indexes(&place).await, 1);
    assert_eq!(found(&*store).await, [1, 3, 4]);
}
