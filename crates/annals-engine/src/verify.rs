//! Verification: reads the whole log and checks everything that can be checked.
//!
//! Every frame's and record's checksum, every position, every stream's versions, that recorded times never
//! decrease, the chain of digests across all segments, and each index: it is built again and compared with the
//! file, byte by byte.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use annals_core::{Error, Place, Position, Result, StoreId};

use crate::disk::{Disk, File, FileDisk};
use crate::error::Fault;
use crate::identity;
use crate::index::{MemoryIndex, build};
use crate::recovery::{Expected, check_last, remains};
use crate::segment::{Ending, SegmentHeader, base_of, file_name, index_name, walk};

/// What a verification looked at and found.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    /// Identity of the log, if it has a segment.
    pub store: Option<StoreId>,
    /// Segment files read.
    pub segments: u64,
    /// Appends whose checksums and digests were checked.
    pub appends: u64,
    /// Events whose checksums, positions, versions and times were checked.
    pub events: u64,
    /// Bytes of segments read.
    pub bytes: u64,
    /// Indexes compared with the log.
    pub indexes: u64,
    /// Digest of the whole log, in hexadecimal: the end of the chain.
    pub chain: String,
    /// What is wrong. Empty if the store is whole.
    pub damage: Vec<(Place, String)>,
}

/// Checks every checksum, position, version, digest and index of the store in this directory, which no process
/// may have open. Changes nothing. `progress` is told bytes read and bytes in all.
///
/// # Errors
/// If the directory is not a store, is in use, or cannot be read.
pub fn verify(directory: impl AsRef<Path>, progress: &mut dyn FnMut(u64, u64)) -> Result<Verification> {
    let directory = directory.as_ref();
    let name = directory.display().to_string();
    if !directory.join("log").is_dir() {
        return Err(Error::Unavailable(format!("{name} holds no store").into()));
    }
    let disk = FileDisk::open(directory).map_err(|error| {
        Error::Unavailable(if error.kind() == std::io::ErrorKind::WouldBlock {
            format!("{name} is open in another process; stop it to verify").into()
        } else {
            Box::new(Fault::io("open", &name)(error))
        })
    })?;
    verify_disk(&disk, progress)
}

/// As [`verify`], on any disk.
///
/// # Errors
/// If the disk cannot be read.
pub fn verify_disk(disk: &dyn Disk, progress: &mut dyn FnMut(u64, u64)) -> Result<Verification> {
    let names = disk.list().map_err(Fault::io("list", "the log"))?;
    let mut bases: Vec<Position> = names.iter().filter_map(|name| base_of(name)).collect();
    bases.sort_unstable();
    let mut check = Check { disk, found: Verification::default(), versions: HashMap::new() };
    let identity = identity::read(disk, &names).or_else(|fault| check.note(fault).map(|()| None))?;
    let mut expected = Expected { base: Position::FIRST, id: identity };
    let mut total = 0;
    for &base in &bases {
        let name = file_name(base);
        let file = disk.open(&name).map_err(Fault::io("open", &name))?;
        total += file.length().map_err(Fault::io("read the length of", &name))?;
    }
    let mut before = None;
    for (index, &base) in bases.iter().enumerate() {
        let opened = expected.open(disk, base);
        expected.base = match check.segment(opened, base, bases.get(index + 1).copied(), &mut before) {
            Ok(next) => next,
            Err(fault) => {
                check.note(fault)?;
                bases.get(index + 1).copied().unwrap_or(base)
            }
        };
        progress(check.found.bytes, total.max(check.found.bytes));
    }
    let whole =
        check_last(&names, bases.last().copied()).and_then(|()| identity::check(identity, bases.len()));
    whole.or_else(|fault| check.note(fault))?;
    check.found.store = expected.id;
    Ok(check.found)
}

struct Check<'a> {
    disk: &'a dyn Disk,
    found: Verification,
    /// Newest version of each stream, by the hash of its name: 16 bytes a stream.
    versions: HashMap<u64, u64>,
}

/// The end of the segment before: where the next one must go on.
type Before = Option<crate::segment::End>;

impl Check<'_> {
    /// Takes damage down; anything else ends the verification.
    fn note(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Damaged { place, problem } => {
                self.found.damage.push((place, problem));
                Ok(())
            }
            fault @ Fault::Io { .. } => Err(fault.into()),
        }
    }

    /// Checks one segment and its index; returns where the next one must begin.
    fn segment(
        &mut self,
        opened: Result<(Arc<dyn File>, SegmentHeader), Fault>,
        base: Position,
        next: Option<Position>,
        before: &mut Before,
    ) -> Result<Position, Fault> {
        let (file, header) = opened?;
        let name = file_name(base);
        if let Some(end) = before.take()
            && (end.chain != header.chain || end.recorded_at != header.recorded_at)
        {
            let problem = "the digest in the header is not that of the log before it";
            let fault = Fault::damaged(&name, 48, Some(base), problem);
            self.found.damage.extend(damage_of(fault));
        }
        let mut index = MemoryIndex::default();
        let mut wrong = Vec::new();
        let versions = &mut self.versions;
        let end = walk(&*file, &header, |event, offset| {
            let hash = xxhash_rust::xxh3::xxh3_64(event.stream.as_str().as_bytes());
            let version = versions.entry(hash).or_default();
            if event.version.get() != *version + 1 {
                let problem =
                    format!("stream `{}` goes from version {version} to {}", event.stream, event.version);
                wrong.push(Fault::damaged(&name, offset.byte(), Some(event.position), problem));
            }
            *version = event.version.get();
            index.insert(&event, offset);
        })?;
        self.found.damage.extend(wrong.into_iter().filter_map(damage_of));
        self.found.segments += 1;
        self.found.appends += end.appends;
        self.found.events += u64::from(index.count());
        self.found.bytes += file.length().map_err(Fault::io("read the length of", &name))?;
        self.found.chain = end.chain.iter().map(|byte| format!("{byte:02x}")).collect();
        *before = Some(end);
        match next {
            None => {
                remains(&*file, &header, &end)?;
            }
            Some(next) if end.next != next => {
                let problem = format!("a frame is broken, and the next segment begins at position {next}");
                return Err(Fault::damaged(&name, end.byte, Some(end.next), problem));
            }
            Some(_) => self.index(base, end.ending(), &index)?,
        }
        Ok(end.next)
    }

    /// Compares an index file with what it should be. One that is missing is no damage: it is built at open.
    fn index(&mut self, base: Position, ending: Ending, index: &MemoryIndex) -> Result<(), Fault> {
        let name = index_name(base);
        let names = self.disk.list().map_err(Fault::io("list", "the log"))?;
        if !names.contains(&name) {
            return Ok(());
        }
        let file = self.disk.open(&name).map_err(Fault::io("open", &name))?;
        let right = build(base.get(), ending, index);
        let mut stored = vec![0; right.len()];
        let count = file.read_at(&mut stored, 0).map_err(Fault::io("read", &name))?;
        let length = file.length().map_err(Fault::io("read the length of", &name))?;
        self.found.indexes += 1;
        let differs = stored.iter().zip(&right).position(|(stored, right)| stored != right);
        let differs = differs.or((length != right.len() as u64).then_some(count.min(right.len())));
        match differs {
            None => Ok(()),
            Some(byte) => {
                let problem =
                    "the index is not that of its segment; remove it, and it is built again at open";
                Err(Fault::damaged(&name, byte as u64, Some(base), problem))
            }
        }
    }
}

fn damage_of(fault: Fault) -> Option<(Place, String)> {
    match fault {
        Fault::Damaged { place, problem } => Some((place, problem)),
        Fault::Io { .. } => None,
    }
}
