//! What every connection is set to, and the pool of those that read.

use std::time::Duration;

use annals_core::Result;
use futures::FutureExt;
use sqlx::mysql::{MySqlConnection, MySqlPool, MySqlPoolOptions};
use sqlx::pool::PoolConnectionMetadata;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use crate::Options;
use crate::error;
use crate::options::Address;

/// A connection that was not used for this long is tried before it is used.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

/// Connections for reads.
pub(crate) fn pool(address: &Address, options: &Options) -> MySqlPool {
    let set = settings(options);
    MySqlPoolOptions::new()
        .max_connections(options.connections_max)
        .acquire_timeout(options.patience)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| is_there(connection, meta).boxed())
        .after_connect(move |connection, _| {
            let set = set.clone();
            async move { connection.execute(AssertSqlSafe(set)).await.map(drop) }.boxed()
        })
        .connect_lazy_with(address.connect.clone())
}

/// Whether a connection of a pool can be used.
pub(crate) async fn is_there(
    connection: &mut MySqlConnection,
    meta: PoolConnectionMetadata,
) -> Result<bool, sqlx::Error> {
    Ok(meta.idle_for < IDLE || connection.ping().await.is_ok())
}

/// A connection that writes.
pub(crate) async fn connect(address: &Address, options: &Options) -> Result<MySqlConnection, sqlx::Error> {
    let connecting = address.connect.connect();
    let connected = tokio::time::timeout(options.patience, connecting).await;
    let mut connection = connected.map_err(|_| sqlx::Error::PoolTimedOut)??;
    connection.execute(AssertSqlSafe(settings(options))).await?;
    // One that has gone silent with the lock of the log held is thrown out by the server.
    let silent = format!("SET SESSION wait_timeout = {}", seconds(options) * 2);
    connection.execute(AssertSqlSafe(silent)).await?;
    if options.moving {
        connection.execute("SET @annals_moving = TRUE").await?;
    }
    Ok(connection)
}

/// What the store relies on, whatever the server or the user is set to.
pub(crate) fn settings(options: &Options) -> String {
    let patience = seconds(options);
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

/// A read that failed, for the caller.
pub(crate) fn failed(error: sqlx::Error) -> annals_core::Error {
    error::failure(error, error::Step::Read).into()
}
