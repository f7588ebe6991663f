//! What is whole in a segment that is damaged: over a broken frame to the next whole one.
//!
//! - V1  A frame is taken whole or not at all, as everywhere (F1 of `frame`).
//! - V2  Positions only rise: bytes that were a frame of this segment once more, as the data of an event, say
//!       positions that are behind, and are passed over.
//! - V3  A header that is broken hides nothing: the salt that it held follows from any frame, and is believed if
//!       the checksums of the records, which are without salt, agree.
//!
//! Knows the bytes of frames only by `frame`. Next above: `verify`, which says what is lost, and `repair`, which
//! copies the rest.

use std::collections::HashMap;

use annals_core::{Position, RecordedEvent};

use crate::disk::File;
use crate::error::Fault;
use crate::frame::{self, Header};
use crate::index::Offset;
use crate::segment::{BlockReader, HEADER_BYTES, file_name};

/// A whole frame.
pub struct Whole {
    /// Where it begins.
    begin: Spot,
    /// Where the next one begins.
    end: Spot,
    /// Its events; none, if it marks a close.
    pub events: Vec<(RecordedEvent, Offset)>,
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
pub struct Segment<'a> {
    /// Its file.
    pub file: &'a dyn File,
    /// Its name, for messages.
    pub base: Position,
    /// What its frames' checksums begin with.
    pub salt: u32,
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

impl Segment<'_> {
    /// Hands out what the segment is made of from a frame on. Ends behind the last whole frame, wherever that is.
    ///
    /// # Errors
    /// If the file cannot be read, or as `each` says.
    pub fn pieces<E: From<Fault>>(
        &self,
        from: Spot,
        mut each: impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<Spot, E> {
        let name = file_name(self.base);
        let mut frames = BlockReader::new(self.file, &name, self.salt);
        let mut at = from;
        loop {
            let (found, problem) = match self.frame(&mut frames, at.byte, at.next)? {
                Ok(whole) => (Some(whole), String::new()),
                Err(problem) => (self.behind(&mut frames, at)?, problem),
            };
            let Some(whole) = found else { return Ok(at) };
            let begin = whole.begin;
            if begin.byte != at.byte || begin.next != at.next {
                let problem = if begin.byte == at.byte {
                    format!("the frame there says that its position is {}", begin.next)
                } else {
                    problem
                };
                each(Piece::Gap(Gap { byte: at.byte, first: at.next, problem, next: begin.next }))?;
            }
            at = whole.end;
            each(Piece::Whole(whole))?;
        }
    }

    /// The first whole frame behind this place.
    fn behind(&self, frames: &mut BlockReader<'_>, after: Spot) -> Result<Option<Whole>, Fault> {
        let name = file_name(self.base);
        let mut reader = BlockReader::new(self.file, &name, self.salt);
        let mut byte = after.byte + frame::ALIGN as u64;
        loop {
            let bytes = reader.bytes(byte, frame::HEADER_BYTES)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            // Cheap to see of most bytes that they begin no frame.
            if frame::peek(&bytes).is_ok_and(|header| self.may_stand(&header, after.next))
                && let Ok(whole) = self.frame(frames, byte, after.next)?
            {
                return Ok(Some(whole));
            }
            byte += frame::ALIGN as u64;
        }
    }

    /// The whole frame at this byte, or why there is none.
    fn frame(
        &self,
        frames: &mut BlockReader<'_>,
        byte: u64,
        next: Position,
    ) -> Result<Result<Whole, String>, Fault> {
        let Some((bytes, header)) = frames.frame(byte)? else {
            return Ok(Err("a frame is broken".to_owned()));
        };
        let whole = header.and_then(|header| Ok((header, frame::events(&bytes, &header)?.0)));
        Ok(match whole {
            Err(malformed) => Err(malformed.to_string()),
            Ok((header, _)) if !self.may_stand(&header, next) => {
                Err(format!("the frame there says that its position is {}", header.first))
            }
            Ok((header, events)) => {
                let events = events.into_iter().enumerate();
                let events = events
                    .map(|(index, (at, event))| (event, Offset::new(byte + at as u64, index == 0)))
                    .collect();
                let begin = Spot { byte, next: header.first };
                let next = header.first.plus(u64::from(header.count));
                Ok(Whole { begin, end: Spot { byte: byte + header.stride() as u64, next }, events })
            }
        })
    }

    /// Whether a frame can have its place behind everything below `next` (V2).
    fn may_stand(&self, header: &Header, next: Position) -> bool {
        let end = header.first.get().saturating_add(u64::from(header.count));
        let limit = self.below.map_or(next.get().saturating_add(u64::from(u32::MAX)), Position::get);
        header.first >= next && end <= limit && header.durable < header.first
    }
}

/// The salt of a segment whose header cannot be read, found from its frames: the one that most bytes agree on (V3).
pub fn salt(file: &dyn File, base: Position) -> Result<Option<u32>, Fault> {
    let name = file_name(base);
    // Where a frame is sought, its checksum cannot be asked: its length, and then its records, can.
    let mut reader = BlockReader::new(file, &name, 0);
    let mut votes: HashMap<u32, usize> = HashMap::new();
    let mut byte = HEADER_BYTES;
    loop {
        let bytes = reader.bytes(byte, frame::HEADER_BYTES)?;
        if bytes.is_empty() {
            return Ok(votes.into_iter().max_by_key(|&(_, bytes)| bytes).map(|(salt, _)| salt));
        }
        let mut step = frame::ALIGN;
        if let Ok(header) = frame::peek(&bytes)
            && header.count > 0
            && header.first >= base
            && header.first.get() - base.get() < u64::from(u32::MAX)
        {
            let bytes = reader.bytes(byte, header.length)?;
            let whole = bytes.len() == header.length && frame::events(&bytes, &header).is_ok();
            if whole && let Some(salt) = frame::salt_of(&bytes) {
                *votes.entry(salt).or_default() += bytes.len();
                // What lies within a whole frame is data.
                step = header.stride();
            }
        }
        byte += step as u64;
    }
}
