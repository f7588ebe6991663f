//! Opening a log: distinguishes a torn tail from damage, and clears the torn tail.
//!
//! - R1  Sealed runs are trusted: only the headers of segments and of indexes are read. An
//!       index that is missing, corrupt or foreign is rebuilt from the segments.
//! - R2  The frames after the last sealed run are walked, and their index is built in memory.
//! - R3  After the last whole frame there may be a torn tail, the rest of a group that was never
//!       acknowledged: it is replaced by zeros before anything is written. It is damage instead if a whole
//!       frame in it proves that the broken frame was durable (F3 of `frame`).
//! - R4  Each segment begins where the previous one ends, by position, time and link: anything else is
//!       damage. These are damage too: an index of events that are missing, an end mark in the last segment,
//!       an identity without any segment, and a log that ends before the event that is known to be durable.
//! - R5  The recovered events are made durable before readers see them or anything is written after them. The
//!       process that wrote them may have been killed before the sync, or the sync may have failed (D4 of
//!       `disk`): the last group is written again and synced, and so is the directory.
//! - R6  A read-only disk is read as it is: nothing is cleared, and runs that are not sealed are indexed in
//!       memory. A log that has lost its end is read up to its last whole frame, and a log that has another
//!       event than the one known to be durable is read as it is: no position can be assigned twice, because
//!       nothing is appended.
//!
//! Next below: `segment::walk`.

use std::sync::Arc;

use annals_core::body::Body;
use annals_core::{Clock, Position, StoreId, StreamId, Timestamp, Witness};
use parking_lot::RwLock;

use crate::Options;
use crate::commit::seal::{Sealable, seal};
use crate::commit::staging::Active;
use crate::disk::{Disk, File};
use crate::error::Fault;
use crate::index::{BlockCache, FileIndex, MemoryIndex, Offset};
use crate::log::candidate::{Candidates, Found};
use crate::log::durable::{self, MISSING};
use crate::log::encoding::Malformed;
use crate::log::frame::Origin;
use crate::log::identity;
use crate::log::segment::{BlockReader, End, HEADER_BYTES, Segment, SegmentHeader, base_of, run_of, walk};
use crate::log::terms::hashes_of;
use crate::read::view::{Lists, Run, RunIndex};

/// Bytes that are cleared at a time.
const REPAIR_BYTES: usize = 64 << 10;

/// An opened log.
pub struct Recovered {
    /// Identity of the log.
    pub id: StoreId,
    /// All segments and runs.
    pub lists: Lists,
    /// The active segment and the newest run.
    pub active: Active,
    /// The end of the log.
    pub tail: End,
    /// The event that was recorded as durable.
    pub durable: Option<Witness>,
    /// A description of the lost end of a read-only log (R6).
    pub lost_end: Option<String>,
}

/// Opens the log on this disk. Creates it if there is none.
pub fn open(disk: &dyn Disk, cache: &Arc<BlockCache>, options: &Options) -> Result<Recovered, Fault> {
    let mut names = disk.list().map_err(Fault::io("list", "the log"))?;
    if disk.is_writable() {
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            disk.remove(name).map_err(Fault::io("remove", name))?;
        }
        disk.sync_directory().map_err(Fault::io("sync", "the log"))?;
    }
    names.sort_unstable();
    let bases: Vec<Position> = names.iter().filter_map(|name| base_of(name)).collect();
    let identity = identity::read(disk, &names)?;
    identity::check(identity, bases.len())?;
    check_runs(&names, if bases.is_empty() { Position::ZERO } else { Position::MAX })?;
    let recovered = if bases.is_empty() {
        create(disk, &*options.clock)?
    } else {
        let segments = open_segments(disk, &bases, identity)?;
        Opening { disk, cache, options, names: &names, segments, runs: Vec::new() }.recover()?
    };
    if identity.is_none()
        && disk.is_writable()
        && let Err(fault) = identity::write(disk, recovered.id)
    {
        // A store can be opened on a full disk (G9); the next open tries again.
        tracing::warn!(
            error = &fault as &dyn std::error::Error,
            "the identity file could not be written; the identity is only in the segments"
        );
    }
    Ok(recovered)
}

/// Returns damage if there is an index of events after `head`: an index is written only after its events are
/// durable, so these events are lost.
pub(crate) fn check_runs(names: &[String], head: Position) -> Result<(), Fault> {
    let beyond = |name: &&String| run_of(name).is_some_and(|(_, last)| last > head);
    match names.iter().find(beyond) {
        None => Ok(()),
        Some(index) => {
            let problem = format!("there is an index, but not the events that it is of: {MISSING}");
            Err(Fault::damaged(index, 0, None, problem))
        }
    }
}

/// Returns damage if the last segment has an end mark: the next segment is missing.
pub(crate) fn check_end(segment: &Segment, end: &End) -> Result<(), Fault> {
    if !end.finished {
        return Ok(());
    }
    let problem =
        format!("the segment ends here, and the next one, from position {} on, is gone: {MISSING}", end.next);
    Err(Fault::damaged(&segment.name, end.byte, Some(end.next), problem))
}

/// Returns damage if a segment does not begin where the previous one ends.
pub(crate) fn check_next(next: &Segment, end: &End) -> Result<(), Fault> {
    let header = &next.header;
    let wrong = |offset, problem: String| Err(Fault::damaged(&next.name, offset, Some(end.next), problem));
    if header.base != end.next {
        let problem =
            format!("the log continues at position {}, and this segment does not: {MISSING}", end.next);
        return wrong(32, problem);
    }
    if header.link != end.link || header.recorded_at != end.recorded_at {
        return wrong(48, format!("the segment is not the one that follows the one before it: {MISSING}"));
    }
    Ok(())
}

/// Opens the segments of one log.
pub(crate) fn open_segments(
    disk: &dyn Disk,
    bases: &[Position],
    mut id: Option<StoreId>,
) -> Result<Vec<Arc<Segment>>, Fault> {
    bases.iter().map(|&base| Ok(Arc::new(open_segment(disk, base, &mut id)?))).collect()
}

/// Opens the segment that begins at this position. It must belong to the log `id`; if that is `None`, it is
/// set.
pub(crate) fn open_segment(
    disk: &dyn Disk,
    base: Position,
    id: &mut Option<StoreId>,
) -> Result<Segment, Fault> {
    let name = crate::log::segment::file_name(base);
    let file = disk.open(&name).map_err(Fault::io("open", &name))?;
    let header = SegmentHeader::read(&*file, base)?;
    if *id.get_or_insert(header.store) != header.store {
        return Err(Fault::damaged(&name, 16, Some(base), "the segment is of another log"));
    }
    Ok(Segment::new(header, file))
}

fn create(disk: &dyn Disk, clock: &dyn Clock) -> Result<Recovered, Fault> {
    let header = SegmentHeader {
        store: StoreId::generate(),
        base: Position::FIRST,
        created_at: clock.now(),
        link: 0,
        recorded_at: Timestamp::MIN,
    };
    let file = header.create(disk).map_err(|(fault, _)| fault)?;
    let segment = Arc::new(Segment::new(header, file));
    let index = Arc::new(RwLock::new(MemoryIndex::default()));
    let tail = End::start_of(&header);
    let run = Arc::new(Run { base: tail.next, index: RunIndex::Memory(index.clone()) });
    Ok(Recovered {
        id: header.store,
        lists: Lists { segments: vec![segment.clone()], runs: vec![run] },
        active: Active { segment, allocated: HEADER_BYTES, from: tail, index },
        tail,
        durable: None,
        lost_end: None,
    })
}

/// A log that is being opened.
struct Opening<'a> {
    disk: &'a dyn Disk,
    cache: &'a Arc<BlockCache>,
    options: &'a Options,
    names: &'a [String],
    segments: Vec<Arc<Segment>>,
    runs: Vec<Arc<Run>>,
}

impl Opening<'_> {
    fn recover(mut self) -> Result<Recovered, Fault> {
        let id = self.segments[0].header.store;
        let mut number = 0;
        let mut end = End::start_of(&self.segments[0].header);
        let first = End { next: Position::FIRST, link: 0, recorded_at: Timestamp::MIN, ..end };
        check_next(&self.segments[0], &first)?;
        loop {
            let next = self.segments.get(number + 1).cloned();
            if let Some(next) = next.filter(|next| next.base() == end.next) {
                if next.header.link != end.link {
                    // After the last run there may be close marks, which are part of the segment's link.
                    let segment = &self.segments[number];
                    end = walk(&*segment.file, &segment.header, end, Position::MAX, |_| Ok(()))?;
                }
                check_next(&next, &end)?;
                number += 1;
                end = End::start_of(&next.header);
            } else if let Some((last, run_end)) = self.sealed_run(number, &end)? {
                (number, end) = (last, run_end);
            } else if number + 1 < self.segments.len() {
                end = self.build_run(number, end)?;
            } else {
                break;
            }
        }
        let (mut sealable, tail) = self.walk_tail(end)?;
        let segment = self.segments[number].clone();
        let durable = durable::known(self.disk, self.names, id);
        let lost_end = match self.check_tail(&segment, &tail, durable) {
            Err(fault) => Some(self.read_up_to(&tail, fault)?),
            Ok(()) => None,
        };
        if self.disk.is_writable() {
            repair_tail(&segment, &tail)?;
        } else {
            torn_tail_end(&segment, &tail)?;
        }
        let newest = sealable.pop().expect("the newest run is there, if only empty");
        for run in sealable {
            self.seal(run);
        }
        self.remove_unused();
        let index = RunIndex::Memory(newest.index.clone());
        self.runs.push(Arc::new(Run { base: newest.from.next, index }));
        let allocated = segment.file.length().map_err(Fault::io("read the length of", &segment.name))?;
        Ok(Recovered {
            id,
            lists: Lists { segments: self.segments, runs: self.runs },
            active: Active { segment, allocated, from: newest.from, index: newest.index },
            tail,
            durable,
            lost_end,
        })
    }

    /// Returns damage if the log has lost its end.
    fn check_tail(&self, segment: &Segment, tail: &End, durable: Option<Witness>) -> Result<(), Fault> {
        let head = tail.next.previous();
        check_end(segment, tail)?;
        check_runs(self.names, head)?;
        durable::check_end(durable, &segment.name, tail.byte, head)
    }

    /// Accepts a log that has lost its end if the disk is read-only, with a warning (R6), and returns the
    /// error as text.
    fn read_up_to(&self, tail: &End, fault: Fault) -> Result<String, Fault> {
        if self.disk.is_writable() {
            return Err(fault);
        }
        tracing::warn!(
            head = tail.next.previous().get(),
            error = &fault as &dyn std::error::Error,
            "the log has lost its end: what is left is read, and takes no appends"
        );
        Ok(annals_core::Error::from(fault).chain())
    }

    /// Adds the longest usable sealed run that begins here. Returns the number of the segment in which it
    /// ends, and its end; `None` if there is no usable run.
    fn sealed_run(&mut self, number: usize, from: &End) -> Result<Option<(usize, End)>, Fault> {
        let here = self.names.iter().filter(|name| run_of(name).is_some_and(|(first, _)| first == from.next));
        // Names are sorted, so runs that begin at the same position are ordered by length.
        for name in here.rev() {
            match self.usable(name, number, from.next) {
                Ok((index, last, end)) => {
                    self.runs.push(Arc::new(Run { base: from.next, index: RunIndex::File(Arc::new(index)) }));
                    return Ok(Some((last, end)));
                }
                Err(Unusable::Index(problem)) => {
                    tracing::warn!(name, problem, "the index of a run cannot be used; it is built again");
                }
                Err(Unusable::Log(fault)) if self.disk.is_writable() => return Err(fault),
                Err(Unusable::Log(fault)) => {
                    // A missing segment in the middle is detected at the next segment.
                    tracing::warn!(
                        name,
                        error = &fault as &dyn std::error::Error,
                        "the index of a run is not used"
                    );
                }
            }
        }
        Ok(None)
    }

    fn usable(&self, name: &str, number: usize, base: Position) -> Result<(FileIndex, usize, End), Unusable> {
        let file = self.disk.open(name).map_err(Fault::io("open", name))?;
        let index = FileIndex::open(name, file, base, self.cache.clone())?;
        if run_of(name) != Some((base, index.last())) {
            return Err(Unusable::Index("it is the index of another run".into()));
        }
        let ending = index.ending();
        let known = &self.segments[number..];
        let last = known.iter().take_while(|segment| segment.base() <= ending.segment).count();
        let segment = &known[last.max(1) - 1];
        if (ending.store, ending.salt) != (segment.header.store, segment.origin.salt) {
            // It is of another log, or the segment in which it ends is missing, which is detected later.
            return Err(Unusable::Index("it does not end in a segment of this log".into()));
        }
        let mut crc = [0; 4];
        segment.file.read_at(&mut crc, ending.frame.0).map_err(Fault::io("read", &segment.name))?;
        if crc != ending.frame.1.to_le_bytes() {
            return Err(Unusable::Index("it does not match the frames in the log".into()));
        }
        let covered = index.segments()?;
        let missing =
            covered.iter().find(|base| !known[..last].iter().any(|segment| segment.base() == **base));
        if let Some(&missing) = missing {
            let name = crate::log::segment::file_name(missing);
            let problem =
                format!("the segment is missing; an index has events of it from {missing} on: {MISSING}");
            return Err(Unusable::Log(Fault::damaged(&name, 0, Some(missing), problem)));
        }
        let end = End {
            byte: ending.byte,
            next: index.last().next(),
            recorded_at: ending.recorded_at,
            link: ending.link,
            frame: ending.frame,
            finished: false,
            appends: 0,
            unproven: ending.byte,
        };
        Ok((index, number + last - 1, end))
    }

    /// Removes unused indexes: those that were merged but not yet removed, and those that were rebuilt under
    /// another name.
    fn remove_unused(&self) {
        let used: Vec<&str> = self.runs.iter().filter_map(|run| run.file_name()).collect();
        for name in self.names.iter().filter(|_| self.disk.is_writable()) {
            if run_of(name).is_some() && !used.contains(&name.as_str()) {
                // If this fails, the file is removed at the next open.
                let _ = self.disk.remove(name);
            }
        }
    }

    /// Builds the index of a run from here on, in a segment that is not the last.
    fn build_run(&mut self, number: usize, from: End) -> Result<End, Fault> {
        let segment = self.segments[number].clone();
        let next = self.segments[number + 1].base();
        let sealed = self.names.iter().filter_map(|name| run_of(name)).map(|(first, _)| first);
        let until = sealed.filter(|first| *first > from.next).min().map_or(next, |first| first.min(next));
        let until = until.min(from.next.plus(u64::from(self.options.run_events)));
        let mut builder = Builder::default();
        let end = walk(&*segment.file, &segment.header, from, until, |frame| builder.add(frame))?;
        if end.next < until || end.next > next {
            let problem =
                format!("a frame is broken, and the next segment begins at position {next}: {MISSING}");
            return Err(Fault::damaged(&segment.name, end.byte, Some(end.next), problem));
        }
        // Marks after the last event are part of the segment, and so of the link of the next one.
        let end = if end.next == next {
            walk(&*segment.file, &segment.header, end, Position::MAX, |_| Ok(()))?
        } else {
            end
        };
        self.seal(Sealable { segment, from, end, index: Arc::new(RwLock::new(builder.index)) });
        Ok(end)
    }

    /// Writes the index of a run; keeps it in memory if that fails, so that a store can be opened on a full
    /// disk (G9).
    fn seal(&mut self, run: Sealable) {
        let id = run.segment.header.store;
        if !self.disk.is_writable() {
            self.runs.push(Arc::new(Run { base: run.from.next, index: RunIndex::Memory(run.index) }));
            return;
        }
        let index = match seal(self.disk, id, &run, self.cache) {
            Ok(index) => RunIndex::File(Arc::new(index)),
            Err(fault) => {
                tracing::warn!(
                    base = run.from.next.get(),
                    error = &fault as &dyn std::error::Error,
                    "the index of a run stays in memory; it is written at the next open"
                );
                RunIndex::Memory(run.index)
            }
        };
        self.runs.push(Arc::new(Run { base: run.from.next, index }));
    }

    /// Walks the frames after the sealed runs in the last segment. Returns their runs, of which the last is
    /// the newest run, and the end of the log.
    fn walk_tail(&self, from: End) -> Result<(Vec<Sealable>, End), Fault> {
        let segment = self.segments.last().expect("there is a segment");
        let mut runs = Vec::new();
        let mut start = from;
        let mut unproven = None;
        loop {
            let until = start.next.plus(u64::from(self.options.run_events));
            let mut builder = Builder::default();
            let end = walk(&*segment.file, &segment.header, start, until, |frame| builder.add(frame))?;
            let index = Arc::new(RwLock::new(builder.index));
            runs.push(Sealable { segment: segment.clone(), from: start, end, index });
            // The next walk may prove these frames durable; writing them again does no harm.
            unproven = unproven.or((end.unproven < end.byte).then_some(end.unproven));
            if end.next < until {
                return Ok((runs, End { unproven: unproven.unwrap_or(end.byte), ..end }));
            }
            start = end;
        }
    }
}

/// The reason why an index is not used.
enum Unusable {
    /// The index is wrong.
    Index(String),
    /// The index shows that the log is damaged.
    Log(Fault),
}

impl From<Fault> for Unusable {
    fn from(fault: Fault) -> Self {
        Self::Index(annals_core::Error::from(fault).chain())
    }
}

/// Checks that a name is valid, which a matching checksum does not guarantee: all indexed names must be.
fn check_name(stream: &[u8]) -> Result<(), Malformed> {
    let name = std::str::from_utf8(stream).ok().filter(|name| StreamId::new(*name).is_ok());
    name.map(drop).ok_or(Malformed::Field("stream"))
}

/// Builds an index from frames.
#[derive(Default)]
pub(crate) struct Builder {
    /// The index so far.
    pub index: MemoryIndex,
    hashes: Vec<u64>,
}

impl Builder {
    /// Adds the events of a frame.
    pub fn add(
        &mut self,
        frame: &crate::log::segment::Walked<'_>,
    ) -> Result<(), crate::log::encoding::Malformed> {
        let mut first = true;
        frame.records(|byte, record| {
            let body = Body::read(record.body)?;
            check_name(body.stream)?;
            self.hashes.clear();
            hashes_of(&body, &mut self.hashes);
            self.index.insert(&body, &self.hashes, record.version, Offset::new(byte, first));
            first = false;
            Ok(())
        })
    }
}

/// Clears the torn tail, and makes the last group durable. Returns damage if the tail was durable.
fn repair_tail(segment: &Segment, end: &End) -> Result<(), Fault> {
    let Segment { file, name, .. } = segment;
    let torn_end = torn_tail_end(segment, end)?;
    if torn_end > end.byte {
        // Read the frame again: if it is whole now, nothing is cleared.
        if let Some((_, Ok(_))) = BlockReader::new(&**file, name, segment.origin).frame(end.byte)? {
            return Err(reads_differ(segment, end.byte));
        }
        tracing::info!(
            name,
            position = end.next.get(),
            bytes = torn_end - end.byte,
            "cleared a torn tail: appends that were never acknowledged"
        );
    }
    clear_and_sync(segment, end, torn_end).inspect_err(|_| {
        // Reads may return zeros now although the torn tail is still on the disk (D4 of `disk`). A byte that
        // is not zero at its end makes the next open of the log clear it again.
        let _ = if torn_end > end.byte { file.write_at(&[0xff], torn_end - 1) } else { Ok(()) };
    })
}

fn reads_differ(segment: &Segment, byte: u64) -> Fault {
    Fault::damaged(&segment.name, byte, None, "two reads of the same bytes returned different data")
}

fn clear_and_sync(segment: &Segment, end: &End, torn_end: u64) -> Result<(), Fault> {
    let Segment { file, name, .. } = segment;
    let mut byte = end.byte;
    let zeros = vec![0; REPAIR_BYTES];
    while byte < torn_end {
        let count = zeros.len().min((torn_end - byte) as usize);
        file.write_at(&zeros[..count], byte).map_err(Fault::io("clear", name))?;
        byte += count as u64;
    }
    let mut reader = BlockReader::new(&**file, name, segment.origin);
    let mut byte = end.unproven;
    while byte < end.byte {
        // Checked again: bytes that were read wrongly must not be written.
        let Some((bytes, Ok(header))) = reader.frame(byte)? else { return Err(reads_differ(segment, byte)) };
        file.write_at(&bytes[..header.length], byte).map_err(Fault::io("write again", name))?;
        byte += header.length as u64;
    }
    file.sync().map_err(Fault::io("sync", name))
}

/// Bytes that are searched at a time.
const BLOCK_BYTES: usize = 64 << 10;

/// The end of the torn tail after the last whole frame; the end of that frame if there is no torn tail.
///
/// # Errors
/// Damage, if the tail was durable.
pub(crate) fn torn_tail_end(segment: &Segment, end: &End) -> Result<u64, Fault> {
    let Segment { file, name, origin, .. } = segment;
    let last = last_used(&**file, name, *origin, end.byte)?;
    if last == end.byte {
        return Ok(last);
    }
    let mut candidates = Candidates::new(&**file, name, *origin, end.byte)?;
    let mut byte = end.byte;
    while let Some(candidate) = candidates.next(byte)? {
        let header = candidate.header;
        byte = candidate.byte + 1;
        // A cheap check first: most candidates do not claim that the broken frame was durable.
        if header.durable < end.next || header.first.get() - end.next.get() > u64::from(u32::MAX) {
            continue;
        }
        match candidates.look(&candidate, Some(origin.salt))? {
            Found::Broken(next) => byte = next,
            Found::Whole(_) => {
                let here = candidate.byte;
                let problem = format!("a broken frame was durable, as the frame at byte {here} proves");
                return Err(Fault::damaged(name, end.byte, Some(end.next), problem));
            }
        }
    }
    Ok(last)
}

/// The byte after the last one that is not zero, from `from` on; `from` if all are zero.
pub(crate) fn last_used(file: &dyn File, name: &str, origin: Origin, from: u64) -> Result<u64, Fault> {
    let mut reader = BlockReader::new(file, name, origin);
    let (mut last, mut byte) = (from, from);
    loop {
        let block = reader.bytes(byte, BLOCK_BYTES)?;
        if block.is_empty() {
            return Ok(last);
        }
        if let Some(at) = block.iter().rposition(|&byte| byte != 0) {
            last = byte + at as u64 + 1;
        }
        byte += block.len() as u64;
    }
}
