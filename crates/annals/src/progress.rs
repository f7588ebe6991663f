//! How far a projection or a subscriber has come, for those who wait for it and those who watch it.

use annals_core::{EventId, Position, Seen, Timestamp, Witness};
use tokio::sync::watch;

/// What a projection or a subscriber is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// On its way to the end of the log for the first time since it was started.
    CatchingUp,
    /// At the end of the log, or close behind it.
    Live,
    /// An event failed and is tried again; the ones after it wait.
    Retrying,
    /// Another process does it, on the same database; this one takes over when that ends.
    Standby,
    /// Stopped, with everything that it finished kept.
    Stopped,
}

/// What a status is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A projection.
    Projection,
    /// A subscriber.
    Subscriber,
}

/// How a projection or a subscriber stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Which of the two it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub phase: Phase,
    /// Everything up to here is finished.
    pub position: Position,
    /// Position of the newest event in the log when the status was asked for.
    pub head: Position,
    /// The last error since the last success, and how often it has been tried since.
    pub failing: Option<LastError>,
    /// How many events a command was refused over since the start, in this process. That is an answer: the subscriber is done with
    /// them. Always 0 of a projection.
    pub refused: u64,
    /// What an operator should know although nothing fails: which process has the lease that this one waits for, or that it
    /// stepped back because events were lost.
    pub notice: Option<String>,
}

/// What goes wrong, while it does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastError {
    /// The last error.
    pub error: String,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// Position of the event that fails, if it is an event.
    pub position: Option<Position>,
    /// Since when.
    pub since: Timestamp,
}

impl Status {
    /// How many positions lie between it and the end of the log.
    pub fn lag(&self) -> u64 {
        self.head.get().saturating_sub(self.position.get())
    }
}

/// What the runner says and everybody else may wait for.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub phase: Phase,
    pub position: Position,
    /// The id of the event there, if it is known.
    pub event: Option<EventId>,
    pub failing: Option<LastError>,
    pub refused: u64,
    pub notice: Option<String>,
    /// Whether there is nothing for this process to do, as others do all of it.
    pub idle: bool,
}

impl Standing {
    /// The event up to which everything is finished, if it is known.
    pub fn witness(&self) -> Option<Witness> {
        Seen { position: self.position, event: self.event }.witness()
    }
}

/// The runner's side.
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

    /// Everything up to here is finished.
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

    /// It resumes here, perhaps further back: events were lost, or somebody makes the rows again.
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

    /// Something that an operator should know; `None` if that is over.
    pub fn notes(&self, notice: Option<String>) {
        self.0.send_if_modified(|standing| {
            let news = standing.notice != notice;
            standing.notice = notice;
            news
        });
    }

    /// Whether anybody waits for it.
    pub fn is_waited_for(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Another process does it.
    pub fn stands_by(&self) {
        self.0.send_modify(|standing| (standing.phase, standing.failing) = (Phase::Standby, None));
    }

    /// This process does it from now on.
    pub fn takes_over(&self) {
        self.0.send_modify(|standing| (standing.phase, standing.notice) = (Phase::CatchingUp, None));
    }

    /// What was tried has worked.
    pub fn worked(&self) {
        self.0.send_if_modified(|standing| {
            let failed = standing.failing.take().is_some();
            if failed && standing.phase == Phase::Retrying {
                standing.phase = Phase::CatchingUp;
            }
            failed
        });
    }

    /// The event at this position has worked, whatever fails elsewhere; `None` if it was not an event that failed.
    pub fn worked_at(&self, position: Option<Position>) {
        let failing = self.0.borrow().failing.as_ref().map(|failing| failing.position);
        if failing == Some(position) {
            self.worked();
        }
    }

    /// No event fails. Something else may.
    pub fn no_event_fails(&self) {
        let failing = self.0.borrow().failing.as_ref().and_then(|failing| failing.position);
        if failing.is_some() {
            self.worked();
        }
    }

    /// It is at the end of the log.
    pub fn caught_up(&self) {
        self.0.send_if_modified(|standing| {
            let news = standing.phase == Phase::CatchingUp;
            if news {
                standing.phase = Phase::Live;
            }
            news
        });
    }

    /// What was tried has failed. Returns how often it has by now.
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

    /// A command was refused over one more event.
    pub fn refused(&self) {
        self.0.send_modify(|standing| standing.refused += 1);
    }

    /// Its parts together have had refusals over this many events.
    pub fn refused_in_all(&self, refused: u64) {
        self.0.send_modify(|standing| standing.refused = refused);
    }

    /// Others do all of it, and how far they are is not known here.
    pub fn has_no_share(&self) {
        self.stands_by();
        self.0.send_modify(|standing| standing.idle = true);
    }

    /// It consists of these shares, of which the slowest has reached `least`.
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

    /// It does nothing any more.
    pub fn stopped(&self) {
        self.0.send_modify(|standing| standing.phase = Phase::Stopped);
    }
}
