//! Making durable: groups of appends are written and synced here, and nowhere else; then published and answered.
//!
//! - Y1  One group at a time, in the order in which they were staged, all of a group in one segment: the
//!       leader (`commit`) does it.
//! - Y2  An append is acknowledged after the sync of its frame, and published before it is acknowledged (G1).
//! - Y3  A run is sealed after the sync of its last frame.
//! - Y4  After a failed write or sync nothing more is written: the store is poisoned (G9).
//! - Y5  What was written to a file that is not the one of its name any more is not acknowledged: it may be gone with the
//!       process.
//!
//! Next above: `writer`; next below: `disk`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use annals_core::{Append, Error, Position, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::outcome::{Answered, Outcome, Reply};
use super::seal::{Sealable, Sealer};
use crate::error::Fault;
use crate::log::frame::Encoded;
use crate::log::segment::Segment;
use crate::read::view::Log;
use crate::thread::{AtomicU8, Instant, Mutex};

/// A write and a sync that take no longer than this are quick.
const QUICK: Duration = Duration::from_micros(500);
/// How quick the last eight writes and syncs were, a bit for each.
struct Pace(AtomicU8);

impl Pace {
    /// Nothing is known yet.
    fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// A write and a sync took this long. For the leader.
    fn note(&self, took: Duration) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before << 1 | u8::from(took <= QUICK), Ordering::Relaxed);
    }

    /// Whether one of them was quick: a slow disk never is. The others may have waited for a processor on a busy machine, which is
    /// part of their time.
    fn is_quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}

/// Appends that are made durable together.
pub struct Group {
    /// The segment that they are written to.
    pub segment: Arc<Segment>,
    /// Where in it.
    pub start: u64,
    /// Their frames.
    pub frames: Vec<u8>,
    /// Position of the last event of all of them.
    pub head: Position,
    /// Recorded time of that event.
    pub recorded_at: Timestamp,
    /// Their answers, and those to appends that were decided by them.
    pub answers: Vec<Answer>,
    /// Runs that end among them: they are sealed when these are durable.
    pub ended: Vec<Sealable>,
}

/// An answer that waits for the group to be durable.
pub struct Answer {
    /// Who waits for it.
    pub to: oneshot::Sender<Reply>,
    /// What became of the append, or why that could not be decided.
    pub outcome: Result<Outcome, Error>,
    /// The append.
    pub append: Append,
    /// Its bytes: they go back to the thread that made them.
    pub encoded: Encoded,
    /// Its share of the memory that waiting appends may take.
    pub _permit: OwnedSemaphorePermit,
}

/// Why a store takes no more appends, once it does not.
#[derive(Default)]
pub struct Poison(OnceLock<String>);

impl Poison {
    /// The error for an append after a failed write.
    pub fn error(&self) -> Option<Error> {
        self.0.get().map(|why| Error::Poisoned(why.clone().into()))
    }

    /// The store takes no more appends because of this.
    pub fn set(&self, why: &str) {
        tracing::error!(why, "the store takes no more appends until it is opened again");
        // The first reason stays.
        let _ = self.0.set(why.to_owned());
    }
}

/// Makes groups durable, one after the other.
pub struct Syncer {
    log: Arc<Log>,
    /// Set after a failed write.
    pub poison: Arc<Poison>,
    /// `None` once the log is closed, or if it cannot be written.
    sealer: Mutex<Option<Sealer>>,
    pace: Pace,
}

impl Syncer {
    /// Makes groups of this log durable.
    pub fn start(log: Arc<Log>, poison: Arc<Poison>) -> std::io::Result<Self> {
        let sealer = if log.disk.is_writable() { Some(Sealer::start(log.clone())?) } else { None };
        Ok(Self { sealer: Mutex::new(sealer), log, poison, pace: Pace::new() })
    }

    /// Whether a write and a sync take so little that a caller can wait for them.
    pub fn is_quick(&self) -> bool {
        self.pace.is_quick()
    }

    /// Seals a run in which everything is durable.
    pub fn seal(&self, run: Sealable) {
        if let Some(sealer) = &*self.sealer.lock() {
            sealer.seal(run);
        }
    }

    /// Waits until all is sealed, and ends the background work.
    pub fn finish(&self) {
        drop(self.sealer.lock().take());
    }

    /// Writes, syncs, publishes, answers. Returns the buffer, for another group.
    pub fn make_durable(&self, group: Group) -> Vec<u8> {
        let answered = match self.poison.error() {
            Some(poisoned) => Err((poisoned.chain(), false)),
            None => self.write(&group).map_err(|fault| {
                let why = Error::from(fault).chain();
                self.poison.set(&why);
                (why, true)
            }),
        };
        for Answer { to, outcome, append, encoded, _permit } in group.answers {
            let written = matches!(outcome, Ok(Outcome::Written(..)));
            // Nobody listens any more if the caller has gone.
            drop(to.send(match &answered {
                Ok(()) => outcome.map(|outcome| Answered { outcome, append, _encoded: encoded }),
                Err((why, true)) if written => Err(Error::Indeterminate(why.clone().into())),
                Err((why, _)) => Err(Error::Poisoned(why.clone().into())),
            }));
        }
        if answered.is_ok() {
            group.ended.into_iter().for_each(|run| self.seal(run));
        }
        group.frames
    }

    fn write(&self, Group { segment, start, frames, head, recorded_at, .. }: &Group) -> Result<(), Fault> {
        if frames.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        segment.file.write_at(frames, *start).map_err(Fault::io("write", &segment.name))?;
        segment.file.sync().map_err(Fault::io("sync", &segment.name))?;
        self.log.check_place(segment)?;
        self.log.set_recorded_at(*recorded_at);
        self.log.publish(*head);
        self.pace.note(began.elapsed());
        Ok(())
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    /// Whether a disk is quick after these times, in microseconds.
    fn is_quick(times: impl IntoIterator<Item = u64>) -> bool {
        let pace = Pace::new();
        times.into_iter().for_each(|micros| pace.note(Duration::from_micros(micros)));
        pace.is_quick()
    }

    #[test]
    fn a_quick_disk_is_quick_also_while_threads_wait_for_a_processor() {
        assert!(is_quick([80, 4_000, 3_000, 120, 4_000, 3_000]));
    }

    #[test]
    fn a_slow_disk_is_not_quick_and_one_that_becomes_slow_is_not_for_long() {
        assert!(!is_quick([]));
        assert!(!is_quick([5_000; 20]));
        assert!(!is_quick([90; 20].into_iter().chain([5_000; 8])));
        assert!(is_quick([5_000; 20].into_iter().chain([90])));
    }
}
