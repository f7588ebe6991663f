//! Restore: copies the log of a backup to a new directory, up to a point.
//!
//! - Z1  Each segment is compared with the digest that was computed when it was copied.
//! - Z2  The log ends with the last append that ends at or before the point: an append is restored whole or
//!       not at all (G2).
//! - Z3  Its first segment appears last. Until then the directory cannot be opened as a store: there is an
//!       identity, and no segment that begins the log. Each segment except the last gets an end mark, as in
//!       the original log.
//! - Z4  It is the same log in an earlier state, with the same identity: the segments contain it, and every
//!       digest covers it. A checkpoint that is ahead of it is detected by the witness that the checkpoint
//!       contains.
//!
//! Next below: `manifest`, and `segment::walk`, which finds the byte at which to cut.

use std::io;
use std::sync::Arc;

use annals_core::{Clock as _, EventStore as _, Invalid, Position, Result, StoreId, SystemClock, Timestamp};

use super::{BackupStorage, Manifest, StoredSegment, manifest};
use crate::disk::{Disk, File, LastUse};
use crate::error::Fault;
use crate::log::frame::{self, Mark};
use crate::log::identity;
use crate::log::segment::{End, SegmentHeader, file_name, walk};
use crate::maintenance::verify::{Verification, VerifyOptions, verify_disk_with};
use crate::maintenance::work::{Stopped, Work};
use crate::{EngineStore, Options};

/// The point up to which a log is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestorePoint {
    /// Up to this position.
    Position(Position),
    /// Up to this recorded time.
    Time(Timestamp),
}

/// The options of a restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Speed limit, progress and cancellation of the restore.
    pub work: Arc<Work>,
    /// Number of the backup; `None` is the newest.
    pub backup: Option<u64>,
    /// The point up to which it is restored; `None` restores all of it.
    pub to: Option<RestorePoint>,
}

impl Default for RestoreOptions {
    /// All of the newest backup.
    fn default() -> Self {
        Self { work: Work::new(None), backup: None, to: None }
    }
}

/// The result of a restore.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Restored {
    /// Identity of the log, which is that of the original log.
    pub store: StoreId,
    /// Number of the backup.
    pub backup: u64,
    /// Position of the last event.
    pub head: Position,
    /// Recorded time of that event, if there is one.
    pub recorded_at: Option<Timestamp>,
    /// Number of bytes that were read from the backup storage.
    pub bytes: u64,
    /// The verification of the restored log. It found no damage.
    pub verification: Verification,
}

/// Restores a backup to a disk, which must be empty; then opens the log, which builds its indexes, and
/// verifies it.
///
/// # Errors
/// `Invalid` if there is no such backup, or if it ends before the point; `Damaged`, with the name of the
/// object, if an object of the backup is damaged; `Unavailable` if the backup storage cannot be read or the
/// disk cannot be written.
pub fn restore(
    storage: &dyn BackupStorage,
    disk: Arc<dyn Disk>,
    options: &RestoreOptions,
) -> Result<Restored> {
    let backup = chosen(storage, options.backup)?;
    let wanted = needed(&backup, options.to)?;
    let work = &options.work;
    work.set_done(0);
    work.set_total(wanted.iter().map(|segment| segment.bytes).sum());
    identity::write(&*disk, backup.store)?;
    let mut end = Ended { head: Position::ZERO, recorded_at: Timestamp::MIN };
    let mut there: Vec<&StoredSegment> = Vec::new();
    for (index, stored) in wanted.iter().enumerate() {
        let last = index + 1 == wanted.len();
        let point = options.to.filter(|_| last);
        match fetch(storage, &*disk, stored, &backup, point, work)? {
            // A segment without events up to the point is not needed, unless it is the only one.
            fetched if fetched.head < stored.base && index > 0 => {
                let name = on_its_way(stored.base);
                disk.remove(&name).map_err(Fault::io("remove", &name))?;
            }
            fetched => {
                end = fetched;
                there.push(stored);
            }
        }
    }
    // Rename from the last to the first (Z3).
    for (number, stored) in there.iter().enumerate().rev() {
        let base = stored.base;
        if number + 1 < there.len() {
            mark_end(&*disk, stored)?;
        }
        if number == 0 {
            disk.sync_directory().map_err(Fault::io("sync", "the log"))?;
        }
        let (name, file) = (on_its_way(base), file_name(base));
        disk.rename(&name, &file).map_err(Fault::io("rename", &name))?;
    }
    disk.sync_directory().map_err(Fault::io("sync", "the log"))?;
    // The store is in use now, even if its events are old.
    disk.note_use(LastUse::at(SystemClock.now()));
    let store = EngineStore::on(disk.clone(), Options::default())?;
    let (head, id) = (store.log().view().head, store.id());
    drop(store);
    if head != end.head || id != backup.store {
        let name = manifest::name(backup.number);
        let problem = format!(
            "it is a backup of the log {} up to position {}, but its segments contain the log {id} up to {head}",
            backup.store, end.head
        );
        return Err(Fault::damaged(&name, 0, Some(head), problem).into());
    }
    let bytes = work.progress().0;
    let options = VerifyOptions { work: work.clone(), ..VerifyOptions::default() };
    let verification = verify_disk_with(&*disk, &options)?;
    if !verification.finished {
        return Err(Stopped.into());
    }
    if let Some(damage) = verification.damage.first() {
        let location = damage.location.clone();
        return Err(Fault::Damaged { location, problem: damage.problem.clone() }.into());
    }
    Ok(Restored {
        store: backup.store,
        backup: backup.number,
        head: end.head,
        recorded_at: (end.head > Position::ZERO).then_some(end.recorded_at),
        bytes,
        verification,
    })
}

/// The end of a log.
struct Ended {
    head: Position,
    recorded_at: Timestamp,
}

fn chosen(storage: &dyn BackupStorage, number: Option<u64>) -> Result<Manifest> {
    let names = storage.list().map_err(Fault::io("list", "the backups"))?;
    let mut numbers = names.iter().filter_map(|name| manifest::number_of(name));
    let found = match number {
        Some(number) => numbers.find(|found| *found == number),
        None => numbers.max(),
    };
    let missing = || match number {
        Some(number) => Invalid::new(format!("backup {number}"), "is not there"),
        None => Invalid::new("the source", "holds no backup"),
    };
    manifest::read(storage, found.ok_or_else(missing)?)
}

/// The segments that contain the log up to the point, which may be within the last of them.
fn needed(backup: &Manifest, to: Option<RestorePoint>) -> Result<&[StoredSegment]> {
    let segments = &backup.segments;
    let count = match to {
        None => segments.len(),
        Some(RestorePoint::Position(position)) if position > backup.head => {
            let problem =
                format!("is {position}, and backup {} ends at position {}", backup.number, backup.head);
            return Err(Invalid::new("the point", problem).into());
        }
        Some(RestorePoint::Position(position)) => {
            segments.partition_point(|segment| segment.base <= position)
        }
        Some(RestorePoint::Time(time)) if time > backup.created_at.max(backup.recorded_at) => {
            let problem =
                format!("is {time}, and backup {} was made at {}", backup.number, backup.created_at);
            return Err(Invalid::new("the point", problem).into());
        }
        Some(RestorePoint::Time(time)) => segments.partition_point(|segment| segment.recorded_at <= time) + 1,
    };
    Ok(&segments[..count.clamp(1, segments.len())])
}

fn on_its_way(base: Position) -> String {
    format!("{}.tmp", file_name(base))
}

/// Copies a segment to the disk under its temporary name, up to the point.
fn fetch(
    storage: &dyn BackupStorage,
    disk: &dyn Disk,
    stored: &StoredSegment,
    backup: &Manifest,
    point: Option<RestorePoint>,
    work: &Work,
) -> Result<Ended, Fault> {
    let name = on_its_way(stored.base);
    let file = disk.create(&name).map_err(Fault::io("create", &name))?;
    let mut at = 0;
    // Set if the disk failed, and not the backup storage.
    let mut failed: Option<io::Error> = None;
    let copied = stored.read(storage, work, &mut |part| {
        file.write_at(part, at).map_err(|error| {
            let kind = error.kind();
            failed = Some(error);
            io::Error::from(kind)
        })?;
        at += part.len() as u64;
        Ok(())
    });
    if let Some(error) = failed {
        return Err(Fault::io("write", &name)(error));
    }
    copied?;
    let mut end = Ended { head: stored.last, recorded_at: stored.recorded_at };
    if let Some(point) = point {
        end = cut(&file, stored, backup, point)?;
    }
    file.sync().map_err(Fault::io("sync", &name))?;
    Ok(end)
}

/// Truncates a segment at the point.
fn cut(
    file: &Arc<dyn File>,
    stored: &StoredSegment,
    backup: &Manifest,
    point: RestorePoint,
) -> Result<Ended, Fault> {
    let header = SegmentHeader::read(&**file, stored.base)?;
    if header.store != backup.store {
        return Err(Fault::damaged(&stored.name(), 16, Some(stored.base), "the segment is of another log"));
    }
    let is_beyond = |position: Position, recorded_at: Timestamp| match point {
        RestorePoint::Position(last) => position > last,
        RestorePoint::Time(last) => recorded_at > last,
    };
    // If one event of an append is beyond the point, the whole append is.
    let mut cut = Position::MAX;
    let walk = |until: Position, cut: &mut Position| {
        walk(&**file, &header, End::start_of(&header), until, |frame| {
            frame.records(|_, record| {
                if is_beyond(record.position, record.recorded_at) {
                    *cut = frame.header.first.min(*cut);
                }
                Ok(())
            })
        })
    };
    let mut end = walk(Position::MAX, &mut cut)?;
    if cut < Position::MAX {
        let until = cut;
        end = walk(until, &mut cut)?;
    }
    file.truncate(end.byte).map_err(Fault::io("cut", &on_its_way(stored.base)))?;
    Ok(Ended { head: end.next.previous(), recorded_at: end.recorded_at })
}

/// Writes the end mark of a segment that is not the last: so the loss of the next one is detected.
fn mark_end(disk: &dyn Disk, stored: &StoredSegment) -> Result<(), Fault> {
    let name = on_its_way(stored.base);
    let file = disk.open(&name).map_err(Fault::io("open", &name))?;
    let origin = SegmentHeader::read(&*file, stored.base)?.origin();
    let (mark, _) = frame::mark(Mark::End, stored.last, origin);
    file.write_at(&mark, stored.bytes).map_err(Fault::io("write", &name))?;
    file.sync().map_err(Fault::io("sync", &name))
}
