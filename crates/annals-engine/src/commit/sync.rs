//! Making durable: the only module that writes and syncs groups of appends. Then it publishes them and sends
//! the answers.
//!
//! - Y1  The leader (`commit`) makes one group durable at a time, in the order in which they were staged. A
//!       group is within one segment.
//! - Y2  An append is acknowledged after the sync of its frame, and published before it is acknowledged (G1).
//! - Y3  A run is sealed after the sync of its last frame.
//! - Y4  After a failed write or sync nothing more is written: the store is poisoned (G9).
//! - Y5  An append is not acknowledged if the file's name no longer refers to the file: the file may
//!       disappear when the process ends.
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

/// A write and sync that take no longer than this are quick.
const QUICK: Duration = Duration::from_micros(500);
/// Whether each of the last eight writes with their syncs was quick, one bit for each.
struct Pace(AtomicU8);

impl Pace {
    /// No write is known yet, so the disk is not quick.
    fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Records how long a write and sync took. Only the leader calls it.
    fn note(&self, took: Duration) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before << 1 | u8::from(took <= QUICK), Ordering::Relaxed);
    }

    /// Whether at least one of them was quick, which on a slow disk none is. On a busy machine the measured
    /// times include waiting for a processor, so not all of them need to be.
    fn is_quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}

/// Appends that are made durable together.
pub struct Group {
    /// The segment that they are written to.
    pub segment: Arc<Segment>,
    /// The first byte of the frames in the segment.
    pub start: u64,
    /// Their frames.
    pub frames: Vec<u8>,
    /// Position of the last event in the group.
    pub head: Position,
    /// Recorded time of that event.
    pub recorded_at: Timestamp,
    /// The answers to these appends, and to appends without a write that were decided after them.
    pub answers: Vec<Answer>,
    /// Runs that end in this group: they are sealed when it is durable.
    pub ended: Vec<Sealable>,
}

/// An answer that waits for the group to be durable.
pub struct Answer {
    /// The channel to the waiting caller.
    pub to: oneshot::Sender<Reply>,
    /// The outcome of the append, or the error that prevented a decision.
    pub outcome: Result<Outcome, Error>,
    /// The append.
    pub append: Append,
    /// Its encoding, which is returned to the thread that allocated it.
    pub encoded: Encoded,
    /// Its share of the memory that waiting appends may take.
    pub _permit: OwnedSemaphorePermit,
}

/// The reason why a store takes no more appends, if it does not.
#[derive(Default)]
pub struct Poison(OnceLock<String>);

impl Poison {
    /// The error for an append after a failed write.
    pub fn error(&self) -> Option<Error> {
        self.0.get().map(|why| Error::Poisoned(why.clone().into()))
    }

    /// Makes the store refuse appends, for this reason.
    pub fn set(&self, why: &str) {
        tracing::error!(why, "the store takes no more appends until it is opened again");
        // The first reason is kept.
        let _ = self.0.set(why.to_owned());
    }
}

/// Makes groups durable, one at a time.
pub struct Syncer {
    log: Arc<Log>,
    /// Set after a failed write.
    pub poison: Arc<Poison>,
    /// `None` once the log is closed, or if it is read-only.
    sealer: Mutex<Option<Sealer>>,
    pace: Pace,
}

impl Syncer {
    /// A syncer for this log. Starts the thread that seals runs if the log can be written.
    pub fn start(log: Arc<Log>, poison: Arc<Poison>) -> std::io::Result<Self> {
        let sealer = if log.disk.is_writable() { Some(Sealer::start(log.clone())?) } else { None };
        Ok(Self { sealer: Mutex::new(sealer), log, poison, pace: Pace::new() })
    }

    /// Whether a write and sync are quick enough to be done on the caller's thread.
    pub fn is_quick(&self) -> bool {
        self.pace.is_quick()
    }

    /// Queues a run to be sealed. All of its events must be durable.
    pub fn seal(&self, run: Sealable) {
        if let Some(sealer) = &*self.sealer.lock() {
            sealer.seal(run);
        }
    }

    /// Waits until all queued runs are sealed, and ends the background thread.
    pub fn finish(&self) {
        drop(self.sealer.lock().take());
    }

    /// Writes, syncs and publishes the group, and sends its answers. Returns the buffer of the frames, to be
    /// used again.
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
            // The send fails if the caller is gone.
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

    /// Whether a disk is quick after writes that took these times, in microseconds.
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
