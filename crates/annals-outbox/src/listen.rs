//! Hears what PostgreSQL notifies of (`sql/postgres_notify.sql`), on a connection of its own. A notification that is lost
//! costs a poll's time. A connection on which nothing is heard for [`QUIET`] is asked for an answer, and made again if none
//! comes; the publisher looks by itself meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor};
use tokio::sync::{Notify, watch};

use crate::database::within;
use crate::{Outbox, Pool};

/// A connection on which nothing was heard for this long is asked for an answer.
const QUIET: Duration = Duration::from_secs(5);
/// So long may an answer take, and a connection until it listens.
const ANSWER: Duration = Duration::from_secs(5);
/// Between two attempts to listen, at the most.
const AGAIN: Duration = Duration::from_secs(1);

/// Begins to hear, if this is a PostgreSQL database, until it is stopped.
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
                    // One that is lost at once, as by a proxy, is not made again without a pause.
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
            // An error means that nobody is left to stop it, which asks for the same.
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    });
}

/// Hears on a connection until it is lost.
async fn hear(address: &PgConnectOptions, channel: &str, wake: &Notify) -> Result<(), sqlx::Error> {
    // A listener that is dropped returns its connection to its pool after an answer, which may never come: each has a pool
    // of its own.
    let own = PgPoolOptions::new().max_connections(1).connect_lazy_with(address.clone());
    let mut listener = within(ANSWER, PgListener::connect_with(&own)).await?;
    within(ANSWER, listener.listen(channel)).await?;
    // What came before may have been missed.
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
