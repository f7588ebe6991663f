//! Fetching: reads the events at places of a run. All events are read through this module.
//!
//! Records that are close together are read with one call. As soon as one call has waited for the device, all
//! later ones are prefetched, so events that are scattered over a disk take about as long as two of them.
//!
//! Next below: `segment` (the files) and `disk`.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{Position, RecordedEvent, Timestamp, Version};
use bytes::Bytes;

use super::view::{Run, View};
use crate::error::Fault;
use crate::index::Offset;
use crate::log::encoding::Malformed;
use crate::log::frame::{self, Record};
use crate::log::segment::Segment;

/// Records that are no further apart than this are read together.
const GAP_BYTES_MAX: u64 = 2 << 10;
/// The most bytes that are read together, unless one record is larger.
const PIECE_BYTES_MAX: u64 = 1 << 20;
/// The most events of a block.
const BLOCK_EVENTS_MAX: usize = 1 << 10;
/// The most records of a batch.
const RECORDS_MAX: usize = 512;
/// The number of pieces by which [`bring_near`](crate::disk::File::bring_near) runs ahead of the reads.
const NEAR_PIECES: usize = 4;
/// A read that takes longer than this has waited for the device.
const IN_MEMORY_MAX: Duration = Duration::from_micros(20);
/// Bytes that are read for a record whose length is unknown: most records fit.
const RECORD_BYTES_GUESS: u64 = 4 << 10;

/// The weight of an event in a page, in bytes: what its caller gave, and the size of the event itself.
pub fn weight(event: &RecordedEvent) -> usize {
    size_of::<RecordedEvent>() + event.bytes()
}

/// Reads the events at these places of a run, in the given order, until their [`weight`] is `bytes_max` or
/// more. Reads at least one event if `places` is not empty and `bytes_max` is not 0.
///
/// Events that are read together share one block of memory, of about a mebibyte at most unless a record is
/// larger.
pub fn events(view: &View, run: &Run, places: &[u32], bytes_max: usize) -> Result<Vec<RecordedEvent>, Fault> {
    let mut events = Vec::with_capacity(places.len().min(RECORDS_MAX));
    let mut bytes = 0;
    let mut rest = places;
    while !rest.is_empty() && bytes < bytes_max {
        let chunk = &rest[..rest.len().min(RECORDS_MAX)];
        let records = locate(view, run, chunk)?;
        let batch = Batch::of(&records);
        let mut block = Vec::new();
        batch.read(&mut block)?;
        let block = Bytes::from(block);
        for (record, at) in batch.places() {
            let event = record.event(&block, at)?;
            bytes += weight(&event);
            events.push(event);
            if bytes >= bytes_max {
                return Ok(events);
            }
        }
        rest = &rest[batch.taken()..];
    }
    Ok(events)
}

/// Consecutive events, in the bytes that they were read into.
pub struct Block<'a> {
    records: Vec<Checked<'a>>,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The position after the last event.
    pub next: Position,
    /// The damage of the record at `next`, if it is damaged.
    fault: Option<Fault>,
}

/// A record whose checksum matched, and the range of its body in the bytes.
struct Checked<'a> {
    located: Located<'a>,
    version: Version,
    append: Position,
    recorded_at: Timestamp,
    body: Range<usize>,
}

/// The locations of the records of a block: the first of some events, as many as are read together.
pub struct Plan<'a> {
    located: Vec<Located<'a>>,
    /// The position after the last event.
    pub next: Position,
}

impl<'a> Plan<'a> {
    /// Locates the first events of a range of positions, which must not be empty.
    pub fn of(view: &'a View, wanted: Range<Position>) -> Result<Self, Fault> {
        let from = wanted.start;
        let run = view.run_of(from);
        let first = (from.get() - run.base.get()) as u32;
        let count =
            usize::try_from(wanted.end.get() - from.get()).unwrap_or(usize::MAX).min(BLOCK_EVENTS_MAX);
        let places: Vec<u32> = (first..view.visible(run)).take(count).collect();
        let mut located = locate(view, run, &places)?;
        let taken = Batch::of(&located).taken();
        located.truncate(taken);
        Ok(Self { next: from.plus(taken as u64), located })
    }

    /// Reads the block into `bytes`, replacing their contents, and checks it.
    pub fn read(self, mut bytes: Vec<u8>) -> Result<Block<'a>, Fault> {
        let batch = Batch::of(&self.located);
        batch.read(&mut bytes)?;
        let at: Vec<usize> = batch.places().map(|(_, at)| at).collect();
        let mut block = Block { records: Vec::with_capacity(at.len()), bytes, next: self.next, fault: None };
        for (located, at) in self.located.into_iter().zip(at) {
            let position = located.position;
            match Checked::of(located, at, &mut block.bytes) {
                Ok(checked) => block.records.push(checked),
                Err(fault) => {
                    (block.fault, block.next) = (Some(fault), position);
                    break;
                }
            }
        }
        Ok(block)
    }
}

impl<'a> Checked<'a> {
    /// Checks the record at offset `at` of the bytes. If it is longer than was read, the whole record is read
    /// again.
    fn of(located: Located<'a>, at: usize, bytes: &mut Vec<u8>) -> Result<Self, Fault> {
        let known = at..bytes.len().min(at + (located.end - located.byte) as usize);
        let origin = &located.segment.origin;
        let record = frame::record(&bytes[known.clone()], located.position, origin);
        let (start, record) = match record {
            Err(Malformed::Short(_)) => {
                let whole = located.whole(&bytes[known])?;
                let start = bytes.len();
                bytes.extend_from_slice(&whole);
                (start, frame::record(&bytes[start..], located.position, origin))
            }
            record => (known.start, record),
        };
        let record = record.map_err(|malformed| located.wrong(malformed))?;
        let body = start + record.body_at..start + record.body_at + record.body.len();
        let Record { version, append, recorded_at, .. } = record;
        Ok(Self { version, append, recorded_at, body, located })
    }
}

impl Block<'_> {
    /// Calls `each` for the records, borrowed from the bytes, until it breaks; then returns the position
    /// after that record. Otherwise returns the bytes, to be used again.
    pub fn each(
        self,
        mut each: impl FnMut(Record<'_>) -> Result<ControlFlow<()>, Malformed>,
    ) -> Result<ControlFlow<Position, Vec<u8>>, Fault> {
        for Checked { located, version, append, recorded_at, body } in &self.records {
            let record = Record {
                position: located.position,
                version: *version,
                append: *append,
                recorded_at: *recorded_at,
                body: &self.bytes[body.clone()],
                body_at: 0,
            };
            if each(record).map_err(|malformed| located.wrong(malformed))?.is_break() {
                return Ok(ControlFlow::Break(located.position.next()));
            }
        }
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(ControlFlow::Continue(self.bytes)),
        }
    }
}

/// The event at this place of a run.
pub fn event(view: &View, run: &Run, place: u32) -> Result<RecordedEvent, Fault> {
    Ok(events(view, run, &[place], 1)?.remove(0))
}

/// The location of a record.
struct Located<'a> {
    segment: &'a Arc<Segment>,
    position: Position,
    byte: u64,
    /// An upper bound for its end, or a guess.
    end: u64,
}

fn locate<'a>(view: &'a View, run: &Run, places: &[u32]) -> Result<Vec<Located<'a>>, Fault> {
    let mut records = Vec::with_capacity(places.len());
    let count = run.index().count();
    let mut known: Range<u32> = 0..0;
    let mut offsets: Vec<Offset> = Vec::new();
    let (mut segment, mut positions) = view.segment_of(run.base);
    for (index, &place) in places.iter().enumerate() {
        if !known.contains(&place) {
            let following = places[index..].iter().zip(place..).take_while(|(place, next)| **place == *next);
            known = place..place + following.count() as u32;
            offsets.clear();
            run.index().unchecked_offsets(known.start..count.min(known.end + 1), &mut offsets)?;
        }
        let position = run.position(place);
        if !positions.contains(&position) {
            (segment, positions) = view.segment_of(position);
        }
        let at = (place - known.start) as usize;
        let wrong = || {
            let name = run.file_name().unwrap_or("the index in memory");
            Fault::damaged(name, 0, Some(position), "the index has an impossible entry for an event")
        };
        let byte = offsets.get(at).ok_or_else(wrong)?.byte();
        let next = offsets.get(at + 1).filter(|_| positions.contains(&position.next()));
        let mut end = next.map_or(byte + RECORD_BYTES_GUESS, |next| next.byte());
        if end.saturating_sub(byte) > PIECE_BYTES_MAX {
            // Allocate only for bytes that exist.
            end = end.min(segment.file.length().map_err(Fault::io("read the length of", &segment.name))?);
        }
        if end <= byte {
            return Err(wrong());
        }
        records.push(Located { segment, position, byte, end });
    }
    Ok(records)
}

/// Records that are fetched together, with one read per piece.
struct Batch<'a> {
    records: &'a [Located<'a>],
    pieces: Vec<Piece<'a>>,
}

/// A range of a file that is read at once, and the number of records in it.
struct Piece<'a> {
    segment: &'a Arc<Segment>,
    start: u64,
    end: u64,
    records: usize,
}

impl<'a> Batch<'a> {
    fn of(records: &'a [Located<'a>]) -> Self {
        let mut pieces: Vec<Piece<'a>> = Vec::new();
        let mut bytes = 0;
        for record in records {
            if let Some(piece) = pieces.last_mut()
                && Arc::ptr_eq(piece.segment, record.segment)
            {
                let (start, end) = (piece.start.min(record.byte), piece.end.max(record.end));
                let more = (end - start) - (piece.end - piece.start);
                let close = more <= record.end - record.byte + GAP_BYTES_MAX;
                if close && end - start <= PIECE_BYTES_MAX {
                    (piece.start, piece.end) = (start, end);
                    piece.records += 1;
                    bytes += more;
                    continue;
                }
            }
            let more = record.end - record.byte;
            if bytes > 0 && bytes + more > PIECE_BYTES_MAX {
                break;
            }
            bytes += more;
            pieces.push(Piece { segment: record.segment, start: record.byte, end: record.end, records: 1 });
        }
        Self { records, pieces }
    }

    fn taken(&self) -> usize {
        self.pieces.iter().map(|piece| piece.records).sum()
    }

    /// Reads the bytes of all pieces into `block`, one after the other, replacing its contents.
    fn read(&self, block: &mut Vec<u8>) -> Result<(), Fault> {
        let length: u64 = self.pieces.iter().map(|piece| piece.end - piece.start).sum();
        block.resize(usize::try_from(length).expect("a record fits in memory"), 0);
        let mut rest = &mut block[..];
        let mut asked_for = false;
        let mut began = Instant::now();
        for (index, piece) in self.pieces.iter().enumerate() {
            let (buffer, behind) = rest.split_at_mut((piece.end - piece.start) as usize);
            rest = behind;
            if let Some(later) = self.pieces.get(index + NEAR_PIECES) {
                later.segment.file.bring_near(later.start, later.end - later.start);
            }
            // If the end of the last record is a guess, it may be after the end of the file.
            let read = piece.segment.file.read_at(buffer, piece.start);
            read.map_err(Fault::io("read", &piece.segment.name))?;
            let now = Instant::now();
            let took = now - std::mem::replace(&mut began, now);
            if !asked_for && took > IN_MEMORY_MAX {
                // This read waited for the device, so later ones probably would too: prefetch all of them.
                for later in &self.pieces[index + 1..] {
                    later.segment.file.prefetch(later.start, later.end - later.start);
                }
                asked_for = true;
            }
        }
        Ok(())
    }

    /// The records of the batch, each with its offset in the bytes of `read`.
    fn places(&self) -> impl Iterator<Item = (&Located<'a>, usize)> {
        let mut piece_at = 0;
        let mut records = self.records.iter();
        self.pieces.iter().flat_map(move |piece| {
            let at = piece_at;
            piece_at += (piece.end - piece.start) as usize;
            let in_piece: Vec<_> = records.by_ref().take(piece.records).collect();
            in_piece.into_iter().map(move |record| (record, at + (record.byte - piece.start) as usize))
        })
    }
}

impl Located<'_> {
    fn wrong(&self, malformed: Malformed) -> Fault {
        Fault::damaged(&self.segment.name, self.byte, Some(self.position), malformed.to_string())
    }

    fn event(&self, block: &Bytes, at: usize) -> Result<RecordedEvent, Fault> {
        let known = (self.end - self.byte) as usize;
        let found = &block[at..block.len().min(at + known)];
        let origin = &self.segment.origin;
        match frame::record(found, self.position, origin) {
            Err(Malformed::Short(_)) => {
                let bytes = self.whole(found)?;
                let record = frame::record(&bytes, self.position, origin);
                record.and_then(|record| record.event(&bytes))
            }
            record => record.and_then(|record| record.event(block)),
        }
        .map_err(|malformed| self.wrong(malformed))
    }

    /// Reads the whole record of which these are the first bytes.
    fn whole(&self, beginning: &[u8]) -> Result<Bytes, Fault> {
        let length = frame::record_length(beginning).map_err(|malformed| self.wrong(malformed))? as u64;
        let file = &self.segment.file;
        let end = file.length().map_err(Fault::io("read the length of", &self.segment.name))?;
        if length > end.saturating_sub(self.byte) {
            return Err(self.wrong(Malformed::Short("record")));
        }
        let mut bytes = vec![0; length as usize];
        file.read_at(&mut bytes, self.byte).map_err(Fault::io("read", &self.segment.name))?;
        Ok(bytes.into())
    }
}
