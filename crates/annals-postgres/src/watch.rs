//! Waking those who wait: what this process has written is notified to the others, and what they notify is heard.
//!
//! A notification is a hint to look: how far the log goes, only the log itself says. It is sent after the commit, by itself:
//! PostgreSQL commits transactions that notify one after the other in the whole server, which an append must not wait for.
//! So it may be lost with the process that should have sent it; who waits looks at the head by itself from time to time. On a
//! standby nothing can be listened to: there it is looked often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::Position;
use annals_sql::{Progress, Step, answered};
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::failed;
use crate::options::Address;
use crate::read::Reader;
use crate::session::{Connected, Door};

/// Between two notifications of one process, and between two looks that notifications lead to. What is written meanwhile
/// is in the next.
const PAUSE: Duration = Duration::from_millis(2);

/// Between two looks at the head of a standby, and after a notification that has turned out to say nothing new.
const LOOK: Duration = Duration::from_millis(25);

/// A notification is a commit, which need not wait for the disk.
const NOTIFY: &str = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)";

/// Two tasks that notify and hear, until this is dropped.
pub(crate) struct Watch(
    #[allow(dead_code, reason = "holds the tasks as long as the store lives")] JoinSet<()>,
);

impl Watch {
    /// Begins to notify others of what is `written`, and to look for `progress`.
    pub(crate) fn start(
        reader: Arc<Reader>,
        address: &Address,
        poll: Duration,
        written: watch::Receiver<Position>,
        progress: Progress,
    ) -> Self {
        // Notifications are of one database. Not by identity: the copy of a log that has moved has the same.
        let channel = format!("annals {}", address.schema);
        let mut tasks = JoinSet::new();
        tasks.spawn(notify(reader.clone(), channel.clone(), written));
        let ears = Ears { address: address.clone(), channel, silence: reader.silence };
        tasks.spawn(hear(reader, ears, poll, progress));
        Self(tasks)
    }
}

async fn notify(reader: Arc<Reader>, channel: String, mut written: watch::Receiver<Position>) {
    while written.changed().await.is_ok() {
        let head = *written.borrow_and_update();
        if let Err(error) = notify_once(&reader, &channel, head).await {
            tracing::debug!(%error, "nobody is notified how far the log goes; they will look");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn notify_once(reader: &Reader, channel: &str, head: Position) -> Result<(), sqlx::Error> {
    let mut lent = reader.pool.lend().await?;
    let statement = sqlx::query(NOTIFY).bind(channel).bind(head.to_string());
    let send = async |connection: &mut Connected| statement.execute(&mut **connection).await;
    lent.line().answered(reader.silence, Step::Read, send).await?;
    lent.done();
    Ok(())
}

async fn hear(reader: Arc<Reader>, ears: Ears, poll: Duration, progress: Progress) {
    let mut listener = None;
    let mut tried = None;
    let mut pause = poll;
    let mut answered = Instant::now();
    loop {
        // A standby may be promoted, and then be listened to.
        if listener.is_none() && tried.is_none_or(|tried: Instant| tried.elapsed() >= poll) {
            tried = Some(Instant::now());
            let listening = ears.listen().await;
            pause = if matches!(listening, Err(Deaf::Standby)) { LOOK.min(poll) } else { poll };
            listener = listening.ok();
        }
        let heard = async {
            match &mut listener {
                Some(listener) => listener.try_recv().await,
                None => std::future::pending().await,
            }
        };
        let is_heard = match tokio::time::timeout(pause, heard).await {
            Ok(Ok(Some(_))) => true,
            // The connection was lost; the listener has made a new one or will be asked to.
            Ok(Ok(None)) | Err(_) => false,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the listener has lost its connection");
                listener = None;
                tokio::time::sleep(poll).await;
                false
            }
        };
        if !progress.is_waited_for() {
            answered = Instant::now();
            continue;
        }
        let known = progress.head();
        match reader.head().await {
            Ok(head) => {
                answered = Instant::now();
                progress.passed(head);
                if is_heard {
                    tokio::time::sleep(if head > known { PAUSE } else { LOOK.min(poll) }).await;
                }
            }
            // Who waits would else wait for a server that is gone.
            Err(error) if answered.elapsed() >= reader.silence => progress.fail(error),
            Err(error) => tracing::debug!(error = error.chain(), "the head could not be looked at"),
        }
    }
}

/// Where notifications are listened to.
struct Ears {
    address: Address,
    channel: String,
    silence: Duration,
}

/// Why nothing is heard.
enum Deaf {
    /// A server that only reads.
    Standby,
    Away,
}

impl Ears {
    async fn listen(&self) -> Result<PgListener, Deaf> {
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(self.silence);
        let pool = pool.connect_lazy_with(self.address.connect.clone());
        let listening = answered::<Door, _>(self.silence, async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(&self.channel).await.map(|()| listener)
        });
        listening.await.map_err(|error| match error {
            sqlx::Error::Database(refused) if refused.code().as_deref() == Some("25006") => Deaf::Standby,
            error => {
                tracing::debug!(error = failed(error).chain(), "notifications are not listened to");
                Deaf::Away
            }
        })
    }
}
