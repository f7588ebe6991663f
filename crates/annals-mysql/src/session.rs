//! What every connection is set to, and the pool of those that read.

use annals_sql::IDLE;
use futures::FutureExt;
use sqlx::mysql::{MySqlConnection, MySqlPool, MySqlPoolOptions};
use sqlx::pool::PoolConnectionMetadata;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use crate::Options;
use crate::options::Address;

/// Connections for reads.
pub(crate) fn pool(address: &Address, options: &Options) -> MySqlPool {
    pool_of(options, settings(options)).connect_lazy_with(address.connect.clone())
}

/// A pool whose connections are set to this.
pub(crate) fn pool_of(options: &Options, set: String) -> MySqlPoolOptions {
    MySqlPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.patience)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| is_there(connection, meta).boxed())
        .after_connect(move |connection, _| {
            let set = set.clone();
            async move { connection.execute(AssertSqlSafe(set)).await.map(drop) }.boxed()
        })
}

/// Whether a connection of a pool can be used.
async fn is_there(
    connection: &mut MySqlConnection,
    meta: PoolConnectionMetadata,
) -> Result<bool, sqlx::Error> {
    Ok(meta.idle_for < IDLE || connection.ping().await.is_ok())
}

/// A connection that writes. One that has gone silent with the lock of the log held is thrown out by the server.
pub(crate) async fn connect(address: &Address, options: &Options) -> Result<MySqlConnection, sqlx::Error> {
    let silent = seconds(options) * 2;
    let set = format!("{}; SET SESSION wait_timeout = {silent}", settings(options));
    let mut connection = connect_set(address, options, set).await?;
    if options.moving {
        connection.execute("SET @annals_moving = TRUE").await?;
    }
    Ok(connection)
}

/// A connection of nobody else's that is set to this.
pub(crate) async fn connect_set(
    address: &Address,
    options: &Options,
    set: String,
) -> Result<MySqlConnection, sqlx::Error> {
    let connected = tokio::time::timeout(options.patience, address.connect.connect()).await;
    let mut connection = connected.map_err(|_| sqlx::Error::PoolTimedOut)??;
    connection.execute(AssertSqlSafe(set)).await?;
    Ok(connection)
}

/// What the store relies on, whatever the server or the user is set to.
pub(crate) fn settings(options: &Options) -> String {
    let patience = seconds(options);
    // Quotes and concatenation as the standard, PostgreSQL and SQLite have them; and what does not fit is refused, not cut.
    format!(
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
         SET SESSION innodb_lock_wait_timeout = {patience}, SESSION lock_wait_timeout = {patience}, \
         SESSION group_concat_max_len = 67108864, \
         SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    )
}

fn seconds(options: &Options) -> u64 {
    options.patience.as_secs().max(1)
}
