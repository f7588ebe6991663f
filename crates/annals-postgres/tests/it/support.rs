//! Servers that all tests of this binary share, and a schema on one of them for each test.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use annals_testservers::kind::Kind;
use annals_testservers::server::Server;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

/// The address of a log that nobody else uses, on the server of this kind that all tests share.
pub fn fresh_log(kind: Kind) -> String {
    static SERVERS: [OnceLock<Server>; 5] = [const { OnceLock::new() }; 5];
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let own = || SERVERS[kind as usize].get_or_init(|| kind.start_quick(&[])).url();
    let url = std::env::var("ANNALS_POSTGRES_URL").unwrap_or_else(|_| own());
    let more = if url.contains('?') { '&' } else { '?' };
    format!("{url}{more}schema=test_{}_{number}", std::process::id())
}

/// The schema that a URL of [`fresh_log`] names.
pub fn schema_of(url: &str) -> &str {
    url.rsplit_once("schema=").map_or("annals", |(_, schema)| schema)
}

/// A connection beside the store, to the same tables.
pub async fn connect(url: &str) -> PgConnection {
    let (place, _) = url.split_once('?').unwrap_or((url, ""));
    let mut connection = PgConnection::connect(place).await.unwrap();
    let set = format!("SET search_path TO {}", schema_of(url));
    connection.execute(AssertSqlSafe(set)).await.unwrap();
    connection
}
