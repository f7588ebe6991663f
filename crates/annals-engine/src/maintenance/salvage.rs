//! What is whole in a segment that is damaged: over a broken frame to the next whole one.
//!
//! - V1  A frame is taken whole or not at all, as everywhere (F2 of `frame`).
//! - V2  Positions only rise: bytes that were a frame of this segment once more, as the data of an event, say
//!       positions that are behind, and are passed over.
//! - V3  Bytes within a whole record or frame are data, whatever they look like.
//! - V4  The work grows with the bytes of the segment: see `candidate`.
//!
//! Knows the bytes of frames only by `frame`. A segment whose header is broken is read with what `headless` finds. Next
//! above: `verify`, which says what is lost, and `repair`, which copies the rest.

use annals_core::{Position, RecordedEvent};

use crate::disk::File;
use crate::error::Fault;
use crate::log::candidate::{Candidates, Found};
use crate::log::frame::{self, Header, Mark, Origin};
use crate::log::segment::{BlockReader, HEADER_BYTES};

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
    /// The position of the next whole frame: what is between is lost.
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
    /// Finds what may be frames; made when it is needed.
    candidates: Option<Candidates<'a>>,
    at: Spot,
    /// A frame that was found behind a gap.
    found: Option<Whole>,
}

impl<'a> Segment<'a> {
    /// What the segment is made of from a frame on. Ends behind the last whole frame, wherever that is.
    pub fn pieces(self, from: Spot) -> Pieces<'a> {
        let frames = BlockReader::new(self.file, self.name, self.origin);
        Pieces { segment: self, frames, candidates: None, at: from, found: None }
    }

    /// Whether a frame can have its place behind everything below `next` (V2).
    pub fn may_stand(&self, header: &Header, next: Position) -> bool {
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
        let Segment { file, name, origin, .. } = self.segment;
        let mut candidates = match self.candidates.take() {
            Some(candidates) => candidates,
            None => Candidates::new(file, name, origin, after.byte)?,
        };
        let mut byte = after.byte;
        let mut found = None;
        while found.is_none()
            && let Some(candidate) = candidates.next(byte)?
        {
            let here = candidate.byte;
            byte = match candidates.look(&candidate, Some(origin.salt))? {
                Found::Broken(next) => next,
                Found::Whole(_) => {
                    found = self.frame(here, after.next)?.ok();
                    here + candidate.header.length as u64
                }
            };
        }
        self.candidates = Some(candidates);
        Ok(found)
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
