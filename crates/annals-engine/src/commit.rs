//! The writer: one thread through which every append goes.
//!
//! It takes what has come in, judges each append against the log and against what is staged before it, and stages what
//! may be written. What it has staged when nothing more has come in is a group, which it hands to `sync`; and while
//! that one is written and synced, it stages the next. There is no timer.
//!
//! - C1  Nothing that is judged against staged events is answered before these are durable: answers go with groups.
//! - C2  Space and segment are there before an append is staged, so a full disk refuses appends and breaks nothing (G9).
//! - C3  A frame lies in one segment, and one segment is written at a time. The next one begins when this one has
//!       an event: two segments never have one name; and when everything in this one is durable.
//! - C4  A run lies in one segment; it ends with a group, and `sync` has it sealed when that is durable.
//!
//! Next below: `stage` (judgement and frames of one group), then `sync`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annals_core::{Append, Error};
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::Options;
use crate::error::Fault;
use crate::frame::{self, Encoded, Mark};
use crate::index::{IdRange, MemoryIndex};
use crate::log::{Log, Run, RunIndex};
use crate::outcome::{Outcome, Reply};
use crate::planted::Bug;
use crate::seal::Sealable;
use crate::segment::{End, HEADER_BYTES, Segment, SegmentHeader, link};
use crate::stage::{self, Heads, Stage};
use crate::sync::{Answer, Group, Poison, Syncer};
use crate::thread::{self, Mutex};

/// A group is handed over when its frames are this large.
const GROUP_BYTES: usize = 1 << 20;
/// Space in a segment is allocated in steps from this size ...
const ALLOCATE_BYTES_MIN: u64 = 1 << 20;
/// ... to this one, each as large as what is there already.
const ALLOCATE_BYTES_MAX: u64 = 16 << 20;
/// The same where no zeros are written: an allocation waits for what the file system has under way.
const RESERVE_BYTES_MAX: u64 = 64 << 20;
/// Where groups have so many bytes no zeros are written in front of them: that would be work done twice, and their syncs
/// take long enough for some metadata.
const LARGE_BYTES: u64 = 128 << 10;

/// An append on its way to the writer.
pub struct Request {
    /// What to append; it has passed validation.
    pub append: Append,
    /// The same as bytes.
    pub encoded: Encoded,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Reply>,
    /// The append's share of the memory that waiting appends may take.
    pub permit: OwnedSemaphorePermit,
}

/// The segment that is being written, and the newest run.
pub struct Active {
    /// The segment.
    pub segment: Arc<Segment>,
    /// How far its file reaches, with zeros from the tail on.
    pub allocated: u64,
    /// Where the run begins.
    pub from: End,
    /// The index of the run.
    pub index: Arc<RwLock<MemoryIndex>>,
}

/// The one writer of a log.
pub struct Writer {
    /// What readers see.
    pub log: Arc<Log>,
    /// Set after a failed write.
    pub poison: Arc<Poison>,
    /// How the store was opened.
    pub options: Options,
    /// Where it writes.
    pub active: Active,
    /// Where the log ends, staged appends included.
    pub tail: End,
    /// Makes groups durable, and has the runs sealed that end with them.
    pub syncer: Syncer,
    /// Versions of streams that are not in the newest run.
    pub heads: Heads,
    /// What is staged and not handed over yet.
    pub group: Staged,
    /// Bytes of the last group.
    pub last_bytes: u64,
    /// The ids of all runs but the newest.
    pub older_ids: IdRange,
    /// Whether the last group had one append only.
    pub alone: bool,
}

/// Appends that will be handed over together.
#[derive(Default)]
pub struct Staged {
    frames: Vec<u8>,
    answers: Vec<Answer>,
}

/// Writes what comes in until nothing can come any more; then closes the log. If an invariant turns out to be broken,
/// the store is poisoned, and nothing is written any more.
pub fn run(
    writer: &Mutex<Option<Writer>>,
    mut requests: mpsc::UnboundedReceiver<Request>,
    log: &Log,
    poison: &Poison,
) {
    log.planted.take_along();
    guarded(poison, || {
        while let Some(first) = thread::next(&mut requests) {
            writer.lock().as_mut().expect("the writer is there until the end").write(first, &mut requests);
        }
    });
    let writer = writer.lock().take();
    guarded(poison, || writer.map(Writer::close));
    log.progress.send_modify(|progress| progress.closed = true);
}

/// Does what may find an invariant broken; if it does, the store is poisoned.
pub fn guarded<T>(poison: &Poison, work: impl FnOnce() -> T) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        poison.set("the writer found an invariant broken and stopped");
    }
}

impl Writer {
    /// Takes what has come in, and hands it over.
    fn write(&mut self, first: Request, requests: &mut mpsc::UnboundedReceiver<Request>) {
        let mut next = Some(first);
        while let Some(request) = next {
            self.take(request);
            next = if self.group.frames.len() < GROUP_BYTES { requests.try_recv().ok() } else { None };
        }
        self.hand_over();
    }

    /// Carries out one append that comes alone, on the thread of its caller. Only if the disk is slow, another thread
    /// waits for it.
    pub fn carry_out(&mut self, request: Request) {
        self.take(request);
        let Some(group) = self.staged() else { return };
        if group.frames.is_empty() || self.syncer.is_quick() {
            self.syncer.make_durable(group);
        } else {
            self.syncer.hand_over(group);
        }
    }

    /// Judges an append, and stages it if it is to be written.
    fn take(&mut self, request: Request) {
        let Request { append, encoded, answer, permit } = request;
        let outcome = match self.poison.error() {
            Some(poisoned) => Err(poisoned),
            None => self.decide(&append, &encoded),
        };
        // Nobody listens any more if the caller has gone; what was decided is carried out all the same.
        match outcome {
            Ok(outcome) => self.group.answers.push(Answer { to: answer, outcome, append, _permit: permit }),
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    fn decide(&mut self, append: &Append, encoded: &Encoded) -> Result<Outcome, Error> {
        let stage = Stage::of(self);
        if let Some(outcome) = stage.judge(append)? {
            return Ok(outcome);
        }
        let versions = stage.versions(append)?;
        let bytes = encoded.bytes_max() as u64;
        // A segment without events keeps its name, even if marks of closes stand in it.
        let has_events = self.tail.next > self.active.segment.base();
        if self.tail.byte + bytes > self.options.segment_bytes && has_events {
            self.roll()?;
        } else if self.run_is_full() {
            self.end_run();
        }
        let room = self.allocate(self.tail.byte + bytes);
        if room.is_err() && self.log.planted.is(Bug::KeepsThePositionsOfTheRefused) {
            self.tail.next = self.tail.next.plus(versions.len() as u64);
        }
        room.map_err(|fault| Error::Unavailable(Box::new(fault)))?;
        let now = self.options.clock.now();
        let mut frames = std::mem::take(&mut self.group.frames);
        let outcome = stage::write(self, append, encoded, versions, now, &mut frames);
        self.group.frames = frames;
        Ok(outcome)
    }

    fn run_is_full(&self) -> bool {
        let bytes = self.tail.byte - self.active.from.byte;
        self.active.index.read().count() >= self.options.run_events || bytes >= self.options.run_bytes
    }

    /// Makes the active segment's file reach to `end` at least.
    fn allocate(&mut self, end: u64) -> Result<(), Fault> {
        if end <= self.active.allocated {
            return Ok(());
        }
        let Segment { file, name, .. } = &*self.active.segment;
        let staged = self.group.frames.len() as u64 + (end - self.tail.byte);
        let large = staged.max(self.last_bytes) >= LARGE_BYTES;
        let step_max = if large { RESERVE_BYTES_MAX } else { ALLOCATE_BYTES_MAX };
        let step = self.active.allocated.clamp(ALLOCATE_BYTES_MIN, step_max);
        let generous = (self.active.allocated + step).min(self.options.segment_bytes).max(end);
        let allocate = |end| if large { file.reserve(end) } else { file.allocate(end) };
        let allocated = allocate(generous).map(|()| generous).or_else(|_| allocate(end).map(|()| end));
        self.active.allocated = allocated.map_err(Fault::io("make room in", name))?;
        Ok(())
    }

    /// What is staged.
    fn staged(&mut self) -> Option<Group> {
        (!self.group.answers.is_empty()).then(|| self.group(None))
    }

    fn group(&mut self, ended: Option<Sealable>) -> Group {
        let Staged { frames, answers } = std::mem::take(&mut self.group);
        self.last_bytes = frames.len() as u64;
        let start = self.tail.byte - self.last_bytes;
        let head = self.tail.next.previous();
        Group { segment: self.active.segment.clone(), start, frames, head, answers, ended }
    }

    /// Hands over what is staged.
    fn hand_over(&mut self) {
        let Some(group) = self.staged() else { return };
        let alone = std::mem::replace(&mut self.alone, group.answers.len() == 1);
        if alone && self.alone { self.syncer.make_durable(group) } else { self.syncer.hand_over(group) }
    }

    /// Waits until everything that was staged is durable.
    fn settle(&mut self) -> Result<(), Error> {
        self.hand_over();
        self.syncer.settle();
        self.poison.error().map_or(Ok(()), Err)
    }

    /// As [`settle`](Self::settle). With this bug nobody waits.
    fn settle_unless(&mut self, bug: Bug) -> Result<(), Error> {
        if self.log.planted.is(bug) {
            self.hand_over();
            return Ok(());
        }
        self.settle()
    }

    /// Ends the newest run, and begins the next. What is staged is handed over, and the run with it.
    fn end_run(&mut self) {
        if self.active.index.read().count() == 0 {
            self.active.from = self.tail;
            return;
        }
        let ended = self.active.index.read();
        self.older_ids = self.older_ids.with(ended.id_range());
        let index = Arc::new(RwLock::new(MemoryIndex::like(&ended)));
        drop(ended);
        let run = Run { base: self.tail.next, index: RunIndex::Memory(index.clone()) };
        self.log.change(|lists| lists.runs.push(Arc::new(run)));
        let ended = Sealable {
            segment: self.active.segment.clone(),
            from: std::mem::replace(&mut self.active.from, self.tail),
            end: self.tail,
            index: std::mem::replace(&mut self.active.index, index),
        };
        if self.log.planted.is(Bug::SealsBeforeAllIsDurable) {
            return self.syncer.seal_at_once(ended);
        }
        let group = self.group(Some(ended));
        self.syncer.hand_over(group);
    }

    /// Ends the active segment and begins the next.
    fn roll(&mut self) -> Result<(), Error> {
        self.settle_unless(Bug::RollsBeforeAllIsDurable)?;
        let header = SegmentHeader {
            store: self.log.id,
            base: self.tail.next,
            created_at: self.options.clock.now(),
            link: self.tail.link,
            recorded_at: self.tail.recorded_at,
        };
        if self.log.planted.is(Bug::MarksTheEndFirst) {
            let tail = self.tail;
            self.mark(Mark::End);
            self.tail = tail;
        }
        let file = header.create(&*self.log.disk).map_err(|(fault, begun)| {
            let error = Error::Unavailable(Box::new(fault));
            if begun {
                self.poison.set(&error.chain());
            }
            error
        })?;
        self.end_run();
        self.mark(Mark::End);
        // What was allocated and not needed. If this fails, the zeros stay: they do no harm.
        let _ = self.active.segment.file.truncate(self.tail.byte);
        let segment = Arc::new(Segment::new(header, file));
        self.log.change(|lists| lists.segments.push(segment.clone()));
        self.tail = End::start_of(&header);
        self.active.segment = segment;
        self.active.allocated = HEADER_BYTES;
        self.active.from = self.tail;
        self.poison.error().map_or(Ok(()), Err)
    }

    /// Writes a mark behind everything, if there is room for it: no promise needs it.
    fn mark(&mut self, mark: Mark) {
        let segment = self.active.segment.clone();
        let durable = self.tail.next.previous();
        let (frames, crc) = frame::mark(mark, durable, segment.origin);
        let end = self.tail.byte + frames.len() as u64;
        if let Err(fault) = self.allocate(end) {
            tracing::warn!(error = &fault as &dyn std::error::Error, "the log goes without a mark");
            return;
        }
        self.syncer.make_durable(Group {
            segment,
            start: self.tail.byte,
            frames,
            head: durable,
            answers: vec![],
            ended: None,
        });
        self.tail.frame = (self.tail.byte, crc);
        self.tail.byte = end;
        self.tail.link = link(self.tail.link, crc);
    }

    /// Marks the end: whatever is found broken before the mark later on was durable once, so is damage. Waits until
    /// the runs that ended are sealed.
    fn close(mut self) {
        if self.settle().is_ok() {
            self.mark(Mark::Close);
        }
    }
}
