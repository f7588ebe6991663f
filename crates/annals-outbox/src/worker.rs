//! Gives the messages of one aggregate to the sink, one after the other, until one is not taken.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::sync::{mpsc, watch};

use crate::lease::Lease;
use crate::message::{Aggregate, Message};
use crate::pending::Published;
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

/// Reports the end of a worker, however it ends: an aggregate whose worker has panicked must not stay active.
pub(crate) struct Leaving(Option<(Aggregate, mpsc::UnboundedSender<Outcome>)>);

impl Leaving {
    pub(crate) fn new(aggregate: Aggregate, outcomes: mpsc::UnboundedSender<Outcome>) -> Self {
        Self(Some((aggregate, outcomes)))
    }

    pub(crate) fn end(mut self, end: End) {
        self.report(end);
    }

    fn report(&mut self, end: End) {
        if let Some((aggregate, outcomes)) = self.0.take() {
            // Nobody hears it if the publisher has ended.
            let _ = outcomes.send(Outcome::Ended(aggregate, end));
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.report(End::Unavailable("a worker of the publisher has panicked".to_owned()));
    }
}

/// Whether a stop was asked for: also by dropping what could ask.
pub(crate) fn is_stopped(stopped: &watch::Receiver<bool>) -> bool {
    *stopped.borrow() || stopped.has_changed().is_err()
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let said = panic.downcast_ref::<&str>().copied();
    said.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
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
        let leaving = Leaving::new(aggregate, self.outcomes.clone());
        let mut end = End::Done;
        for message in messages {
            if is_stopped(&self.stopped) || !self.lease.allows(term, self.timeout) {
                break;
            }
            let began = Instant::now();
            if let Some(unreadable) = message.unreadable.clone() {
                end = End::Refused(Box::new(message), unreadable);
                break;
            }
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
        leaving.end(end);
    }

    async fn give(&self, message: &Message) -> Answer {
        // The sink may panic before there is a future, and its error when it is asked what it says.
        let publish = AssertUnwindSafe(async {
            match self.sink.publish(message).await {
                Ok(()) => Answer::Taken,
                Err(failure @ Failure { unavailable: false, .. }) => Answer::Refused(failure.to_string()),
                Err(failure) => Answer::Unavailable(failure.to_string()),
            }
        });
        match tokio::time::timeout(self.timeout, publish.catch_unwind()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Answer::Refused(format!("the sink panicked: {}", said(&*panic))),
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
