//! A segment: one file of frames, and its index.
//!
//! ```text
//! 0       8        12    16        32     40        48      80         88     124   128
//! | magic | version| zero| store id| base | created | chain | recorded | zero | crc | frame, frame, ... 0 0 0
//! ```
//!
//! - S1  The file is named by the position of its first event, `base`; positions rise by one from there.
//! - S2  `chain` and `recorded` are the digest and the recorded time of the log before the segment, so each
//!       segment can be checked by itself.
//! - S3  A segment appears with its header whole: it is written under another name, synced, and renamed.
//! - S4  Beyond the last frame there is nothing but zeros.
//!
//! Next above: `log` (the sequence of segments); below: `frame` and `index`; `disk` holds the bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use annals_core::{Position, RecordedEvent, StoreId, Timestamp};
use bytes::Bytes;

use crate::disk::{Disk, File};
use crate::encoding::{Malformed, get_time, get_u32, get_u64, put_u32, put_u64};
use crate::error::Fault;
use crate::frame::{self, Digest, Header};
use crate::index::{Offset, SegmentIndex};

/// Bytes of a segment's header; the first frame begins here.
pub const HEADER_BYTES: u64 = 128;
const MAGIC: &[u8; 8] = b"ANNALSG1";
const FORMAT_VERSION: u32 = 1;

/// What stands in a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log that the segment belongs to.
    pub store: StoreId,
    /// Position of the first event.
    pub base: Position,
    /// When the segment was created.
    pub created_at: Timestamp,
    /// Digest of the log before the segment.
    pub chain: Digest,
    /// Recorded time of the log's last event before the segment.
    pub recorded_at: Timestamp,
}

/// Name of the file of the segment that begins at this position.
pub fn file_name(base: Position) -> String {
    format!("{:020}.seg", base.get())
}

/// Name of the index of the segment that begins at this position.
pub fn index_name(base: Position) -> String {
    format!("{:020}.idx", base.get())
}

/// The position in a segment's file name.
pub fn base_of(file_name: &str) -> Option<Position> {
    base_in(file_name, ".seg")
}

/// The position in the file name of a segment's index.
pub fn base_of_index(file_name: &str) -> Option<Position> {
    base_in(file_name, ".idx")
}

fn base_in(file_name: &str, ending: &str) -> Option<Position> {
    let digits = file_name.strip_suffix(ending).filter(|digits| digits.len() == 20)?;
    digits.parse().ok().filter(|base| *base > 0).map(Position::new)
}

impl SegmentHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER_BYTES as usize];
        out[..8].copy_from_slice(MAGIC);
        put_u32(&mut out[8..], FORMAT_VERSION);
        out[16..32].copy_from_slice(self.store.as_bytes());
        put_u64(&mut out[32..], self.base.get());
        put_u64(&mut out[40..], self.created_at.as_micros().cast_unsigned());
        out[48..80].copy_from_slice(&self.chain);
        put_u64(&mut out[80..], self.recorded_at.as_micros().cast_unsigned());
        let crc = crc32c::crc32c(&out[..124]);
        put_u32(&mut out[124..], crc);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_BYTES as usize {
            return Err(Malformed::Short("segment header"));
        }
        if &bytes[..8] != MAGIC {
            return Err(Malformed::Field("magic"));
        }
        if crc32c::crc32c(&bytes[..124]) != get_u32(&bytes[124..]) {
            return Err(Malformed::Checksum("segment header"));
        }
        if get_u32(&bytes[8..]) != FORMAT_VERSION {
            return Err(Malformed::Field("format version"));
        }
        if bytes[12..16] != [0; 4] || bytes[88..124] != [0; 36] {
            return Err(Malformed::Field("reserved"));
        }
        Ok(Self {
            store: StoreId::from_bytes(bytes[16..32].try_into().expect("16 bytes")),
            base: Position::new(get_u64(&bytes[32..])),
            created_at: get_time(&bytes[40..])?,
            chain: bytes[48..80].try_into().expect("32 bytes"),
            recorded_at: get_time(&bytes[80..])?,
        })
    }

    /// What the checksum of every frame of the segment begins with: the checksum of this header.
    pub fn salt(&self) -> u32 {
        get_u32(&self.encode()[124..])
    }

    /// Reads and checks the header of the file that should begin at `base`.
    pub fn read(file: &dyn File, base: Position) -> Result<Self, Fault> {
        let name = file_name(base);
        let mut bytes = vec![0; HEADER_BYTES as usize];
        let count = file.read_at(&mut bytes, 0).map_err(Fault::io("read", &name))?;
        let header = Self::decode(&bytes[..count])
            .map_err(|malformed| Fault::damaged(&name, 0, Some(base), malformed.to_string()))?;
        if header.base != base {
            return Err(Fault::damaged(&name, 32, Some(base), "the header is that of another segment"));
        }
        Ok(header)
    }

    /// Creates the segment's file, durably, with nothing in it but the header (S3).
    ///
    /// `Err((fault, false))` has left nothing behind; after `Err((fault, true))` the file may exist.
    pub fn create(&self, disk: &dyn Disk) -> Result<Arc<dyn File>, (Fault, bool)> {
        let name = file_name(self.base);
        let temporary = format!("{name}.tmp");
        let prepare = || {
            let file = disk.create(&temporary).map_err(Fault::io("create", &temporary))?;
            file.write_at(&self.encode(), 0).map_err(Fault::io("write", &temporary))?;
            file.sync().map_err(Fault::io("sync", &temporary))?;
            Ok(file)
        };
        let file = prepare().map_err(|fault| {
            // What cannot be removed now is removed at the next open.
            let _ = disk.remove(&temporary);
            (fault, false)
        })?;
        disk.rename(&temporary, &name).map_err(|error| (Fault::io("rename", &temporary)(error), true))?;
        disk.sync_directory().map_err(|error| (Fault::io("sync the directory of", &name)(error), true))?;
        Ok(file)
    }
}

/// A segment that can be read.
pub struct Segment {
    /// Position of its first event.
    pub base: Position,
    /// Its file.
    pub file: Arc<dyn File>,
    /// Where the events are in the file.
    pub index: Arc<dyn SegmentIndex>,
}

/// Records that are no further apart than this are read together.
const GAP_BYTES_MAX: u64 = 16 << 10;
/// At most this much is read at once, unless one record is larger.
const RUN_BYTES_MAX: u64 = 1 << 20;
/// What is read for the last record of a run, whose length is not known before: most fit.
const RECORD_BYTES_GUESS: u64 = 4 << 10;

impl Segment {
    /// The position of the event at this place.
    pub fn position(&self, place: u32) -> Position {
        self.base.plus(u64::from(place))
    }

    /// Reads the events at these places, in the order given, until their [`weight`] is `bytes_max` or more: so at
    /// least one, if there is a place at all.
    ///
    /// Events that are read together share one block of memory of at most a mebibyte or so.
    pub fn events(&self, places: &[u32], bytes_max: usize) -> Result<Vec<RecordedEvent>, Fault> {
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut rest = places;
        while !rest.is_empty() && bytes < bytes_max {
            let (offsets, taken) = self.run(rest)?;
            let start = offsets.iter().map(|offset| offset.byte()).min().unwrap_or(0);
            let end = offsets.iter().map(|offset| offset.byte()).max().unwrap_or(0) + RECORD_BYTES_GUESS;
            let block = self.read(start, end - start)?;
            for (place, offset) in rest[..taken].iter().zip(&offsets) {
                let event = self.event_in(&block, start, *place, offset.byte())?;
                bytes += weight(&event);
                events.push(event);
                if bytes >= bytes_max {
                    break;
                }
            }
            rest = &rest[taken..];
        }
        Ok(events)
    }

    /// The place behind the last event of the append that begins at this place.
    pub fn append_end(&self, first: u32, visible: u32) -> Result<u32, Fault> {
        let mut from = first + 1;
        // Most appends have one event or a few.
        let mut step = 8;
        while from < visible {
            let to = visible.min(from.saturating_add(step));
            let offsets = self.index.offsets(from..to)?;
            if let Some(next) = offsets.iter().position(|offset| offset.is_first_in_frame()) {
                return Ok(from + next as u32);
            }
            (from, step) = (to, step * 4);
        }
        Ok(visible)
    }

    /// Offsets of as many of the first places as are worth reading at once.
    fn run(&self, places: &[u32]) -> Result<(Vec<Offset>, usize), Fault> {
        let mut offsets: Vec<Offset> = Vec::new();
        let (mut low, mut high) = (u64::MAX, 0);
        for chunk in places.chunks(512) {
            for offset in self.offsets_of(chunk)? {
                let byte = offset.byte();
                if let Some(before) = offsets.last() {
                    let span = high.max(byte) - low.min(byte);
                    if before.byte().abs_diff(byte) > GAP_BYTES_MAX || span > RUN_BYTES_MAX {
                        let taken = offsets.len();
                        return Ok((offsets, taken));
                    }
                }
                (low, high) = (low.min(byte), high.max(byte));
                offsets.push(offset);
            }
        }
        let taken = offsets.len();
        Ok((offsets, taken))
    }

    fn offsets_of(&self, places: &[u32]) -> Result<Vec<Offset>, Fault> {
        let (Some(&first), Some(&last)) = (places.first(), places.last()) else { return Ok(Vec::new()) };
        let consecutive = u64::from(last) + 1 == u64::from(first) + places.len() as u64;
        if consecutive && last >= first {
            return self.index.offsets(first..last + 1);
        }
        let mut offsets = Vec::with_capacity(places.len());
        for &place in places {
            offsets.extend(self.index.offsets(place..place + 1)?);
        }
        Ok(offsets)
    }

    fn event_in(&self, block: &Bytes, start: u64, place: u32, byte: u64) -> Result<RecordedEvent, Fault> {
        let at = (byte - start) as usize;
        let wrong = |malformed: Malformed| self.damaged(byte, place, malformed.to_string());
        let length = frame::record_length(block.get(at..).unwrap_or_default()).map_err(wrong)?;
        let record = match block.get(at..at + length) {
            Some(_) => block.slice(at..at + length),
            None => self.read(byte, length as u64)?,
        };
        let event = frame::record_event(&record).map_err(wrong)?;
        if event.position != self.position(place) {
            let problem = format!("the event there says that its position is {}", event.position);
            return Err(self.damaged(byte, place, problem));
        }
        Ok(event)
    }

    fn read(&self, offset: u64, length: u64) -> Result<Bytes, Fault> {
        let name = file_name(self.base);
        let mut bytes = vec![0; usize::try_from(length).expect("a record fits in memory")];
        let count = self.file.read_at(&mut bytes, offset).map_err(Fault::io("read", &name))?;
        bytes.truncate(count);
        Ok(bytes.into())
    }

    fn damaged(&self, offset: u64, place: u32, problem: String) -> Fault {
        Fault::damaged(&file_name(self.base), offset, Some(self.position(place)), problem)
    }
}

/// Bytes that an event is counted as in a page: its data, and what it takes without any.
pub fn weight(event: &RecordedEvent) -> usize {
    size_of::<RecordedEvent>() + event.data.len()
}

/// Where a finished segment ends: what its index is bound to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The first byte behind its last frame.
    pub byte: u64,
    /// Digest of the log up to there.
    pub chain: Digest,
}

/// Where a walk over the frames of a segment ended, and what the log is like there.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// The first byte that is not of a whole frame.
    pub byte: u64,
    /// Position of the next event.
    pub next: Position,
    /// Recorded time of the last event.
    pub recorded_at: Timestamp,
    /// Digest of the log.
    pub chain: Digest,
    /// Frames that hold an append.
    pub appends: u64,
    /// The first byte of the last group: no frame says of what stands from here on that it was durable.
    pub unproven: u64,
}

impl End {
    /// The same of a segment that is finished.
    pub fn ending(&self) -> Ending {
        Ending { byte: self.byte, chain: self.chain }
    }
}

/// At most this much is read at once by a walk, unless one frame is larger.
const WALK_BYTES: usize = 1 << 20;

/// Walks over the whole frames of a segment's file, checking all of each, and hands out every event with where
/// its record begins. Ends at the first byte that is not of a whole frame, whatever is there.
///
/// # Errors
/// Damage, if a frame is whole but cannot be right where it stands.
pub fn walk(
    file: &dyn File,
    header: &SegmentHeader,
    mut each: impl FnMut(RecordedEvent, Offset),
) -> Result<End, Fault> {
    let name = file_name(header.base);
    let mut end = End {
        byte: HEADER_BYTES,
        next: header.base,
        recorded_at: header.recorded_at,
        chain: header.chain,
        appends: 0,
        unproven: HEADER_BYTES,
    };
    let mut unproven = VecDeque::new();
    let mut reader = BlockReader::new(file, &name, header.salt());
    while let Some((bytes, found)) = reader.frame(end.byte)? {
        let wrong = |problem: String| Fault::damaged(&name, end.byte, Some(end.next), problem);
        let found = found.map_err(|malformed| wrong(malformed.to_string()))?;
        if found.first != end.next {
            return Err(wrong(format!("the frame there says that its position is {}", found.first)));
        }
        if found.recorded_at < end.recorded_at {
            return Err(wrong("the frame there was recorded before the one in front of it".into()));
        }
        let records =
            frame::records(&bytes, &found, &end.chain).map_err(|malformed| wrong(malformed.to_string()))?;
        for (index, (at, event)) in records.into_iter().enumerate() {
            each(event, Offset::new(end.byte + at as u64, index == 0));
        }
        while unproven.front().is_some_and(|&(first, _)| first <= found.durable) {
            unproven.pop_front();
        }
        if found.count > 0 {
            unproven.push_back((found.first, end.byte));
            end.appends += 1;
        }
        end.next = end.next.plus(u64::from(found.count));
        end.recorded_at = found.recorded_at;
        end.chain = found.chain;
        end.byte += found.stride() as u64;
    }
    end.unproven = unproven.front().map_or(end.byte, |&(_, byte)| byte);
    Ok(end)
}

/// Hands out frames from a file that is read in blocks.
pub(crate) struct BlockReader<'a> {
    file: &'a dyn File,
    name: &'a str,
    salt: u32,
    start: u64,
    block: Bytes,
}

type Frame = (Bytes, Result<Header, Malformed>);

impl<'a> BlockReader<'a> {
    /// Reads the file of this name, the segment that has this salt.
    pub fn new(file: &'a dyn File, name: &'a str, salt: u32) -> Self {
        Self { file, name, salt, start: 0, block: Bytes::new() }
    }

    /// The frame at this byte: nothing if there is no whole one.
    pub fn frame(&mut self, byte: u64) -> Result<Option<Frame>, Fault> {
        let mut bytes = self.bytes(byte, frame::HEADER_BYTES)?;
        let Ok(length) = frame::peek_length(&bytes) else { return Ok(None) };
        bytes = self.bytes(byte, length)?;
        match frame::header(&bytes, self.salt) {
            Err(Malformed::Short(_) | Malformed::Checksum(_)) => Ok(None),
            found => Ok(Some((bytes, found))),
        }
    }

    /// That many bytes from this byte on; fewer at the end of the file.
    pub fn bytes(&mut self, byte: u64, count: usize) -> Result<Bytes, Fault> {
        let inside = byte >= self.start && byte + count as u64 <= self.start + self.block.len() as u64;
        if !inside {
            let length = self.file.length().map_err(Fault::io("read the length of", self.name))?;
            let left = usize::try_from(length.saturating_sub(byte)).unwrap_or(usize::MAX);
            let mut block = vec![0; count.max(WALK_BYTES).min(left)];
            let read = self.file.read_at(&mut block, byte).map_err(Fault::io("read", self.name))?;
            block.truncate(read);
            (self.start, self.block) = (byte, block.into());
        }
        let at = (byte - self.start) as usize;
        Ok(self.block.slice(at..self.block.len().min(at + count)))
    }
}
