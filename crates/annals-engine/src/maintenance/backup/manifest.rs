//! A manifest: the list of the segments of one backup, as readable text with a checksum.
//!
//! ```text
//! annals backup 1
//! number 3
//! store 0b3c6f0e-…
//! created 2017-04-15T13:00:00Z
//! head 170000
//! recorded 2017-04-15T12:59:59.9Z
//! segment 1 163840 67108712 5f0c… 77aa… 2017-04-15T11:00:00Z      first, last, bytes, SHA-256, mark, recorded time
//! segment 163841 170000 2523136 0b77… - 2017-04-15T12:59:59.9Z    the segment that was active then has no mark
//! sum 9c1e…                                                        SHA-256 of all lines above
//! ```

use annals_core::{Error, Location, Position, Result, StoreId, Timestamp};
use sha2::{Digest as _, Sha256};

use super::BackupStorage;
use crate::error::Fault;
use crate::index::Offset;
use crate::log::segment::HEADER_BYTES;
use crate::maintenance::work::Work;

const VERSION: &str = "annals backup 1";
const SEGMENT: &str = "segment-";

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Identity of the log.
    pub store: StoreId,
    /// Its number: the backups in a backup storage are numbered consecutively.
    pub number: u64,
    /// When the backup was begun.
    pub created_at: Timestamp,
    /// Position of the last event in it.
    pub head: Position,
    /// Recorded time of that event.
    pub recorded_at: Timestamp,
    /// The segments of the backup, in order.
    pub segments: Vec<StoredSegment>,
}

/// A segment, or the beginning of one, in a backup storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSegment {
    /// Position of its first event.
    pub base: Position,
    /// Position of its last event; the position before `base` if it has no event.
    pub last: Position,
    /// Number of its bytes.
    pub bytes: u64,
    /// SHA-256 digest of its bytes.
    pub digest: [u8; 32],
    /// The mark that identifies it, if it was sealed.
    pub mark: Option<String>,
    /// Recorded time of its last event; of the event before the segment if it has none.
    pub recorded_at: Timestamp,
}

impl Manifest {
    /// Number of bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Writes the manifest; fails if there is one with this number.
    pub(super) fn write(&self, storage: &dyn BackupStorage) -> Result<(), Fault> {
        let name = name(self.number);
        storage.create(&name, self.text().as_bytes()).map_err(Fault::io("write", &name))
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{VERSION}\nnumber {}\nstore {}\ncreated {}\nhead {}\nrecorded {}\n",
            self.number, self.store, self.created_at, self.head, self.recorded_at
        );
        for segment in &self.segments {
            let StoredSegment { base, last, bytes, digest, mark, recorded_at } = segment;
            let (digest, mark) = (hexadecimal(digest), mark.as_deref().unwrap_or("-"));
            text.push_str(&format!("segment {base} {last} {bytes} {digest} {mark} {recorded_at}\n"));
        }
        let sum = hexadecimal(&Sha256::digest(&text));
        text.push_str(&format!("sum {sum}\n"));
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, sum) = text.strip_suffix('\n')?.rsplit_once("\nsum ")?;
        let body = format!("{body}\n");
        if hexadecimal(&Sha256::digest(&body)) != sum {
            return None;
        }
        let mut lines = body.lines();
        if lines.next()? != VERSION {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
        let number = field("number")?.parse().ok()?;
        let store = store_id(&field("store")?)?;
        let created_at = field("created")?.parse().ok()?;
        let head = position(&field("head")?)?;
        let recorded_at = field("recorded")?.parse().ok()?;
        let segments = lines.map(StoredSegment::parse).collect::<Option<Vec<_>>>()?;
        Some(Self { store, number, created_at, head, recorded_at, segments })
    }

    /// Checks that the values are consistent, which a matching checksum does not guarantee.
    fn check(&self) -> Result<(), &'static str> {
        let mut next = Position::FIRST;
        let mut recorded_at = Timestamp::MIN;
        for segment in &self.segments {
            if segment.base != next || segment.last.next() < segment.base || segment.last == Position::MAX {
                return Err("its segments do not follow each other");
            }
            if !(HEADER_BYTES..=Offset::MAX).contains(&segment.bytes) {
                return Err("a segment has a size that no segment has");
            }
            if segment.recorded_at < recorded_at {
                return Err("its recorded times decrease");
            }
            (next, recorded_at) = (segment.last.next(), segment.recorded_at);
        }
        let ends = !self.segments.is_empty() && self.head.next() == next && self.recorded_at == recorded_at;
        if ends { Ok(()) } else { Err("it does not end where its last segment does") }
    }
}

impl StoredSegment {
    /// The name of the object.
    pub fn name(&self) -> String {
        format!("{SEGMENT}{:020}-{}", self.base.get(), &hexadecimal(&self.digest)[..16])
    }

    /// Calls `each` with its bytes, part by part, and checks their number and digest.
    pub(super) fn read(
        &self,
        storage: &dyn BackupStorage,
        work: &Work,
        each: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), Fault> {
        let name = self.name();
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        let mut is_longer = false;
        let read = storage.get(&name, &mut |part| {
            if bytes + part.len() as u64 > self.bytes {
                // Do not read or write more than the expected bytes.
                is_longer = true;
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            work.spend(part.len() as u64)?;
            work.advance(part.len() as u64);
            digest.update(part);
            bytes += part.len() as u64;
            each(part)
        });
        if is_longer {
            let problem = format!("it has more than the {} bytes that were written", self.bytes);
            return Err(Fault::damaged(&name, 0, Some(self.base), problem));
        }
        read.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Fault::damaged(&name, 0, Some(self.base), "it is missing"),
            _ => Fault::io("read", &name)(error),
        })?;
        if bytes != self.bytes || digest.finalize()[..] != self.digest {
            let problem = format!("it has {bytes} bytes that are not the {} that were written", self.bytes);
            return Err(Fault::damaged(&name, 0, Some(self.base), problem));
        }
        Ok(())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("segment ")?.split(' ');
        let base = position(words.next()?)?;
        let last = position(words.next()?)?;
        let bytes = words.next()?.parse().ok()?;
        let digest = words.next()?;
        let mark = words.next().map(|mark| (mark != "-").then(|| mark.to_owned()))?;
        let recorded_at = words.next()?.parse().ok()?;
        let digest = (digest.len() == 64).then(|| bytes_of(digest))??;
        let digest = digest.try_into().ok()?;
        words.next().is_none().then_some(Self { base, last, bytes, digest, mark, recorded_at })
    }
}

/// Name of the manifest with this number.
pub fn name(number: u64) -> String {
    format!("backup-{number:06}.manifest")
}

/// The number in the name of a manifest.
pub fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("backup-")?.strip_suffix(".manifest")?.parse().ok()?;
    // Accept only the canonical name of a number.
    (self::name(number) == name).then_some(number)
}

/// Whether this is the name of a segment.
pub fn is_segment(name: &str) -> bool {
    name.starts_with(SEGMENT)
}

/// The manifest with this number.
pub fn read(storage: &dyn BackupStorage, number: u64) -> Result<Manifest> {
    let name = name(number);
    let mut bytes = Vec::new();
    let mut is_too_long = false;
    let read = storage.get(&name, &mut |part| {
        is_too_long = bytes.len() + part.len() > BYTES_MAX;
        if is_too_long {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        bytes.extend_from_slice(part);
        Ok(())
    });
    let damaged = |cause: &str| {
        let location = Location { file: name.clone(), offset: 0, position: None };
        Err(Error::Damaged { location, cause: cause.into() })
    };
    if is_too_long {
        return damaged("it is longer than any manifest");
    }
    read.map_err(Fault::io("read", &name))?;
    let found = std::str::from_utf8(&bytes).ok().and_then(Manifest::parse);
    match found.filter(|manifest| manifest.number == number) {
        Some(manifest) => match manifest.check() {
            Ok(()) => Ok(manifest),
            Err(problem) => damaged(&format!("it is inconsistent: {problem}")),
        },
        None if bytes.starts_with(b"annals backup ") && !bytes.starts_with(VERSION.as_bytes()) => {
            damaged("it is of a version that this program does not know")
        }
        None => damaged("it is corrupt"),
    }
}

/// The most bytes of a manifest: it has about 200 per segment.
const BYTES_MAX: usize = 256 << 20;

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hexadecimal: &str) -> Option<Vec<u8>> {
    let pairs = hexadecimal.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn position(text: &str) -> Option<Position> {
    text.parse::<u64>().ok().map(Position::new)
}

/// Parses an identity in its text form, with hyphens.
fn store_id(text: &str) -> Option<StoreId> {
    let bytes: [u8; 16] = bytes_of(&text.replace('-', ""))?.try_into().ok()?;
    Some(StoreId::from_bytes(bytes)).filter(|id| id.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_only_whole() {
        let segment = |base, mark: Option<&str>| StoredSegment {
            base: Position::new(base),
            last: Position::new(base + 9),
            bytes: 4_000,
            digest: [base as u8; 32],
            mark: mark.map(str::to_owned),
            recorded_at: Timestamp::MIN,
        };
        let manifest = Manifest {
            store: StoreId::from_bytes([0xab; 16]),
            number: 12,
            created_at: Timestamp::from_micros(1),
            head: Position::new(20),
            recorded_at: Timestamp::MAX,
            segments: vec![segment(1, Some("00ff")), segment(11, None)],
        };
        let text = manifest.text();
        assert_eq!(Manifest::parse(&text), Some(manifest));
        for length in 0..text.len() {
            assert_eq!(Manifest::parse(&text[..length]), None, "{length}");
        }
        for byte in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[byte] ^= 1;
            assert!(std::str::from_utf8(&changed).ok().and_then(Manifest::parse).is_none(), "{byte}");
        }
        assert_eq!(number_of(&name(12)), Some(12));
        assert_eq!(number_of("backup-12.manifest"), None);
    }

    #[test]
    fn a_manifest_that_says_what_cannot_be_is_refused() {
        let segment = |base, last, bytes| StoredSegment {
            base: Position::new(base),
            last: Position::new(last),
            bytes,
            digest: [0; 32],
            mark: None,
            recorded_at: Timestamp::from_micros(last as i64),
        };
        let manifest = |segments: Vec<StoredSegment>| {
            let (head, recorded_at) = segments
                .last()
                .map_or((Position::ZERO, Timestamp::MIN), |last| (last.last, last.recorded_at));
            let (store, created_at) = (StoreId::from_bytes([1; 16]), Timestamp::MIN);
            Manifest { store, number: 1, created_at, head, recorded_at, segments }
        };
        for possible in [
            vec![segment(1, 9, 4_000), segment(10, 20, 4_000)],
            vec![segment(1, 9, 4_000), segment(10, 9, 128)],
            vec![segment(1, 0, 128)],
        ] {
            assert_eq!(manifest(possible).check(), Ok(()));
        }
        for impossible in [
            vec![],
            vec![segment(2, 9, 4_000)],
            vec![segment(1, 9, 4_000), segment(9, 20, 4_000)],
            vec![segment(1, 9, 4_000), segment(11, 20, 4_000)],
            vec![segment(1, 9, 4_000), segment(1, 9, 4_000)],
            vec![segment(1, 9, 4_000), segment(10, 5, 4_000)],
            vec![segment(1, u64::MAX, 4_000)],
            vec![segment(1, 9, 0)],
            vec![segment(1, 9, u64::MAX)],
        ] {
            let manifest = manifest(impossible);
            assert!(manifest.check().is_err(), "{manifest:?}");
        }
        let whole = manifest(vec![segment(1, 9, 4_000)]);
        assert!(Manifest { head: Position::new(8), ..whole.clone() }.check().is_err());
        assert!(Manifest { recorded_at: Timestamp::MAX, ..whole }.check().is_err());
    }
}
