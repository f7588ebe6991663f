//! A publisher, as a service starts and stops it.

use std::sync::Arc;

use annals_consume::caught;
use tokio::sync::{Notify, watch};

use crate::health::Health;
use crate::lease::Lease;
use crate::publish::AWAY;
use crate::run::Run;
use crate::sink::Sink;
use crate::{Options, Outbox, Result};

/// A publisher that is to be started.
#[must_use = "a publisher does nothing until it is started"]
pub struct Publisher {
    outbox: Outbox,
    sink: Arc<dyn Sink>,
    options: Options,
}

impl Outbox {
    /// A publisher of this outbox to this sink, to be started.
    pub fn publisher(&self, sink: impl Sink) -> Publisher {
        Publisher { outbox: self.clone(), sink: Arc::new(sink), options: Options::default() }
    }
}

impl Publisher {
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
    pub async fn start(self) -> Result<PublisherHandle> {
        let Self { outbox, sink, options } = self;
        options.validate()?;
        outbox.check().await?;
        let wake = PublisherWaker(Arc::new(Notify::new()));
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
        Ok(PublisherHandle { wake, stop, health, ended })
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
pub struct PublisherHandle {
    wake: PublisherWaker,
    stop: watch::Sender<bool>,
    health: watch::Receiver<Health>,
    /// Closed when the publisher has ended.
    ended: watch::Receiver<()>,
}

impl PublisherHandle {
    /// What wakes this publisher: to be given to those who write.
    pub fn waker(&self) -> PublisherWaker {
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
pub struct PublisherWaker(Arc<Notify>);

impl PublisherWaker {
    /// There is something to publish.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}
