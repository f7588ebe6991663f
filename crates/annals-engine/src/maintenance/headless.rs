//! Finds the origin of the frames in a segment whose header is damaged.
//!
//! The checksum of the header is the salt of all checksums in the segment, so without it no frame can be
//! verified. The salt is searched in this order:
//!
//! - H1  From other data of the log: the stored header with the fields whose values are known corrected, and
//!       the indexes of runs that end in the segment. The salt is accepted if one frame is whole with it.
//! - H2  From the frames: a salt can be derived from any frame, and is accepted if the checksums of all its
//!       records match. A frame counts only if its position is possible there: positions rise with offsets.
//!       Of several salts, the one is used for which a header can be constructed with a creation time near
//!       the times in the events.
//! - H3  If there is no such salt, the salt of the frame at the offset of the first frame; or else of the
//!       last frame, after which there can be no data. The data of an event may contain a whole segment of
//!       another log.
//!
//! Next above: `verify` and `repair`; next below: `candidate`, and `salvage`, which reads the frames.

use std::collections::HashMap;
use std::sync::Arc;

use annals_core::{EventId, Position, RecordedEvent, StoreId, Timestamp};

use super::salvage::{Piece, Segment, Spot};
use super::work::{Watched, Work};
use crate::disk::{Disk, File};
use crate::error::Fault;
use crate::index::{BlockCache, Ending, FileIndex};
use crate::log::candidate::{Candidates, Found as Looked};
use crate::log::frame::Origin;
use crate::log::segment::{End, HEADER_BYTES, SegmentHeader, base_of, file_name, run_of, walk};

/// A segment whose header is damaged.
pub struct Headless<'a> {
    /// The disk of the log.
    pub disk: &'a dyn Disk,
    /// The segment's file.
    pub file: &'a dyn File,
    /// Position of its first event.
    pub base: Position,
    /// First position of the next segment, if there is one.
    pub next: Option<Position>,
    /// Identity of the log, if it is known.
    pub store: Option<StoreId>,
    /// Recorded time of the last known event before the segment.
    pub before: Timestamp,
    /// The work to which reads of other files are charged.
    pub work: &'a Arc<Work>,
}

/// The fields of a segment's header that its frames need.
pub struct Found {
    /// The origin of the frames.
    pub origin: Origin,
    /// Whether the recorded times computed from it are exact.
    pub exact: bool,
}

/// The ids of events contain their creation times in milliseconds, and events are recorded soon after that.
/// The creation time of the segment is searched within this many microseconds of the time estimated from the
/// ids: the salt, which is the checksum of the header, verifies it.
const SOUGHT_MICROS: i64 = 1_000_000;

/// The most salts that are examined further, if the frames yield several.
const SALTS_MAX: usize = 8;

/// A candidate salt, with the evidence from its frames.
#[derive(Clone, Copy, Debug)]
struct Vote {
    salt: u32,
    /// Whether one of its frames is at the offset of the segment's first frame.
    is_first: bool,
    /// The end of its last frame.
    end: Spot,
}

impl Headless<'_> {
    /// The origin of the frames; `None` if no frame is whole.
    pub fn origin(&self) -> Result<Option<Found>, Fault> {
        let Some((origin, created_at)) = self.salted()? else { return Ok(None) };
        let found = |created_at, exact| Ok(Some(Found { origin: Origin { created_at, ..origin }, exact }));
        if let Some(created_at) = created_at {
            return found(created_at, true);
        }
        let known = self.times(origin.salt)?;
        let mut estimate = None;
        let name = file_name(self.base);
        let mut pieces = self.segment(&name, origin).pieces(Spot::start_of(self.base));
        while let Some(piece) = pieces.next()? {
            let Piece::Whole(whole) = piece else { continue };
            for (event, _) in &whole.events {
                if let Some(time) = known.get(&event.position()) {
                    let after = event.recorded_at().as_micros();
                    return found(Timestamp::from_micros(time.as_micros() - after), true);
                }
                estimate.get_or_insert(self.estimate(event));
            }
        }
        let estimate = estimate.unwrap_or(self.before.as_micros());
        match self.sought(estimate, origin.salt)? {
            Some(created_at) => found(created_at, true),
            None => found(Timestamp::from_micros(estimate), false),
        }
    }

    /// The origin without the creation time of the segment: only the differences between recorded times are
    /// correct.
    pub fn timeless_origin(&self) -> Result<Option<Origin>, Fault> {
        Ok(self.salted()?.map(|(origin, _)| origin))
    }

    /// The salt, in an origin without the creation time, and the creation time if it is known.
    fn salted(&self) -> Result<Option<(Origin, Option<Timestamp>)>, Fault> {
        let origin = |salt| Origin { salt, base: self.base, created_at: Timestamp::from_micros(0) };
        if let Some(header) = self.repaired()? {
            let known = origin(header.origin().salt);
            if self.first_event(known)?.is_some() {
                return Ok(Some((known, Some(header.created_at))));
            }
        }
        for (_, ending) in self.endings()? {
            if self.first_event(origin(ending.salt))?.is_some() {
                return Ok(Some((origin(ending.salt), None)));
            }
        }
        let votes = self.votes()?;
        for vote in votes.iter().take(SALTS_MAX).filter(|_| votes.len() > 1) {
            if let Some(estimate) = self.first_event(origin(vote.salt))?
                && let Some(created_at) = self.sought(estimate, vote.salt)?
            {
                return Ok(Some((origin(vote.salt), Some(created_at))));
            }
        }
        Ok(votes.first().map(|vote| (origin(vote.salt), None)))
    }

    fn segment<'a>(&'a self, name: &'a str, origin: Origin) -> Segment<'a> {
        Segment { file: self.file, name, origin, below: self.next }
    }

    /// The creation time estimated from the first event of a whole frame of this origin; `None` if there is
    /// no such frame.
    fn first_event(&self, origin: Origin) -> Result<Option<i64>, Fault> {
        let name = file_name(self.base);
        let mut pieces = self.segment(&name, origin).pieces(Spot::start_of(self.base));
        while let Some(piece) = pieces.next()? {
            if let Piece::Whole(whole) = piece
                && let Some((event, _)) = whole.events.first()
            {
                return Ok(Some(self.estimate(event)));
            }
        }
        Ok(None)
    }

    /// An estimate of the segment's creation time, from an event that was read with a creation time of 0.
    fn estimate(&self, event: &RecordedEvent) -> i64 {
        let after = event.recorded_at().as_micros();
        let made_at = made_at(event.id()).map_or(i64::MIN, |made_at| made_at.as_micros() - after);
        made_at.max(self.before.as_micros() - after)
    }

    /// The salts of all whole frames with possible positions, the most likely first.
    fn votes(&self) -> Result<Vec<Vote>, Fault> {
        let name = file_name(self.base);
        let origin = Origin { salt: 0, base: self.base, created_at: Timestamp::from_micros(0) };
        let segment = self.segment(&name, origin);
        let mut candidates = Candidates::new(self.file, &name, origin, HEADER_BYTES)?;
        let mut votes: HashMap<u32, Vote> = HashMap::new();
        let mut byte = HEADER_BYTES;
        while let Some(candidate) = candidates.next(byte)? {
            let (here, header) = (candidate.byte, candidate.header);
            let salt = match candidates.look(&candidate, None)? {
                Looked::Broken(next) => {
                    byte = next;
                    continue;
                }
                Looked::Whole(salt) => salt,
            };
            // Bytes within a whole frame are data.
            byte = here + header.length as u64;
            let known = votes.get(&salt).copied();
            let before = known.map_or(self.base, |vote| vote.end.next);
            if segment.may_stand(&header, before) {
                let is_first = here == HEADER_BYTES && header.first == self.base;
                let is_first = is_first || known.is_some_and(|vote| vote.is_first);
                let end = Spot { byte, next: header.first.plus(u64::from(header.count)) };
                votes.insert(salt, Vote { salt, is_first, end });
            }
        }
        let mut votes: Vec<Vote> = votes.into_values().collect();
        votes.sort_unstable_by_key(|vote| std::cmp::Reverse((vote.is_first, vote.end.byte)));
        Ok(votes)
    }

    /// The stored header, with the fields whose values are known corrected.
    fn repaired(&self) -> Result<Option<SegmentHeader>, Fault> {
        let mut bytes = [0; HEADER_BYTES as usize];
        let name = file_name(self.base);
        let count = self.file.read_at(&mut bytes, 0).map_err(Fault::io("read", &name))?;
        Ok(self.store.and_then(|store| SegmentHeader::repaired(&bytes[..count], store, self.base)))
    }

    /// Recorded times of events of the segment, from the header of the next segment and from indexes.
    fn times(&self, salt: u32) -> Result<HashMap<Position, Timestamp>, Fault> {
        let mut times = HashMap::new();
        if let Some(next) = self.next
            && let Ok(file) = self.disk.open(&file_name(next))
            && let Ok(header) = SegmentHeader::read(&*file, next)
        {
            times.insert(next.previous(), header.recorded_at);
        }
        let endings = self.endings()?.into_iter().filter(|(_, ending)| ending.salt == salt);
        times.extend(endings.map(|(last, ending)| (last, ending.recorded_at)));
        Ok(times)
    }

    /// The endings of the runs that end in the segment, from their indexes, each with the position of its
    /// last event.
    fn endings(&self) -> Result<Vec<(Position, Ending)>, Fault> {
        let mut endings = Vec::new();
        let cache = Arc::new(BlockCache::new(0));
        for name in self.disk.list().map_err(Fault::io("list", "the log"))? {
            if let Some((first, last)) = run_of(&name)
                && let Ok(file) = self.disk.open(&name)
                && let Ok(index) = FileIndex::open(&name, file, first, cache.clone())
                && (index.last(), index.ending().segment) == (last, self.base)
                && self.store.is_none_or(|store| index.ending().store == store)
            {
                endings.push((last, index.ending().clone()));
            }
        }
        Ok(endings)
    }

    /// The creation time near the estimate with which the checksum of the header is the salt; `None` if there
    /// is none.
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

    /// Link and recorded time at the end of the previous segment, if that is whole.
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

/// The time in an id, if it is a UUID of version 7, as ours are.
fn made_at(id: EventId) -> Option<Timestamp> {
    let bytes = id.as_bytes();
    let millis = bytes[..6].iter().fold(0, |millis, &byte| millis << 8 | i64::from(byte));
    (bytes[6] >> 4 == 7).then(|| Timestamp::from_micros(millis * 1_000))
}
