//! Starting and stopping a publisher.

use std::sync::Arc;

use annals_consume::caught;
use tokio::sync::{Notify, watch};

use crate::health::Health;
use crate::lease::Lease;
use crate::publish::AWAY;
use crate::run::Run;
use crate::sink::Sink;
use crate::{Options, Outbox, Result};

/// A publisher that is not started yet.
#[must_use = "a publisher does nothing until it is started"]
pub struct Publisher {
    outbox: Outbox,
    sink: Arc<dyn Sink>,
    options: Options,
}

impl Outbox {
    /// Creates a publisher from this outbox to this sink. It publishes once it is
    /// [started](Publisher::start).
    pub fn publisher(&self, sink: impl Sink) -> Publisher {
        Publisher { outbox: self.clone(), sink: Arc::new(sink), options: Options::default() }
    }
}

impl Publisher {
    /// Sets the options.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Starts to publish, in a background task. Any number of publishers of an outbox may run: one publishes,
    /// the others wait until it stops or dies.
    ///
    /// # Errors
    /// `Invalid` if the options are not acceptable; `NoTables`, `NewerTables`; `Database` if the database
    /// cannot be reached. When it fails later, the publisher retries.
    pub async fn start(self) -> Result<PublisherHandle> {
        let Self { outbox, sink, options } = self;
        options.validate()?;
        outbox.check().await?;
        let wake = PublisherWaker(Arc::new(Notify::new()));
        let (stop, stopped) = watch::channel(false);
        let (reported, health) = watch::channel(Health::default());
        #[cfg(feature = "postgres")]
        crate::listen::start(&outbox, options.poll, wake.0.clone(), stopped.clone());
        let (running, ended) = watch::channel(());
        let woken = wake.0.clone();
        tokio::spawn(async move {
            let run = Run {
                lease: Arc::new(Lease::new(options.lease)),
                stop: stopped.into(),
                health: reported,
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
        Ok(PublisherHandle { wake, stop, health, ended })
    }
}

/// Runs a publisher until it is stopped. Restarts it after a panic, with a pause.
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

/// A running publisher. Dropping it asks the publisher to stop, and does not wait for that.
pub struct PublisherHandle {
    wake: PublisherWaker,
    stop: watch::Sender<bool>,
    health: watch::Receiver<Health>,
    /// Closed when the publisher has ended.
    ended: watch::Receiver<()>,
}

impl PublisherHandle {
    /// Returns a waker of this publisher, for the code that writes messages.
    pub fn waker(&self) -> PublisherWaker {
        self.wake.clone()
    }

    /// Returns the health of this publisher. [`Outbox::status`] has the status of the outbox.
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Stops the publisher: waits for the calls of the sink, marks the published messages, and releases the
    /// lease. After half a minute the calls are cancelled, and messages that are not marked will be published
    /// again. Further calls of `stop` wait for the same end.
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<> {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        async move { while ended.changed().await.is_ok() {} }
    }
}

/// Wakes a publisher of the same process. Call it after a commit, so that the message is published at once
/// and not at the next poll.
#[derive(Clone, Debug)]
pub struct PublisherWaker(Arc<Notify>);

impl PublisherWaker {
    /// Makes the publisher read the table now.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}
