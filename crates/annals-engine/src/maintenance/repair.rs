//! Repair: copies the intact appends of a damaged log to a new log, and reports what was not copied.
//!
//! - X1  The source is only read.
//! - X2  An intact append is copied unchanged: its events in order, with ids, types, data, tags, metadata,
//!       the recorded time and the key. Only positions and versions change: positions have no gaps and
//!       versions are consecutive, so events after a gap move up, and each move is reported.
//! - X3  The new log has its own identity: checkpoints of the old log do not apply to it.
//! - X4  Everything that is not copied is reported. The last segment is copied as far as the store would show
//!       it after opening: a torn tail of appends that were never acknowledged is not copied.
//!
//! Next below: `salvage` finds the intact frames; the store writes them as ordinary appends.

use std::collections::HashMap;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;

use annals_core::{
    Append, Appended, Clock, Error, EventStore, Limits, Location, Position, RecordedEvent, Result, StoreId,
    StreamId, SystemClock, Timestamp, Version, Write,
};

use super::headless::Headless;
use super::salvage::{self, Piece, Spot};
use super::verify::{Damage, Lost};
use super::work::{Watched, Work};
use crate::disk::{Disk, File};
use crate::error::Fault;
use crate::log::durable;
use crate::log::frame::{Mark, Origin};
use crate::log::identity;
use crate::log::segment::{End, Segment, SegmentHeader, base_of, file_name, walk};
use crate::recovery::{check_runs, last_used, torn_tail_end};
use crate::{EngineStore, Options};

mod missing;

/// A report of a running repair.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Note {
    /// Something was not copied.
    Left(Damage),
    /// These events of a stream were not copied, according to an index.
    Gone {
        /// The stream.
        stream: String,
        /// Version of the first.
        first: Version,
        /// Version of the last.
        last: Version,
        /// Position of the first.
        position: Position,
    },
    /// A stream has lost events in the middle: the events after them have smaller versions now.
    Shifted {
        /// The stream.
        stream: StreamId,
        /// The first lost version.
        first: Version,
        /// The last lost version.
        last: Version,
        /// The old version of the next event.
        old: Version,
        /// Its new version: `first` minus the number of versions lost before.
        new: Version,
    },
    /// These events were copied to the new log, in the same order.
    Copied {
        /// Old position of the first.
        first: Position,
        /// Old position of the last.
        last: Position,
        /// New position of the first.
        to: Position,
    },
}

/// The result of a repair.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Repaired {
    /// Identity of the log that was read, if it is known.
    pub source: Option<StoreId>,
    /// Identity of the new log.
    pub target: Option<StoreId>,
    /// Number of appends that were copied.
    pub appends: u64,
    /// Number of events that were copied.
    pub events: u64,
    /// Number of locations at which something was not copied.
    pub left: u64,
    /// Number of events that are known to be lost.
    pub lost: u64,
    /// Whether more events may be lost, because the end of the log is unknown.
    pub more_lost: bool,
    /// Number of events that have a new position.
    pub moved: u64,
    /// Number of streams that are known to have lost events.
    pub streams: u64,
}

/// The most bytes and appends that are passed to the new store at a time.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_APPENDS: usize = 512;

/// Copies the intact appends of the log on one disk to a new log on another disk, which must be empty. It
/// runs for a long time without yielding to other tasks.
///
/// # Errors
/// If the source cannot be listed or the target cannot be written, or if `report` returns an error.
pub async fn repair_disk(
    source: &dyn Disk,
    target: Arc<dyn Disk>,
    segment_bytes: u64,
    work: &Arc<Work>,
    report: &mut (dyn FnMut(Note) -> std::io::Result<()> + Send),
) -> Result<Repaired> {
    let clock = Arc::new(NotBefore(AtomicI64::new(i64::MIN)));
    let limits = Limits {
        event_bytes_max: 512 << 20,
        append_bytes_max: 512 << 20,
        event_tags_max: usize::MAX,
        metadata_bytes_max: usize::MAX,
        ..Limits::default()
    };
    // The queue of the writer keeps the appends in order.
    let (clock_of_store, callers_may_wait) = (clock.clone(), false);
    let options = Options {
        segment_bytes,
        limits,
        clock: clock_of_store,
        callers_may_wait,
        clock_ahead_max: Duration::MAX,
        ..Options::default()
    };
    let store = EngineStore::on(target, options)?;
    let mut copy = Copy {
        source,
        store,
        clock,
        report,
        done: Repaired::default(),
        batch: Vec::new(),
        batch_bytes: 0,
        run: None,
        shifts: HashMap::new(),
        lost: Vec::new(),
        continues: false,
    };
    copy.all(work).await?;
    let Copy { store, mut done, .. } = copy;
    store.close().await?;
    done.target = Some(store.id());
    Ok(done)
}

/// The system clock, but never before the newest copied event: so the store accepts recorded times in the
/// future unchanged.
struct NotBefore(AtomicI64);

impl Clock for NotBefore {
    fn now(&self) -> Timestamp {
        SystemClock.now().max(Timestamp::from_micros(self.0.load(Ordering::Relaxed)))
    }
}

/// A repair in progress.
struct Copy<'a> {
    source: &'a dyn Disk,
    store: EngineStore,
    clock: Arc<NotBefore>,
    report: &'a mut (dyn FnMut(Note) -> std::io::Result<()> + Send),
    done: Repaired,
    /// Intact appends that are not written yet.
    batch: Vec<Vec<RecordedEvent>>,
    batch_bytes: usize,
    /// The latest copied events that moved by the same distance: old positions of the first and last, new
    /// position of the first.
    run: Option<(Position, Position, Position)>,
    /// By how much the versions of a stream decreased; it also has the streams of which only the end was
    /// lost.
    shifts: HashMap<StreamId, u64>,
    /// Positions of lost events whose streams are not reported yet.
    lost: Vec<Range<Position>>,
    /// Whether the last segment has an end mark.
    continues: bool,
}

impl Copy<'_> {
    async fn all(&mut self, work: &Arc<Work>) -> Result<()> {
        let names = self.source.list().map_err(Fault::io("list", "the log"))?;
        let mut bases: Vec<Position> = names.iter().filter_map(|name| base_of(name)).collect();
        bases.sort_unstable();
        self.done.source = self.identity(&names, &bases);
        let mut total = 0;
        for &base in &bases {
            total += self.source.open(&file_name(base)).and_then(|file| file.length()).unwrap_or_default();
        }
        work.set_total(total);
        let mut expected = Position::FIRST;
        for (index, &base) in bases.iter().enumerate() {
            let next = bases.get(index + 1).copied();
            if base > expected {
                let problem = format!("the log has no segment with position {expected}; this one comes next");
                self.left(&file_name(base), 0, expected, problem, Lost::between(expected, base))?;
            }
            let end = self.segment(base, next, work).await?;
            missing::report(self)?;
            expected = next.unwrap_or(end).max(end);
        }
        self.flush().await?;
        self.end_run()?;
        self.end(&names, bases.len(), expected)?;
        self.done.streams = self.shifts.len() as u64;
        Ok(())
    }

    /// Reports what is missing at the end of the log.
    fn end(&mut self, names: &[String], segments: usize, expected: Position) -> Result<()> {
        let whole = if self.continues {
            let problem = "the segment is missing; the previous one has an end mark";
            Err(Fault::damaged(&file_name(expected), 0, Some(expected), problem))
        } else {
            let identity = identity::check(self.done.source, segments);
            identity.and_then(|()| check_runs(names, expected.previous()))
        };
        if let Err(Fault::Damaged { location, problem }) = whole {
            self.left(&location.file, location.offset, expected, problem, Lost::Rest { first: expected })?;
            return missing::report(self);
        }
        // A corrupt file is ignored.
        let known = durable::read(self.source, names, self.done.source).ok().flatten();
        if let Some(known) = known.filter(|known| known.position >= expected) {
            let problem = format!("the log was durable up to position {}", known.position);
            let lost = Lost::between(expected, known.position.next());
            self.left(durable::NAME, 24, expected, problem, lost)?;
            missing::report(self)?;
        }
        Ok(())
    }

    /// The identity of the log, from its file or else from the first valid header.
    fn identity(&self, names: &[String], bases: &[Position]) -> Option<StoreId> {
        let of_headers = || {
            bases.iter().find_map(|&base| {
                let file = self.source.open(&file_name(base)).ok()?;
                Some(SegmentHeader::read(&*file, base).ok()?.store)
            })
        };
        identity::read(self.source, names).ok().flatten().or_else(of_headers)
    }

    /// The file of a segment, up to the end of the part to copy, and the origin of its frames; `None` if no
    /// frame of it can be copied.
    fn open(
        &mut self,
        base: Position,
        next: Option<Position>,
        work: &Arc<Work>,
    ) -> Result<Option<(Arc<dyn File>, Origin)>> {
        let name = file_name(base);
        let lost = next.map_or(Lost::Rest { first: base }, |next| Lost::between(base, next));
        let file: Arc<dyn File> = match self.source.open(&name) {
            Ok(file) => Arc::new(Watched::whole(file, work)),
            Err(error) => {
                self.left(&name, 0, base, format!("cannot be opened: {error}"), lost)?;
                return Ok(None);
            }
        };
        let header = match SegmentHeader::read(&*file, base) {
            Ok(header) if self.done.source.is_some_and(|id| id != header.store) => {
                self.left(&name, 16, base, "the segment is of another log".to_owned(), lost)?;
                return Ok(None);
            }
            Ok(header) => header,
            Err(fault) => {
                let before = Timestamp::from_micros(self.clock.0.load(Ordering::Relaxed));
                let (disk, store) = (self.source, self.done.source);
                let headless = Headless { disk, file: &*file, base, next, store, before, work };
                let Some(found) = headless.origin()? else {
                    self.left(&name, 0, base, format!("{fault}, and no frame is whole"), lost)?;
                    return Ok(None);
                };
                let mut problem = format!("{fault}; the frames of the segment are read without it");
                if !found.exact {
                    problem.push_str(NOT_EXACT);
                }
                self.left(&name, 0, base, problem, Lost::Nothing)?;
                return Ok(Some((file, found.origin)));
            }
        };
        let segment = Segment::new(header, file);
        let file = match next {
            Some(_) => segment.file.clone(),
            None => shown(&segment, work)?,
        };
        Ok(Some((file, segment.origin)))
    }

    /// Copies the intact appends of a segment; returns the position after the last event.
    async fn segment(
        &mut self,
        base: Position,
        next: Option<Position>,
        work: &Arc<Work>,
    ) -> Result<Position> {
        let name = file_name(base);
        let done = work.progress().0;
        self.continues = false;
        let Some((file, origin)) = self.open(base, next, work)? else { return Ok(base) };
        let segment = salvage::Segment { file: &*file, name: &name, origin, below: next };
        let mut pieces = segment.pieces(Spot::start_of(base));
        while let Some(piece) = pieces.next()? {
            match piece {
                Piece::Whole(whole) if whole.events.is_empty() => {
                    self.continues |= whole.mark == Some(Mark::End);
                }
                Piece::Whole(whole) => {
                    self.enqueue(whole.events.into_iter().map(|(event, _)| event).collect()).await?
                }
                Piece::Gap(gap) => {
                    self.flush().await?;
                    self.left(&name, gap.byte, gap.first, gap.problem, Lost::between(gap.first, gap.next))?;
                }
            }
        }
        self.flush().await?;
        let end = pieces.at();
        if let Some(next) = next.filter(|next| end.next < *next) {
            let problem = "a frame is broken, and there is no whole frame after it".to_owned();
            self.left(&name, end.byte, end.next, problem, Lost::between(end.next, next))?;
        } else if last_used(&*file, &name, origin, end.byte)? > end.byte {
            let problem = "the bytes here are not a whole frame of this log".to_owned();
            let lost = next.map_or(Lost::Rest { first: end.next }, |_| Lost::Nothing);
            self.left(&name, end.byte, end.next, problem, lost)?;
        }
        // Parts may have been read twice: set the progress to the end.
        work.set_done(done + end.byte);
        work.stopped()?;
        Ok(end.next)
    }

    /// Records and reports something that is not copied.
    fn left(
        &mut self,
        file: &str,
        offset: u64,
        position: Position,
        problem: String,
        lost: Lost,
    ) -> Result<()> {
        self.done.left += 1;
        self.done.lost += lost.count().unwrap_or_default();
        self.done.more_lost |= lost.count().is_none();
        match lost {
            Lost::Nothing => {}
            Lost::Events { first, last } => self.lost.push(first..last.next()),
            Lost::Rest { first } => self.lost.push(first..Position::MAX),
        }
        let location = Location { file: file.to_owned(), offset, position: Some(position) };
        self.note(Note::Left(Damage { location, problem, lost }))
    }

    fn note(&mut self, note: Note) -> Result<()> {
        (self.report)(note).map_err(|error| Error::Unavailable(Box::new(error)))
    }

    /// Adds an intact append to the batch, and writes the batch when it is large enough.
    async fn enqueue(&mut self, events: Vec<RecordedEvent>) -> Result<()> {
        self.batch_bytes +=
            events.iter().map(|event| event.bytes() + size_of::<RecordedEvent>()).sum::<usize>();
        self.batch.push(events);
        if self.batch.len() >= BATCH_APPENDS || self.batch_bytes >= BATCH_BYTES {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Writes the appends of the batch, concurrently and in order.
    async fn flush(&mut self) -> Result<()> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if let Some(last) = batch.last().and_then(|events| events.last()) {
            self.clock.0.fetch_max(last.recorded_at().as_micros(), Ordering::Relaxed);
        }
        let outcomes = in_order(batch.iter().map(|events| self.store.append(append_of(events)))).await;
        for (events, outcome) in batch.iter().zip(outcomes) {
            match outcome {
                Ok(appended) if !appended.duplicate => self.copied(events, &appended)?,
                Ok(appended) => {
                    let problem = format!("the append is there already, at position {} now", appended.first);
                    self.refused(events, problem)?;
                }
                Err(Error::Invalid(invalid)) => self.refused(events, invalid.to_string())?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn refused(&mut self, events: &[RecordedEvent], problem: String) -> Result<()> {
        let (first, last) = (events[0].position(), events[events.len() - 1].position());
        self.left("log", 0, first, problem, Lost::Events { first, last })
    }

    /// Records the new positions and versions of the events of an append.
    fn copied(&mut self, events: &[RecordedEvent], appended: &Appended) -> Result<()> {
        self.done.appends += 1;
        self.done.events += events.len() as u64;
        let (first, last) = (events[0].position(), events[events.len() - 1].position());
        if first != appended.first {
            self.done.moved += events.len() as u64;
        }
        match &mut self.run {
            Some((from, to, now)) if first.get() - from.get() == appended.first.get() - now.get() => {
                *to = last
            }
            _ => {
                self.end_run()?;
                self.run = Some((first, last, appended.first));
            }
        }
        // Within an append the versions of a stream stay consecutive, so its newest version shows the shift.
        let mut of_streams: HashMap<&str, (Version, u64)> = HashMap::new();
        for event in events {
            of_streams.entry(event.stream()).or_insert((event.version(), 0)).1 += 1;
        }
        for (stream, now) in &appended.streams {
            let (old, count) = of_streams[stream.as_str()];
            let new = Version::new(now.get() + 1 - count);
            let shift = old.get().saturating_sub(new.get());
            let before = self.shifts.get(stream).copied().unwrap_or_default();
            if shift != before {
                self.shifts.insert(stream.clone(), shift);
                let first = Version::new(new.get() + before);
                let last = Version::new(old.get() - 1);
                self.note(Note::Shifted { stream: stream.clone(), first, last, old, new })?;
            }
        }
        Ok(())
    }

    fn end_run(&mut self) -> Result<()> {
        match self.run.take() {
            Some((first, last, to)) => self.note(Note::Copied { first, last, to }),
            None => Ok(()),
        }
    }
}

/// Added to the report if the recorded times of a segment's events are not exact.
const NOT_EXACT: &str = ", and the creation time of the segment is unknown: the recorded times of its events are estimated \
                         from event ids and earlier times; within the segment they are right relative to each other";

/// The part of the last segment that the store would show after opening; all of it, if opening would fail.
fn shown(segment: &Segment, work: &Arc<Work>) -> Result<Arc<dyn File>, Fault> {
    let from = End::start_of(&segment.header);
    let whole = walk(&*segment.file, &segment.header, from, Position::MAX, |_| Ok(()))
        .and_then(|end| Ok((torn_tail_end(segment, &end)?, end)));
    match whole {
        // An end mark in the last segment means that the next one is missing. Keep it in the file that is
        // read.
        Ok((_, end)) if end.finished => Ok(segment.file.clone()),
        Ok((_, end)) => Ok(Arc::new(Watched::beginning(segment.file.clone(), end.byte, work))),
        Err(Fault::Damaged { .. }) => Ok(segment.file.clone()),
        Err(fault) => Err(fault),
    }
}

/// An append that writes these events again.
fn append_of(events: &[RecordedEvent]) -> Append {
    let writes = events.iter().map(|event| Write { stream: event.stream_id(), event: event.to_new() });
    let mut append = Append::new();
    append.writes = writes.collect();
    append.key = events[0].idempotency_key();
    append.recorded_at = Some(events[0].recorded_at());
    append
}

/// Starts all futures in order, and waits for all of them. An append is in the queue of the writer after its
/// first poll.
async fn in_order<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    let mut begun = false;
    let mut done = 0;
    std::future::poll_fn(|context| {
        // First poll all of them once. After that they complete in order, so polling stops at the first
        // pending one.
        while done < waiting.len() || !begun {
            for (index, future) in waiting.iter_mut().enumerate().skip(done) {
                if outputs[index].is_none()
                    && let Poll::Ready(output) = future.as_mut().poll(context)
                {
                    outputs[index] = Some(output);
                } else if begun && outputs[index].is_none() {
                    break;
                }
            }
            begun = true;
            let answered = outputs[done..].iter().take_while(|output| output.is_some()).count();
            if answered == 0 && done < waiting.len() {
                return Poll::Pending;
            }
            done += answered;
        }
        Poll::Ready(())
    })
    .await;
    outputs.into_iter().map(|output| output.expect("all are done")).collect()
}
