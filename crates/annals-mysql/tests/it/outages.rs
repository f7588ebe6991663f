//! Outages: every call ends in an error of the right kind, and later calls work.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Error, EventId, EventStore, EventStoreExt, Query, StreamId};
use annals_mysql::{MySqlStore, Options};
use annals_testkit::outages::{self, append, unavailable};
use annals_testservers::kind::Kind;
use sqlx::Executor;
use tokio::sync::Mutex;

use crate::support::{SETTINGS, connect, fresh_log};

on_each_server! {
    a_restart_is_survived,
    a_caller_that_waits_for_too_long_gets_an_error,
    a_server_that_only_reads_refuses_appends_alone,
    an_append_that_is_larger_than_a_packet_is_refused,
    a_full_disk_refuses_appends_and_nothing_else,
    a_clock_that_jumps_changes_no_order,
}

/// A store that does not wait for long.
async fn impatient(url: &str) -> Arc<dyn EventStore> {
    let options = Options { patience: Duration::from_secs(3), connections_max: 2, ..Options::default() };
    Arc::new(MySqlStore::open(url, options).await.unwrap())
}

/// G9: a server that goes away takes nothing with it that was acknowledged, and when it is back everything
/// resumes.
async fn a_restart_is_survived(kind: Kind) {
    outages::a_restart_is_survived(kind.start(&SETTINGS), async |url| impatient(url).await).await;
}

/// G9: when every connection is taken, or a lock is held for too long, calls end in time.
async fn a_caller_that_waits_for_too_long_gets_an_error(kind: Kind) {
    let url = fresh_log(kind).await;
    let holder = Mutex::new(connect(&url).await);
    let say = async |sql| {
        holder.lock().await.execute(sql).await.unwrap();
    };
    outages::a_caller_that_waits_for_too_long_gets_an_error(
        impatient(&url).await,
        async || say("LOCK TABLES events WRITE, log WRITE").await,
        async || say("UNLOCK TABLES").await,
    )
    .await;
}

/// G9: a server that only reads says so, and takes appends again when it writes.
async fn a_server_that_only_reads_refuses_appends_alone(kind: Kind) {
    let server = kind.start(&SETTINGS);
    let mut owner = connect(&server.url()).await;
    // Who may do everything may write to a server that only reads.
    owner.execute("CREATE USER shop@'%'; GRANT ALL ON annals.* TO shop@'%'").await.unwrap();
    let store = impatient(&server.url().replace("annals@", "shop@")).await;
    store.append(append(0)).await.unwrap();
    owner.execute("SET GLOBAL read_only = ON").await.unwrap();
    unavailable(store.append(append(1)).await, "read-only replica: use the address of the primary");
    assert_eq!(store.log_events(Query::all()).await.unwrap().len(), 1);
    owner.execute("SET GLOBAL read_only = OFF").await.unwrap();
    assert!(!store.append(append(1)).await.unwrap().duplicate);
}

/// G9: an append that is larger than what the server lets through is refused, and others are not; nor are
/// many that are so only together.
async fn an_append_that_is_larger_than_a_packet_is_refused(kind: Kind) {
    let server = kind.start(&["max-allowed-packet=1M"]);
    let store = impatient(&server.url()).await;
    let mut large = append(0);
    large.writes[0].event.data = vec![b'x'; 3 << 20].into();
    let refused = store.append(large).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    store.append(append(0)).await.unwrap();
    let crowd = (1..41).map(|number| {
        let mut append = append(number);
        append.writes[0].event.data = vec![b'x'; 100 << 10].into();
        store.append(append)
    });
    for appended in futures::future::join_all(crowd).await {
        appended.unwrap();
    }
    // Names, tags and metadata count as well.
    let crowd = (50..90).map(|number| {
        let mut append = append(number);
        append.writes[0].event.metadata.own = [("note".into(), "x".repeat(60 << 10).into())].into();
        store.append(append)
    });
    for appended in futures::future::join_all(crowd).await {
        appended.unwrap();
    }
    let mut large = append(100);
    let one = large.writes[0].clone();
    large.writes = (0..500)
        .map(|number| {
            let mut write = one.clone();
            write.stream = StreamId::new(format!("{}-{number}", "x".repeat(1_000))).unwrap();
            write.event.id = EventId::generate();
            write
        })
        .collect();
    large.conditions.clear();
    let refused = store.append(large).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}

/// G9: a full disk refuses appends, with a clear error, and nothing else; with room again they go on.
async fn a_full_disk_refuses_appends_and_nothing_else(kind: Kind) {
    // One file for all tables, with an end: what the server says is the same as of a disk.
    let room = |megabytes: usize| format!("innodb-data-file-path=ibdata1:12M:autoextend:max:{megabytes}M");
    let others =
        ["innodb-flush-log-at-trx-commit=2", "innodb-file-per-table=OFF", "innodb-autoextend-increment=2"];
    let mut server = kind.start(&[others[0], others[1], others[2], &room(30)]);
    let store = impatient(&server.url()).await;
    outages::a_full_disk_refuses_appends_and_nothing_else(store, async || {
        server.stop();
        server.set(&[others[0], others[1], others[2], &room(100)]);
        server.start();
    })
    .await;
}

/// A clock that jumps changes no order: recorded times never decrease.
async fn a_clock_that_jumps_changes_no_order(kind: Kind) {
    let url = fresh_log(kind).await;
    outages::a_clock_that_jumps_changes_no_order(async |clock| {
        Arc::new(MySqlStore::open(&url, Options { clock, ..Options::default() }).await.unwrap())
            as Arc<dyn EventStore>
    })
    .await;
}
