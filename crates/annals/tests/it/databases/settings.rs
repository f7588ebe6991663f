//! Servers, databases and roles that are set to what changes the meaning of statements: each setting is set
//! by us, or refused with its name.

use std::sync::Arc;
use std::time::Duration;

use annals::{
    Annals, Append, Error, EventStore, EventStoreExt, Expected, HandlerError, NewEvent, Position, Projection,
    Query, Recorded, StreamId, Tag, Tx, ViewError,
};
use annals_testservers::server;
use parking_lot::Mutex;
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::databases::counter::{Counter, CounterEvent, Sums, increase, sum};
use annals_testservers::place::Place;

/// Everything that a service does, in short.
async fn all_of_it(url: &str) {
    let annals = Annals::open(url).await.unwrap();
    annals.project(Sums::<1>::default()).start().await.unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let subscriber = annals.subscribe("told").on(move |event: Recorded<CounterEvent>, _| {
        hears.lock().push(event.position().get());
        std::future::ready(Ok(()))
    });
    subscriber.start().await.unwrap();
    let mut position = Position::ZERO;
    for number in 0..20 {
        position = increase(&annals, ["a", "b"][number % 2], 1).await;
    }
    annals.settle().await.unwrap();
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((10, 10)));
    assert_eq!(annals.repository::<Counter>().load("b").await.unwrap().state.sum, 10);
    assert_eq!(*heard.lock(), (1..=20).collect::<Vec<_>>());
    let store = annals.store();
    assert_eq!(store.log_events(Query::all()).await.unwrap().len(), 20);
    // Several streams at once, a quote and a backslash, a condition that holds and one that does not.
    let event = |tag: &str| {
        let event = NewEvent::new("thing.done", r#"{"it's":"\\"}"#).unwrap();
        event.with_tag(Tag::new(tag).unwrap())
    };
    let stream = |number: usize| StreamId::new(format!("thing'\\-{number}")).unwrap();
    let mut append = Append::new();
    for number in 0..50 {
        append = append.and_to(stream(number), Expected::Any, [event("tag'\\")]);
    }
    store.append(append).await.unwrap();
    let query = Query::tags([Tag::new("tag'\\").unwrap()]);
    let claim = |after| Append::to(stream(50), Expected::Any, [event("other")]).unless(query.clone(), after);
    assert!(matches!(store.append(claim(Position::ZERO)).await, Err(Error::Conflict(_))));
    store.append(claim(Position::new(70))).await.unwrap();
    assert_eq!(store.log_events(query.clone()).await.unwrap().len(), 50);
    assert_eq!(store.list_streams(Default::default()).await.unwrap().len(), 53);
    annals.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_mariadb_that_is_set_badly_is_set_right_for_each_connection() {
    let server = server::mariadb(&[
        "autocommit=0",
        "completion-type=RELEASE",
        "default-storage-engine=MyISAM",
        "transaction-isolation=SERIALIZABLE",
        "sql-mode=",
        "max-join-size=1",
        "group-concat-max-len=4",
        "default-time-zone=+05:00",
        "div-precision-increment=0",
        "innodb-lock-wait-timeout=1",
        "innodb-strict-mode=OFF",
        "max-sort-length=64",
        "explicit-defaults-for-timestamp=OFF",
        "collation-server=latin1_swedish_ci",
        "character-set-server=latin1",
    ]);
    let mut owner = sqlx::MySqlConnection::connect(&server.url()).await.unwrap();
    for global in [
        "sql_select_limit = 3",
        "sql_safe_updates = 1",
        "foreign_key_checks = 0",
        "unique_checks = 0",
        "check_constraint_checks = 0",
        "sql_auto_is_null = 1",
        "max_statement_time = 30",
        "tx_read_only = 1",
    ] {
        owner.execute(AssertSqlSafe(format!("SET GLOBAL {global}"))).await.unwrap();
    }
    all_of_it(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_role_of_postgres_that_is_set_badly_is_set_right_for_each_connection() {
    let place = Place::postgres().await;
    let mut owner = place.beside().await;
    for setting in [
        "default_transaction_read_only = on",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "search_path = 'public'",
        "standard_conforming_strings = off",
        "transform_null_equals = on",
        "array_nulls = off",
        "bytea_output = 'escape'",
        "IntervalStyle = 'sql_standard'",
        "DateStyle = 'German'",
        "TimeZone = 'Asia/Kathmandu'",
        "synchronous_commit = 'local'",
        "idle_in_transaction_session_timeout = 1",
        "lock_timeout = 1",
        "enable_indexscan = off",
        "enable_nestloop = off",
        "plan_cache_mode = 'force_generic_plan'",
    ] {
        owner.run(&format!("ALTER ROLE {} SET {setting}", place.name)).await;
    }
    all_of_it(&place.url).await;
}

/// The role that owns what is made is another one than logs in, as where passwords are rotated by role.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_role_of_postgres_that_acts_as_another_is_one_that_can_be_used() {
    let place = Place::postgres().await;
    place.act_as_another().await;
    all_of_it(&place.url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_mysql_that_is_set_badly_is_set_right_for_each_connection() {
    let server = server::mysql(&[
        "autocommit=0",
        "completion-type=RELEASE",
        "default-storage-engine=MyISAM",
        "transaction-isolation=SERIALIZABLE",
        "sql-mode=",
        "max-join-size=1",
        "group-concat-max-len=4",
        "default-time-zone=+05:00",
        "div-precision-increment=0",
        "innodb-lock-wait-timeout=1",
        "innodb-rollback-on-timeout=ON",
        "max-sort-length=64",
        "sort-buffer-size=32768",
        "explicit-defaults-for-timestamp=OFF",
        "collation-server=latin1_swedish_ci",
        "character-set-server=latin1",
        "session-track-gtids=ALL_GTIDS",
        "session-track-state-change=ON",
        "session-track-transaction-info=CHARACTERISTICS",
        "session-track-system-variables=*",
        "performance-schema=OFF",
        "default-authentication-plugin=mysql_native_password",
        "sql-require-primary-key=ON",
        "sql-generate-invisible-primary-key=ON",
    ]);
    let mut owner = sqlx::MySqlConnection::connect(&server.url()).await.unwrap();
    for global in [
        "sql_select_limit = 3",
        "sql_safe_updates = 1",
        "foreign_key_checks = 0",
        "unique_checks = 0",
        "sql_auto_is_null = 1",
        "max_execution_time = 30000",
        "transaction_read_only = 1",
    ] {
        owner.execute(AssertSqlSafe(format!("SET GLOBAL {global}"))).await.unwrap();
    }
    all_of_it(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_cannot_be_set_is_refused_with_its_name() {
    let place = Place::postgres().await;
    let mut owner = place.beside().await;
    for (name, bad) in [
        ("session_replication_role", "replica"),
        ("zero_damaged_pages", "on"),
        ("ignore_checksum_failure", "on"),
    ] {
        owner.run(&format!("ALTER ROLE {} SET {name} = '{bad}'", place.name)).await;
        let refused = annals::open_store(&place.url.parse().unwrap()).await.err().unwrap();
        assert!(refused.chain().contains(name), "{}", refused.chain());
        owner.run(&format!("ALTER ROLE {} RESET {name}", place.name)).await;
    }
    annals::open_store(&place.url.parse().unwrap()).await.unwrap();
}

/// Rows that a policy hides from the role are not passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_that_are_hidden_from_the_role_fail_the_read() {
    let place = Place::postgres().await;
    let store = annals::open_store(&place.url.parse().unwrap()).await.unwrap();
    for _ in 0..3 {
        let event = NewEvent::new("thing.done", "{}").unwrap();
        store.append(Append::to(StreamId::new("thing-1").unwrap(), Expected::Any, [event])).await.unwrap();
    }
    let name = &place.name;
    let mut owner = place.beside().await;
    owner
        .run(&format!(
            "ALTER TABLE {name}.events ENABLE ROW LEVEL SECURITY; ALTER TABLE {name}.events FORCE ROW LEVEL SECURITY;
             CREATE POLICY p ON {name}.events USING (position <> 2)"
        ))
        .await;
    let refused = store.log_events(Query::all()).await.unwrap_err();
    assert!(refused.chain().contains("row-level security"), "{}", refused.chain());
}

/// A projection whose one table is made by this.
macro_rules! rows_in {
    ($name:ident, $schema:literal) => {
        struct $name;

        impl Projection for $name {
            const NAME: &'static str = stringify!($name);
            const SCHEMA: &'static str = $schema;
            type Event = CounterEvent;
            fn apply(&self, _: &Recorded<CounterEvent>, _: &Tx<'_>) -> Result<(), HandlerError> {
                Ok(())
            }
        }
    };
}

rows_in!(Memory, "CREATE TABLE kept (n BIGINT); CREATE TABLE lost (n BIGINT) ENGINE = MEMORY");
rows_in!(Unlogged, "CREATE TABLE kept (n BIGINT); CREATE UNLOGGED TABLE lost (n BIGINT)");
rows_in!(Temporary, "CREATE TABLE kept (n BIGINT); CREATE TEMPORARY TABLE lost (n BIGINT)");
rows_in!(Kept, "CREATE TABLE kept (n BIGINT)");

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tables_that_would_lose_rows_are_refused_with_their_name() {
    let (postgres, mariadb) = (Place::postgres().await, Place::mariadb().await);
    let (on_postgres, on_mariadb) =
        (Annals::open(&postgres.url).await.unwrap(), Annals::open(&mariadb.url).await.unwrap());
    for refused in [
        on_postgres.project(Unlogged).start().await.err(),
        on_postgres.project(Temporary).start().await.err(),
        on_mariadb.project(Memory).start().await.err(),
        on_mariadb.project(Temporary).start().await.err(),
        // It is not there the second time either.
        on_mariadb.project(Memory).start().await.err(),
    ] {
        let message = refused.expect("it is taken").to_string();
        assert!(message.contains("`lost`"), "{message}");
    }
    on_postgres.project(Kept).start().await.unwrap();
    on_postgres.shutdown().await;
    let table = format!("{}$kept_v1.kept", postgres.name);
    postgres
        .beside()
        .await
        .run(&format!("ALTER TABLE \"{}\".kept SET UNLOGGED", table.trim_end_matches(".kept")))
        .await;
    let again = Annals::open(&postgres.url).await.unwrap();
    let message = again.project(Kept).start().await.unwrap_err().to_string();
    assert!(message.contains("`kept`"), "{message}");
}

/// A view of rows waits for nobody who is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_view_of_a_server_that_has_fallen_silent_ends() {
    let place = Place::postgres().await;
    let proxy = annals_testservers::proxy::Proxy::to(&place.url);
    let annals = Annals::open(proxy.url()).await.unwrap();
    annals.project(Sums::<1>::default()).start().await.unwrap();
    let position = increase(&annals, "a", 1).await;
    assert_eq!(sum::<1>(&annals, "a", position).await, Some((1, 1)));
    proxy.fall_silent();
    let view = annals.view::<Sums<1>>();
    let read = view.one("SELECT amount FROM sums", (), |row| row.read::<(u64,)>());
    let read = tokio::time::timeout(Duration::from_secs(300), read).await.expect("it hangs");
    assert!(matches!(read, Err(ViewError::Sql(_))), "{read:?}");
}
