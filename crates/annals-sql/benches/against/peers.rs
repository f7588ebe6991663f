//! Who is measured: Annals, a table as a team would write it itself, and Message DB's table and function.

use std::sync::Arc;

use annals::Subscription;
use annals_core::{Append, EventStore, Expected, NewEvent, Query, StreamId, Version};
use annals_mysql::MySqlStore;
use annals_postgres::PostgresStore;
use async_trait::async_trait;
use sqlx::Executor;
use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::sync::mpsc;

/// 256 bytes of JSON.
pub fn data() -> String {
    format!("{{\"note\":\"{}\"}}", "x".repeat(245))
}

/// Somebody who appends an event to a stream that is at this version.
#[async_trait]
pub trait Peer: Send + Sync {
    async fn append(&self, stream: &str, version: i64);
}

pub struct Annals(Arc<dyn EventStore>);

impl Annals {
    pub async fn on_postgres(url: &str) -> Self {
        Self(Arc::new(PostgresStore::open(url, Default::default()).await.unwrap()))
    }

    pub async fn on_mysql(url: &str) -> Self {
        Self(Arc::new(MySqlStore::open(url, Default::default()).await.unwrap()))
    }

    /// Subscribes from now on: the receiver gets a message for each event.
    pub async fn follow(self) -> mpsc::UnboundedReceiver<()> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut subscription = Subscription::from_now(self.0, Query::all()).await.unwrap();
        tokio::spawn(async move { while subscription.next().await.is_ok() && sender.send(()).is_ok() {} });
        receiver
    }
}

#[async_trait]
impl Peer for Annals {
    async fn append(&self, stream: &str, version: i64) {
        let event = NewEvent::new("account.noted", data()).unwrap();
        let expected = Expected::Exact(Version::new(version.unsigned_abs()));
        self.0.append(Append::to(StreamId::new(stream).unwrap(), expected, [event])).await.unwrap();
    }
}

/// A serial number, a unique key on stream and version, and an INSERT.
pub struct PostgresTable(PgPool);

impl PostgresTable {
    pub async fn new(url: &str) -> Self {
        let pool =
            PgPoolOptions::new().max_connections(64).test_before_acquire(false).connect(url).await.unwrap();
        pool.execute(
            "CREATE TABLE own_events (
                id bigserial PRIMARY KEY, event_id uuid NOT NULL, stream text NOT NULL, version bigint NOT NULL,
                type text NOT NULL, data jsonb NOT NULL, metadata jsonb, recorded_at timestamptz NOT NULL DEFAULT now(),
                UNIQUE (stream, version))",
        )
        .await
        .unwrap();
        Self(pool)
    }
}

#[async_trait]
impl Peer for PostgresTable {
    async fn append(&self, stream: &str, version: i64) {
        let sql = "INSERT INTO own_events (event_id, stream, version, type, data)
            VALUES (gen_random_uuid(), $1, $2, $3, $4::jsonb)";
        let insert = sqlx::query(sql).bind(stream).bind(version + 1).bind("account.noted").bind(data());
        insert.execute(&self.0).await.unwrap();
    }
}

/// Message DB 1.3: its table, its indexes and what its `write_message` does.
pub struct MessageDb(PgPool);

impl MessageDb {
    pub async fn new(url: &str) -> Self {
        let pool =
            PgPoolOptions::new().max_connections(64).test_before_acquire(false).connect(url).await.unwrap();
        pool.execute(include_str!("message_db.sql")).await.unwrap();
        Self(pool)
    }
}

#[async_trait]
impl Peer for MessageDb {
    async fn append(&self, stream: &str, version: i64) {
        let sql =
            "SELECT message_store.write_message(gen_random_uuid()::varchar, $1, $2, $3::jsonb, NULL, $4)";
        let write = sqlx::query(sql).bind(stream).bind("account.noted").bind(data()).bind(version - 1);
        write.execute(&self.0).await.unwrap();
    }
}

/// The same table as on PostgreSQL.
pub struct MySqlTable(MySqlPool);

impl MySqlTable {
    pub async fn new(url: &str) -> Self {
        let options = MySqlPoolOptions::new().max_connections(64).test_before_acquire(false);
        let pool = options.connect(url).await.unwrap();
        pool.execute(
            "CREATE TABLE own_events (
                id BIGINT AUTO_INCREMENT PRIMARY KEY, event_id CHAR(36) NOT NULL, stream VARCHAR(255) NOT NULL,
                version BIGINT NOT NULL, type VARCHAR(255) NOT NULL, data JSON NOT NULL, metadata JSON,
                recorded_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), UNIQUE (stream, version))",
        )
        .await
        .unwrap();
        Self(pool)
    }
}

#[async_trait]
impl Peer for MySqlTable {
    async fn append(&self, stream: &str, version: i64) {
        let sql =
            "INSERT INTO own_events (event_id, stream, version, type, data) VALUES (UUID(), ?, ?, ?, ?)";
        let insert = sqlx::query(sql).bind(stream).bind(version + 1).bind("account.noted").bind(data());
        insert.execute(&self.0).await.unwrap();
    }
}
