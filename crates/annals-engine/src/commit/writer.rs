//! The writer of a log: where its end is, and what is staged there.
//!
//! It decides on each append by the log and by what is staged before it, and stages what may be written: its
//! frame goes to the group, its events to the index of the newest run. The holder of its lock may stage; to write, or
//! to make room, it must be the leader as well: `commit` sees to both.
//!
//! - W1  Nothing that is decided by staged events is answered before these are durable, and not if they fail: answers
//!       go with groups.
//! - W2  Space and segment are there before an append is staged, so a full disk refuses appends and breaks nothing (G9).
//! - W3  A frame is in one segment, and one segment is written at a time. The next one begins when this one has
//!       an event: two segments never have one name; and when everything in this one is durable.
//! - W5  No more than one group is staged after the one that is being written.
//! - W4  A run is in one segment; it ends with a group, and `sync` has it sealed when that is durable.
//!
//! Next below: `stage` (decision and frames), then `sync`.

use std::collections::VecDeque;
use std::sync::Arc;

use annals_core::{Append, Error, Timestamp};
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::clock::{ClockWatch, Seen};
use super::outcome::{Outcome, Reply};
use super::seal::Sealable;
use super::stage::{self, Stage};
use super::staging::Staging;
use super::sync::{Answer, Group, Syncer};
use crate::Options;
use crate::error::Fault;
use crate::index::MemoryIndex;
use crate::log::frame::{self, Encoded, Mark};
use crate::log::segment::{End, HEADER_BYTES, Segment, SegmentHeader, link};
use crate::read::view::{Run, RunIndex};

/// A group ends when its frames are this large.
const GROUP_BYTES: usize = 2 << 20;
/// At most this many buffers for groups are kept ...
const BUFFERS_MAX: usize = 4;
/// ... and none that is larger than this.
const BUFFER_BYTES_MAX: usize = 4 << 20;
/// Space in a segment is allocated in steps from this size ...
const ALLOCATE_BYTES_MIN: u64 = 1 << 20;
/// ... to this one, each as large as what is there already.
const ALLOCATE_BYTES_MAX: u64 = 16 << 20;
/// The same where no zeros are written: an allocation waits for what the file system has under way. All of it may have to
/// be looked through when the store is opened.
const RESERVE_BYTES_MAX: u64 = 32 << 20;
/// Where groups have at least this many bytes no zeros are written ahead of them: that would be work done twice, and
/// their syncs take long enough for some metadata.
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

/// The one writer of a log.
pub struct Writer {
    /// How the store was opened.
    pub options: Options,
    /// What appends are decided by and staged in.
    pub staging: Staging,
    /// Makes groups durable.
    pub syncer: Arc<Syncer>,
    /// Groups that are large enough and not under way yet.
    pub groups: VecDeque<Group>,
    /// The group that is added to.
    pub open_group: OpenGroup,
    /// Buffers for more groups.
    pub buffers: Vec<Vec<u8>>,
    /// Bytes of the last group.
    pub last_bytes: u64,
    /// Watches the clock.
    pub clock_watch: ClockWatch,
    /// What is known of the time beside the events.
    pub seen: Arc<Seen>,
}

/// Appends that will be made durable together.
#[derive(Default)]
pub struct OpenGroup {
    frames: Vec<u8>,
    answers: Vec<Answer>,
    ended: Vec<Sealable>,
}

impl Writer {
    /// Decides on an append, and stages it if it is to be written. Makes room for it if need be: for the leader.
    pub fn stage(&mut self, request: Request) {
        let Request { append, encoded, answer, permit } = request;
        let outcome = match self.syncer.poison.error() {
            Some(poisoned) => Err(poisoned),
            None => self.decide_and_stage(&append, &encoded),
        };
        // A caller that has its answer may do anything, so no answer is sent while the writer is held.
        self.open_group.answers.push(Answer { to: answer, outcome, append, encoded, _permit: permit });
        if self.open_group.frames.len() >= GROUP_BYTES {
            let group = self.end_group();
            self.groups.push_back(group);
        }
    }

    /// The verdict, if it can be given without writing; `None` if the append must be staged. May be asked only while
    /// nothing is staged or under way (W1).
    pub fn verdict(&self, append: &Append) -> Option<Result<Outcome, Error>> {
        match self.syncer.poison.error() {
            Some(poisoned) => Some(Err(poisoned)),
            None => Stage::of(&self.staging).decide(append).transpose(),
        }
    }

    /// Whether there is room for such an append already.
    pub fn has_room(&self, encoded: &Encoded) -> bool {
        let end = self.staging.tail.byte + encoded.bytes_max() as u64;
        let fits =
            end <= self.staging.active.allocated.min(self.options.segment_bytes) && !self.run_is_full();
        fits && !self.has_whole_group()
    }

    /// Whether a group waits that is as large as groups get. What comes behind it is staged when that one is under way: so
    /// its frames say that the one before was durable, and of no more than two groups nothing does (F3 of `frame`).
    pub fn has_whole_group(&self) -> bool {
        !self.groups.is_empty()
    }

    fn decide_and_stage(&mut self, append: &Append, encoded: &Encoded) -> Result<Outcome, Error> {
        let stage = Stage::of(&self.staging);
        if let Some(outcome) = stage.decide(append)? {
            return Ok(outcome);
        }
        let versions = stage.versions(append)?;
        let now = self.options.clock.now();
        let recorded_at = self.recorded_at(append, now)?;
        let bytes = encoded.bytes_max() as u64;
        // A segment without events keeps its name, even if marks of closes stand in it.
        let has_events = self.staging.tail.next > self.staging.active.segment.base();
        if self.staging.tail.byte + bytes > self.options.segment_bytes && has_events {
            self.roll()?;
        } else if self.run_is_full() {
            self.end_run();
        }
        self.allocate(self.staging.tail.byte + bytes)?;
        let mut frames = std::mem::take(&mut self.open_group.frames);
        let outcome = stage::write(&mut self.staging, append, encoded, versions, recorded_at, &mut frames);
        self.open_group.frames = frames;
        Ok(outcome)
    }

    /// When the append is recorded: at the time that it gives or now, whichever is earlier, but not before the one before.
    fn recorded_at(&mut self, append: &Append, now: Timestamp) -> Result<Timestamp, Error> {
        let newest = self.staging.tail.recorded_at;
        self.clock_watch.look(now, newest);
        let recorded_at = append.recorded_at.unwrap_or(now).min(now).max(newest);
        self.seen.check(recorded_at, now, newest, self.options.clock_ahead_max)?;
        Ok(recorded_at)
    }

    fn run_is_full(&self) -> bool {
        let bytes = self.staging.tail.byte - self.staging.active.from.byte;
        self.staging.active.index.read().count() >= self.options.run_events || bytes >= self.options.run_bytes
    }

    /// Makes the active segment's file reach to `end` at least.
    fn allocate(&mut self, end: u64) -> Result<(), Fault> {
        if end <= self.staging.active.allocated {
            return Ok(());
        }
        let Segment { file, name, .. } = &*self.staging.active.segment;
        let staged = self.open_group.frames.len() as u64 + (end - self.staging.tail.byte);
        let large = staged.max(self.last_bytes) >= LARGE_BYTES;
        let step_max = if large { RESERVE_BYTES_MAX } else { ALLOCATE_BYTES_MAX };
        let step = self.staging.active.allocated.clamp(ALLOCATE_BYTES_MIN, step_max);
        let generous = (self.staging.active.allocated + step).min(self.options.segment_bytes).max(end);
        let allocate = |end| if large { file.reserve(end) } else { file.allocate(end) };
        let allocated = allocate(generous).map(|()| generous).or_else(|_| allocate(end).map(|()| end));
        self.staging.active.allocated = allocated.map_err(Fault::io("make room in", name))?;
        Ok(())
    }

    /// Whether there is anything that waits to be made durable.
    pub fn has_staged(&self) -> bool {
        !self.groups.is_empty() || !self.open_group.answers.is_empty()
    }

    /// Takes the first of what is staged.
    pub fn group(&mut self) -> Option<Group> {
        let group = self.groups.pop_front();
        group.or_else(|| (!self.open_group.answers.is_empty()).then(|| self.end_group()))
    }

    fn end_group(&mut self) -> Group {
        let frames = self.buffers.pop().unwrap_or_default();
        let next = OpenGroup { frames, ..OpenGroup::default() };
        let OpenGroup { frames, answers, ended } = std::mem::replace(&mut self.open_group, next);
        self.last_bytes = frames.len() as u64;
        let start = self.staging.tail.byte - self.last_bytes;
        let (head, recorded_at) = (self.staging.tail.next.previous(), self.staging.tail.recorded_at);
        Group {
            segment: self.staging.active.segment.clone(),
            start,
            frames,
            head,
            recorded_at,
            answers,
            ended,
        }
    }

    /// Keeps a buffer for another group: memory that was used before costs less than memory from the system.
    pub fn take_back(&mut self, mut buffer: Vec<u8>) {
        let fits = (1..=BUFFER_BYTES_MAX).contains(&buffer.capacity());
        if fits && self.buffers.len() < BUFFERS_MAX {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    /// Makes all that is staged durable.
    fn flush(&mut self) -> Result<(), Error> {
        while let Some(group) = self.group() {
            self.syncer.make_durable(group);
        }
        self.syncer.poison.error().map_or(Ok(()), Err)
    }

    /// Ends the newest run, and begins the next.
    fn end_run(&mut self) {
        if self.staging.active.index.read().count() == 0 {
            self.staging.active.from = self.staging.tail;
            return;
        }
        let ended = self.staging.active.index.read();
        self.staging.older_ids = self.staging.older_ids.with(ended.id_range());
        let index = Arc::new(RwLock::new(MemoryIndex::like(&ended)));
        drop(ended);
        let run = Run { base: self.staging.tail.next, index: RunIndex::Memory(index.clone()) };
        self.staging.log.change(|lists| lists.runs.push(Arc::new(run)));
        let ended = Sealable {
            segment: self.staging.active.segment.clone(),
            from: std::mem::replace(&mut self.staging.active.from, self.staging.tail),
            end: self.staging.tail,
            index: std::mem::replace(&mut self.staging.active.index, index),
        };
        if !self.has_staged() {
            self.syncer.seal(ended);
        } else if let Some(last) = self.groups.back_mut().filter(|_| self.open_group.answers.is_empty()) {
            last.ended.push(ended);
        } else {
            self.open_group.ended.push(ended);
        }
    }

    /// Ends the active segment and begins the next.
    fn roll(&mut self) -> Result<(), Error> {
        self.flush()?;
        let header = SegmentHeader {
            store: self.staging.log.id,
            base: self.staging.tail.next,
            created_at: self.options.clock.now(),
            link: self.staging.tail.link,
            recorded_at: self.staging.tail.recorded_at,
        };
        let file = header.create(&*self.staging.log.disk).map_err(|(fault, begun)| {
            let error = Error::from(fault);
            if begun {
                self.syncer.poison.set(&error.chain());
            }
            error
        })?;
        self.end_run();
        self.mark(Mark::End);
        // What was allocated and not needed. If this fails, the zeros stay: they do no harm.
        let _ = self.staging.active.segment.file.truncate(self.staging.tail.byte);
        let segment = Arc::new(Segment::new(header, file));
        self.staging.log.change(|lists| lists.segments.push(segment.clone()));
        self.staging.tail = End::start_of(&header);
        self.staging.active.segment = segment;
        self.staging.active.allocated = HEADER_BYTES;
        self.staging.active.from = self.staging.tail;
        self.syncer.poison.error().map_or(Ok(()), Err)
    }

    /// Writes a mark behind everything, if there is room for it: no promise needs it.
    fn mark(&mut self, mark: Mark) {
        let segment = self.staging.active.segment.clone();
        let durable = self.staging.tail.next.previous();
        let (frames, crc) = frame::mark(mark, durable, segment.origin);
        let end = self.staging.tail.byte + frames.len() as u64;
        if let Err(fault) = self.allocate(end) {
            tracing::warn!(error = &fault as &dyn std::error::Error, "the log goes without a mark");
            return;
        }
        self.syncer.make_durable(Group {
            segment,
            start: self.staging.tail.byte,
            frames,
            head: durable,
            recorded_at: self.staging.tail.recorded_at,
            answers: vec![],
            ended: vec![],
        });
        self.staging.tail.frame = (self.staging.tail.byte, crc);
        self.staging.tail.byte = end;
        self.staging.tail.link = link(self.staging.tail.link, crc);
    }

    /// Marks the end: anything that is found broken before the mark later was durable, so it is damage.
    pub fn close(mut self) {
        if self.flush().is_ok() {
            self.mark(Mark::Close);
            if self.syncer.poison.error().is_none() {
                self.staging.log.note_durable(self.staging.tail.next.previous());
            }
        }
        self.seen.at_close(&self.options, self.staging.tail.recorded_at);
    }
}
