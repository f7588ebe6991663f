//! Hears what PostgreSQL notifies of (`sql/postgres_notify.sql`), on a connection of its own. A notification that is lost
//! costs a poll's time.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::{Notify, watch};

use crate::{Outbox, Pool};

/// Begins to hear, if this is a PostgreSQL database, until it is stopped.
pub(crate) fn start(outbox: &Outbox, poll: Duration, wake: Arc<Notify>, mut stopped: watch::Receiver<bool>) {
    #[allow(irrefutable_let_patterns, reason = "there may be no other database in this build")]
    let Pool::Postgres(pool) = &outbox.pool else { return };
    let own = PgPoolOptions::new().max_connections(1).connect_lazy_with((*pool.connect_options()).clone());
    let channel = outbox.name.clone();
    tokio::spawn(async move {
        let hear = async {
            loop {
                if let Err(error) = hear(&own, &channel, &wake).await {
                    tracing::debug!(%error, "notifications of the outbox `{channel}` are not heard");
                }
                tokio::time::sleep(poll).await;
            }
        };
        tokio::select! {
            () = hear => {}
            // An error means that nobody is left to stop it, which asks for the same.
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    });
}

async fn hear(own: &sqlx::PgPool, channel: &str, wake: &Notify) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(own).await?;
    listener.listen(channel).await?;
    loop {
        // Nothing means that the connection was lost and made again: something may have been missed.
        listener.try_recv().await?;
        wake.notify_one();
    }
}
