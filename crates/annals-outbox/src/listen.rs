//! Listens for notifications of PostgreSQL (`sql/postgres_notify.sql`), on a connection of its own. When a
//! notification is lost, the message is found by the next poll. A connection that receives nothing for
//! [`QUIET`] is probed, and replaced if the probe fails; the publisher polls meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor};
use tokio::sync::{Notify, watch};

use crate::database::within;
use crate::{Outbox, Pool};

/// A connection that received nothing for this long is probed.
const QUIET: Duration = Duration::from_secs(5);
/// Time limit of a probe, and of making a connection that listens.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest pause between two attempts to listen.
const AGAIN: Duration = Duration::from_secs(1);

/// Spawns the listener, if this is a PostgreSQL database. It ends when `stopped` is set.
pub(crate) fn start(outbox: &Outbox, poll: Duration, wake: Arc<Notify>, mut stopped: watch::Receiver<bool>) {
    #[allow(irrefutable_let_patterns, reason = "there may be no other database in this build")]
    let Pool::Postgres(pool) = &outbox.pool else { return };
    let address = (*pool.connect_options()).clone();
    let channel = outbox.name.clone();
    tokio::spawn(async move {
        let hear = async {
            loop {
                let began = Instant::now();
                let pause = poll.min(AGAIN);
                match hear(&address, &channel, &wake).await {
                    // Not without a pause: a proxy may close each connection at once.
                    Ok(()) => tokio::time::sleep(pause.saturating_sub(began.elapsed())).await,
                    Err(error) => {
                        tracing::debug!(%error, "notifications of the outbox `{channel}` are not heard");
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        };
        tokio::select! {
            () = hear => {}
            // An error means that the sender is gone, which means the same.
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    });
}

/// Wakes the publisher for each notification, until the connection is lost.
async fn hear(address: &PgConnectOptions, channel: &str, wake: &Notify) -> Result<(), sqlx::Error> {
    // A dropped listener returns its connection to the pool after a response of the server, which may never
    // come. So each has a pool of its own.
    let own = PgPoolOptions::new().max_connections(1).connect_lazy_with(address.clone());
    let mut listener = within(ANSWER, PgListener::connect_with(&own)).await?;
    within(ANSWER, listener.listen(channel)).await?;
    // Earlier notifications may have been missed.
    wake.notify_one();
    loop {
        match tokio::time::timeout(QUIET, listener.try_recv()).await {
            Ok(Ok(Some(_))) => wake.notify_one(),
            Ok(lost) => return lost.map(drop),
            Err(_) => {
                let ask = AssertSqlSafe(format!("LISTEN \"{channel}\""));
                within(ANSWER, listener.execute(ask)).await?;
            }
        }
    }
}
