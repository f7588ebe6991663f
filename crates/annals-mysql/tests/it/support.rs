//! A server that all tests of this binary share, and a database on it for each test.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use annals_testservers::kind::Kind;
use annals_testservers::server::Server;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

/// Nothing that these tests show needs the disk, only the system; the largest append must fit into a packet.
pub const SETTINGS: [&str; 4] = [
    "innodb-flush-log-at-trx-commit=2",
    "max-allowed-packet=256M",
    "innodb-buffer-pool-size=256M",
    "innodb-log-file-size=256M",
];

/// The address of a log that nobody else uses, on the server of this kind that all tests share.
pub async fn fresh_log(kind: Kind) -> String {
    static SERVERS: [OnceLock<Server>; 5] = [const { OnceLock::new() }; 5];
    match std::env::var("ANNALS_MYSQL_URL") {
        Ok(url) => fresh_database(&url).await,
        Err(_) => fresh_database(&SERVERS[kind as usize].get_or_init(|| kind.start(&SETTINGS)).url()).await,
    }
}

async fn fresh_database(url: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let database = format!("test_{}_{number}", std::process::id());
    let mut connection = connect(url).await;
    connection.execute(AssertSqlSafe(format!("CREATE DATABASE {database}"))).await.unwrap();
    let (place, _) = url.rsplit_once('/').unwrap();
    format!("{place}/{database}")
}

/// A connection beside the store, to the same tables.
pub async fn connect(url: &str) -> MySqlConnection {
    MySqlConnection::connect(url).await.unwrap()
}
