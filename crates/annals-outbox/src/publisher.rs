//! A publisher, as a service starts and stops it.

use std::sync::Arc;
use std::time::Duration;

use annals_consume::caught;
use annals_core::{Backoff, Invalid};
use tokio::sync::{Notify, watch};

use crate::lease::Lease;
use crate::publish::AWAY;
use crate::run::Run;
use crate::sink::Sink;
use crate::{Outbox, Result};

/// How a publisher works.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often it looks for messages if nobody wakes it. 1 second by default.
    pub poll: Duration,
    /// How many messages it reads at once. 256 by default.
    pub batch: usize,
    /// How many aggregates it publishes at once. 16 by default.
    pub concurrency: usize,
    /// How long the sink may take for a message. 5 seconds by default.
    pub timeout: Duration,
    /// How long the lease is: when a publisher has died, another begins after this time. At least twice `timeout`. 15
    /// seconds by default.
    pub lease: Duration,
    /// How often a message is tried before it is a dead letter. 10 by default.
    pub attempts_max: u32,
    /// How long a message waits after it was refused. From 1 second to 5 minutes by default.
    pub backoff: Backoff,
    /// How long messages are kept after they were published. 7 days by default.
    pub keep: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            batch: 256,
            concurrency: 16,
            timeout: Duration::from_secs(5),
            lease: Duration::from_secs(15),
            attempts_max: 10,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
            keep: Duration::from_secs(7 * 86_400),
        }
    }
}

impl Options {
    fn validate(&self) -> Result<(), Invalid> {
        let between = |field: &str, value: usize, most: usize| {
            let problem = || Invalid::new(field, format!("is {value}, and must be from 1 to {most}"));
            if (1..=most).contains(&value) { Ok(()) } else { Err(problem()) }
        };
        between("batch", self.batch, 10_000)?;
        between("concurrency", self.concurrency, 256)?;
        between("attempts_max", self.attempts_max as usize, u32::MAX as usize)?;
        for (field, time) in [("poll", self.poll), ("timeout", self.timeout)] {
            if time.is_zero() {
                return Err(Invalid::new(field, "is zero"));
            }
        }
        if self.lease < self.timeout * 2 {
            let problem =
                format!("is {:?}, and must be at least twice the timeout, {:?}", self.lease, self.timeout);
            return Err(Invalid::new("lease", problem));
        }
        Ok(())
    }
}

/// A publisher that is to be started.
#[must_use = "a publisher does nothing until it is started"]
pub struct Publisher {
    outbox: Outbox,
    sink: Arc<dyn Sink>,
    options: Options,
}

impl Publisher {
    pub(crate) fn new(outbox: Outbox, sink: impl Sink) -> Self {
        Self { outbox, sink: Arc::new(sink), options: Options::default() }
    }

    /// Works like this.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Begins to publish, in a task of its own. Any number of publishers of an outbox may run: one publishes, the others
    /// wait until it stops or dies.
    ///
    /// # Errors
    /// `Invalid` if the options are not acceptable; `NoTables`, `NewerTables`; `Database` if it is not reached now. Later
    /// on the publisher waits until it is.
    pub async fn start(self) -> Result<Publishing> {
        let Self { outbox, sink, options } = self;
        options.validate()?;
        outbox.check().await?;
        let wake = Wake(Arc::new(Notify::new()));
        let (stop, stopped) = watch::channel(false);
        let (told, health) = watch::channel(Health::default());
        #[cfg(feature = "postgres")]
        crate::listen::start(&outbox, options.poll, wake.0.clone(), stopped.clone());
        let (running, ended) = watch::channel(());
        let woken = wake.0.clone();
        tokio::spawn(async move {
            let run = Run {
                lease: Arc::new(Lease::new(options.lease)),
                stop: stopped.into(),
                health: told,
                in_flight: Arc::default(),
                answers: Arc::default(),
                wake: woken,
                outbox,
                sink,
                options,
            };
            run_until_stopped(&run).await;
            drop(running);
        });
        Ok(Publishing { wake, stop, health, ended })
    }
}

/// Runs a publisher until it is stopped. One that panics is begun again after a while.
async fn run_until_stopped(run: &Run) {
    let mut panics = 0;
    while let Err(panic) = caught(run.run()).await {
        panics += 1;
        let problem = format!("the publisher {panic}");
        tracing::error!(panics, "{problem}");
        run.health.send_modify(|health| (health.active, health.problem) = (false, Some(problem)));
        if run.stop.clone().or(tokio::time::sleep(AWAY.before(panics))).await.is_none() {
            return;
        }
    }
}

/// A publisher that runs. Dropped, it is asked to stop, and nobody waits for it.
pub struct Publishing {
    wake: Wake,
    stop: watch::Sender<bool>,
    health: watch::Receiver<Health>,
    /// Closed when the publisher has ended.
    ended: watch::Receiver<()>,
}

impl Publishing {
    /// What wakes this publisher: to be given to those who write.
    pub fn waker(&self) -> Wake {
        self.wake.clone()
    }

    /// How the publisher is; [`Outbox::status`] says how the outbox stands.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Finishes the messages that are with the sink, marks what was published, lets another publisher begin, and ends. After
    /// half a minute it gives up: what is not marked will be published again. Calls of the sink that are
    /// under way then are cancelled before another publisher may begin. Asked for again, also at the same time, it
    /// waits as the first one does.
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<> {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    }
}

/// Wakes a publisher of the same process: called after a commit, the message is published at once.
#[derive(Clone, Debug)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// There is something to publish.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// How a publisher is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Health {
    /// Whether this is the one that publishes.
    pub active: bool,
    /// Messages that it has published since it was started.
    pub published: u64,
    /// How often a message was refused since then.
    pub refused: u64,
    /// Why nothing can be published at the moment: the sink or the database is away.
    pub problem: Option<String>,
    /// Who has the lease, and until when, if this publisher has waited for longer than a lease. That is as it should be
    /// while the other one publishes.
    pub waits_for: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_refused() {
        assert_eq!(Options::default().validate(), Ok(()));
        let wrong = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            options.validate().unwrap_err().to_string()
        };
        assert_eq!(wrong(|o| o.poll = Duration::ZERO), "poll is zero");
        assert_eq!(wrong(|o| o.batch = 0), "batch is 0, and must be from 1 to 10000");
        assert_eq!(wrong(|o| o.concurrency = 257), "concurrency is 257, and must be from 1 to 256");
        assert_eq!(wrong(|o| o.attempts_max = 0), "attempts_max is 0, and must be from 1 to 4294967295");
        assert_eq!(
            wrong(|o| o.lease = Duration::from_secs(9)),
            "lease is 9s, and must be at least twice the timeout, 5s"
        );
    }
}
