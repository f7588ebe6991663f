//! A segment: one file of frames.
//!
//! ```text
//! 0       8        12    16        32     40        48     56         64     124   128
//! | magic | version| zero| store id| base | created | link | recorded | zero | crc | frame, frame, ... 0 0 0
//! ```
//!
//! - S1  The file is named by the position of its first event, `base`; positions rise by one from there.
//! - S2  `link` and `recorded` are those of the log before the segment: the hash over the checksums of all
//!       frames, and the recorded time of the last event. So each segment can be checked by itself, and that
//!       it follows the one before it can be verified.
//! - S3  A segment appears with a complete header: it is written under another name, synced, and renamed.
//! - S4  All bytes after the last frame are zero.
//!
//! Next above: `log` (the sequence of segments); below: `frame` and `disk`.

use std::collections::VecDeque;
use std::sync::Arc;

use annals_core::{Position, StoreId, Timestamp};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::encoding::{Malformed, get_time, get_u32, get_u64, put_u32, put_u64};
use super::frame::{self, Header, Mark, Origin, Record};
use crate::disk::{Disk, File};
use crate::error::Fault;

/// Bytes of a segment's header; the first frame begins here.
pub const HEADER_BYTES: u64 = 128;
const MAGIC: &[u8; 8] = b"ANNALSG1";
const FORMAT_VERSION: u32 = 2;

/// The contents of a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log that the segment belongs to.
    pub store: StoreId,
    /// Position of the first event.
    pub base: Position,
    /// When the segment was created.
    pub created_at: Timestamp,
    /// Link of the log before the segment.
    pub link: u64,
    /// Recorded time of the log's last event before the segment.
    pub recorded_at: Timestamp,
}

/// Name of the file of the segment that begins at this position.
pub fn file_name(base: Position) -> String {
    format!("{:020}.seg", base.get())
}

/// Name of the index file of the run from `first` to `last`.
pub fn index_name(first: Position, last: Position) -> String {
    format!("{:020}-{:020}.idx", first.get(), last.get())
}

/// The position in a segment's file name.
pub fn base_of(file_name: &str) -> Option<Position> {
    position_in(file_name.strip_suffix(".seg")?)
}

/// The positions in the file name of a run's index.
pub fn run_of(file_name: &str) -> Option<(Position, Position)> {
    let (first, last) = file_name.strip_suffix(".idx")?.split_once('-')?;
    let (first, last) = (position_in(first)?, position_in(last)?);
    (first <= last).then_some((first, last))
}

fn position_in(digits: &str) -> Option<Position> {
    let position = Some(digits).filter(|digits| digits.len() == 20)?.parse().ok()?;
    (position > 0).then_some(Position::new(position))
}

impl SegmentHeader {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER_BYTES as usize];
        out[..8].copy_from_slice(MAGIC);
        put_u32(&mut out[8..], FORMAT_VERSION);
        out[16..32].copy_from_slice(self.store.as_bytes());
        put_u64(&mut out[32..], self.base.get());
        put_u64(&mut out[40..], self.created_at.as_micros().cast_unsigned());
        put_u64(&mut out[48..], self.link);
        put_u64(&mut out[56..], self.recorded_at.as_micros().cast_unsigned());
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
        if bytes[12..16] != [0; 4] || bytes[64..124] != [0; 60] {
            return Err(Malformed::Field("reserved"));
        }
        if get_u64(&bytes[32..]) == 0 {
            return Err(Malformed::Field("base"));
        }
        Ok(Self {
            store: StoreId::from_bytes(bytes[16..32].try_into().expect("16 bytes")),
            base: Position::new(get_u64(&bytes[32..])),
            created_at: get_time(&bytes[40..])?,
            link: get_u64(&bytes[48..]),
            recorded_at: get_time(&bytes[56..])?,
        })
    }

    /// The header in these corrupt bytes, with the fields whose values are known corrected; `None` if it is
    /// still invalid.
    pub fn repaired(bytes: &[u8], store: StoreId, base: Position) -> Option<Self> {
        let mut bytes = bytes.get(..HEADER_BYTES as usize)?.to_vec();
        bytes[..8].copy_from_slice(MAGIC);
        put_u32(&mut bytes[8..], FORMAT_VERSION);
        bytes[12..16].fill(0);
        bytes[16..32].copy_from_slice(store.as_bytes());
        put_u64(&mut bytes[32..], base.get());
        bytes[64..].fill(0);
        let crc = crc32c::crc32c(&bytes[..124]);
        put_u32(&mut bytes[124..], crc);
        Self::decode(&bytes).ok()
    }

    /// The origin of its frames. Their salt is the checksum of this header.
    pub fn origin(&self) -> Origin {
        Origin { salt: get_u32(&self.encode()[124..]), base: self.base, created_at: self.created_at }
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

    /// Creates the segment's file, durably, with only the header in it (S3).
    ///
    /// After `Err((fault, false))` the file does not exist; after `Err((fault, true))` it may.
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
            // If this fails, the file is removed at the next open.
            let _ = disk.remove(&temporary);
            (fault, false)
        })?;
        disk.rename(&temporary, &name).map_err(|error| (Fault::io("rename", &temporary)(error), true))?;
        disk.sync_directory().map_err(|error| (Fault::io("sync the directory of", &name)(error), true))?;
        Ok(file)
    }
}

/// An open segment.
pub struct Segment {
    /// The contents of its header.
    pub header: SegmentHeader,
    /// The origin of its frames.
    pub origin: Origin,
    /// Its file.
    pub file: Arc<dyn File>,
    /// Its file's name.
    pub name: String,
}

impl Segment {
    /// The segment with this header, in this file.
    pub fn new(header: SegmentHeader, file: Arc<dyn File>) -> Self {
        Self { header, origin: header.origin(), file, name: file_name(header.base) }
    }

    /// Position of its first event.
    pub fn base(&self) -> Position {
        self.header.base
    }
}

/// The link after a frame with this checksum; `before` is the link before the frame.
pub fn link(before: u64, crc: u32) -> u64 {
    xxh3_64_with_seed(&crc.to_le_bytes(), before)
}

/// A boundary between two frames of a segment, and the state of the log there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The first byte after the previous frame.
    pub byte: u64,
    /// Position of the next event.
    pub next: Position,
    /// Recorded time of the last event.
    pub recorded_at: Timestamp,
    /// Link of the log.
    pub link: u64,
    /// First byte of the previous frame, and its checksum; zeros at the start of a segment.
    pub frame: (u64, u32),
    /// Whether the next frame is an end mark: the segment ends here, and another one follows.
    pub finished: bool,
    /// Number of append frames that the walk has passed.
    pub appends: u64,
    /// The first byte of the frames that no later frame proves to be durable.
    pub unproven: u64,
}

impl End {
    /// The boundary before the first frame of a segment.
    pub fn start_of(header: &SegmentHeader) -> Self {
        Self {
            byte: HEADER_BYTES,
            next: header.base,
            recorded_at: header.recorded_at,
            link: header.link,
            frame: (0, 0),
            finished: false,
            appends: 0,
            unproven: HEADER_BYTES,
        }
    }
}

/// A frame that a walk has reached.
pub struct Walked<'a> {
    /// Its first byte in the file.
    pub byte: u64,
    /// The contents of its header.
    pub header: Header,
    /// Its bytes.
    pub bytes: &'a Bytes,
    origin: &'a Origin,
}

impl Walked<'_> {
    /// Calls `each` for its records, each with its offset in the file.
    pub fn records<'b>(
        &'b self,
        mut each: impl FnMut(u64, Record<'b>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        frame::records(self.bytes, &self.header, self.origin, |at, record| {
            each(self.byte + at as u64, record)
        })
    }
}

/// A walk reads at most this much at a time, unless a frame is larger.
const WALK_BYTES: usize = 1 << 20;

/// Walks over the whole frames of a segment's file, starting at `from`; checks each one completely, and calls
/// `each` for those with an append. Stops at the first byte that does not begin a whole frame, and before
/// `until`.
///
/// # Errors
/// Damage, if a frame is whole but cannot be valid at its position, or if `each` returns an error.
pub fn walk(
    file: &dyn File,
    header: &SegmentHeader,
    from: End,
    until: Position,
    mut each: impl FnMut(&Walked<'_>) -> Result<(), Malformed>,
) -> Result<End, Fault> {
    let name = file_name(header.base);
    let origin = header.origin();
    let mut end = End { appends: 0, unproven: from.byte, ..from };
    let mut unproven = VecDeque::new();
    let mut reader = BlockReader::new(file, &name, origin);
    while end.next < until
        && let Some((bytes, found)) = reader.frame(end.byte)?
    {
        let wrong = |problem: String| Fault::damaged(&name, end.byte, Some(end.next), problem);
        let found = found.map_err(|malformed| wrong(malformed.to_string()))?;
        if found.first != end.next {
            return Err(wrong(format!("the frame has position {}", found.first)));
        }
        let walked = Walked { byte: end.byte, header: found, bytes: &bytes, origin: &origin };
        let mut recorded_at = end.recorded_at;
        frame::records(&bytes, &found, &origin, |_, record| {
            recorded_at = record.recorded_at;
            Ok(())
        })
        .map_err(|malformed| wrong(malformed.to_string()))?;
        if recorded_at < end.recorded_at {
            return Err(wrong("the frame there was recorded earlier than the one before it".into()));
        }
        while unproven.front().is_some_and(|&(first, _)| first <= found.durable) {
            unproven.pop_front();
        }
        if found.count > 0 {
            each(&walked).map_err(|malformed| wrong(malformed.to_string()))?;
            end.appends += 1;
        }
        // The sync of a mark may fail too (D4 of `disk`), and more frames may be written after it.
        unproven.push_back((found.first, end.byte));
        end.next = end.next.plus(u64::from(found.count));
        end.recorded_at = recorded_at;
        if found.mark == Some(Mark::End) {
            // It was written after the next segment was created, so the link of that segment does not include
            // it.
            end.finished = true;
            break;
        }
        end.link = link(end.link, found.crc);
        end.frame = (end.byte, found.crc);
        end.byte += found.length as u64;
    }
    end.unproven = unproven.front().map_or(end.byte, |&(_, byte)| byte);
    Ok(end)
}

/// Reads frames from a file, in blocks.
pub(crate) struct BlockReader<'a> {
    file: &'a dyn File,
    name: &'a str,
    origin: Origin,
    start: u64,
    block: Bytes,
}

type Frame = (Bytes, Result<Header, Malformed>);

impl<'a> BlockReader<'a> {
    /// A reader of the segment file of this name, with this origin.
    pub fn new(file: &'a dyn File, name: &'a str, origin: Origin) -> Self {
        Self { file, name, origin, start: 0, block: Bytes::new() }
    }

    /// The frame at this byte; `None` if there is no whole frame.
    pub fn frame(&mut self, byte: u64) -> Result<Option<Frame>, Fault> {
        let mut bytes = self.bytes(byte, frame::FIXED_BYTES)?;
        let Ok(length) = frame::peek_length(&bytes) else { return Ok(None) };
        bytes = self.bytes(byte, length)?;
        match frame::header(&bytes, &self.origin) {
            Err(Malformed::Short(_) | Malformed::Checksum(_)) => Ok(None),
            found => Ok(Some((bytes, found))),
        }
    }

    /// `count` bytes from this byte on; fewer at the end of the file.
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
