//! The newest known head of the log, for which readers wait.
//!
//! It is what was read from the log or committed to it, never what a notification contains.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Cause, Error, Position, Result, Witness};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::Stopped;
use crate::cause::SharedCause;

/// When a log that does not notify is polled for its head: while no event has come for ten seconds, a
/// quarter as often.
#[derive(Debug)]
pub struct Poll {
    every: Duration,
    head: Position,
    moved: Instant,
}

/// A log in which nothing was found for this long is polled less often.
const QUIET: Duration = Duration::from_secs(10);

impl Poll {
    /// Polls at this interval.
    pub fn every(every: Duration) -> Self {
        Self { every, head: Position::ZERO, moved: Instant::now() }
    }

    /// How long to wait before the next poll.
    pub fn pause(&self) -> Duration {
        if self.moved.elapsed() < QUIET { self.every } else { self.every * 4 }
    }

    /// Records what a poll has found.
    pub fn found(&mut self, head: Position) {
        if head != self.head {
            (self.head, self.moved) = (head, Instant::now());
        }
    }
}

/// The newest head that this process has seen. A clone is another handle to it.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    known: watch::Sender<Known>,
    /// Notified when a call begins to wait.
    asked: Notify,
}

#[derive(Clone, Debug)]
struct Known {
    head: Position,
    /// The newest position of a lost event that was known.
    lost_to: Position,
    /// How often all waiting calls were failed, and the cause of the last time.
    failures: u64,
    failure: Option<SharedCause>,
}

impl Known {
    /// Whether this position was known, and the log ends before it now.
    fn has_lost(&self, position: Position) -> bool {
        Position::ZERO < self.head && self.head < position && position <= self.lost_to
    }
}

impl Progress {
    /// Makes the progress of a log whose head is known.
    pub fn at(head: Position) -> Self {
        let known = Known { head, lost_to: Position::ZERO, failures: 0, failure: None };
        Self(Arc::new(Parts { known: watch::Sender::new(known), asked: Notify::new() }))
    }

    /// Records a head of the log.
    pub fn passed(&self, head: Position) {
        self.0.known.send_if_modified(|known| {
            let further = head > known.head;
            known.head = head.max(known.head);
            further
        });
    }

    /// Records that the log has lost this event: its head is not known, and the waiting calls fail.
    pub(crate) fn lost(&self, event: Witness) {
        self.0.known.send_modify(|known| {
            (known.head, known.lost_to) = (Position::ZERO, known.lost_to.max(event.position));
        });
        self.fail(Stopped::OtherHistory { seen: event });
    }

    /// Fails the waiting calls with this, an `Unavailable`: the log could not be read for too long.
    pub fn fail(&self, cause: impl Into<Cause>) {
        self.0.known.send_modify(|known| {
            (known.failures, known.failure) = (known.failures + 1, Some(SharedCause::new(cause)));
        });
    }

    /// The newest head that is known.
    pub fn head(&self) -> Position {
        self.0.known.borrow().head
    }

    /// Waits until the head is beyond this position, and returns it.
    ///
    /// # Errors
    /// `Unavailable` if the log is found to have lost events meanwhile or before it had this position again,
    /// or cannot be looked at for too long.
    pub async fn wait(&self, after: Position) -> Result<Position> {
        let mut known = self.0.known.subscribe();
        let failures = known.borrow().failures;
        self.0.asked.notify_one();
        let ends = |known: &Known| known.head > after || known.failures != failures || known.has_lost(after);
        let known = known.wait_for(ends).await;
        let known = known.expect("the sender lives as long as this");
        match &known.failure {
            Some(cause) if known.head <= after => Err(Error::Unavailable(Box::new(cause.clone()))),
            _ => Ok(known.head),
        }
    }

    /// Waits until a call begins to wait, or has begun since the last call of this.
    pub async fn asked(&self) {
        self.0.asked.notified().await;
    }

    /// Whether a call waits.
    pub fn is_waited_for(&self) -> bool {
        self.0.known.receiver_count() > 0
    }
}

#[cfg(test)]
mod tests {
    use annals_core::EventId;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_quiet_log_is_polled_less_often_until_an_event_comes() {
        let every = Duration::from_millis(25);
        let mut poll = Poll::every(every);
        poll.found(Position::new(7));
        for (after, pause) in [(9, every), (2, every * 4), (60, every * 4)] {
            tokio::time::advance(Duration::from_secs(after)).await;
            poll.found(Position::new(7));
            assert_eq!(poll.pause(), pause, "after {after} s more");
        }
        poll.found(Position::new(8));
        assert_eq!(poll.pause(), every);
        // A log that was restored to an earlier state has moved as well.
        tokio::time::advance(QUIET).await;
        poll.found(Position::new(3));
        assert_eq!(poll.pause(), every);
    }

    #[tokio::test]
    async fn waiting_callers_learn_that_events_were_lost_and_later_ones_wait() {
        let progress = Progress::at(Position::new(3));
        let waiting = tokio::spawn({
            let progress = progress.clone();
            async move { progress.wait(Position::new(3)).await }
        });
        while !progress.is_waited_for() {
            tokio::task::yield_now().await;
        }
        let event = Witness { position: Position::new(3), id: EventId::generate() };
        progress.lost(event);
        let error = waiting.await.unwrap().unwrap_err();
        let message = Stopped::OtherHistory { seen: event }.to_string();
        assert!(error.chain().contains(&message), "{}", error.chain());
        progress.passed(Position::new(1));
        let error = progress.wait(Position::new(3)).await.unwrap_err();
        assert!(error.chain().contains(&message), "one who comes later, from there: {}", error.chain());
        assert_eq!(progress.wait(Position::ZERO).await.unwrap(), Position::new(1));
    }
}
