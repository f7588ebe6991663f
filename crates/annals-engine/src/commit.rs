//! The writer: one thread through which every append goes.
//!
//! It takes what has come in, judges each append against the log and against what is staged before it, stages
//! what may be written, and then, for the whole group: writes, syncs, publishes, answers. There is no timer: a
//! group is what came in while the one before was synced.
//!
//! - C1  An append is acknowledged after the sync of its frame, and published before it is acknowledged (G1).
//! - C2  Nothing that is judged against staged events is answered before these are durable.
//! - C3  Space and segment are there before an append is staged, so a full disk refuses appends and breaks
//!       nothing (G9).
//! - C4  After a failed write or sync nothing more is written: the store is poisoned (G9).
//! - C5  A frame lies in one segment, and one segment is written at a time. The next one begins when this one has
//!       an event: two segments never have one name.
//!
//! Next below: `stage` (judgement and frames of one group), then `segment`; finished segments go to `seal`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use annals_core::{Append, Error, Invalid, Position, Timestamp, Version, Violated};
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::Options;
use crate::disk::File;
use crate::error::Fault;
use crate::frame::{self, Digest, Encoded};
use crate::index::MemoryIndex;
use crate::log::{Log, Progress};
use crate::seal::Sealer;
use crate::segment::{Ending, HEADER_BYTES, Segment, SegmentHeader};
use crate::stage::{self, Heads, Stage};

/// A group is written when its frames are this large.
const GROUP_BYTES: usize = 8 << 20;
/// Space in a segment is allocated in steps from this size ...
const ALLOCATE_BYTES_MIN: u64 = 1 << 20;
/// ... to this one, each as large as what is there already.
const ALLOCATE_BYTES_MAX: u64 = 16 << 20;

/// An append on its way to the writer.
pub struct Request {
    /// What to append; it has passed validation.
    pub append: Append,
    /// The same as bytes.
    pub encoded: Encoded,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Outcome, Error>>,
    /// The append's share of the memory that waiting appends may take.
    pub permit: OwnedSemaphorePermit,
}

/// What became of an append that was judged.
#[derive(Debug)]
pub enum Outcome {
    /// It was written: from this position on, at this time, with these versions of its events.
    Written(Position, Timestamp, Vec<Version>),
    /// It is a duplicate by its key: of the append that begins here.
    Keyed(Position),
    /// It is a duplicate by its events: they stand from here on.
    Repeated(Position),
    /// These conditions do not hold.
    Refused(Vec<(usize, Violated)>),
    /// It is invalid: an event id is used already.
    Invalid(Invalid),
}

/// Why a store takes no more appends, once it does not.
#[derive(Default)]
pub struct Poison(OnceLock<String>);

impl Poison {
    /// The error for an append after a failed write.
    pub fn error(&self) -> Option<Error> {
        self.0.get().map(|why| Error::Poisoned(why.clone().into()))
    }

    fn set(&self, why: &str) {
        tracing::error!(why, "the store takes no more appends until it is opened again");
        // The first reason stays.
        let _ = self.0.set(why.to_owned());
    }
}

/// Where the log ends: all that the writer has to know of it.
#[derive(Clone, Copy)]
pub struct Tail {
    /// Position of the next event.
    pub next: Position,
    /// Where the next frame goes in the segment's file.
    pub byte: u64,
    /// Digest of the log.
    pub chain: Digest,
    /// Recorded time of the last event.
    pub recorded_at: Timestamp,
}

/// The segment that is being written.
pub struct Active {
    /// Position of its first event.
    pub base: Position,
    /// What the checksums of its frames begin with.
    pub salt: u32,
    /// Its file.
    pub file: Arc<dyn File>,
    /// Its index.
    pub index: Arc<RwLock<MemoryIndex>>,
    /// How far the file reaches, with zeros from the tail on.
    pub allocated: u64,
}

/// The one writer of a log.
pub struct Writer {
    /// What readers see.
    pub log: Arc<Log>,
    /// Set after a failed write.
    pub poison: Arc<Poison>,
    /// How the store was opened.
    pub options: Options,
    /// The segment that is being written.
    pub active: Active,
    /// Where the log ends, staged appends included.
    pub tail: Tail,
    /// Position up to which the log is durable.
    pub durable: Position,
    /// Makes finished segments small.
    pub sealer: Sealer,
    /// Versions of streams that are not in the active segment.
    pub heads: Heads,
}

/// Appends that will be made durable together.
#[derive(Default)]
pub struct Group {
    /// Their frames.
    pub frames: Vec<u8>,
    /// Their answers, and those to appends that were judged against them.
    pub answers: Vec<Answer>,
}

/// An answer that waits for the group to be durable.
pub struct Answer {
    to: oneshot::Sender<Result<Outcome, Error>>,
    outcome: Outcome,
    _permit: OwnedSemaphorePermit,
}

impl Writer {
    /// Writes what comes in until nothing can come any more; then closes the log. If an invariant turns out to
    /// be broken, the store is poisoned, and nothing is written any more.
    pub fn run(self, requests: mpsc::UnboundedReceiver<Request>) {
        let (log, poison) = (self.log.clone(), self.poison.clone());
        let ran = catch_unwind(AssertUnwindSafe(|| self.write_all(requests)));
        if ran.is_err() {
            poison.set("the writer found an invariant broken and stopped");
        }
        log.progress.send_modify(|progress| progress.closed = true);
    }

    fn write_all(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut group = Group::default();
            let mut next = Some(first);
            while let Some(request) = next {
                self.take(request, &mut group);
                next = if group.frames.len() < GROUP_BYTES { requests.try_recv().ok() } else { None };
            }
            self.commit(group);
        }
        self.close();
    }

    /// Judges an append, and stages it if it is to be written.
    fn take(&mut self, request: Request, group: &mut Group) {
        let Request { append, encoded, answer, permit } = request;
        let outcome = match self.poison.error() {
            Some(poisoned) => Err(poisoned),
            None => self.decide(append, encoded, group),
        };
        // Nobody listens any more if the caller has gone; what was decided is carried out all the same.
        match outcome {
            Ok(outcome) => group.answers.push(Answer { to: answer, outcome, _permit: permit }),
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    fn decide(&mut self, append: Append, encoded: Encoded, group: &mut Group) -> Result<Outcome, Error> {
        let stage = Stage::of(self);
        if let Some(outcome) = stage.judge(&append)? {
            return Ok(outcome);
        }
        let versions = stage.versions(&append)?;
        let stride = encoded.stride() as u64;
        // A segment without events keeps its name, even if marks of closes stand in it.
        let has_events = self.tail.next > self.active.base;
        if self.tail.byte + stride > self.options.segment_bytes && has_events {
            self.commit(std::mem::take(group));
            self.roll()?;
        }
        self.allocate(self.tail.byte + stride).map_err(|fault| Error::Unavailable(Box::new(fault)))?;
        let now = self.options.clock.now();
        Ok(stage::write(self, append, encoded, versions, now, &mut group.frames))
    }

    /// Makes the active segment's file reach to `end` at least.
    fn allocate(&mut self, end: u64) -> Result<(), Fault> {
        if end <= self.active.allocated {
            return Ok(());
        }
        let step = self.active.allocated.clamp(ALLOCATE_BYTES_MIN, ALLOCATE_BYTES_MAX);
        let generous = (self.active.allocated + step).min(self.options.segment_bytes).max(end);
        let file = &self.active.file;
        let name = crate::segment::file_name(self.active.base);
        let allocated =
            file.allocate(generous).map(|()| generous).or_else(|_| file.allocate(end).map(|()| end));
        self.active.allocated = allocated.map_err(Fault::io("make room in", &name))?;
        Ok(())
    }

    /// Writes, syncs, publishes, answers.
    fn commit(&mut self, group: Group) {
        if !group.frames.is_empty()
            && let Err(fault) = self.make_durable(&group.frames)
        {
            let why = Error::Unavailable(Box::new(fault)).chain();
            self.poison.set(&why);
            for answer in group.answers {
                let error = match answer.outcome {
                    Outcome::Written(..) => Error::Indeterminate(why.clone().into()),
                    _ => Error::Poisoned(why.clone().into()),
                };
                drop(answer.to.send(Err(error)));
            }
            return;
        }
        for answer in group.answers {
            drop(answer.to.send(Ok(answer.outcome)));
        }
    }

    fn make_durable(&mut self, frames: &[u8]) -> Result<(), Fault> {
        let name = crate::segment::file_name(self.active.base);
        let start = self.tail.byte - frames.len() as u64;
        self.active.file.write_at(frames, start).map_err(Fault::io("write", &name))?;
        self.active.file.sync().map_err(Fault::io("sync", &name))?;
        self.durable = self.tail.next.previous();
        self.log.progress.send_replace(Progress { head: self.durable, closed: false });
        Ok(())
    }

    /// Ends the active segment, in which everything is durable, and begins the next.
    fn roll(&mut self) -> Result<(), Error> {
        if let Some(poisoned) = self.poison.error() {
            return Err(poisoned);
        }
        let header = SegmentHeader {
            store: self.log.id,
            base: self.tail.next,
            created_at: self.options.clock.now(),
            chain: self.tail.chain,
            recorded_at: self.tail.recorded_at,
        };
        let file = header.create(&*self.log.disk).map_err(|(fault, begun)| {
            let error = Error::Unavailable(Box::new(fault));
            if begun {
                self.poison.set(&error.chain());
            }
            error
        })?;
        // What was allocated and not needed. If this fails, the zeros stay: they do no harm.
        let _ = self.active.file.truncate(self.tail.byte);
        let index = Arc::new(RwLock::new(MemoryIndex::default()));
        self.log.push(Arc::new(Segment { base: header.base, file: file.clone(), index: index.clone() }));
        let salt = header.salt();
        let next = Active { base: header.base, salt, file, index, allocated: HEADER_BYTES };
        let full = std::mem::replace(&mut self.active, next);
        self.sealer.seal(full, Ending { byte: self.tail.byte, chain: self.tail.chain });
        self.tail.byte = HEADER_BYTES;
        self.heads.clear();
        Ok(())
    }

    /// Marks the end: whatever is found broken before the mark later on was durable once, so is damage.
    fn close(mut self) {
        if self.poison.error().is_none() {
            let mark = frame::close(self.durable, self.tail.recorded_at, self.tail.chain, self.active.salt);
            self.tail.byte += mark.len() as u64;
            let marked = self.allocate(self.tail.byte).and_then(|()| self.make_durable(&mark));
            if let Err(fault) = marked {
                tracing::warn!(
                    error = &fault as &dyn std::error::Error,
                    "the log is closed without its mark"
                );
            }
        }
        self.sealer.finish();
    }
}
