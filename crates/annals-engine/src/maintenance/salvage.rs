//! Finds the whole frames of a damaged segment: skips a broken frame and resumes at the next whole one.
//!
//! - V1  A frame is accepted whole or not at all, as everywhere (F2 of `frame`).
//! - V2  Positions only rise: a copy of a frame of this segment, stored as the data of an event, has a
//!       position that is too low, and is skipped.
//! - V3  Bytes within a whole record or frame are data, whatever they look like.
//! - V4  The work is linear in the bytes of the segment: see `candidate`.
//!
//! Decodes frames only through `frame`. If the header of the segment is damaged, `headless` finds its origin.
//! Next above: `verify`, which reports what is lost, and `repair`, which copies the rest.

use annals_core::{Position, RecordedEvent};

use crate::disk::File;
use crate::error::Fault;
use crate::log::candidate::{Candidates, Found};
use crate::log::frame::{self, Header, Mark, Origin};
use crate::log::segment::{BlockReader, HEADER_BYTES};

/// A whole frame.
pub struct Whole {
    /// Its start.
    begin: Spot,
    /// Its end.
    end: Spot,
    /// The meaning of the frame, if it has no events.
    pub mark: Option<Mark>,
    /// Its events, each with its first byte.
    pub events: Vec<(RecordedEvent, u64)>,
}

/// Bytes that are not a whole frame, or missing positions before the next frame.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Its first byte.
    pub byte: u64,
    /// The position that was expected there.
    pub first: Position,
    /// A description of the damage.
    pub problem: String,
    /// The position of the next whole frame: the events before it are lost.
    pub next: Position,
}

/// A part of a segment.
pub enum Piece {
    /// A whole frame.
    Whole(Whole),
    /// A gap up to the next whole frame.
    Gap(Gap),
}

/// A segment to salvage.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    /// Its file.
    pub file: &'a dyn File,
    /// The file's name.
    pub name: &'a str,
    /// The origin of its frames.
    pub origin: Origin,
    /// All of its positions are below this one, if it is known.
    pub below: Option<Position>,
}

/// A boundary between pieces of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// The offset in the file.
    pub byte: u64,
    /// Position of the next event.
    pub next: Position,
}

impl Spot {
    /// The start of the first frame of a segment.
    pub fn start_of(base: Position) -> Self {
        Self { byte: HEADER_BYTES, next: base }
    }
}

/// Iterates over the pieces of a segment.
pub struct Pieces<'a> {
    segment: Segment<'a>,
    /// Reads whole frames.
    frames: BlockReader<'a>,
    /// Finds candidates for frames; created at the first gap.
    candidates: Option<Candidates<'a>>,
    at: Spot,
    /// The frame that was found after a gap.
    found: Option<Whole>,
}

impl<'a> Segment<'a> {
    /// The pieces of the segment from a boundary on, up to the end of the last whole frame.
    pub fn pieces(self, from: Spot) -> Pieces<'a> {
        let frames = BlockReader::new(self.file, self.name, self.origin);
        Pieces { segment: self, frames, candidates: None, at: from, found: None }
    }

    /// Whether a frame can follow the events below `next` (V2).
    pub fn may_stand(&self, header: &Header, next: Position) -> bool {
        let end = header.first.get().saturating_add(u64::from(header.count));
        let limit = self.below.map_or(next.get().saturating_add(u64::from(u32::MAX)), Position::get);
        header.first >= next && end <= limit
    }
}

impl Pieces<'_> {
    /// The end of the pieces so far.
    pub fn at(&self) -> Spot {
        self.at
    }

    /// The next piece; `None` after the last whole frame.
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
        let problem =
            if begin.byte == at.byte { format!("the frame has position {}", begin.next) } else { problem };
        self.found = Some(whole);
        Ok(Some(Piece::Gap(Gap { byte: at.byte, first: at.next, problem, next: begin.next })))
    }

    /// The first whole frame after this boundary.
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

    /// The whole frame at this byte, or the problem if there is none.
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
                Err(format!("the frame has position {}", header.first))
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
