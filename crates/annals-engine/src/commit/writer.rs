//! The writer of a log: the end of the log, and the appends that are staged there.
//!
//! It decides each append on the log including the appends staged before it, and stages the accepted ones:
//! the frame is added to the group, the events to the index of the newest run. The holder of its lock may
//! stage; to write, or to make room, the holder must also be the leader: `commit` ensures both.
//!
//! - W1  An append that was decided on staged events is answered after these are durable, and gets an error
//!       if their write fails: answers belong to groups.
//! - W2  Space and segment are allocated before an append is staged, so a full disk refuses appends and
//!       breaks nothing (G9).
//! - W3  A frame is within one segment, and one segment is written at a time. The next segment is begun only
//!       when this one has an event, so that no two segments have the same name, and when everything in this
//!       one is durable.
//! - W4  A run is within one segment; it ends with a group, and `sync` has it sealed when that group is
//!       durable.
//! - W5  At most one group is staged after the one that is being written.
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
/// The most buffers for groups that are kept.
const BUFFERS_MAX: usize = 4;
/// The largest buffer that is kept.
const BUFFER_BYTES_MAX: usize = 4 << 20;
/// The smallest step in which space in a segment is allocated. Each step doubles the allocated space, within
/// these limits.
const ALLOCATE_BYTES_MIN: u64 = 1 << 20;
/// The largest step if zeros are written.
const ALLOCATE_BYTES_MAX: u64 = 16 << 20;
/// The largest step if no zeros are written: larger, because an allocation waits for pending work of the file
/// system, but limited, because all of it may have to be searched when the store is opened.
const RESERVE_BYTES_MAX: u64 = 32 << 20;
/// If groups have at least this many bytes, no zeros are written before them: that would double the work, and
/// their syncs take so long that updating metadata adds little.
const LARGE_BYTES: u64 = 128 << 10;

/// An append on its way to the writer.
pub struct Request {
    /// The append, already validated.
    pub append: Append,
    /// Its encoding.
    pub encoded: Encoded,
    /// The channel for the answer.
    pub answer: oneshot::Sender<Reply>,
    /// The append's share of the memory that waiting appends may take.
    pub permit: OwnedSemaphorePermit,
}

/// The one writer of a log.
pub struct Writer {
    /// The options with which the store was opened.
    pub options: Options,
    /// The log and the staged appends.
    pub staging: Staging,
    /// Makes groups durable.
    pub syncer: Arc<Syncer>,
    /// Full groups that are not being written yet.
    pub groups: VecDeque<Group>,
    /// The group to which appends are added.
    pub open_group: OpenGroup,
    /// Buffers for later groups.
    pub buffers: Vec<Vec<u8>>,
    /// Bytes of the last group.
    pub last_bytes: u64,
    /// Watches the clock.
    pub clock_watch: ClockWatch,
    /// The last use of the store, for checks of the clock.
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
    /// Decides an append, and stages it if it is accepted. Only the leader may call this without
    /// [`has_room`](Self::has_room): making room may write.
    pub fn stage(&mut self, request: Request) {
        let Request { append, encoded, answer, permit } = request;
        let outcome = match self.syncer.poison.error() {
            Some(poisoned) => Err(poisoned),
            None => self.decide_and_stage(&append, &encoded),
        };
        // No answer is sent while the writer is locked: the caller may run any code when it gets it.
        self.open_group.answers.push(Answer { to: answer, outcome, append, encoded, _permit: permit });
        if self.open_group.frames.len() >= GROUP_BYTES {
            let group = self.end_group();
            self.groups.push_back(group);
        }
    }

    /// The verdict, if it can be given without writing; `None` if the append must be staged. May be called
    /// only while nothing is staged or being written (W1).
    pub fn verdict(&self, append: &Append) -> Option<Result<Outcome, Error>> {
        match self.syncer.poison.error() {
            Some(poisoned) => Some(Err(poisoned)),
            None => Stage::of(&self.staging).decide(append).transpose(),
        }
    }

    /// Whether the append can be staged without allocating space or beginning a run, segment or group.
    pub fn has_room(&self, encoded: &Encoded) -> bool {
        let end = self.staging.tail.byte + encoded.bytes_max() as u64;
        let fits =
            end <= self.staging.active.allocated.min(self.options.segment_bytes) && !self.run_is_full();
        fits && !self.has_whole_group()
    }

    /// Whether a full group waits to be written. Appends after it are staged only when it is being written:
    /// so the frames of a group record that the group before the previous one is durable, and at most two
    /// groups are without such proof (F3 of `frame`).
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
        // A segment without events is not ended, even if it contains close marks: the next one would have the
        // same name.
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

    /// The recorded time of the append: its own time or now, whichever is earlier, but not before that of the
    /// newest event.
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

    /// Extends the active segment's file to at least `end`.
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

    /// Whether any group waits to be made durable.
    pub fn has_staged(&self) -> bool {
        !self.groups.is_empty() || !self.open_group.answers.is_empty()
    }

    /// Takes the first staged group.
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

    /// Keeps a buffer for a later group: reusing it is cheaper than allocating.
    pub fn take_back(&mut self, mut buffer: Vec<u8>) {
        let fits = (1..=BUFFER_BYTES_MAX).contains(&buffer.capacity());
        if fits && self.buffers.len() < BUFFERS_MAX {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    /// Makes all staged groups durable.
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
        // Frees space that was allocated and not used. If this fails, the zeros stay: they do no harm.
        let _ = self.staging.active.segment.file.truncate(self.staging.tail.byte);
        let segment = Arc::new(Segment::new(header, file));
        self.staging.log.change(|lists| lists.segments.push(segment.clone()));
        self.staging.tail = End::start_of(&header);
        self.staging.active.segment = segment;
        self.staging.active.allocated = HEADER_BYTES;
        self.staging.active.from = self.staging.tail;
        self.syncer.poison.error().map_or(Ok(()), Err)
    }

    /// Writes a mark at the end of the log, if there is room for it. No guarantee depends on it.
    fn mark(&mut self, mark: Mark) {
        let segment = self.staging.active.segment.clone();
        let durable = self.staging.tail.next.previous();
        let (frames, crc) = frame::mark(mark, durable, segment.origin);
        let end = self.staging.tail.byte + frames.len() as u64;
        if let Err(fault) = self.allocate(end) {
            tracing::warn!(
                error = &fault as &dyn std::error::Error,
                "the mark at the end of the log was not written"
            );
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

    /// Closes the log, with a mark at its end: all bytes before the mark were durable, so if they are broken
    /// later, it is damage.
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
