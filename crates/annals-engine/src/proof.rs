//! Proof: the digest of the log so far, stored in a file beside it.
//!
//! ```text
//! | magic 8 | store id 16 | segment 8 | byte 8 | next 8 | digest ... | crc 4 |
//! ```
//!
//! It is derived from the segments: if the file is missing, corrupt or foreign, the digest is computed again
//! from the beginning. The modules: `digest`, and `receipt`, a proof that can be checked without the store.
//! The thread of `commit::seal` extends the digest when it has no other work.

pub mod digest;
pub mod receipt;

use annals_core::{Position, StoreId, Timestamp};

use crate::disk::Disk;
use crate::error::Fault;
use crate::log::encoding::{Malformed, get_u32, get_u64, put_u64};
use crate::log::segment::{End, Segment, Walked, walk};
use crate::log::small_file;
use digest::{Digest, LogDigest, of_event};

const MAGIC: &[u8; 8] = b"ANNALSP1";
const FIXED_BYTES: usize = 48;

/// The recorded time of an append, and the digests of its events.
pub fn digests(frame: &Walked<'_>) -> Result<(Timestamp, Vec<Digest>), Malformed> {
    let mut events = Vec::with_capacity(frame.header.count as usize);
    let mut recorded_at = Timestamp::MIN;
    frame.records(|_, record| {
        recorded_at = record.recorded_at;
        events.push(of_event(record.version, record.body));
        Ok(())
    })?;
    Ok((recorded_at, events))
}

/// Adds the append in a frame to the digest.
pub fn add(digest: &mut LogDigest, frame: &Walked<'_>) -> Result<(), Malformed> {
    let (recorded_at, events) = digests(frame)?;
    digest.append(frame.header.first, recorded_at, &events);
    Ok(())
}

/// The digest of the log up to a point, from which it can be continued.
#[derive(Clone, Debug)]
pub struct Proof {
    store: StoreId,
    /// Position of the first event of the segment in which it stopped; 0 before the first segment.
    segment: Position,
    /// The first byte of that segment that is not digested.
    byte: u64,
    /// Position of the next event.
    next: Position,
    digest: LogDigest,
}

impl Proof {
    /// The file's name.
    pub const NAME: &str = "digest";

    /// The digest of an empty log.
    pub fn begin(store: StoreId) -> Self {
        let digest = LogDigest::default();
        Self { store, segment: Position::ZERO, byte: 0, next: Position::FIRST, digest }
    }

    /// Reads the file. Begins again if there is no valid file, or if the file is ahead of `end`, the position
    /// of the next event.
    pub fn read(disk: &dyn Disk, store: StoreId, end: Position) -> Self {
        let stored = Self::stored(disk, store).ok().flatten();
        stored
            .filter(|proof| (Position::FIRST..=end).contains(&proof.next))
            .unwrap_or_else(|| Self::begin(store))
    }

    fn stored(disk: &dyn Disk, store: StoreId) -> std::io::Result<Option<Self>> {
        let file = disk.open(Self::NAME)?;
        let mut bytes = vec![0; usize::try_from(file.length()?).unwrap_or(0).min(4096)];
        let count = file.read_at(&mut bytes, 0)?;
        let Some(end) = count.checked_sub(4).filter(|end| *end >= FIXED_BYTES) else { return Ok(None) };
        let (content, crc) = bytes[..count].split_at(end);
        let ours = content[..8] == *MAGIC && content[8..24] == *store.as_bytes();
        if !ours || crc32c::crc32c(content) != get_u32(crc) {
            return Ok(None);
        }
        Ok(LogDigest::decode(&content[FIXED_BYTES..]).ok().map(|digest| Self {
            store,
            segment: Position::new(get_u64(&content[24..])),
            byte: get_u64(&content[32..]),
            next: Position::new(get_u64(&content[40..])),
            digest,
        }))
    }

    /// Writes the file atomically.
    pub fn write(&self, disk: &dyn Disk) -> Result<(), Fault> {
        let mut bytes = vec![0; FIXED_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(self.store.as_bytes());
        put_u64(&mut bytes[24..], self.segment.get());
        put_u64(&mut bytes[32..], self.byte);
        put_u64(&mut bytes[40..], self.next.get());
        self.digest.encode(&mut bytes);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        small_file::replace(disk, Self::NAME, &bytes)
    }

    /// Identity of the log.
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// Position of the first event that is not digested.
    pub fn next(&self) -> Position {
        self.next
    }

    /// The digest so far.
    pub fn digest(&self) -> &LogDigest {
        &self.digest
    }

    /// Extends the digest through the segment that contains the next event, up to `until` or the end of the
    /// segment. On an error, the proof is unchanged.
    pub fn extend(&mut self, segment: &Segment, until: Position) -> Result<(), Fault> {
        let mut longer = self.clone();
        longer.step(segment, until)?;
        *self = longer;
        Ok(())
    }

    fn step(&mut self, segment: &Segment, until: Position) -> Result<(), Fault> {
        let mut from = End::start_of(&segment.header);
        if self.segment == segment.base() {
            (from.byte, from.next) = (self.byte, self.next);
        } else if self.segment != Position::ZERO {
            self.digest.next_segment();
        }
        if from.next != self.next {
            let problem = "it does not resume where this log does; remove it, and it is made again";
            return Err(Fault::damaged(Self::NAME, 0, Some(self.next), problem));
        }
        self.segment = segment.base();
        let digest = &mut self.digest;
        let end = walk(&*segment.file, &segment.header, from, until, |frame| add(digest, frame))?;
        (self.byte, self.next) = (end.byte, end.next);
        if self.next < until {
            // Without this error, callers would retry forever.
            return Err(Fault::damaged(&segment.name, end.byte, Some(end.next), "a frame is broken"));
        }
        Ok(())
    }
}
