//! Wakes waiting readers: this process notifies the others of its appends, and listens for their
//! notifications.
//!
//! - H1  A notification is a hint to read the head; only the log itself determines how far it goes. It is
//!       sent after the commit, in a transaction of its own: PostgreSQL serializes the commits of all
//!       notifying transactions of a server, and appends must not wait for that. So a notification may be
//!       lost with the process that should have sent it; therefore the head is also polled while a reader
//!       waits. A standby does not allow LISTEN, so there the head is polled often.
//! - H2  A notification that arrives while no reader waits is kept: the next one that waits reads the head at
//!       once.
//! - H3  A connection that is silent for [`QUIET`] is checked, and replaced if it does not respond. No reader
//!       waits for this.

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
use crate::session::{Connected, Connector};

/// The interval between two notifications of one process, and between two reads of the head after
/// notifications. Appends in between are part of the next notification.
const PAUSE: Duration = Duration::from_millis(2);

/// The interval between two reads of the head on a standby, and the delay after a notification without a new
/// head.
const LOOK: Duration = Duration::from_millis(25);

/// A connection that is silent for this long is checked.
const QUIET: Duration = Duration::from_secs(5);

/// A checked connection that does not respond in this time is replaced.
const ANSWER: Duration = Duration::from_secs(5);

/// The longest interval between two attempts to listen.
const AGAIN: Duration = Duration::from_secs(1);

/// A notification is a commit, which need not wait for the disk.
const NOTIFY: &str = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)";

/// The tasks that notify, listen and poll, until this is dropped.
pub(crate) struct Watch(
    #[allow(dead_code, reason = "holds the tasks as long as the store lives")] JoinSet<()>,
);

impl Watch {
    /// Starts to notify others of `written`, and to update `progress`.
    pub(crate) fn start(
        reader: Arc<Reader>,
        address: &Address,
        poll: Duration,
        written: watch::Receiver<Position>,
        progress: Progress,
    ) -> Self {
        // Notifications are per database. The channel is not named by the log's identity, which the copy of a
        // moved log has too.
        let channel = format!("annals {}", address.schema);
        let mut tasks = JoinSet::new();
        tasks.spawn(notify(reader.clone(), channel.clone(), written));
        let heard = Arc::new(Notified::default());
        let listener =
            Listener { address: address.clone(), channel, silence: reader.silence, heard: heard.clone() };
        tasks.spawn(listener.run(poll.min(AGAIN)));
        tasks.spawn(look(reader, heard, poll, progress));
        Self(tasks)
    }
}

async fn notify(reader: Arc<Reader>, channel: String, mut written: watch::Receiver<Position>) {
    while written.changed().await.is_ok() {
        let head = *written.borrow_and_update();
        if let Err(error) = notify_once(&reader, &channel, head).await {
            tracing::debug!(%error, "cannot notify other processes of the new head; they poll");
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

/// Reads the head while a reader waits: after a notification, and at intervals.
async fn look(reader: Arc<Reader>, heard: Arc<Notified>, poll: Duration, progress: Progress) {
    let mut answered = Instant::now();
    let often = LOOK.min(poll);
    let mut standby = Poll::every(often);
    // Whether a notification arrived since the head was last read.
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
                    tokio::time::sleep(if head > known { PAUSE } else { often }).await;
                }
            }
            // Without an error, a reader would wait for a server that is gone.
            Err(error) if answered.elapsed() >= reader.silence => progress.fail(error),
            Err(error) => tracing::debug!(error = error.chain(), "the head could not be read"),
        }
    }
}

/// The state of the listening connection.
#[derive(Default)]
struct Notified {
    notify: Notify,
    /// The server is a standby, which does not allow LISTEN.
    is_standby: AtomicBool,
}

/// Listens for notifications.
struct Listener {
    address: Address,
    channel: String,
    silence: Duration,
    heard: Arc<Notified>,
}

impl Listener {
    /// Listens, and retries after this time if that fails: a standby may be promoted.
    async fn run(self, again: Duration) {
        loop {
            let began = Instant::now();
            let Err(error) = self.listen().await else {
                // A connection that is lost at once, as by a proxy, is not replaced without a delay.
                tokio::time::sleep(again.saturating_sub(began.elapsed())).await;
                continue;
            };
            let is_standby = code(&error) == "25006";
            self.heard.is_standby.store(is_standby, Ordering::Relaxed);
            if !is_standby {
                tracing::debug!(error = failed(error).chain(), "cannot listen for notifications");
            }
            tokio::time::sleep(again).await;
        }
    }

    /// Listens on a connection until it is lost.
    async fn listen(&self) -> Result<(), sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(self.silence);
        let pool = pool.connect_lazy_with(self.address.connect.clone());
        let listening = answered::<Connector, _>(self.silence, async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(&self.channel).await.map(|()| listener)
        });
        let mut listener = listening.await?;
        self.heard.is_standby.store(false, Ordering::Relaxed);
        // Earlier notifications may have been missed.
        self.heard.notify.notify_one();
        loop {
            match tokio::time::timeout(QUIET, listener.try_recv()).await {
                Ok(Ok(Some(_))) => self.heard.notify.notify_one(),
                Ok(lost) => return lost.map(drop),
                Err(_) => {
                    // LISTEN is as good a check as any, and restores the session if a pooler has replaced it.
                    let ask = AssertSqlSafe(format!("LISTEN \"{}\"", self.channel));
                    answered::<Connector, _>(ANSWER.min(self.silence), listener.execute(ask)).await?;
                }
            }
        }
    }
}
