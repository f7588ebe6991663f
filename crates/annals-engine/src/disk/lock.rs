//! The file `LOCK`: locked by the process that has the directory open. It also records the last use of the
//! store.
//!
//! ```text
//! | time, padded with spaces 40 | newline | token of the process that has the lock 36 | newline |
//! ```
//!
//! The time may be followed by a space and a day: since that day the clock is behind the time.
//!
//! - L1  The text has a fixed length and is overwritten as a whole. Earlier versions left the file empty;
//!       then its modification time is used instead.
//! - L2  The token distinguishes the file from another file of the same name, even on a file system where
//!       inode numbers change.
//! - L3  Only a regular file of at most that length is overwritten: a link of this name may lead to another
//!       program's file.
//! - L4  No guarantee depends on the text: it is not synced, and a failed write, as on a full disk, does not
//!       prevent opening.
//!
//! Next above: `disk`; `clock` uses the time.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use annals_core::{StoreId, Timestamp};

use super::{FileNumber, number_of, private};

/// The name of the file.
pub const NAME: &str = "LOCK";
/// Bytes of the time and its newline.
const TIME_BYTES: usize = 41;
/// Bytes of the text.
const TEXT_BYTES: u64 = 78;

/// How long to wait for a forked child to execute its program, and how often to try the lock meanwhile.
const FORK_MAX: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(10);

/// The last use of a store with a plausible clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// The time of the last use.
    pub at: Timestamp,
    /// Since when the clock is behind that time. In the file only the day is stored, so it is read back as
    /// the start of the day.
    pub doubted_since: Option<Timestamp>,
}

impl LastUse {
    /// A last use at this time, not contradicted by the clock.
    pub fn at(at: Timestamp) -> Self {
        Self { at, doubted_since: None }
    }

    fn parse(text: &str) -> Option<Self> {
        let (at, day) = text.split_once(' ').map_or((text, None), |(at, day)| (at, Some(day)));
        Some(Self { at: at.parse().ok()?, doubted_since: day.map(str::parse).transpose().ok()? })
    }
}

impl fmt::Display for LastUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.at)?;
        match self.doubted_since {
            Some(since) => write!(f, " {:.10}", since.to_string()),
            None => Ok(()),
        }
    }
}

/// The locked file.
pub struct LockFile {
    path: PathBuf,
    file: fs::File,
    number: FileNumber,
    token: String,
}

impl LockFile {
    /// Acquires the lock of this directory. Creates the file with this mode if it does not exist.
    ///
    /// # Errors
    /// `WouldBlock` if another process has the lock; `InvalidInput` if the file of this name is not a lock
    /// file; otherwise as the operating system's.
    pub fn acquire(root: &Path, mode: u32) -> io::Result<Self> {
        let path = root.join(NAME);
        let there = match fs::symlink_metadata(&path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if there.as_ref().is_some_and(|there| !there.is_file() || there.len() > TEXT_BYTES) {
            let problem =
                format!("{} is not a lock file: check which program owns it, and remove it", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let is_new = there.is_none();
        let file = private::file().read(true).write(true).create(true).truncate(false).open(&path)?;
        let file = locked(file, true)?;
        let found = file.metadata()?;
        if is_new {
            private::set_mode(&file, mode);
        }
        let lock = Self { path, number: number_of(&found), file, token: StoreId::generate().to_string() };
        let written_at = Timestamp::from_micros(found.mtime().saturating_mul(1_000_000));
        lock.note(if is_new || found.len() > 0 { lock.last_use() } else { Some(LastUse::at(written_at)) });
        Ok(lock)
    }

    /// The last use of the store, if it is in the file.
    pub fn last_use(&self) -> Option<LastUse> {
        let mut text = [0; TIME_BYTES];
        self.file.read_exact_at(&mut text, 0).ok()?;
        LastUse::parse(std::str::from_utf8(&text).ok()?.trim())
    }

    /// Writes the last use of the store.
    pub fn note(&self, last: Option<LastUse>) {
        let time = last.map(|last| last.to_string()).unwrap_or_default();
        let text = format!("{time:<width$}\n{}\n", self.token, width = TIME_BYTES - 1);
        if let Err(error) = self.file.write_all_at(text.as_bytes(), 0) {
            tracing::warn!(file = %self.path.display(), %error, "when the store was in use cannot be written");
        }
    }

    /// Whether the path still refers to the locked file.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn is_in_place(&self) -> io::Result<bool> {
        let is_there = || {
            if super::is_known(super::number_at(&self.path)?, self.number) {
                return Ok(true);
            }
            Ok(fs::read(&self.path)?
                .get(TIME_BYTES..)
                .is_some_and(|text| text.starts_with(self.token.as_bytes())))
        };
        super::found(is_there())
    }
}

/// Locks a file, `alone` or shared. Waits a little if the lock is held: after its owner released it, a forked
/// child of the owner still has it until the child executes its program.
///
/// # Errors
/// `WouldBlock` if another process has the lock; otherwise as the operating system's.
pub fn locked(lock: fs::File, alone: bool) -> io::Result<fs::File> {
    let begun = Instant::now();
    loop {
        match if alone { lock.try_lock() } else { lock.try_lock_shared() } {
            Ok(()) => return Ok(lock),
            Err(fs::TryLockError::WouldBlock) if begun.elapsed() < FORK_MAX => std::thread::sleep(LOOK),
            Err(fs::TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Locks the directory itself; `None` if the file system cannot lock directories.
///
/// # Errors
/// As of [`locked`].
pub fn locked_directory(directory: &Path, alone: bool) -> io::Result<Option<fs::File>> {
    match locked(fs::File::open(directory)?, alone) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(None),
        held => held.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_of_the_name_leads_to_is_not_written_over() {
        let place = tempfile::tempdir().unwrap();
        let (other, path) = (place.path().join("other"), place.path().join(NAME));
        fs::write(&other, "of somebody else").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let refused = LockFile::acquire(place.path(), 0o600).err().unwrap();
        assert!(refused.to_string().contains("is not a lock file"), "{refused}");
        assert_eq!(fs::read_to_string(&other).unwrap(), "of somebody else");
        fs::remove_file(&path).unwrap();
        fs::write(&path, [b'x'; 79]).unwrap();
        assert!(LockFile::acquire(place.path(), 0o600).is_err());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(LockFile::acquire(place.path(), 0o600).is_err());
        fs::remove_dir(&path).unwrap();
        drop(LockFile::acquire(place.path(), 0o600).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), TEXT_BYTES);
        assert!(LockFile::acquire(place.path(), 0o600).is_ok());
    }

    /// A forked child has the open files of its parent, and their locks, until it executes its program.
    #[test]
    fn a_lock_that_a_forked_child_has_for_a_moment_is_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let lock = LockFile::acquire(place.path(), 0o600).unwrap();
        let of_the_child = lock.file.try_clone().unwrap();
        drop(lock);
        let child = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(of_the_child);
        });
        drop(LockFile::acquire(place.path(), 0o600).unwrap());
        child.join().unwrap();
        let _held = LockFile::acquire(place.path(), 0o600).unwrap();
        let refused = LockFile::acquire(place.path(), 0o600).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock, "one that is held is not waited for long");
    }

    /// A lock file whose inode number has changed since it was opened is recognised by its token.
    #[test]
    fn a_lock_file_is_distinguished_without_an_inode_number() {
        let place = tempfile::tempdir().unwrap();
        let mut lock = LockFile::acquire(place.path(), 0o640).unwrap();
        assert_eq!(lock.file.metadata().unwrap().mode() & 0o777, 0o640);
        for number in [lock.number, (0, 0), (7, 7)] {
            lock.number = number;
            assert!(lock.is_in_place().unwrap());
        }
        // It is still recognised after its time has changed.
        let day = "2026-12-01".parse().unwrap();
        for doubted_since in [None, Some(day)] {
            let last = LastUse { at: Timestamp::from_micros(7), doubted_since };
            lock.note(Some(last));
            assert!(lock.is_in_place().unwrap());
            assert_eq!(lock.last_use(), Some(last));
            assert_eq!(lock.file.metadata().unwrap().len(), TEXT_BYTES);
        }
        fs::remove_file(&lock.path).unwrap();
        assert!(!lock.is_in_place().unwrap());
        // Another process has locked another file of this name.
        let other = LockFile::acquire(place.path(), 0o600).unwrap();
        assert!(!lock.is_in_place().unwrap() && other.is_in_place().unwrap());
        assert_eq!(other.last_use(), None);
        drop(lock);
        // The next process reads the last use.
        other.note(Some(LastUse::at(Timestamp::MAX)));
        drop(other);
        let known = LockFile::acquire(place.path(), 0o600).unwrap().last_use();
        assert_eq!(known, Some(LastUse::at(Timestamp::MAX)));
    }
}
