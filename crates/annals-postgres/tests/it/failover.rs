//! Failover: the primary is killed under load, its synchronous standby is promoted, and every writer sends
//! again what it has no answer to. Nothing that was acknowledged is lost, nothing is there twice, no
//! subscriber misses anything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{
    Append, Appended, Error, EventStore, IdempotencyKey, LogPage, LogRead, Position, Result, StoreId,
    StreamInfo, StreamList, StreamPage, StreamRead,
};
use annals_postgres::{Options, PostgresStore};
use annals_testkit::hostile;
use annals_testservers::server;
use async_trait::async_trait;
use sqlx::{Executor, Row};
use tokio::sync::watch;

use crate::support::connect;

/// The store that a service is routed to at the moment.
struct Routed(watch::Receiver<Arc<PostgresStore>>);

impl Routed {
    fn now(&self) -> Arc<PostgresStore> {
        self.0.borrow().clone()
    }
}

#[async_trait]
impl EventStore for Routed {
    fn id(&self) -> StoreId {
        self.now().id()
    }
    async fn append(&self, append: Append) -> Result<Appended> {
        self.now().append(append).await
    }
    async fn read_log(&self, read: LogRead) -> Result<LogPage> {
        self.now().read_log(read).await
    }
    async fn read_stream(&self, read: StreamRead) -> Result<StreamPage> {
        self.now().read_stream(read).await
    }
    async fn list_streams(&self, list: StreamList) -> Result<Vec<StreamInfo>> {
        self.now().list_streams(list).await
    }
    async fn outcome(&self, key: &IdempotencyKey) -> Result<Option<Appended>> {
        self.now().outcome(key).await
    }
    async fn head(&self) -> Result<Position> {
        self.now().head().await
    }
    async fn wait(&self, after: Position) -> Result<Position> {
        let (mut route, store) = (self.0.clone(), self.now());
        route.mark_unchanged();
        tokio::select! {
            head = store.wait(after) => head,
            _ = route.changed() => Err(Error::Unavailable("the route has changed".into())),
        }
    }
}

async fn open(url: &str) -> Arc<PostgresStore> {
    let options = Options { patience: Duration::from_secs(2), ..Options::default() };
    Arc::new(PostgresStore::open(url, options).await.unwrap())
}

/// G1, G4, G5.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failover_loses_nothing_and_does_nothing_twice() {
    let mut primary = server::newest_postgres(&["fsync=off"]);
    let (route, routed) = watch::channel(open(&primary.url()).await);
    let standby = primary.standby();
    let mut owner = connect(&primary.url()).await;
    owner.execute("ALTER SYSTEM SET synchronous_standby_names TO '*'").await.unwrap();
    owner.execute("SELECT pg_reload_conf()").await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    while owner.fetch_one(sql).await.unwrap().get::<i64, _>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stores: Vec<Arc<dyn EventStore>> =
        (0..3).map(|_| Arc::new(Routed(routed.clone())) as Arc<dyn EventStore>).collect();
    let mut without_writes = Duration::ZERO;
    let fail_over = async || {
        // Under load, and with something to lose.
        let busy = route.borrow().clone();
        while busy.head().await.unwrap() < Position::new(300) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let killed = Instant::now();
        primary.crash();
        let mut other = connect(&standby.url()).await;
        other.execute("SELECT pg_promote()").await.unwrap();
        let promoted = open(&standby.url()).await;
        let before = promoted.head().await.unwrap();
        route.send_replace(promoted.clone());
        promoted.wait(before.plus(300)).await.unwrap();
        without_writes = killed.elapsed();
        1
    };
    let survived = hostile::nothing_is_lost_or_done_twice(&stores, 1, fail_over).await;
    println!(
        "failover: {} appends acknowledged, {} outcomes unknown, lost 0, duplicated 0, {without_writes:.1?} from the \
         kill to 300 appends on the new primary",
        survived.acknowledged, survived.unknown
    );
}
