//! Verification: reads the whole log and checks everything that can be checked.
//!
//! It checks the checksums of all frames and records, positions, the versions of streams, that recorded times
//! do not decrease, that segments follow each other, the digest of the log, and that each index contains all
//! events of its run. Damage is reported with its location and with what is lost, and the log after it is
//! checked too.
//!
//! - W1  An open store is verified while it is written to: sealed segments as a whole, the active one up to
//!       the head. Nothing is locked, and appends do not wait.
//! - W2  Reads are limited to the rate of `Work`.
//! - W3  A pass that is stopped or killed resumes at the end of a segment: its state is in a derived file
//!       beside the log (`progress`), with the newest version of each stream. That is 16 bytes per stream on
//!       disk, and about twice that in memory while it runs.
//!
//! Next below: `pass` (the checks), then `segment::walk` and, after damage, `salvage`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use annals_core::{Error, Location, Position, Result, StoreId, Timestamp};

use super::work::Work;
use crate::disk::{Disk, FileDisk};
use crate::error::Fault;
use crate::log::durable;
use crate::log::segment::base_of;
use crate::store::EngineStore;

mod pass;
mod progress;
mod runs;

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Digest of the whole log, in hexadecimal; empty if there is damage, or if the log has no segment.
    pub digest: String,
    /// Position of the last event that was checked.
    pub head: Position,
    /// The damage that was found. Empty if the store is intact.
    pub damage: Vec<Damage>,
    /// The position at which an earlier pass was resumed; the figures above include that pass.
    pub resumed: Option<Position>,
    /// Whether the end was reached. If not, the rest of the log was not checked.
    pub finished: bool,
}

/// Damage that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The location.
    pub location: Location,
    /// A description.
    pub problem: String,
    /// The events that are lost because of it.
    pub lost: Lost,
}

/// The events that are lost because of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// No event is lost by this damage itself.
    Nothing,
    /// These events.
    Events {
        /// Position of the first.
        first: Position,
        /// Position of the last.
        last: Position,
    },
    /// The end of the log; the number of events is unknown.
    Rest {
        /// Position of the first lost event.
        first: Position,
    },
}

impl Lost {
    /// The events from `first` up to the one before `next`; `Nothing` if there are none.
    pub(crate) fn between(first: Position, next: Position) -> Self {
        if first < next { Self::Events { first, last: next.previous() } } else { Self::Nothing }
    }

    /// Number of events; `None` if it is unknown.
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Nothing => Some(0),
            Self::Events { first, last } => Some(last.get() - first.get() + 1),
            Self::Rest { .. } => None,
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no event is lost"),
            Self::Events { first, last } if first == last => {
                write!(f, "the event at position {first} is lost")
            }
            Self::Events { first, last } => {
                write!(
                    f,
                    "the {} events at positions {first} to {last} are lost",
                    last.get() - first.get() + 1
                )
            }
            Self::Rest { first } => {
                write!(f, "everything from position {first} on is lost; the number of events is unknown")
            }
        }
    }
}

/// A callback for damage that is found.
pub type OnDamage = Arc<dyn Fn(&Damage) + Send + Sync>;

/// The options of a verification.
#[derive(Clone)]
pub struct VerifyOptions {
    /// Speed limit, progress and cancellation of the pass.
    pub work: Arc<Work>,
    /// Whether to resume an earlier pass that was stopped, if there is one.
    pub resume: bool,
    /// Called for each damage when it is found, and for the damage in a segment when that segment is done; a
    /// pass may take days.
    pub on_damage: Option<OnDamage>,
}

impl Default for VerifyOptions {
    /// From the beginning, without a speed limit.
    fn default() -> Self {
        Self { work: Work::new(None), resume: false, on_damage: None }
    }
}

/// The record of the last pass that reached the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastPass {
    /// When it ended.
    pub finished_at: Timestamp,
    /// Position of the last event that it checked.
    pub head: Position,
    /// Number of damages that it found.
    pub damage: u64,
}

/// Checks every checksum, position, version, digest and index of the store in this directory, which no
/// process may have open. Changes nothing in the log; writes only derived files beside it: its progress, and
/// how far the log is durable.
///
/// # Errors
/// If the directory is not a store, is in use, or cannot be read.
pub fn verify_with(directory: impl AsRef<Path>, options: &VerifyOptions) -> Result<Verification> {
    let disk = look_at(directory.as_ref())?;
    verify_disk_with(&*disk, options)
}

/// Like [`verify_with`], from the beginning. `progress` is called once at the end, with the bytes read and
/// their total.
///
/// # Errors
/// As [`verify_with`].
pub fn verify(directory: impl AsRef<Path>, progress: &mut dyn FnMut(u64, u64)) -> Result<Verification> {
    let disk = look_at(directory.as_ref())?;
    verify_disk(&*disk, progress)
}

/// Like [`verify`], on any disk.
///
/// # Errors
/// If the disk cannot be read.
pub fn verify_disk(disk: &dyn Disk, progress: &mut dyn FnMut(u64, u64)) -> Result<Verification> {
    let options = VerifyOptions::default();
    let (found, _) = pass::run(disk, &options, false, &mut || closed(disk))?;
    let (done, total) = options.work.progress();
    progress(done, total);
    Ok(found)
}

/// Like [`verify_with`], on any disk.
///
/// # Errors
/// If the disk cannot be read.
pub fn verify_disk_with(disk: &dyn Disk, options: &VerifyOptions) -> Result<Verification> {
    let (found, durable) = pass::run(disk, options, true, &mut || closed(disk))?;
    if let (Some(store), Some(durable)) = (found.store, durable)
        && disk.is_writable()
        && let Err(fault) = durable::write(disk, store, durable)
    {
        tracing::warn!(
            error = &fault as &dyn std::error::Error,
            "how far the log was verified to be durable cannot be written"
        );
    }
    Ok(found)
}

/// The last pass over the store in this directory that reached the end, if one is recorded. A process may
/// have the store open.
///
/// # Errors
/// If the directory is not a store, or cannot be read.
pub fn last_pass(directory: impl AsRef<Path>) -> Result<Option<LastPass>> {
    let log = directory.as_ref().join("log");
    let disk = FileDisk::reading(&log).map_err(Fault::io("read", &log.display().to_string()))?;
    Ok(progress::last(&disk, None)?)
}

impl EngineStore {
    /// Like [`verify_with`], while the store is open and written to: checks the log up to the head. It blocks
    /// for a long time, so call it on a separate thread, and run one pass at a time.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn verify(&self, options: &VerifyOptions) -> Result<Verification> {
        self.check_place()?;
        let log = self.log();
        let (found, durable) = pass::run(&*log.disk, options, true, &mut || {
            let view = log.view();
            let bases = view.segments().iter().map(|segment| segment.base()).collect();
            Ok(pass::Extent { bases, head: Some(view.head) })
        })?;
        if let Some(durable) = durable {
            log.note_durable(durable.position);
        }
        Ok(found)
    }

    /// The last pass that reached the end, if one is recorded.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn last_pass(&self) -> Result<Option<LastPass>> {
        Ok(progress::last(&*self.log().disk, Some(self.log().id))?)
    }
}

/// The extent of the log of a store that is not open.
fn closed(disk: &dyn Disk) -> Result<pass::Extent, Fault> {
    let names = disk.list().map_err(Fault::io("list", "the log"))?;
    let mut bases: Vec<Position> = names.iter().filter_map(|name| base_of(name)).collect();
    bases.sort_unstable();
    Ok(pass::Extent { bases, head: None })
}

/// Opens the disk of a store that no process has open; read-only if it cannot be written.
fn look_at(directory: &Path) -> Result<Box<dyn Disk>> {
    let name = directory.display().to_string();
    if !directory.join("log").is_dir() {
        return Err(Error::NoStore(format!("{name} holds none").into()));
    }
    let disk = FileDisk::open_or_look(directory).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => {
            Error::Unavailable(format!("{name} is open in another process; stop it to verify").into())
        }
        _ => Fault::io("open", &name)(error).into(),
    })?;
    Ok(Box::new(disk))
}
