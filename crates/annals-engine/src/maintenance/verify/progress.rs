//! Progress of a verification, in a derived file beside the log.
//!
//! ```text
//! | magic 8 | store 16 | last pass: 0, or 1 | time 8 | head 8 | damage 8 | current: 0, or 1 ... | crc 4 |
//! current:  started 8 | segment 8 | mark 8 | figures 5 x 8 | head 8 | digest | damage ... | n x (hash 8, version 8)
//! ```
//!
//! It is bound to the log by its identity, and to this history of the log by a mark, the hash of the header
//! of the segment that comes next. A missing, corrupt or foreign file is ignored: the pass starts from the
//! beginning. If it cannot be written, the pass continues but cannot be resumed.

use std::collections::HashMap;

use annals_core::{Location, Position, StoreId, Timestamp};

use super::{Damage, LastPass, Lost, Verification};
use crate::disk::Disk;
use crate::error::Fault;
use crate::log::encoding::{get_u32, get_u64, get_varint, put_u32, put_varint};
use crate::log::segment::{HEADER_BYTES, file_name};
use crate::log::small_file;
use crate::proof::digest::LogDigest;

const NAME: &str = "verification";
const MAGIC: &[u8; 8] = b"ANNALSV1";

/// The recorded verifications of a log.
#[derive(Debug, Default)]
pub struct Progress {
    /// The last pass that reached the end.
    pub last: Option<LastPass>,
    /// The pass that has not reached the end.
    pub current: Option<PassInProgress>,
}

/// A pass that has not reached the end.
#[derive(Debug)]
pub struct PassInProgress {
    /// When it began.
    pub started_at: Timestamp,
    /// First position of the next segment.
    pub segment: Position,
    /// The mark of that segment.
    pub mark: u64,
    /// The findings before it.
    pub found: Verification,
    /// Digest of the log before it; `None` after damage.
    pub digest: Option<LogDigest>,
    /// Newest version of each stream before it, by the hash of the name.
    pub versions: HashMap<u64, u64>,
}

/// The mark of the segment that begins at this position.
pub fn mark(disk: &dyn Disk, segment: Position) -> Result<u64, Fault> {
    let name = file_name(segment);
    let file = disk.open(&name).map_err(Fault::io("open", &name))?;
    let mut bytes = [0; HEADER_BYTES as usize];
    let count = file.read_at(&mut bytes, 0).map_err(Fault::io("read", &name))?;
    Ok(xxhash_rust::xxh3::xxh3_64(&bytes[..count]))
}

/// The last pass over the log on this disk.
pub fn last(disk: &dyn Disk, store: Option<StoreId>) -> Result<Option<LastPass>, Fault> {
    Ok(read(disk, store)?.and_then(|progress| progress.last))
}

/// Reads the file; `None` if it cannot be used for this log.
pub fn read(disk: &dyn Disk, store: Option<StoreId>) -> Result<Option<Progress>, Fault> {
    let names = disk.list().map_err(Fault::io("list", "the log"))?;
    if !names.iter().any(|name| name == NAME) {
        return Ok(None);
    }
    let file = disk.open(NAME).map_err(Fault::io("open", NAME))?;
    let length = file.length().map_err(Fault::io("read the length of", NAME))?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let count = file.read_at(&mut bytes, 0).map_err(Fault::io("read", NAME))?;
    bytes.truncate(count);
    Ok(decode(&bytes, store))
}

/// Writes the file atomically. An error is only logged.
pub fn write(disk: &dyn Disk, store: StoreId, progress: &Progress) {
    let written = small_file::replace(disk, NAME, &encode(store, progress))
        .and_then(|()| disk.sync_directory().map_err(Fault::io("sync the directory of", NAME)));
    if let Err(fault) = written {
        tracing::warn!(
            error = &fault as &dyn std::error::Error,
            "how far the verification has come cannot be written; it cannot be resumed"
        );
    }
}

fn encode(store: StoreId, progress: &Progress) -> Vec<u8> {
    let streams = progress.current.as_ref().map_or(0, |current| current.versions.len());
    let mut out = Vec::with_capacity(512 + 16 * streams);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(store.as_bytes());
    out.push(u8::from(progress.last.is_some()));
    if let Some(last) = &progress.last {
        number(&mut out, last.finished_at.as_micros().cast_unsigned());
        number(&mut out, last.head.get());
        number(&mut out, last.damage);
    }
    out.push(u8::from(progress.current.is_some()));
    if let Some(current) = &progress.current {
        let found = &current.found;
        number(&mut out, current.started_at.as_micros().cast_unsigned());
        number(&mut out, current.segment.get());
        number(&mut out, current.mark);
        let figures = [found.segments, found.appends, found.events, found.bytes, found.indexes];
        figures.iter().for_each(|&figure| number(&mut out, figure));
        number(&mut out, found.head.get());
        let mut digest = Vec::new();
        current.digest.iter().for_each(|known| known.encode(&mut digest));
        blob(&mut out, &digest);
        number(&mut out, found.damage.len() as u64);
        for damage in &found.damage {
            blob(&mut out, damage.location.file.as_bytes());
            number(&mut out, damage.location.offset);
            number(&mut out, damage.location.position.map_or(0, Position::get));
            blob(&mut out, damage.problem.as_bytes());
            let (kind, first, last) = match damage.lost {
                Lost::Nothing => (0, 0, 0),
                Lost::Events { first, last } => (1, first.get(), last.get()),
                Lost::Rest { first } => (2, first.get(), 0),
            };
            [kind, first, last].iter().for_each(|&part| number(&mut out, part));
        }
        number(&mut out, current.versions.len() as u64);
        for (&hash, &version) in &current.versions {
            number(&mut out, hash);
            number(&mut out, version);
        }
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&[0; 4]);
    let end = out.len() - 4;
    put_u32(&mut out[end..], crc);
    out
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn blob(out: &mut Vec<u8>, value: &[u8]) {
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn decode(bytes: &[u8], store: Option<StoreId>) -> Option<Progress> {
    let (bytes, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if crc32c::crc32c(bytes) != get_u32(crc) {
        return None;
    }
    let mut reader = Reader(bytes);
    if reader.take(8)? != MAGIC {
        return None;
    }
    let of = StoreId::from_bytes(reader.take(16)?.try_into().ok()?);
    if store.is_some_and(|store| store != of) {
        return None;
    }
    let mut progress = Progress::default();
    if reader.take(1)? == [1] {
        let finished_at = reader.time()?;
        progress.last = Some(LastPass { finished_at, head: reader.position()?, damage: reader.number()? });
    }
    if reader.take(1)? == [1] {
        progress.current = Some(reader.current(of)?);
    }
    reader.0.is_empty().then_some(progress)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        Some(get_u64(self.take(8)?))
    }

    fn position(&mut self) -> Option<Position> {
        self.number().map(Position::new)
    }

    fn time(&mut self) -> Option<Timestamp> {
        Some(Timestamp::from_micros(self.number()?.cast_signed()))
    }

    fn blob(&mut self) -> Option<&'a [u8]> {
        let (length, took) = get_varint(self.0)?;
        self.take(took)?;
        self.take(usize::try_from(length).ok()?)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.blob()?.to_vec()).ok()
    }

    /// The inner `None` means that there is no digest.
    fn digest(&mut self) -> Option<Option<LogDigest>> {
        match self.blob()? {
            [] => Some(None),
            bytes => LogDigest::decode(bytes).ok().map(Some),
        }
    }

    fn damage(&mut self) -> Option<Damage> {
        let file = self.text()?;
        let offset = self.number()?;
        let position = self.position()?;
        let location = Location { file, offset, position: (position > Position::ZERO).then_some(position) };
        let problem = self.text()?;
        let (kind, first, last) = (self.number()?, self.position()?, self.position()?);
        let lost = match kind {
            0 => Lost::Nothing,
            1 => Lost::Events { first, last },
            2 => Lost::Rest { first },
            _ => return None,
        };
        Some(Damage { location, problem, lost })
    }

    fn current(&mut self, store: StoreId) -> Option<PassInProgress> {
        let started_at = self.time()?;
        let segment = self.position()?;
        let mark = self.number()?;
        let mut found = Verification {
            store: Some(store),
            segments: self.number()?,
            appends: self.number()?,
            events: self.number()?,
            bytes: self.number()?,
            indexes: self.number()?,
            head: self.position()?,
            ..Verification::default()
        };
        let digest = self.digest()?;
        for _ in 0..self.number()? {
            found.damage.push(self.damage()?);
        }
        let streams = usize::try_from(self.number()?).ok()?;
        let pairs = self.take(streams.checked_mul(16)?)?.chunks_exact(16);
        let versions = pairs.map(|pair| (get_u64(pair), get_u64(&pair[8..]))).collect();
        Some(PassInProgress { started_at, segment, mark, found, digest, versions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_as_it_was_written_and_only_whole() {
        let location = Location { file: "x.seg".to_owned(), offset: 7, position: None };
        let lost = Lost::Events { first: Position::new(3), last: Position::new(5) };
        let found = Verification {
            store: Some(StoreId::from_bytes([7; 16])),
            events: 12,
            damage: vec![Damage { location, problem: "broken".to_owned(), lost }],
            ..Verification::default()
        };
        let mut digest = LogDigest::default();
        digest.append(Position::FIRST, Timestamp::MIN, &[[7; 32]]);
        let current = PassInProgress {
            started_at: Timestamp::from_micros(5),
            segment: Position::new(9),
            mark: 77,
            found: found.clone(),
            digest: Some(digest.clone()),
            versions: HashMap::from([(1, 2), (3, 4)]),
        };
        let last = LastPass { finished_at: Timestamp::from_micros(4), head: Position::new(2), damage: 1 };
        let store = StoreId::from_bytes([7; 16]);
        let bytes = encode(store, &Progress { last: Some(last), current: Some(current) });
        let read = decode(&bytes, Some(store)).unwrap();
        assert_eq!(read.last, Some(last));
        let current = read.current.unwrap();
        assert_eq!((current.found, current.segment, current.mark), (found, Position::new(9), 77));
        assert_eq!(current.digest, Some(digest));
        assert_eq!(current.versions, HashMap::from([(1, 2), (3, 4)]));
        assert!(decode(&bytes, Some(StoreId::from_bytes([8; 16]))).is_none());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], None).is_none(), "{length}");
        }
    }
}
