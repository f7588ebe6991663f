//! What is whole in a segment that is damaged: over a broken frame to the next whole one.
//!
//! - V1  A frame is taken whole or not at all, as everywhere (F2 of `frame`).
//! - V2  Positions only rise: bytes that were a frame of this segment once more, as the data of an event, say
//!       positions that are behind, and are passed over.
//! - V3  A header that is broken hides nothing but, in the worst case, the exact recorded times: see [`Headless`].
//!
//! Knows the bytes of frames only by `frame`. Next above: `verify`, which says what is lost, and `repair`, which
//! copies the rest.

use std::collections::HashMap;
use std::sync::Arc;

use annals_core::{EventId, Position, RecordedEvent, StoreId, Timestamp};

use crate::disk::{Disk, File};
use crate::error::Fault;
use crate::frame::{self, Header, Mark, Origin};
use crate::index::{BlockCache, FileIndex};
use crate::segment::{BlockReader, End, HEADER_BYTES, SegmentHeader, base_of, file_name, run_of, walk};
use crate::work::{Watched, Work};

/// A whole frame.
pub struct Whole {
    /// Where it begins.
    begin: Spot,
    /// Where the next one begins.
    end: Spot,
    /// What it marks, if it has no events.
    pub mark: Option<Mark>,
    /// Its events, each with its first byte.
    pub events: Vec<(RecordedEvent, u64)>,
}

/// Bytes in the place of a frame, or a frame that is not the next one.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Where it begins.
    pub byte: u64,
    /// The position that should stand there.
    pub first: Position,
    /// What is wrong there.
    pub problem: String,
    /// The position of the next whole frame: what lies between is lost.
    pub next: Position,
}

/// What a segment is made of.
pub enum Piece {
    /// A frame that is whole.
    Whole(Whole),
    /// None, up to the next one.
    Gap(Gap),
}

/// A segment as it is read here.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    /// Its file.
    pub file: &'a dyn File,
    /// The file's name.
    pub name: &'a str,
    /// What its frames are read against.
    pub origin: Origin,
    /// All of its positions are below this one.
    pub below: Option<Position>,
}

/// Where the pieces of a segment begin, or end.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// The byte.
    pub byte: u64,
    /// Position of the event that comes next.
    pub next: Position,
}

impl Spot {
    /// Where the first frame of a segment begins.
    pub fn start_of(base: Position) -> Self {
        Self { byte: HEADER_BYTES, next: base }
    }
}

/// The pieces of a segment, one after the other.
pub struct Pieces<'a> {
    segment: Segment<'a>,
    /// Reads whole frames.
    frames: BlockReader<'a>,
    /// Reads what may be frames.
    bytes: BlockReader<'a>,
    at: Spot,
    /// A frame that was found behind a gap.
    found: Option<Whole>,
}

impl<'a> Segment<'a> {
    /// What the segment is made of from a frame on. Ends behind the last whole frame, wherever that is.
    pub fn pieces(self, from: Spot) -> Pieces<'a> {
        let reader = || BlockReader::new(self.file, self.name, self.origin);
        Pieces { segment: self, frames: reader(), bytes: reader(), at: from, found: None }
    }

    /// Whether a frame can have its place behind everything below `next` (V2).
    fn may_stand(&self, header: &Header, next: Position) -> bool {
        let end = header.first.get().saturating_add(u64::from(header.count));
        let limit = self.below.map_or(next.get().saturating_add(u64::from(u32::MAX)), Position::get);
        header.first >= next && end <= limit
    }
}

impl Pieces<'_> {
    /// Where the pieces so far end.
    pub fn at(&self) -> Spot {
        self.at
    }

    /// The next piece; none behind the last whole frame.
    pub fn next(&mut self) -> Result<Option<Piece>, Fault> {
        if let Some(whole) = self.found.take() {
            self.at = whole.end;
            return Ok(Some(Piece::Whole(whole)));
        }
        let at = self.at;
        let (whole, problem) = match self.frame(at.byte, at.next)? {
            Ok(whole) => (whole, String::new()),
            Err(problem) => match self.behind(at)? {
                Some(whole) => (whole, problem),
                None => return Ok(None),
            },
        };
        let begin = whole.begin;
        if begin.byte == at.byte && begin.next == at.next {
            self.at = whole.end;
            return Ok(Some(Piece::Whole(whole)));
        }
        let problem = if begin.byte == at.byte {
            format!("the frame there says that its position is {}", begin.next)
        } else {
            problem
        };
        self.found = Some(whole);
        Ok(Some(Piece::Gap(Gap { byte: at.byte, first: at.next, problem, next: begin.next })))
    }

    /// The first whole frame behind this place.
    fn behind(&mut self, after: Spot) -> Result<Option<Whole>, Fault> {
        let mut byte = after.byte + 1;
        while let Some(here) = may_begin(&mut self.bytes, &self.segment, byte)? {
            let bytes = self.bytes.bytes(here, LOOKED_AT)?;
            let header = frame::peek(&bytes, &self.segment.origin);
            if header.is_ok_and(|header| self.segment.may_stand(&header, after.next))
                && let Ok(whole) = self.frame(here, after.next)?
            {
                return Ok(Some(whole));
            }
            byte = here + 1;
        }
        Ok(None)
    }

    /// The whole frame at this byte, or why there is none.
    fn frame(&mut self, byte: u64, next: Position) -> Result<Result<Whole, String>, Fault> {
        let Some((bytes, header)) = self.frames.frame(byte)? else {
            return Ok(Err("a frame is broken".to_owned()));
        };
        let mut events = Vec::new();
        let whole = header.and_then(|header| {
            frame::records(&bytes, &header, &self.segment.origin, |at, record| {
                events.push((record.event(&bytes)?, byte + at as u64));
                Ok(())
            })?;
            Ok(header)
        });
        Ok(match whole {
            Err(malformed) => Err(malformed.to_string()),
            Ok(header) if !self.segment.may_stand(&header, next) => {
                Err(format!("the frame there says that its position is {}", header.first))
            }
            Ok(header) => {
                let begin = Spot { byte, next: header.first };
                let next = header.first.plus(u64::from(header.count));
                let end = Spot { byte: byte + header.length as u64, next };
                Ok(Whole { begin, end, mark: header.mark, events })
            }
        })
    }
}

/// So many bytes are enough to see of most that they begin no frame.
const LOOKED_AT: usize = frame::HEADER_BYTES_MAX + frame::RECORD_HEADER_BYTES_MAX;

/// The first byte from this one on at which a frame may begin.
fn may_begin(reader: &mut BlockReader<'_>, segment: &Segment<'_>, from: u64) -> Result<Option<u64>, Fault> {
    /// Bytes that are looked at one after the other.
    const BLOCK_BYTES: usize = 64 << 10;
    let length = segment.file.length().map_err(Fault::io("read the length of", segment.name))?;
    let mut byte = from;
    while byte < length {
        let block = reader.bytes(byte, BLOCK_BYTES + LOOKED_AT)?;
        let mut at = 0;
        // Most bytes are passed over by the one that would say what kind of frame begins there.
        let kinds = |at: usize| block.get(at + frame::KIND_AT..block.len().min(BLOCK_BYTES + frame::KIND_AT));
        while let Some(ahead) = kinds(at).and_then(|kinds| kinds.iter().position(frame::is_kind)) {
            at += ahead;
            let (bytes, here) = (&block[at..block.len().min(at + LOOKED_AT)], byte + at as u64);
            if frame::may_begin(bytes, length - here, &segment.origin) {
                return Ok(Some(here));
            }
            at += 1;
        }
        byte += BLOCK_BYTES as u64;
    }
    Ok(None)
}

/// A segment whose header is broken.
pub struct Headless<'a> {
    /// Where the log is.
    pub disk: &'a dyn Disk,
    /// The segment's file.
    pub file: &'a dyn File,
    /// Position of its first event.
    pub base: Position,
    /// Where the next segment begins, if there is one.
    pub next: Option<Position>,
    /// Identity of the log, if anything says it.
    pub store: Option<StoreId>,
    /// Recorded time of the last event in front that is known.
    pub before: Timestamp,
    /// Counts what is read beside the file.
    pub work: &'a Arc<Work>,
}

/// What stood in a segment's header, as far as its frames need it.
pub struct Found {
    /// What the frames are read against.
    pub origin: Origin,
    /// Whether the recorded times that follow from it are known to be the right ones.
    pub exact: bool,
}

/// The ids of events say to the millisecond when these were made, and they are recorded soon after. Within so many
/// microseconds of what they say, the time is sought that agrees with the salt, which is the checksum of the header.
const SOUGHT_MICROS: i64 = 1_000_000;

impl Headless<'_> {
    /// What the frames are read against; nothing, if none is whole.
    pub fn origin(&self) -> Result<Option<Found>, Fault> {
        let Some(origin) = timeless_origin(self.file, self.base, self.next)? else { return Ok(None) };
        let found = |created_at, exact| Ok(Some(Found { origin: Origin { created_at, ..origin }, exact }));
        if let Some(header) = self.mended()?.filter(|header| header.origin().salt == origin.salt) {
            return found(header.created_at, true);
        }
        let known = self.times(origin.salt)?;
        let name = file_name(self.base);
        let segment = Segment { file: self.file, name: &name, origin, below: self.next };
        let mut pieces = segment.pieces(Spot::start_of(self.base));
        let mut estimate = None;
        while let Some(piece) = pieces.next()? {
            let Piece::Whole(whole) = piece else { continue };
            for (event, _) in &whole.events {
                let after = event.recorded_at.as_micros();
                if let Some(time) = known.get(&event.position) {
                    return found(Timestamp::from_micros(time.as_micros() - after), true);
                }
                let made_at = made_at(event.id).map_or(i64::MIN, |made_at| made_at.as_micros() - after);
                estimate.get_or_insert(made_at.max(self.before.as_micros() - after));
            }
        }
        let estimate = estimate.unwrap_or(self.before.as_micros());
        match self.sought(estimate, origin.salt)? {
            Some(created_at) => found(created_at, true),
            None => found(Timestamp::from_micros(estimate), false),
        }
    }

    /// The header as it stands there, made right where it is known how.
    fn mended(&self) -> Result<Option<SegmentHeader>, Fault> {
        let mut bytes = [0; HEADER_BYTES as usize];
        let name = file_name(self.base);
        let count = self.file.read_at(&mut bytes, 0).map_err(Fault::io("read", &name))?;
        Ok(self.store.and_then(|store| SegmentHeader::mended(&bytes[..count], store, self.base)))
    }

    /// Recorded times of events of the segment, as the next one has them, and indexes.
    fn times(&self, salt: u32) -> Result<HashMap<Position, Timestamp>, Fault> {
        let mut times = HashMap::new();
        if let Some(next) = self.next
            && let Ok(file) = self.disk.open(&file_name(next))
            && let Ok(header) = SegmentHeader::read(&*file, next)
        {
            times.insert(next.previous(), header.recorded_at);
        }
        let cache = Arc::new(BlockCache::new(0));
        for name in self.disk.list().map_err(Fault::io("list", "the log"))? {
            if let Some((first, last)) = run_of(&name)
                && let Ok(file) = self.disk.open(&name)
                && let Ok(index) = FileIndex::open(&name, file, first, cache.clone())
                && (index.last(), index.ending().segment, index.ending().salt) == (last, self.base, salt)
            {
                times.insert(last, index.ending().recorded_at);
            }
        }
        Ok(times)
    }

    /// The time of creation, near the estimate, with which the header has the salt as its checksum.
    fn sought(&self, estimate: i64, salt: u32) -> Result<Option<Timestamp>, Fault> {
        let (Some(store), Some((link, recorded_at))) = (self.store, self.in_front()?) else {
            return Ok(None);
        };
        let is_it = |micros: &i64| {
            let created_at = Timestamp::from_micros(*micros);
            let header = SegmentHeader { store, base: self.base, created_at, link, recorded_at };
            header.origin().salt == salt
        };
        let mut near = (0..=SOUGHT_MICROS).flat_map(|away| [estimate + away, estimate - away]);
        Ok(near.find(is_it).map(Timestamp::from_micros))
    }

    /// Link and recorded time of the log in front, if that is whole.
    fn in_front(&self) -> Result<Option<(u64, Timestamp)>, Fault> {
        if self.base == Position::FIRST {
            return Ok(Some((0, Timestamp::MIN)));
        }
        let names = self.disk.list().map_err(Fault::io("list", "the log"))?;
        let bases = names.iter().filter_map(|name| base_of(name)).filter(|base| *base < self.base);
        let Some(base) = bases.max() else { return Ok(None) };
        let Ok(file) = self.disk.open(&file_name(base)) else { return Ok(None) };
        let file = Watched::whole(file, self.work);
        let end = SegmentHeader::read(&file, base)
            .and_then(|header| walk(&file, &header, End::start_of(&header), Position::MAX, |_| Ok(())));
        match end {
            Ok(end) => Ok((end.next == self.base).then_some((end.link, end.recorded_at))),
            Err(Fault::Damaged { .. }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

/// What the frames of a segment are read against if its header is broken, but for when that was created: so recorded
/// times are right against each other only. Nothing, if no frame is whole.
///
/// The salt follows from any frame, and is believed if the checksums of the records agree; of several, the one that
/// most bytes agree on.
pub fn timeless_origin(
    file: &dyn File,
    base: Position,
    next: Option<Position>,
) -> Result<Option<Origin>, Fault> {
    let origin = Origin { salt: 0, base, created_at: Timestamp::from_micros(0) };
    let salt = salt(&Segment { file, name: &file_name(base), origin, below: next })?;
    Ok(salt.map(|salt| Origin { salt, ..origin }))
}

/// When an id was made, if it says so, as ours do.
fn made_at(id: EventId) -> Option<Timestamp> {
    let bytes = id.as_bytes();
    let millis = bytes[..6].iter().fold(0, |millis, &byte| millis << 8 | i64::from(byte));
    (bytes[6] >> 4 == 7).then(|| Timestamp::from_micros(millis * 1_000))
}

/// The salt of a segment, found from its frames.
fn salt(segment: &Segment<'_>) -> Result<Option<u32>, Fault> {
    let Segment { file, name, origin, .. } = *segment;
    let mut reader = BlockReader::new(file, name, origin);
    let mut votes: HashMap<u32, usize> = HashMap::new();
    let mut byte = HEADER_BYTES;
    while let Some(here) = may_begin(&mut reader, segment, byte)? {
        byte = here + 1;
        let bytes = reader.bytes(here, LOOKED_AT)?;
        if let Ok(header) = frame::peek(&bytes, &origin)
            && header.count > 0
            && segment.may_stand(&header, origin.base)
        {
            let bytes = reader.bytes(here, header.length)?;
            if let Some(salt) = frame::salt_of(&bytes, &origin)
                && frame::header(&bytes, &Origin { salt, ..origin }).is_ok()
            {
                *votes.entry(salt).or_default() += header.length;
                // What lies within a whole frame is data.
                byte = here + header.length as u64;
            }
        }
    }
    Ok(votes.into_iter().max_by_key(|&(_, bytes)| bytes).map(|(salt, _)| salt))
}
