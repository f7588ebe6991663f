//! Waking those who wait: what this process has written is notified to the others, and what they notify is heard.
//!
//! - H1  A notification is a hint to look: how far the log goes, only the log itself says. It is sent after the commit, by
//!       itself: PostgreSQL commits transactions that notify one after the other in the whole server, which an append must not
//!       wait for. So it may be lost with the process that should have sent it; who waits looks at the head by itself from time
//!       to time. On a standby nothing can be listened to: there it is looked often.
//! - H2  A notification that comes while nobody waits is not forgotten: the next who waits looks at once.
//! - H3  A connection on which nothing is heard for [`QUIET`] is asked for an answer, and made again if none comes. That holds
//!       up nobody who waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use annals_core::Position;
use annals_sql::{Poll, Progress, Step, answered};
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::error::{code, failed};
use crate::options::Address;
use crate::read::Reader;
use crate::session::{Connected, Door};

/// Between two notifications of one process, and between two looks that notifications lead to. What is written meanwhile
/// is in the next.
const PAUSE: Duration = Duration::from_millis(2);

/// Between two looks at the head of a standby, and after a notification that has turned out to say nothing new.
const LOOK: Duration = Duration::from_millis(25);

/// A connection on which nothing was heard for this long is asked for an answer.
const QUIET: Duration = Duration::from_secs(5);

/// It is made again if it does not answer in this time.
const ANSWER: Duration = Duration::from_secs(5);

/// Between two attempts to listen, at the most.
const AGAIN: Duration = Duration::from_secs(1);

/// A notification is a commit, which need not wait for the disk.
const NOTIFY: &str = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)";

/// Tasks that notify, listen and look, until this is dropped.
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
        let heard = Arc::new(Heard::default());
        let ears = Ears { address: address.clone(), channel, silence: reader.silence, heard: heard.clone() };
        tasks.spawn(ears.run(poll.min(AGAIN)));
        tasks.spawn(look(reader, heard, poll, progress));
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

/// Looks at the head while somebody waits: when something was heard, and from time to time.
async fn look(reader: Arc<Reader>, heard: Arc<Heard>, poll: Duration, progress: Progress) {
    let mut answered = Instant::now();
    let mut standby = Poll::every(LOOK.min(poll));
    // Something was heard since the head was looked at the last time.
    let mut is_heard = false;
    loop {
        let pause = if heard.is_standby.load(Ordering::Relaxed) { standby.pause() } else { poll };
        tokio::select! {
            () = heard.notify.notified() => is_heard = true,
            () = progress.asked(), if is_heard => {}
            () = tokio::time::sleep(pause) => {}
        }
        if !progress.is_waited_for() {
            answered = Instant::now();
            continue;
        }
        let known = progress.head();
        match reader.head().await {
            Ok(head) => {
                answered = Instant::now();
                standby.found(head);
                progress.passed(head);
                if std::mem::take(&mut is_heard) {
                    tokio::time::sleep(if head > known { PAUSE } else { LOOK.min(poll) }).await;
                }
            }
            // Who waits would else wait for a server that is gone.
            Err(error) if answered.elapsed() >= reader.silence => progress.fail(error),
            Err(error) => tracing::debug!(error = error.chain(), "the head could not be looked at"),
        }
    }
}

/// What has come of listening.
#[derive(Default)]
struct Heard {
    notify: Notify,
    /// The server only reads, so nothing can be listened to.
    is_standby: AtomicBool,
}

/// Where notifications are listened to.
struct Ears {
    address: Address,
    channel: String,
    silence: Duration,
    heard: Arc<Heard>,
}

impl Ears {
    /// Listens, again after this time if that fails: a standby may be promoted.
    async fn run(self, again: Duration) {
        loop {
            let began = Instant::now();
            let Err(error) = self.listen().await else {
                // One that is lost at once, as by a proxy, is not made again without a pause.
                tokio::time::sleep(again.saturating_sub(began.elapsed())).await;
                continue;
            };
            let is_standby = code(&error) == "25006";
            self.heard.is_standby.store(is_standby, Ordering::Relaxed);
            if !is_standby {
                tracing::debug!(error = failed(error).chain(), "notifications are not listened to");
            }
            tokio::time::sleep(again).await;
        }
    }

    /// Listens on a connection until it is lost.
    async fn listen(&self) -> Result<(), sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(self.silence);
        let pool = pool.connect_lazy_with(self.address.connect.clone());
        let listening = answered::<Door, _>(self.silence, async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(&self.channel).await.map(|()| listener)
        });
        let mut listener = listening.await?;
        self.heard.is_standby.store(false, Ordering::Relaxed);
        // What came before may have been missed.
        self.heard.notify.notify_one();
        loop {
            match tokio::time::timeout(QUIET, listener.try_recv()).await {
                Ok(Ok(Some(_))) => self.heard.notify.notify_one(),
                Ok(lost) => return lost.map(drop),
                Err(_) => {
                    // Listening again is an answer as good as any, and mends what a pooler may have done to the session.
                    let ask = AssertSqlSafe(format!("LISTEN \"{}\"", self.channel));
                    answered::<Door, _>(ANSWER.min(self.silence), listener.execute(ask)).await?;
                }
            }
        }
    }
}
