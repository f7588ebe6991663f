//! Verification: reads the whole log and checks everything that can be checked.
//!
//! Every frame's and record's checksum, every position, every stream's versions, that recorded times never decrease,
//! that segments follow each other, the digest of the log, and each index: whatever is in the log must be found, and
//! nothing else.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use annals_core::{Error, Place, Position, Result, StoreId, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::{Disk, FileDisk};
use crate::error::Fault;
use crate::identity;
use crate::index::{BlockCache, FileIndex, MemoryIndex, compare};
use crate::proof::Proof;
use crate::recovery::{Builder, check_end, check_next, check_runs, open_segment, remains};
use crate::segment::{End, Segment, base_of, run_of, walk};

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
    /// Digest of the whole log, in hexadecimal.
    pub digest: String,
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
    let mut names = disk.list().map_err(Fault::io("list", "the log"))?;
    names.sort_unstable();
    let bases: Vec<Position> = names.iter().filter_map(|name| base_of(name)).collect();
    let mut check = Check { found: Verification::default(), versions: HashMap::new(), proof: None };
    let identity = identity::read(disk, &names).or_else(|fault| check.note(fault).map(|()| None))?;
    let runs = check.open_runs(disk, &names)?;
    let mut total = 0;
    for &base in &bases {
        let name = crate::segment::file_name(base);
        let file = disk.open(&name).map_err(Fault::io("open", &name))?;
        total += file.length().map_err(Fault::io("read the length of", &name))?;
    }
    let mut before =
        Some(End { next: Position::FIRST, link: 0, recorded_at: Timestamp::MIN, ..End::default() });
    let mut head = None;
    let mut id = identity;
    for (index, &base) in bases.iter().enumerate() {
        let next = bases.get(index + 1).copied();
        let end = open_segment(disk, base, &mut id)
            .and_then(|segment| check.segment(disk, &segment, next, before.take(), &runs));
        match end {
            Ok(end) => {
                head = Some(end.next.previous());
                before = Some(end);
            }
            Err(fault) => check.note(fault)?,
        }
        progress(check.found.bytes, total.max(check.found.bytes));
    }
    let whole = identity::check(identity, bases.len());
    // Where the log ends is known if the last segment could be walked.
    let head = before.and(head).or(bases.is_empty().then_some(Position::ZERO));
    let whole = whole.and_then(|()| head.map_or(Ok(()), |head| check_runs(&names, head)));
    whole.or_else(|fault| check.note(fault))?;
    check.found.store = id;
    if let Some(proof) = &check.proof {
        check.found.digest = proof.digest().log().iter().map(|byte| format!("{byte:02x}")).collect();
    }
    Ok(check.found)
}

struct Check {
    found: Verification,
    /// Newest version of each stream, by the hash of its name: 16 bytes a stream.
    versions: HashMap<u64, u64>,
    proof: Option<Proof>,
}

/// Events that are compared with indexes at once.
const CHUNK_EVENTS: u64 = 1 << 16;

impl Check {
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

    /// Opens all indexes. One that is missing is no damage: it is built at open.
    fn open_runs(&mut self, disk: &dyn Disk, names: &[String]) -> Result<Vec<FileIndex>> {
        let cache = Arc::new(BlockCache::new(8 << 20));
        let mut runs = Vec::new();
        for name in names {
            let Some((first, _)) = run_of(name) else { continue };
            let file = disk.open(name).map_err(Fault::io("open", name))?;
            match FileIndex::open(name, file, first, cache.clone()) {
                Ok(index) => runs.push(index),
                Err(fault) => self.note(fault)?,
            }
        }
        self.found.indexes = runs.len() as u64;
        Ok(runs)
    }

    /// Checks one segment, and what indexes say of it; returns where it ends.
    fn segment(
        &mut self,
        disk: &dyn Disk,
        segment: &Segment,
        next: Option<Position>,
        before: Option<End>,
        runs: &[FileIndex],
    ) -> Result<End, Fault> {
        if let Some(before) = before
            && let Err(fault) = check_next(segment, &before)
        {
            self.found.damage.extend(damage_of(fault));
        }
        self.found.segments += 1;
        let length = segment.file.length().map_err(Fault::io("read the length of", &segment.name))?;
        let mut end = End::start_of(&segment.header);
        loop {
            let until = end.next.plus(CHUNK_EVENTS);
            let from = end;
            let (index, walked) = self.walk(segment, from, until)?;
            self.found.appends += walked.appends;
            self.found.events += u64::from(index.count());
            for run in runs {
                let differs = compare(run, from.next, &index)?;
                let damage = differs.map(|problem| Fault::damaged(run.name(), 0, Some(from.next), problem));
                self.found.damage.extend(damage.and_then(damage_of));
            }
            end = walked;
            if end.next < until {
                break;
            }
        }
        let store = segment.header.store;
        let proof = self.proof.get_or_insert_with(|| Proof::begin(store));
        // Behind damage there is no digest.
        if proof.next() == segment.base() {
            let stored = Proof::read(disk, store, Position::MAX);
            if stored.next() > proof.next() && stored.next() <= end.next {
                proof.extend(segment, stored.next())?;
                if proof.next() != stored.next() || proof.digest().log() != stored.digest().log() {
                    let problem = "the digest that is stored is not that of the log";
                    let damage = Fault::damaged(Proof::NAME, 0, Some(stored.next()), problem);
                    self.found.damage.extend(damage_of(damage));
                }
            }
            proof.extend(segment, end.next)?;
        }
        self.found.bytes += length;
        match next {
            None => {
                check_end(segment, &end)?;
                remains(segment, &end)?;
            }
            Some(next) if end.next != next => {
                let problem = format!("a frame is broken, and the next segment begins at position {next}");
                return Err(Fault::damaged(&segment.name, end.byte, Some(end.next), problem));
            }
            Some(_) => {}
        }
        Ok(end)
    }

    /// Walks a part of a segment; returns its index, and where it ends.
    fn walk(&mut self, segment: &Segment, from: End, until: Position) -> Result<(MemoryIndex, End), Fault> {
        let mut builder = Builder::default();
        let versions = &mut self.versions;
        let mut wrong = Vec::new();
        let end = walk(&*segment.file, &segment.header, from, until, |frame| {
            frame.records(|byte, record| {
                let body = crate::body::Body::read(record.body)?;
                let version = versions.entry(xxh3_64(body.stream)).or_default();
                if record.version.get() != *version + 1 {
                    let stream = String::from_utf8_lossy(body.stream);
                    let problem =
                        format!("stream `{stream}` goes from version {version} to {}", record.version);
                    wrong.push(Fault::damaged(&segment.name, byte, Some(record.position), problem));
                }
                *version = record.version.get();
                Ok(())
            })?;
            builder.add(frame)
        })?;
        self.found.damage.extend(wrong.into_iter().filter_map(damage_of));
        Ok((builder.index, end))
    }
}

fn damage_of(fault: Fault) -> Option<(Place, String)> {
    match fault {
        Fault::Damaged { place, problem } => Some((place, problem)),
        Fault::Io { .. } => None,
    }
}
