//! What every connection is set to, and the pool of those that read.

use annals_sql::IDLE;
use futures::FutureExt;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use crate::Options;
use crate::options::Address;

/// Connections for reads.
pub(crate) fn pool(address: &Address, options: &Options) -> PgPool {
    // One more is the listener's.
    pool_of(options, settings(address, options))
        .max_connections(options.connections_max + 1)
        .connect_lazy_with(address.connect.clone())
}

/// A pool whose connections are set to this.
pub(crate) fn pool_of(options: &Options, set: String) -> PgPoolOptions {
    PgPoolOptions::new()
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
async fn is_there(connection: &mut PgConnection, meta: PoolConnectionMetadata) -> Result<bool, sqlx::Error> {
    Ok(meta.idle_for < IDLE || connection.ping().await.is_ok())
}

/// A connection that writes.
pub(crate) async fn connect(address: &Address, options: &Options) -> Result<PgConnection, sqlx::Error> {
    let mut connection = connect_set(address, options, settings(address, options)).await?;
    if options.moving {
        connection.execute("SET annals.moving TO 'on'").await?;
    }
    Ok(connection)
}

/// A connection of nobody else's that is set to this.
pub(crate) async fn connect_set(
    address: &Address,
    options: &Options,
    set: String,
) -> Result<PgConnection, sqlx::Error> {
    let connected = tokio::time::timeout(options.patience, address.connect.connect()).await;
    let mut connection = connected.map_err(|_| sqlx::Error::PoolTimedOut)??;
    connection.execute(AssertSqlSafe(set)).await?;
    Ok(connection)
}

/// What the store relies on, whatever the server or the role is set to.
fn settings(address: &Address, options: &Options) -> String {
    let patience = options.patience.as_millis();
    // A commit that is cancelled while it waits for a standby counts as done; `statement_timeout` is none of that, for
    // PostgreSQL disarms it before it commits. The lock of the log is given up when its holder has gone silent.
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
