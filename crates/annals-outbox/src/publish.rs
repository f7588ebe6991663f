//! Gives messages to the sink, and records the results in the tables.
//!
//! - P1  A message is marked after the sink has taken it, never before. If the process ends between the two,
//!       the message is published again.
//! - P2  When the sink does not take a message, this one and all later messages of its aggregate that were
//!       handed out are given back, and chosen again later.
//! - P3  A message is given to the sink only if the rest of the lease is longer than the timeout of the sink
//!       (`lease`, L3).

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_consume::{Applied, Effect, SoFar, Stop, Stopped, caught};
use annals_core::Backoff;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::health::Health;
use crate::in_flight::InFlight;
use crate::lease::Lease;
use crate::message::{Aggregate, Message};
use crate::options::Options;
use crate::pending::Published;
use crate::sink::Sink;
use crate::source::Pending;
use crate::{Outbox, SinkError};

/// The pause between attempts while the sink or the database cannot be reached.
pub(crate) const AWAY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

pub(crate) struct Publish {
    pub outbox: Outbox,
    pub sink: Arc<dyn Sink>,
    pub options: Options,
    pub lease: Arc<Lease>,
    /// The term of the lease under which this publishes.
    pub term: u64,
    pub in_flight: Arc<InFlight>,
    pub health: watch::Sender<Health>,
    pub stop: Stop,
    pub answers: Arc<Mutex<Answers>>,
}

/// The latest results of the sink.
#[derive(Default)]
pub(crate) struct Answers {
    /// When it last took a message, of any aggregate.
    taken: Option<Instant>,
    /// How often it was unavailable since.
    away: u32,
}

/// The result of the sink for one message.
enum Answer {
    Taken,
    Refused(String),
    Unavailable(String),
}

impl Effect<Pending> for Publish {
    async fn apply(&self, messages: &Arc<Vec<Message>>, _: u32, _: &SoFar<'_>) -> Applied {
        let _call = self.in_flight.call();
        for (index, message) in messages.iter().enumerate() {
            if self.stop.is_asked() {
                return Applied::stopped(index, Stopped::Interrupted);
            }
            if !self.lease.allows(self.term, self.options.timeout) {
                return Applied::stopped(index, Stopped::Moved("the lease is about to end".to_owned()));
            }
            let aggregate = message.aggregate();
            match self.publish(message).await {
                Answer::Taken => self.taken(aggregate, message),
                Answer::Refused(error) => {
                    self.record(&aggregate, message, error).await;
                    return self.give_back(index, &aggregate);
                }
                Answer::Unavailable(error) => {
                    self.pause(error);
                    return self.give_back(index, &aggregate);
                }
            }
        }
        Applied::all(messages.len())
    }
}

impl Publish {
    /// Gives a message to the sink.
    async fn publish(&self, message: &Message) -> Answer {
        if let Some(unreadable) = message.unreadable.clone() {
            return Answer::Refused(unreadable);
        }
        let began = Instant::now();
        // The sink may panic before it returns a future, and its error when it is formatted.
        let publish = caught(async {
            match self.sink.publish(message).await {
                Ok(()) => Answer::Taken,
                Err(failure @ SinkError { unavailable: false, .. }) => Answer::Refused(failure.to_string()),
                Err(failure) => Answer::Unavailable(failure.to_string()),
            }
        });
        match tokio::time::timeout(self.options.timeout, publish).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Answer::Refused(format!("the sink {panic}")),
            Err(_) => {
                let error = format!("the sink did not answer within {:?}", self.options.timeout);
                // It counts against the message only if the sink has taken another one meanwhile.
                let others_do = self.answers.lock().taken.is_some_and(|taken| taken >= began);
                if others_do { Answer::Refused(error) } else { Answer::Unavailable(error) }
            }
        }
    }

    fn taken(&self, aggregate: Aggregate, message: &Message) {
        *self.answers.lock() = Answers { taken: Some(Instant::now()), away: 0 };
        self.in_flight.unpause();
        let published = Published { position: message.position, failed: message.attempt > 1 };
        self.in_flight.published(aggregate, published);
        self.health.send_modify(|health| {
            health.published += 1;
            health.problem = None;
        });
    }

    /// Records a refusal. The aggregate stays active until that is done, which may take time: a dead letter
    /// waits for transactions that write for its aggregate.
    async fn record(&self, aggregate: &Aggregate, message: &Message, error: String) {
        self.health.send_modify(|health| health.refused += 1);
        let again = message.attempt < self.options.attempts_max && !message.nameless;
        let again = again.then(|| self.options.backoff.before(message.attempt));
        let (id, attempt) = (message.id, message.attempt);
        match again {
            Some(wait) => tracing::warn!(%id, attempt, error, ?wait, "a message of {aggregate} is refused"),
            None => {
                tracing::error!(%id, attempt, error, "a message of {aggregate} is a dead letter; {aggregate} waits for it");
            }
        }
        match self.outbox.record(message, &error, again).await {
            // Both the sink and the database have responded.
            Ok(()) => {
                self.health.send_if_modified(|health| health.problem.take().is_some());
            }
            Err(error) => {
                let error = error.to_string();
                tracing::warn!(error, "the refusal of a message of {aggregate} cannot be recorded");
                self.health.send_modify(|health| health.problem = Some(error));
                tokio::time::sleep(AWAY.before(1)).await;
            }
        }
    }

    /// Pauses publishing after the sink was unavailable.
    fn pause(&self, error: String) {
        let wait = AWAY.before(self.answers.lock().away + 1);
        // Several lanes may notice it at once.
        if self.in_flight.pause(Instant::now() + wait) {
            self.answers.lock().away += 1;
            tracing::warn!(error, ?wait, "the sink of the outbox `{}` is away", self.outbox.name);
        }
        self.health.send_modify(|health| health.problem = Some(error));
    }

    fn give_back(&self, index: usize, aggregate: &Aggregate) -> Applied {
        self.in_flight.give_back(aggregate);
        Applied::stopped(index, Stopped::Released)
    }
}
