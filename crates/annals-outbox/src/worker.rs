//! Gives the messages of one aggregate to the sink, one after the other, until one is not taken.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::sync::{mpsc, watch};

use crate::lease::Lease;
use crate::message::{Aggregate, Message};
use crate::pending::Published;
use crate::run::is_stopped;
use crate::sink::Sink;
use crate::{Failure, Result};

/// What came of messages.
pub(crate) enum Outcome {
    /// The sink has taken one.
    Published(Published),
    /// A worker has ended.
    Ended(Aggregate, End),
}

/// How a worker ended.
pub(crate) enum End {
    /// There was no more, or it had to stop.
    Done,
    /// The sink is away.
    Unavailable(String),
    /// The sink did not take this message.
    Refused(Box<Message>, String),
    /// That it did not take one was recorded, or could not be.
    Recorded(Result<()>),
}

#[derive(Clone)]
pub(crate) struct Worker {
    sink: Arc<dyn Sink>,
    lease: Arc<Lease>,
    timeout: Duration,
    stopped: watch::Receiver<bool>,
    pub(crate) outcomes: mpsc::UnboundedSender<Outcome>,
    /// When the sink last took a message, of any aggregate.
    taken: Arc<Mutex<Option<Instant>>>,
}

/// What a sink did with a message.
enum Answer {
    Taken,
    Refused(String),
    Unavailable(String),
    TimedOut,
}

impl Worker {
    pub(crate) fn new(
        sink: Arc<dyn Sink>,
        lease: Arc<Lease>,
        timeout: Duration,
        stopped: watch::Receiver<bool>,
        outcomes: mpsc::UnboundedSender<Outcome>,
    ) -> Self {
        Self { sink, lease, timeout, stopped, outcomes, taken: Arc::default() }
    }

    /// Publishes messages of this aggregate under the lease of this term.
    pub(crate) async fn publish(self, aggregate: Aggregate, messages: Vec<Message>, term: u64) {
        let mut end = End::Done;
        for message in messages {
            if is_stopped(&self.stopped) || !self.lease.allows(term, self.timeout) {
                break;
            }
            let began = Instant::now();
            end = match self.give(&message).await {
                Answer::Taken => {
                    self.took();
                    let published = Published { position: message.position, failed: message.attempt > 1 };
                    // Nobody hears it if the publisher has ended.
                    let _ = self.outcomes.send(Outcome::Published(published));
                    continue;
                }
                Answer::Refused(error) => End::Refused(Box::new(message), error),
                Answer::Unavailable(error) => End::Unavailable(error),
                Answer::TimedOut => {
                    let error = format!("the sink did not answer within {:?}", self.timeout);
                    // It is because of the message only if others get through.
                    if self.took_since(began) {
                        End::Refused(Box::new(message), error)
                    } else {
                        End::Unavailable(error)
                    }
                }
            };
            break;
        }
        let _ = self.outcomes.send(Outcome::Ended(aggregate, end));
    }

    async fn give(&self, message: &Message) -> Answer {
        // The sink may panic before there is a future.
        let publish = AssertUnwindSafe(async { self.sink.publish(message).await }).catch_unwind();
        match tokio::time::timeout(self.timeout, publish).await {
            Ok(Ok(Ok(()))) => Answer::Taken,
            Ok(Ok(Err(failure @ Failure { unavailable: false, .. }))) => Answer::Refused(failure.to_string()),
            Ok(Ok(Err(failure))) => Answer::Unavailable(failure.to_string()),
            Ok(Err(panic)) => {
                let said = panic.downcast_ref::<&str>().copied();
                let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                Answer::Refused(format!("the sink panicked: {}", said.unwrap_or("(no message)")))
            }
            Err(_) => Answer::TimedOut,
        }
    }

    fn took(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn took_since(&self, time: Instant) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|taken| taken >= time)
    }
}
