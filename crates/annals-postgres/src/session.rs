//! What every connection is set to, and the pool of those that read.

use std::time::Duration;

use annals_core::Result;
use futures::FutureExt;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use crate::Options;
use crate::error;
use crate::options::Address;

/// A connection that was not used for this long is tried before it is used.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

/// Connections for reads.
pub(crate) fn pool(address: &Address, options: &Options) -> PgPool {
    let set = settings(address, options);
    PgPoolOptions::new()
        // One more is the listener's.
        .max_connections(options.connections_max + 1)
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
    connection: &mut PgConnection,
    meta: PoolConnectionMetadata,
) -> Result<bool, sqlx::Error> {
    Ok(meta.idle_for < IDLE || connection.ping().await.is_ok())
}

/// A connection that writes.
pub(crate) async fn connect(address: &Address, options: &Options) -> Result<PgConnection, sqlx::Error> {
    let connecting = address.connect.connect();
    let connected = tokio::time::timeout(options.patience, connecting).await;
    let mut connection = connected.map_err(|_| sqlx::Error::PoolTimedOut)??;
    connection.execute(AssertSqlSafe(settings(address, options))).await?;
    if options.moving {
        connection.execute("SET annals.moving TO 'on'").await?;
    }
    Ok(connection)
}

/// What the store relies on, whatever the server or the role is set to.
fn settings(address: &Address, options: &Options) -> String {
    let patience = options.patience.as_millis();
    // A commit that is cancelled while it waits for a standby counts as done, so a writer has no statement timeout;
    // the lock of the log is given up when its holder has gone silent.
    // Every question is answered from an index, and planned for its own values: a type that is rare is not looked for as
    // one that is frequent.
    format!(
        "SET plan_cache_mode TO force_custom_plan; \
         SET enable_seqscan TO off; SET enable_bitmapscan TO off; SET enable_hashjoin TO off; SET enable_mergejoin TO off; SET jit TO off; \
         SET search_path TO \"{}\"; \
         SET default_transaction_isolation TO 'read committed'; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'; \
         SET lock_timeout TO {patience}; \
         SET idle_in_transaction_session_timeout TO {patience}",
        address.schema
    )
}

/// A read that failed, for the caller.
pub(crate) fn failed(error: sqlx::Error) -> annals_core::Error {
    error::failure(error, error::Step::Read).into()
}
