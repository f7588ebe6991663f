//! Backup: copies the log at a point in time, while it is written to. `restore` copies it back.
//!
//! A [`BackupStorage`] contains segments and manifests:
//!
//! ```text
//! segment-00000000000000000001-5f0c2a9e71d3b846     one object for each sealed segment, copied once
//! segment-00000000000000163841-0b77c1d0e4a2f913     the beginning of the segment that was active then
//! backup-000001.manifest                            a backup: the list of its segments
//! ```
//!
//! - K1  A backup exists when its manifest exists, and the manifest is written last. A backup that stops
//!       earlier has not changed any previous backup.
//! - K2  An object that a manifest lists is never overwritten with other contents: its name contains the
//!       digest of its contents.
//! - K3  A sealed segment is copied up to its end, without the end mark, which may be written later: so the
//!       copy is the same at any time. A segment is identified by its own header and the header of the next
//!       one: if both are the same as when it was copied, it is not read again.
//! - K4  No damage is copied: a segment is checked, frame by frame, before it is copied.
//! - K5  The active segment is copied up to the head at the beginning of the backup: an append is either in
//!       the backup or not.
//! - K6  A backup storage contains the backups of one log. A log that is shorter than its last backup was
//!       restored to an earlier state, or has lost its end: its backup is refused, so that the longer history
//!       is not replaced. A log that was restored to an earlier state and is as long again with other events
//!       is backed up; the backups of the other history are kept until an operator removes them.
//! - K7  A segment that begins after the head is not part of a backup.
//!
//! Next: `manifest` (its text), `storage` (a directory), `restore`.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;

use annals_core::{Clock as _, Error, Invalid, Position, Result, StoreId, SystemClock, Timestamp};
use sha2::{Digest as _, Sha256};

use super::work::{Watched, Work};
use crate::disk::File;
use crate::error::Fault;
use crate::log::segment::{End, HEADER_BYTES, Segment, SegmentHeader, file_name, walk};
use crate::read::view::View;
use crate::store::EngineStore;

mod manifest;
mod restore;
mod storage;

pub use manifest::{Manifest, StoredSegment};
pub use restore::{RestoreOptions, RestorePoint, Restored, restore};
pub use storage::{BackupStorage, DiskBackupStorage};

/// The options of a backup.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// Speed limit, progress and cancellation of the backup. Each copied byte is read twice under the speed
    /// limit: once to check it and once to copy it.
    pub work: Arc<Work>,
    /// Whether all segments of the backup are read back and compared with their digests.
    pub verify: bool,
    /// The number of newest backups to keep, including this one; `None` keeps all.
    pub keep: Option<usize>,
}

impl Default for BackupOptions {
    /// No speed limit, no verification, and no backup is removed.
    fn default() -> Self {
        Self { work: Work::new(None), verify: false, keep: None }
    }
}

/// The result of a backup.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Backup {
    /// The manifest of the backup.
    pub manifest: Manifest,
    /// Number of segments that were copied.
    pub copied: u64,
    /// Number of bytes that were copied.
    pub copied_bytes: u64,
    /// Numbers of the backups that were removed.
    pub removed: Vec<u64>,
    /// Numbers of the backups whose manifests are damaged. While there are any, nothing is removed.
    pub unreadable: Vec<u64>,
    /// The backups up to this number, which is that of the previous backup, are of another history of the
    /// log: it was restored to an earlier state and has other events since. They are kept until an operator
    /// removes `kept-NUMBER`.
    pub other_history: Option<u64>,
}

/// A backup in a backup storage.
#[derive(Debug)]
pub struct BackupEntry {
    /// Its number.
    pub number: u64,
    /// Its manifest; `Damaged` if the manifest is damaged.
    pub manifest: Result<Manifest>,
}

/// All backups in a backup storage, oldest first.
///
/// # Errors
/// If the backup storage cannot be read.
pub fn backups(storage: &dyn BackupStorage) -> Result<Vec<BackupEntry>> {
    let names = storage.list().map_err(Fault::io("list", "the backups"))?;
    numbers(&names).into_iter().map(|number| listed(storage, number)).collect()
}

/// Numbers of the backups among these names, in order.
fn numbers(names: &[String]) -> Vec<u64> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| manifest::number_of(name)).collect();
    numbers.sort_unstable();
    numbers
}

fn listed(storage: &dyn BackupStorage, number: u64) -> Result<BackupEntry> {
    match manifest::read(storage, number) {
        Err(error) if !matches!(error, Error::Damaged { .. }) => Err(error),
        manifest => Ok(BackupEntry { number, manifest }),
    }
}

/// The newest backup that can be read, and the numbers of those after it that cannot.
fn newest(storage: &dyn BackupStorage, names: &[String]) -> Result<(Option<Manifest>, Vec<u64>)> {
    let mut unreadable = Vec::new();
    for number in numbers(names).into_iter().rev() {
        match listed(storage, number)?.manifest {
            Ok(manifest) => return Ok((Some(manifest), unreadable)),
            Err(_) => unreadable.push(number),
        }
    }
    Ok((None, unreadable))
}

/// Reads all segments of a backup and compares them with their digests.
///
/// # Errors
/// `Damaged`, naming the object; or if the backup storage cannot be read.
pub fn verify_backup(storage: &dyn BackupStorage, backup: &Manifest, work: &Work) -> Result<()> {
    work.set_done(0);
    work.set_total(backup.bytes());
    for segment in &backup.segments {
        segment.read(storage, work, &mut |_| Ok(()))?;
    }
    Ok(())
}

impl EngineStore {
    /// Copies the log up to its head to a backup storage. Segments from earlier backups are not copied again.
    /// Appends and reads continue. It blocks for a long time, so call it on a separate thread, and only once
    /// at a time for each backup storage.
    ///
    /// # Errors
    /// `Invalid` if the backup storage contains backups of another log or of a longer history; `Damaged` if
    /// the log is damaged; `Unavailable` if the log or the storage cannot be read or written. Earlier backups
    /// are unchanged then.
    pub fn backup(&self, storage: &dyn BackupStorage, options: &BackupOptions) -> Result<Backup> {
        self.check_process()?;
        let log = self.log();
        let names = storage.list().map_err(Fault::io("list", "the backups"))?;
        let (last, mut unreadable) = newest(storage, &names)?;
        let number = numbers(&names).last().map_or(1, |number| number.saturating_add(1));
        if let Some(other) = last.as_ref().filter(|last| last.store != log.id) {
            let problem = format!("holds backups of the log {}, and this is the log {}", other.store, log.id);
            return Err(Invalid::new("the destination", problem).into());
        }
        for name in names.iter().filter(|name| name.ends_with(storage::ON_ITS_WAY)) {
            storage.remove(name).map_err(Fault::io("remove", name))?;
        }
        // Taken before the view: so the backup contains everything that was recorded until then.
        let created_at = SystemClock.now();
        let view = log.view();
        if let Some(longer) = last.as_ref().filter(|last| last.head > view.head) {
            let problem = format!(
                "holds backup {} of this log, up to position {}, and the log ends at position {}: it was set back to an \
                 earlier time, or has lost its end. The longer history is kept; back up to another destination",
                longer.number, longer.head, view.head
            );
            return Err(Invalid::new("the destination", problem).into());
        }
        let mut copy = Copy {
            view,
            store: log.id,
            storage,
            there: names.into_iter().collect(),
            work: &options.work,
            copied: 0,
            copied_bytes: 0,
        };
        let (segments, continues) = copy.all(last.as_ref())?;
        let other_history = last.filter(|_| !continues).map(|last| last.number);
        if let Some(number) = other_history {
            keep_history(storage, number)?;
        }
        let recorded_at = segments.last().map_or(Timestamp::MIN, |segment| segment.recorded_at);
        let manifest =
            Manifest { store: log.id, number, created_at, head: copy.view.head, recorded_at, segments };
        manifest.write(storage)?;
        log.note_durable(manifest.head);
        if options.verify {
            verify_backup(storage, &manifest, &options.work)?;
        }
        let mut removed = Vec::new();
        if let Some(keep) = options.keep {
            (removed, unreadable) = keep_newest(storage, keep)?;
        }
        let (copied, copied_bytes) = (copy.copied, copy.copied_bytes);
        Ok(Backup { manifest, copied, copied_bytes, removed, unreadable, other_history })
    }
}

/// Removes all but the newest backups, and then the objects that no remaining backup needs. Removes neither
/// backups nor objects if a manifest cannot be read, because the objects that it needs are unknown. Returns
/// the numbers of the removed and of the unreadable backups.
fn keep_newest(storage: &dyn BackupStorage, keep: usize) -> Result<(Vec<u64>, Vec<u64>)> {
    let listed = backups(storage)?;
    let unreadable: Vec<u64> =
        listed.iter().filter(|one| one.manifest.is_err()).map(|one| one.number).collect();
    if !unreadable.is_empty() {
        return Ok((Vec::new(), unreadable));
    }
    let names = storage.list().map_err(Fault::io("list", "the backups"))?;
    let of_another = names.iter().filter_map(|name| kept_up_to(name)).max().unwrap_or(0);
    let all = listed.into_iter().filter_map(|one| one.manifest.ok());
    let (mut kept, all): (Vec<Manifest>, Vec<Manifest>) = all.partition(|backup| backup.number <= of_another);
    let (old, newest) = all.split_at(all.len().saturating_sub(keep.max(1)));
    kept.extend_from_slice(newest);
    for backup in old {
        let name = manifest::name(backup.number);
        storage.remove(&name).map_err(Fault::io("remove", &name))?;
    }
    let needed: HashSet<String> =
        kept.iter().flat_map(|backup| &backup.segments).map(StoredSegment::name).collect();
    for name in storage.list().map_err(Fault::io("list", "the backups"))? {
        if manifest::is_segment(&name) && !needed.contains(&name) {
            storage.remove(&name).map_err(Fault::io("remove", &name))?;
        }
    }
    Ok((old.iter().map(|backup| backup.number).collect(), unreadable))
}

/// The prefix of an object `kept-NUMBER`: the backups up to this number are of another history of the log.
const KEPT: &str = "kept-";

/// Records that the backups up to this number are of another history, so that none of them is removed.
fn keep_history(storage: &dyn BackupStorage, number: u64) -> Result<()> {
    let name = format!("{KEPT}{number:06}");
    let text = "The backups up to this number are of another history of the log: it was set back and has gone another way \
                since. They are kept until somebody removes this file.\n";
    match storage.create(&name, text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => Ok(created.map_err(Fault::io("write", &name))?),
    }
}

fn kept_up_to(name: &str) -> Option<u64> {
    name.strip_prefix(KEPT)?.parse().ok()
}

/// A backup in progress.
struct Copy<'a> {
    view: View,
    store: StoreId,
    storage: &'a dyn BackupStorage,
    /// Names of the objects in the backup storage.
    there: HashSet<String>,
    work: &'a Arc<Work>,
    copied: u64,
    copied_bytes: u64,
}

impl Copy<'_> {
    /// Copies the segments that the storage lacks. Returns the segments of the backup, and whether the log
    /// continues that of the last backup.
    fn all(&mut self, last: Option<&Manifest>) -> Result<(Vec<StoredSegment>, bool)> {
        // A segment after the head was created while the view was taken: the segment that contains the head
        // is the last.
        let mut segments = self.view.segments().to_vec();
        segments.retain(|segment| segment.base() <= self.view.head.next());
        let is_there = |stored: &StoredSegment| segments.iter().any(|segment| segment.base() == stored.base);
        // Segments without events are not compared with the history: a crash or a restore may have recreated
        // them.
        let with_events =
            || last.iter().flat_map(|last| &last.segments).filter(|stored| stored.last >= stored.base);
        let mut continues = with_events().all(is_there);
        let mut marks = Vec::with_capacity(segments.len());
        for (index, segment) in segments.iter().enumerate() {
            let next = segments.get(index + 1);
            marks.push(next.map(|next| mark(&*segment.file, &*next.file, segment.base())).transpose()?);
        }
        let known = |base: Position, mark: &Option<String>| {
            let stored = last?.segments.iter().find(|stored| stored.base == base)?;
            (mark.is_some() && stored.mark == *mark && self.there.contains(&stored.name()))
                .then(|| stored.clone())
        };
        let known: Vec<_> =
            segments.iter().zip(&marks).map(|(segment, mark)| known(segment.base(), mark)).collect();
        let mut total = 0;
        for (segment, known) in segments.iter().zip(&known) {
            if known.is_none() {
                total += 2 * segment.file.length().map_err(Fault::io("read", &segment.name))?;
            }
        }
        self.work.set_done(0);
        self.work.set_total(total);
        let mut stored = Vec::with_capacity(segments.len());
        for (index, (known, mark)) in known.into_iter().zip(marks).enumerate() {
            stored.push(match known {
                Some(known) => known,
                None => {
                    let next = segments.get(index + 1).map(|next| next.base());
                    let before = with_events().find(|stored| stored.base == segments[index].base());
                    let (stored, begins_alike) = self.segment(&segments[index], next, mark, before)?;
                    continues &= begins_alike;
                    stored
                }
            });
        }
        Ok((stored, continues))
    }

    /// Copies a whole sealed segment, or the active one up to the head. Also returns whether the segment
    /// begins with the bytes that were copied from it before.
    fn segment(
        &mut self,
        segment: &Segment,
        next: Option<Position>,
        mark: Option<String>,
        before: Option<&StoredSegment>,
    ) -> Result<(StoredSegment, bool)> {
        let Segment { name, file, .. } = segment;
        let base = segment.base();
        let done = self.work.progress().0;
        let whole = file.length().map_err(Fault::io("read the length of", name))?;
        let watched = Arc::new(Watched::whole(file.clone(), self.work));
        let header = SegmentHeader::read(&*watched, base)?;
        if header.store != self.store {
            return Err(Fault::damaged(name, 16, Some(base), "the segment is of another log").into());
        }
        let until = next.map_or(self.view.head.next(), |_| Position::MAX);
        let end = walk(&*watched, &header, End::start_of(&header), until, |_| Ok(()))?;
        let should = next.unwrap_or(until);
        if end.next != should || !watched.unreadable().is_empty() {
            let problem =
                format!("a frame is broken, and the log continues to position {}", should.previous());
            return Err(Fault::damaged(name, end.byte, Some(end.next), problem).into());
        }
        let mut reader = Digested::new(&**file, end.byte);
        let mut begins_alike = true;
        if let Some(before) = before {
            reader.end = before.bytes.min(end.byte);
            io::copy(&mut reader, &mut io::sink()).map_err(Fault::io("read", name))?;
            begins_alike = reader.at == before.bytes && reader.digest.clone().finalize()[..] == before.digest;
            reader.end = end.byte;
        }
        io::copy(&mut reader, &mut io::sink()).map_err(Fault::io("read", name))?;
        let stored = StoredSegment {
            base,
            last: end.next.previous(),
            bytes: end.byte,
            digest: reader.digest.finalize().into(),
            mark,
            recorded_at: end.recorded_at,
        };
        if !self.there.contains(&stored.name()) {
            self.work.set_done(done + whole);
            let watched = Watched::beginning(file.clone(), end.byte, self.work);
            let mut reader = Digested::new(&watched, end.byte);
            let object = stored.name();
            self.storage.put(&object, &mut reader, end.byte).map_err(Fault::io("write", &object))?;
            let copied: [u8; 32] = reader.digest.finalize().into();
            if copied != stored.digest {
                // The name of the object does not match its contents.
                self.storage.remove(&object).map_err(Fault::io("remove", &object))?;
                let problem = "the disk returned different bytes when the segment was read again";
                return Err(Fault::damaged(name, 0, Some(base), problem).into());
            }
            self.copied += 1;
            self.copied_bytes += end.byte;
        }
        self.work.set_done(done + 2 * whole);
        Ok((stored, begins_alike))
    }
}

/// The mark that identifies a sealed segment: the digest of its header and that of the next one.
fn mark(file: &dyn File, next: &dyn File, base: Position) -> Result<String, Fault> {
    let mut digest = Sha256::new();
    for file in [file, next] {
        let mut header = [0; HEADER_BYTES as usize];
        let count = file.read_at(&mut header, 0).map_err(Fault::io("read", &file_name(base)))?;
        digest.update(&header[..count]);
    }
    Ok(manifest::hexadecimal(&digest.finalize()))
}

/// Reads the first bytes of a file in sequence, and computes their digest.
struct Digested<'a> {
    file: &'a dyn File,
    at: u64,
    end: u64,
    digest: Sha256,
}

impl<'a> Digested<'a> {
    fn new(file: &'a dyn File, end: u64) -> Self {
        Self { file, at: 0, end, digest: Sha256::new() }
    }
}

impl Read for Digested<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..left], self.at)?;
        self.digest.update(&buffer[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use annals_core::{Append, EventStore, Expected, NewEvent, StreamId};

    use super::*;
    use crate::Options;
    use crate::disk::faulty::FaultyDisk;

    /// If the view is taken while a segment is created, the copy is complete.
    #[test]
    fn a_segment_that_begins_meanwhile_is_no_damage() {
        let options = Options { segment_bytes: 300, ..Options::default() };
        for _ in 0..20 {
            let disk = FaultyDisk::new();
            let store = Arc::new(EngineStore::on(Arc::new(disk), options.clone()).unwrap());
            let writer = {
                let store = store.clone();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    for _ in 0..300 {
                        let one = NewEvent::new("thing.happened", "1").unwrap();
                        let one = Append::to(StreamId::new("a").unwrap(), Expected::Any, [one]);
                        runtime.block_on(store.append(one)).unwrap();
                    }
                })
            };
            while !writer.is_finished() {
                let view = store.log().view();
                let last = view.segments().last().unwrap().base();
                if last <= view.head.next() {
                    continue;
                }
                let (head, place) = (view.head, DiskBackupStorage::new(Arc::new(FaultyDisk::new())));
                let mut copy = Copy {
                    view,
                    store: store.log().id,
                    storage: &place,
                    there: HashSet::new(),
                    work: &Work::new(None),
                    copied: 0,
                    copied_bytes: 0,
                };
                if let Err(error) = copy.all(None) {
                    panic!("head {head}, the last segment begins at {last}: {}", error.chain());
                }
            }
            writer.join().unwrap();
        }
    }
}
