//! Waking those who wait: what this process has written is told to the others, and what they tell is heard.
//!
//! A notification says how far the log has come. It is sent behind the commit, by itself: PostgreSQL commits
//! transactions that notify one after the other in the whole server, which an append must not wait for. So it may be
//! lost with the process that should have sent it; whoever waits looks at the head by itself from time to time. On a
//! standby nothing can be listened to: there it is looked often.

use std::time::{Duration, Instant};

use annals_core::{Position, StoreId};
use annals_sql::Progress;
use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::read;

/// Between two notifications of one process. What is written meanwhile is told by the next.
const PAUSE: Duration = Duration::from_millis(2);

/// Between two looks at the head of a standby.
const LOOK: Duration = Duration::from_millis(25);

/// A notification is a commit, which need not wait for the disk.
const TELL: &str = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)";

/// Two tasks that tell and hear, until this is dropped.
pub(crate) struct Watch(
    #[allow(dead_code, reason = "holds the tasks as long as the store lives")] JoinSet<()>,
);

impl Watch {
    /// Begins to tell what is `written`, and to hear of `progress`.
    pub(crate) fn start(
        pool: PgPool,
        id: StoreId,
        poll: Duration,
        written: watch::Receiver<Position>,
        progress: Progress,
    ) -> Self {
        let channel = format!("annals {id}");
        let mut tasks = JoinSet::new();
        tasks.spawn(tell(pool.clone(), channel.clone(), written));
        tasks.spawn(hear(pool, channel, poll, progress));
        Self(tasks)
    }
}

async fn tell(pool: PgPool, channel: String, mut written: watch::Receiver<Position>) {
    while written.changed().await.is_ok() {
        let head = *written.borrow_and_update();
        let statement = sqlx::query(TELL).bind(&channel).bind(head.to_string());
        if let Err(error) = statement.execute(&pool).await {
            tracing::debug!(%error, "nobody is told how far the log has come; they will look");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn hear(pool: PgPool, channel: String, poll: Duration, progress: Progress) {
    let mut listener = None;
    let mut tried = None;
    let mut pause = poll;
    loop {
        // A standby may be promoted, and then be listened to.
        if listener.is_none() && tried.is_none_or(|tried: Instant| tried.elapsed() >= poll) {
            tried = Some(Instant::now());
            let listening = listen(&pool, &channel).await;
            pause = if matches!(listening, Err(Deaf::Standby)) { LOOK.min(poll) } else { poll };
            listener = listening.ok();
        }
        let heard = async {
            match &mut listener {
                Some(listener) => listener.try_recv().await,
                None => std::future::pending().await,
            }
        };
        match tokio::time::timeout(pause, heard).await {
            Ok(Ok(Some(notification))) => {
                if let Ok(head) = notification.payload().parse() {
                    progress.passed(head);
                    continue;
                }
            }
            // The connection was lost; the listener has made a new one or will be asked to.
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "the listener has lost its connection");
                listener = None;
                tokio::time::sleep(poll).await;
            }
            Err(_) => {}
        }
        if progress.is_waited_for()
            && let Ok(head) = read::head(&pool).await
        {
            progress.passed(head);
        }
    }
}

/// Why nothing is heard.
enum Deaf {
    /// A server that only reads.
    Standby,
    Away,
}

async fn listen(pool: &PgPool, channel: &str) -> Result<PgListener, Deaf> {
    let mut listener = PgListener::connect_with(pool).await.map_err(|_| Deaf::Away)?;
    match listener.listen(channel).await {
        Ok(()) => Ok(listener),
        Err(sqlx::Error::Database(refused)) if refused.code().as_deref() == Some("25006") => {
            Err(Deaf::Standby)
        }
        Err(_) => Err(Deaf::Away),
    }
}
