//! The progress of a projection or a subscriber, for callers that wait for it and for monitoring.

use annals_core::{EventId, Position, Seen, Timestamp, Witness};
use tokio::sync::watch;

/// What a projection or a subscriber is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// It has not reached the end of the log since it was started.
    CatchingUp,
    /// It has reached the end of the log, and is at most slightly behind it.
    Live,
    /// An event failed and is retried; later events wait.
    Retrying,
    /// Another process on the same database runs it; this one takes over when that ends.
    Standby,
    /// Stopped; finished work is kept.
    Stopped,
}

/// The kind of consumer in a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A projection.
    Projection,
    /// A subscriber.
    Subscriber,
}

/// The status of a projection or a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether it is a projection or a subscriber.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub phase: Phase,
    /// Everything up to here is finished.
    pub position: Position,
    /// Position of the newest event in the log when the status was read.
    pub head: Position,
    /// The last error since the last success, and the number of attempts.
    pub failing: Option<LastError>,
    /// The number of events for which a command was refused, since the start of this process. A refusal is a
    /// result: the subscriber is done with these events. Always 0 for a projection.
    pub refused: u64,
    /// A notice for the operator although nothing fails: which process has the lease that this one waits for,
    /// or that it stepped back because events were lost.
    pub notice: Option<String>,
}

/// The error of a consumer that fails now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastError {
    /// The last error.
    pub error: String,
    /// The number of failed attempts.
    pub attempts: u32,
    /// Position of the event that fails, if it is an event.
    pub position: Option<Position>,
    /// The time of the first failed attempt.
    pub since: Timestamp,
}

impl Status {
    /// The number of positions between it and the end of the log.
    pub fn lag(&self) -> u64 {
        self.head.get().saturating_sub(self.position.get())
    }
}

/// The state that the runner reports and other callers can wait for.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub phase: Phase,
    pub position: Position,
    /// The id of the event there, if it is known.
    pub event: Option<EventId>,
    pub failing: Option<LastError>,
    pub refused: u64,
    pub notice: Option<String>,
    /// Whether this process has nothing to do, because others handle all shares.
    pub idle: bool,
}

impl Standing {
    /// The last finished event, if it is known.
    pub fn witness(&self) -> Option<Witness> {
        Seen { position: self.position, event: self.event }.witness()
    }
}

/// The sending side of the progress, used by the runner.
pub(crate) struct Progress(watch::Sender<Standing>);

impl Progress {
    pub fn from(position: Position) -> Self {
        Self(watch::Sender::new(Standing {
            phase: Phase::CatchingUp,
            position,
            event: None,
            failing: None,
            refused: 0,
            notice: None,
            idle: false,
        }))
    }

    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.0.subscribe()
    }

    pub fn standing(&self) -> Standing {
        self.0.borrow().clone()
    }

    /// Reports that everything up to here is finished. Never moves back.
    pub fn reached(&self, seen: impl Into<Seen>) {
        let Seen { position, event } = seen.into();
        self.0.send_if_modified(|standing| {
            let moved = position > standing.position;
            if moved {
                (standing.position, standing.event) = (position, event);
            }
            moved
        });
    }

    /// Reports that it resumes here, perhaps further back, because events were lost or the rows are rebuilt.
    pub fn resumes_at(&self, seen: impl Into<Seen>) {
        let Seen { position, event } = seen.into();
        self.0.send_if_modified(|standing| {
            let moved = (standing.position, standing.event) != (position, event);
            if position < standing.position && standing.phase == Phase::Live {
                standing.phase = Phase::CatchingUp;
            }
            (standing.position, standing.event) = (position, event);
            moved
        });
    }

    /// Sets the notice for the operator, or clears it.
    pub fn notes(&self, notice: Option<String>) {
        self.0.send_if_modified(|standing| {
            let news = standing.notice != notice;
            standing.notice = notice;
            news
        });
    }

    /// Whether a caller waits for the progress.
    pub fn is_waited_for(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Reports that another process runs it.
    pub fn stands_by(&self) {
        self.0.send_modify(|standing| (standing.phase, standing.failing) = (Phase::Standby, None));
    }

    /// Reports that this process runs it from now on.
    pub fn takes_over(&self) {
        self.0.send_modify(|standing| (standing.phase, standing.notice) = (Phase::CatchingUp, None));
    }

    /// Clears the error after a success.
    pub fn worked(&self) {
        self.0.send_if_modified(|standing| {
            let failed = standing.failing.take().is_some();
            if failed && standing.phase == Phase::Retrying {
                standing.phase = Phase::CatchingUp;
            }
            failed
        });
    }

    /// Clears the error if it is of the event at this position; `None` for an error that was not of an event.
    pub fn worked_at(&self, position: Option<Position>) {
        let failing = self.0.borrow().failing.as_ref().map(|failing| failing.position);
        if failing == Some(position) {
            self.worked();
        }
    }

    /// Clears the error if it is of an event.
    pub fn no_event_fails(&self) {
        let failing = self.0.borrow().failing.as_ref().and_then(|failing| failing.position);
        if failing.is_some() {
            self.worked();
        }
    }

    /// Reports that it is at the end of the log.
    pub fn caught_up(&self) {
        self.0.send_if_modified(|standing| {
            let news = standing.phase == Phase::CatchingUp;
            if news {
                standing.phase = Phase::Live;
            }
            news
        });
    }

    /// Reports a failed attempt. Returns the number of attempts so far.
    pub fn failed(&self, error: String, position: Option<Position>, now: Timestamp) -> u32 {
        let mut tried = 1;
        self.0.send_modify(|standing| {
            let (attempts, since) =
                standing.failing.as_ref().map_or((1, now), |before| (before.attempts + 1, before.since));
            standing.failing = Some(LastError { error, attempts, position, since });
            standing.phase = Phase::Retrying;
            tried = attempts;
        });
        tried
    }

    /// Counts one more event for which a command was refused.
    pub fn refused(&self) {
        self.0.send_modify(|standing| standing.refused += 1);
    }

    /// Sets the number of events with refusals, as the sum over all shares.
    pub fn refused_in_all(&self, refused: u64) {
        self.0.send_modify(|standing| standing.refused = refused);
    }

    /// Reports that other processes handle all shares, with a progress that is not known here.
    pub fn has_no_share(&self) {
        self.stands_by();
        self.0.send_modify(|standing| standing.idle = true);
    }

    /// Reports the state of these shares, of which the slowest has reached `least`.
    pub fn shares(&self, least: Position, shares: Vec<Standing>) {
        self.0.send_modify(|standing| {
            (standing.position, standing.event, standing.idle) = (least, None, false);
            let live = shares.iter().all(|share| share.phase == Phase::Live);
            standing.notice = shares.iter().find_map(|share| share.notice.clone());
            standing.failing = shares.into_iter().find_map(|share| share.failing);
            standing.phase = match (&standing.failing, live) {
                (Some(_), _) => Phase::Retrying,
                (None, true) => Phase::Live,
                (None, false) => Phase::CatchingUp,
            };
        });
    }

    /// Reports that it has ended.
    pub fn stopped(&self) {
        self.0.send_modify(|standing| standing.phase = Phase::Stopped);
    }
}
