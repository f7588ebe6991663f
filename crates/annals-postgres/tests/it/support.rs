//! Servers that all tests of this binary share, and a schema on one of them for each test.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use annals_testkit::server::{self, Server};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

/// Which server.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    Oldest,
    Newest,
}

/// Nothing that these tests show needs the disk.
const SETTINGS: [&str; 2] = ["fsync=off", "log_min_messages=warning"];

/// The address of a log that nobody else uses.
pub fn fresh_log(which: Which) -> String {
    static OLDEST: OnceLock<Server> = OnceLock::new();
    static NEWEST: OnceLock<Server> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let url = std::env::var("ANNALS_POSTGRES_URL").unwrap_or_else(|_| match which {
        Which::Oldest => OLDEST.get_or_init(|| server::oldest_postgres(&SETTINGS)).url(),
        Which::Newest => NEWEST.get_or_init(|| server::newest_postgres(&SETTINGS)).url(),
    });
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
