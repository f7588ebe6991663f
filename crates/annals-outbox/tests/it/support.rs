//! Databases for tests, transactions of any of them, and a sink that remembers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use annals_core::Backoff;
use annals_outbox::{Message, NewMessage, Options, Outbox, Pool, Result, Sink, SinkError};
use annals_testservers::kind::Kind;
use annals_testservers::server::Server;
use async_trait::async_trait;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tempfile::TempDir;
use tokio::sync::watch;

/// Ends a wait that hangs. It says nothing about how fast anything should be.
const HANG: Duration = Duration::from_secs(120);

/// An outbox of one test, and its table of state, `…_orders`.
pub struct Place {
    pub outbox: Outbox,
    pub url: String,
    pub name: String,
    pub pool: Pool,
    kind: Option<Kind>,
    _directory: Option<Arc<TempDir>>,
}

impl Place {
    /// One on the server of this kind that all tests share.
    pub async fn on(kind: Kind) -> Self {
        static SERVERS: [OnceLock<Server>; 5] = [const { OnceLock::new() }; 5];
        let own = || SERVERS[kind as usize].get_or_init(|| kind.start_quick(&[])).url();
        let named = if kind.is_postgres() { "ANNALS_POSTGRES_URL" } else { "ANNALS_MYSQL_URL" };
        let url = std::env::var(named).unwrap_or_else(|_| own());
        Self { kind: Some(kind), ..Self::new(&url, None).await }
    }

    pub async fn postgres() -> Option<Self> {
        Self::on_chosen(Kind::Postgres).await
    }

    pub async fn newest_postgres() -> Option<Self> {
        Self::on_chosen(Kind::NewestPostgres).await
    }

    pub async fn mariadb() -> Option<Self> {
        Self::on_chosen(Kind::MariaDb).await
    }

    pub async fn newest_mariadb() -> Option<Self> {
        Self::on_chosen(Kind::NewestMariaDb).await
    }

    pub async fn mysql() -> Option<Self> {
        Self::on_chosen(Kind::MySql).await
    }

    pub async fn sqlite() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/shop.db?mode=rwc", directory.path().display());
        Some(Self::new(&url, Some(Arc::new(directory))).await)
    }

    async fn on_chosen(kind: Kind) -> Option<Self> {
        if kind.is_chosen() { Some(Self::on(kind).await) } else { None }
    }

    /// One in the database with this URL.
    pub async fn new(url: &str, directory: Option<Arc<TempDir>>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let place = Self { _directory: directory, ..Self::at(url, &name).await };
        place.outbox.migrate().await.unwrap();
        place.run(&format!("CREATE TABLE {name}_orders (id VARCHAR(64) NOT NULL PRIMARY KEY)")).await;
        place
    }

    /// The one with this name, which is there.
    pub async fn at(url: &str, name: &str) -> Self {
        let pool = Pool::connect(url).await.unwrap();
        let outbox = Outbox::named(pool.clone(), name).unwrap();
        Self { outbox, pool, url: url.to_owned(), name: name.to_owned(), kind: None, _directory: None }
    }

    /// The kind of its server.
    pub fn kind(&self) -> Kind {
        self.kind.expect("it is on a server of a kind")
    }

    pub async fn begin(&self) -> Transaction {
        match &self.pool {
            Pool::Postgres(pool) => Transaction::Postgres(pool.begin().await.unwrap()),
            Pool::MySql(pool) => Transaction::MySql(pool.begin().await.unwrap()),
            Pool::Sqlite(pool) => Transaction::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await.unwrap()),
            other => panic!("{other:?} is not tested"),
        }
    }

    /// Does this, in a transaction of its own. `outbox` in it is the name of this one.
    pub async fn run(&self, sql: &str) {
        let mut transaction = self.begin().await;
        transaction.run(&sql.replace("outbox", &self.name)).await;
        transaction.commit().await;
    }

    /// The number that is asked for.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.replace("outbox", &self.name));
        match &self.pool {
            Pool::Postgres(pool) => pool.fetch_one(sql).await.unwrap().get(0),
            Pool::MySql(pool) => pool.fetch_one(sql).await.unwrap().get(0),
            Pool::Sqlite(pool) => pool.fetch_one(sql).await.unwrap().get(0),
            other => panic!("{other:?} is not tested"),
        }
    }

    /// Writes a message about this order, and commits.
    pub async fn write(&self, order: &str, event_type: &str) -> NewMessage {
        let message = about(order, event_type);
        let mut transaction = self.begin().await;
        transaction.write(&self.outbox, &message).await.unwrap();
        transaction.commit().await;
        message
    }
}

/// A message about this order.
pub fn about(order: &str, event_type: &str) -> NewMessage {
    NewMessage::json("order", order, event_type, &json!({"order": order})).unwrap()
}

/// A transaction of the service.
pub enum Transaction {
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
    MySql(sqlx::Transaction<'static, sqlx::MySql>),
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
}

macro_rules! each {
    ($value:expr, $name:ident => $body:expr) => {
        match $value {
            Transaction::Postgres($name) => $body,
            Transaction::MySql($name) => $body,
            Transaction::Sqlite($name) => $body,
        }
    };
}

impl Transaction {
    pub async fn run(&mut self, sql: &str) {
        each!(self, transaction => drop(transaction.execute(AssertSqlSafe(sql.to_owned())).await.unwrap()));
    }

    pub async fn write(&mut self, outbox: &Outbox, message: &NewMessage) -> Result<()> {
        each!(self, transaction => outbox.write(&mut **transaction, message).await)
    }

    pub async fn commit(self) {
        each!(self, transaction => transaction.commit().await.unwrap());
    }

    pub async fn rollback(self) {
        each!(self, transaction => transaction.rollback().await.unwrap());
    }
}

/// A publisher that does not keep a test waiting.
pub fn options() -> Options {
    Options {
        poll: Duration::from_millis(20),
        timeout: Duration::from_secs(20),
        lease: Duration::from_secs(60),
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(10)),
        ..Options::default()
    }
}

/// What a sink says to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Take,
    Refuse,
    /// The sink is away.
    Away,
    /// There is no answer at all.
    Hang,
    Panic,
}

/// A sink that remembers what it has taken.
#[derive(Clone)]
pub struct Taker {
    taken: watch::Sender<Vec<Message>>,
    judge: Arc<dyn Fn(&Message) -> Verdict + Send + Sync>,
}

impl Taker {
    /// Takes everything.
    pub fn new() -> Self {
        Self::judging(|_| Verdict::Take)
    }

    /// Takes what is judged so.
    pub fn judging(judge: impl Fn(&Message) -> Verdict + Send + Sync + 'static) -> Self {
        Self { taken: watch::Sender::new(Vec::new()), judge: Arc::new(judge) }
    }

    pub fn taken(&self) -> Vec<Message> {
        self.taken.borrow().clone()
    }

    /// Waits until what was taken is like this, and returns it.
    pub async fn until(&self, like: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let mut taken = self.taken.subscribe();
        let waited = tokio::time::timeout(HANG, taken.wait_for(|taken| like(taken))).await;
        match waited {
            Ok(taken) => taken.unwrap().clone(),
            Err(_) => panic!("it does not come to that: {:#?}", self.taken()),
        }
    }

    /// Waits until this many messages were taken.
    pub async fn count(&self, count: usize) -> Vec<Message> {
        self.until(|taken| taken.len() >= count).await
    }
}

#[async_trait]
impl Sink for Taker {
    async fn publish(&self, message: &Message) -> Result<(), SinkError> {
        match (self.judge)(message) {
            Verdict::Take => self.taken.send_modify(|taken| taken.push(message.clone())),
            Verdict::Refuse => return Err(SinkError::refused("it is not liked")),
            Verdict::Away => return Err(SinkError::unavailable("the broker is away")),
            Verdict::Hang => std::future::pending().await,
            Verdict::Panic => panic!("a sink that panics"),
        }
        Ok(())
    }
}

/// Waits until this is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < HANG, "it does not come to that: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Each aggregate's messages, without those that came before, have the sequences 1, 2, 3, …
#[track_caller]
pub fn assert_in_order(taken: &[Message]) {
    let mut newest: HashMap<&str, u64> = HashMap::new();
    for message in taken {
        let newest = newest.entry(&message.aggregate_id).or_default();
        assert!(message.sequence <= *newest + 1, "{} is skipped for {message:?}", *newest + 1);
        *newest = message.sequence.max(*newest);
    }
}

/// The types of the events of this order, in the order in which they were taken.
pub fn types(taken: &[Message], order: &str) -> Vec<String> {
    let of_order = taken.iter().filter(|message| message.aggregate_id == order);
    of_order.map(|message| message.event_type.clone()).collect()
}
