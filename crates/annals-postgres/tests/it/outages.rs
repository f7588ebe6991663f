//! Outages: every call ends in an error of the right kind, and later calls work.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Error, EventStore, EventStoreExt, LogRead, Position, Query};
use annals_postgres::{Options, PostgresStore};
use annals_testkit::outages;
use annals_testkit::outages::{append, unavailable, unusable};
use annals_testservers::kind::Kind;
use annals_testservers::server;
use sqlx::{AssertSqlSafe, Executor};
use tokio::sync::Mutex;

use crate::support::{connect, fresh_log};

on_each_server! {
    a_restart_is_survived,
    a_caller_that_waits_for_too_long_gets_an_error,
    a_statement_that_takes_too_long_ends,
    a_server_that_only_reads_refuses_appends_alone,
    a_role_that_may_only_append_and_read_is_enough,
    a_clock_that_jumps_changes_no_order,
    a_silent_listener_is_replaced,
    what_is_notified_before_anybody_waits_is_not_forgotten,
}

/// A store that does not wait for long.
async fn impatient(url: &str) -> Arc<dyn EventStore> {
    let options = Options { patience: Duration::from_millis(400), connections_max: 2, ..Options::default() };
    Arc::new(PostgresStore::open(url, options).await.unwrap())
}

/// G9: a server that goes away takes nothing with it that was acknowledged, and when it is back everything
/// resumes.
async fn a_restart_is_survived(kind: Kind) {
    outages::a_restart_is_survived(kind.start_quick(&[]), async |url| impatient(url).await).await;
}

/// G9: when every connection is taken, or a lock is held for too long, calls end in time.
async fn a_caller_that_waits_for_too_long_gets_an_error(kind: Kind) {
    let url = fresh_log(kind);
    let holder = Mutex::new(connect(&url).await);
    let say = async |sql| {
        holder.lock().await.execute(sql).await.unwrap();
    };
    outages::a_caller_that_waits_for_too_long_gets_an_error(
        impatient(&url).await,
        async || say("BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await,
        async || say("ROLLBACK").await,
    )
    .await;
}

/// G9: a read that takes longer than the server allows ends; a commit has no such limit.
async fn a_statement_that_takes_too_long_ends(kind: Kind) {
    let server = kind.start_quick(&["statement_timeout=200"]);
    let store = Arc::new(PostgresStore::open(&server.url(), Options::default()).await.unwrap());
    store.append(append(0)).await.unwrap();
    let mut holder = connect(&format!("{}?schema=annals", server.url())).await;
    holder
        .execute("SET statement_timeout TO 0; BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    unavailable(store.read_log(LogRead::forward(Position::FIRST)).await, "longer than statement_timeout");
    holder.execute("ROLLBACK").await.unwrap();
    assert_eq!(store.log_events(Query::all()).await.unwrap().len(), 1);
}

/// G9: a server that only reads says so, and is written again when it writes.
async fn a_server_that_only_reads_refuses_appends_alone(kind: Kind) {
    let primary = kind.start_quick(&[]);
    let store = impatient(&primary.url()).await;
    let last = store.append(append(0)).await.unwrap().last;
    let standby = primary.standby();
    let reader = impatient(&standby.url()).await;
    assert_eq!(reader.id(), store.id());
    while reader.head().await.unwrap() < last {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(reader.log_events(Query::all()).await.unwrap(), store.log_events(Query::all()).await.unwrap());
    unavailable(reader.append(append(1)).await, "read-only standby: use the address of the primary");
    unavailable(
        reader.append(append(1).unless(Query::all(), Position::FIRST)).await,
        "read-only standby: use the address of the primary",
    );
    // Who subscribes to a standby is woken by looking.
    let waiting = tokio::spawn({
        let reader = reader.clone();
        async move { reader.wait(last).await.unwrap() }
    });
    assert_eq!(store.append(append(1)).await.unwrap().last, waiting.await.unwrap());
    let mut other = connect(&format!("{}?schema=annals", standby.url())).await;
    other.execute("SELECT pg_promote()").await.unwrap();
    let done = loop {
        match reader.append(append(2)).await {
            Ok(done) => break done,
            Err(error) => assert!(matches!(error, Error::Unavailable(_)), "{}", error.chain()),
        }
    };
    assert_eq!(done.first, Position::new(3));
}

/// The role that serves may have no right to make tables.
async fn a_role_that_may_only_append_and_read_is_enough(kind: Kind) {
    let url = fresh_log(kind);
    annals_postgres::migrate(&url).await.unwrap();
    let mut owner = connect(&url).await;
    let schema = crate::support::schema_of(&url);
    let (role, right) = (format!("role_{schema}"), "SELECT, INSERT, UPDATE");
    owner
        .execute(AssertSqlSafe(format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role};
             GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role};
             GRANT INSERT ON {schema}.events, {schema}.event_tags TO {role}"
        )))
        .await
        .unwrap();
    let store = impatient(&url.replace("postgres@", &format!("{role}@"))).await;
    store.append(append(0)).await.unwrap();
    owner
        .execute(AssertSqlSafe(format!("REVOKE {right} ON ALL TABLES IN SCHEMA {schema} FROM {role}")))
        .await
        .unwrap();
    unusable(store.append(append(1)).await, "the role lacks a privilege");
    unusable(store.head().await, "the role lacks a privilege");
}

/// G9: a full disk refuses appends, with a clear error, and nothing else; with room again they go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_appends_and_nothing_else() {
    let Some((server, small)) = server::postgres_with_small_disk("8m") else {
        println!("not tried: the right to mount a small file system is missing");
        return;
    };
    let store = impatient(&server.url()).await;
    let mut owner = connect(&format!("{}?schema=annals", server.url())).await;
    let place = format!("CREATE TABLESPACE small LOCATION '{}'", small.display());
    owner.execute(AssertSqlSafe(place)).await.unwrap();
    owner.execute("CREATE TABLE filler (bytes bytea) TABLESPACE small").await.unwrap();
    owner.execute("ALTER TABLE filler ALTER COLUMN bytes SET STORAGE EXTERNAL").await.unwrap();
    owner.execute("INSERT INTO filler SELECT convert_to(repeat('x', 2000000), 'UTF8')").await.unwrap();
    owner.execute("ALTER TABLE events SET TABLESPACE small").await.unwrap();
    outages::a_full_disk_refuses_appends_and_nothing_else(store, async || {
        owner.execute("DROP TABLE filler").await.unwrap();
        owner.execute("CHECKPOINT").await.unwrap();
    })
    .await;
}

/// A clock that jumps changes no order: recorded times never decrease.
async fn a_clock_that_jumps_changes_no_order(kind: Kind) {
    let url = fresh_log(kind);
    outages::a_clock_that_jumps_changes_no_order(async |clock| {
        Arc::new(PostgresStore::open(&url, Options { clock, ..Options::default() }).await.unwrap())
            as Arc<dyn EventStore>
    })
    .await;
}

/// A store that looks by itself so seldom that only notifications wake who waits.
async fn listening(url: &str) -> PostgresStore {
    let options = Options { poll: Duration::from_secs(100_000), ..Options::default() };
    PostgresStore::open(url, options).await.unwrap()
}

/// Appends until somebody who waits through this store is woken.
async fn until_woken(store: &PostgresStore, writer: &PostgresStore, number: &mut usize) {
    let woken = async {
        loop {
            let head = store.head().await.unwrap_or(Position::ZERO);
            let waiting = tokio::time::timeout(Duration::from_millis(500), store.wait(head));
            let (waited, _) = tokio::join!(waiting, writer.append(append(*number)));
            *number += 1;
            if matches!(waited, Ok(Ok(_))) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), woken).await.expect("nobody is ever woken");
}

/// Connections that are open fall silent: those that are used are noticed by their users, and the one that
/// listens too.
async fn a_silent_listener_is_replaced(kind: Kind) {
    let url = fresh_log(kind);
    let proxy = annals_testservers::proxy::Proxy::to(&url);
    let (writer, store) = (listening(&url).await, listening(proxy.url()).await);
    let mut number = 0;
    until_woken(&store, &writer, &mut number).await;
    proxy.silence_open();
    until_woken(&store, &writer, &mut number).await;
}

/// A reader that has just read a page, and waits a moment later.
async fn what_is_notified_before_anybody_waits_is_not_forgotten(kind: Kind) {
    let url = fresh_log(kind);
    let (writer, store) = (listening(&url).await, listening(&url).await);
    let mut number = 0;
    until_woken(&store, &writer, &mut number).await;
    for _ in 0..20 {
        let head = store.head().await.unwrap();
        let last = writer.append(append(number)).await.unwrap().last;
        number += 1;
        // So long that the notification has come: else this shows nothing, and passes.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let woken = tokio::time::timeout(Duration::from_secs(60), store.wait(head)).await;
        assert_eq!(woken.expect("it waits for the next look").unwrap(), last);
    }
}
