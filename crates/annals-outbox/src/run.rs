//! The task of a publisher: acquires the lease, and publishes messages while it holds it
//! (`annals_consume::Runner`).
//!
//! - R1  Published messages are marked also after the lease was lost: the sink has taken them.
//! - R2  The lease is released when no call of the sink is in progress. If one does not end, the lease
//!       expires.
//!
//! Next: `source` (which messages), `publish` (to the sink), `in_flight`.

use std::sync::Arc;
use std::time::Duration;

use annals_consume::{Runner, Stop};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::Outbox;
use crate::health::Health;
use crate::in_flight::InFlight;
use crate::lease::{Kept, Lease};
use crate::options::Options;
use crate::publish::{AWAY, Answers, Publish};
use crate::sink::Sink;
use crate::source::{Marks, Reports};

/// Time limit of the calls of the sink that are in progress at a stop.
const GRACE: Duration = Duration::from_secs(30);
/// Time limit of a stopped publisher for marking published messages and releasing the lease.
const END: Duration = Duration::from_secs(30);

pub(crate) struct Run {
    pub outbox: Outbox,
    pub sink: Arc<dyn Sink>,
    pub options: Options,
    pub wake: Arc<Notify>,
    pub stop: Stop,
    pub health: watch::Sender<Health>,
    pub lease: Arc<Lease>,
    pub in_flight: Arc<InFlight>,
    pub answers: Arc<Mutex<Answers>>,
}

impl Run {
    /// Publishes until a stop is requested.
    pub(crate) async fn run(&self) {
        let (mut stop, mut failed) = (self.stop.clone(), 0);
        while !stop.is_asked() {
            let wait = match self.lease.keep(&self.outbox).await {
                Ok(Kept::Held(term)) => {
                    failed = 0;
                    self.is_active(true, None);
                    self.publish(term, &mut stop).await;
                    continue;
                }
                Ok(Kept::Waits { other, long }) => {
                    failed = 0;
                    self.is_active(false, long.then(|| other.to_string()));
                    match self.marks(0).mark().await {
                        Ok(()) => {
                            self.health.send_if_modified(|health| health.problem.take().is_some());
                        }
                        Err(error) => self.report(&error),
                    }
                    self.options.poll
                }
                Err(error) => {
                    failed += 1;
                    self.report(&error);
                    AWAY.before(failed)
                }
            };
            stop.or(tokio::time::sleep(wait)).await;
        }
        let ended = async {
            // Unmarked messages are published again by the next holder, which need not wait for this.
            if let Err(error) = self.marks(0).mark().await {
                tracing::warn!(
                    %error,
                    "the outbox `{}` is stopped before all published messages were marked: some will be published again",
                    self.outbox.name
                );
            }
            if self.in_flight.has_calls() {
                return Err("a call of the sink does not return".to_owned());
            }
            self.lease.release(&self.outbox).await.map_err(|error| error.to_string())
        };
        let released = tokio::time::timeout(END, ended).await;
        if let Err(error) = released.unwrap_or_else(|_| Err("the database does not respond".to_owned())) {
            tracing::warn!(
                error,
                "the lease of the outbox `{}` is not released and will expire",
                self.outbox.name
            );
        }
    }

    /// Publishes under the lease of this term, until it is lost or a stop is requested.
    async fn publish(&self, term: u64, stop: &mut Stop) {
        let effect = Publish {
            outbox: self.outbox.clone(),
            sink: self.sink.clone(),
            options: self.options,
            lease: self.lease.clone(),
            term,
            in_flight: self.in_flight.clone(),
            health: self.health.clone(),
            stop: stop.clone(),
            answers: self.answers.clone(),
        };
        let reports = Reports(self.health.clone());
        let options = annals_consume::Options {
            lanes: self.options.concurrency,
            // No limit: the source limits the aggregates that it hands out.
            window_max: usize::MAX,
            bytes_max: usize::MAX,
            backoff: AWAY,
            write_every: Duration::ZERO,
            grace: GRACE,
            ..annals_consume::Options::default()
        };
        let name = format!("outbox {}", self.outbox.name);
        let runner = Runner::new(name, Arc::new(effect), self.marks(term), Arc::new(reports), options);
        tokio::select! {
            () = runner.run(stop) => {}
            () = self.keep_lease(term) => {
                tracing::warn!("the lease of the outbox `{}` is lost; another publisher may have it", self.outbox.name);
            }
        }
    }

    /// Renews the lease until it is lost.
    async fn keep_lease(&self, term: u64) {
        let mut failed = 0;
        loop {
            let pause = self.options.poll.min(self.options.lease / 6);
            tokio::time::sleep(if failed > 0 { AWAY.before(failed).min(pause) } else { pause }).await;
            match self.lease.keep(&self.outbox).await {
                Ok(Kept::Held(now)) if now == term => failed = 0,
                Ok(_) => return,
                // The lease has not ended yet.
                Err(_) if self.lease.allows(term, Duration::ZERO) => failed += 1,
                Err(error) => return self.report(&error),
            }
        }
    }

    fn marks(&self, term: u64) -> Marks {
        Marks {
            outbox: self.outbox.clone(),
            options: self.options,
            lease: self.lease.clone(),
            term,
            in_flight: self.in_flight.clone(),
            wake: self.wake.clone(),
        }
    }

    fn is_active(&self, active: bool, waits_for: Option<String>) {
        self.health.send_if_modified(|health| {
            let was = std::mem::replace(&mut health.active, active);
            let waited = std::mem::replace(&mut health.waits_for, waits_for.clone());
            was != active || waited != waits_for
        });
    }

    fn report(&self, error: &crate::Error) {
        let error = error.to_string();
        tracing::warn!(error, "the outbox `{}` cannot be read or written", self.outbox.name);
        self.health.send_modify(|health| health.problem = Some(error));
    }
}
