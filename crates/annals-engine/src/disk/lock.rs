//! The file `LOCK`: held by the process that has a directory. It also says when the store was last in use.
//!
//! ```text
//! | time, filled up with blanks 40 | newline | token of the process that holds it 36 | newline |
//! ```
//!
//! After the time there may be a blank and a day: since then the clock is behind that time.
//!
//! - L1  The text has one length and is written over as a whole. Earlier versions left the file empty; then its own time
//!       represents the time in it.
//! - L2  The token distinguishes the file from another one of its name, also on a file system on which files do not keep their
//!       numbers.
//! - L3  Only a file of that length or less is written over: what a link of this name leads to is somebody else's.
//! - L4  No promise depends on the text: it is not synced, and a full disk that does not take it keeps nobody out.
//!
//! Next above: `disk`; what the time is for: `clock`.

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

/// How long a child that was forked may take to execute its program, and how often it is looked whether it has.
const FORK_MAX: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(10);

/// When a store was last in use with a clock that could be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// That time.
    pub at: Timestamp,
    /// Since this day, by its first instant, the store is in use with a clock that is behind that time.
    pub doubted_since: Option<Timestamp>,
}

impl LastUse {
    /// In use at this time, which nothing contradicts.
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

/// The file, held.
pub struct LockFile {
    path: PathBuf,
    file: fs::File,
    number: FileNumber,
    token: String,
}

impl LockFile {
    /// Acquires the lock of this directory, and creates the file with this mode if there is none.
    ///
    /// # Errors
    /// `WouldBlock` if another process holds it; `InvalidInput` if what has the name is no lock file; else as the operating
    /// system's.
    pub fn acquire(root: &Path, mode: u32) -> io::Result<Self> {
        let path = root.join(NAME);
        let there = match fs::symlink_metadata(&path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if there.as_ref().is_some_and(|there| !there.is_file() || there.len() > TEXT_BYTES) {
            let problem = format!("{} is not a lock file: look whose it is, and remove it", path.display());
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

    /// When the store was last in use, if the file says so.
    pub fn last_use(&self) -> Option<LastUse> {
        let mut text = [0; TIME_BYTES];
        self.file.read_exact_at(&mut text, 0).ok()?;
        LastUse::parse(std::str::from_utf8(&text).ok()?.trim())
    }

    /// Writes when the store was last in use.
    pub fn note(&self, last: Option<LastUse>) {
        let time = last.map(|last| last.to_string()).unwrap_or_default();
        let text = format!("{time:<width$}\n{}\n", self.token, width = TIME_BYTES - 1);
        if let Err(error) = self.file.write_all_at(text.as_bytes(), 0) {
            tracing::warn!(file = %self.path.display(), %error, "when the store was in use cannot be written");
        }
    }

    /// Whether the file of this name is still the one that is held.
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

/// The file, locked. A lock that was just given up is waited for: a child of its process has it too, from when it was forked until
/// it executes its program.
///
/// # Errors
/// `WouldBlock` if another process holds it; else as the operating system's.
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

/// The directory itself, locked; `None` if the file system has no such locks.
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

    /// Until a forked child executes its program it has the files of its parent, and the locks on them.
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

    /// A lock file that has another number than when it was opened is recognised by its token.
    #[test]
    fn a_lock_file_is_told_from_another_one_without_its_number() {
        let place = tempfile::tempdir().unwrap();
        let mut lock = LockFile::acquire(place.path(), 0o640).unwrap();
        assert_eq!(lock.file.metadata().unwrap().mode() & 0o777, 0o640);
        for number in [lock.number, (0, 0), (7, 7)] {
            lock.number = number;
            assert!(lock.is_in_place().unwrap());
        }
        // It stays so when the time in it changes.
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
        // Another process holds another file of the name.
        let other = LockFile::acquire(place.path(), 0o600).unwrap();
        assert!(!lock.is_in_place().unwrap() && other.is_in_place().unwrap());
        assert_eq!(other.last_use(), None);
        drop(lock);
        // What was seen is known to the next.
        other.note(Some(LastUse::at(Timestamp::MAX)));
        drop(other);
        let known = LockFile::acquire(place.path(), 0o600).unwrap().last_use();
        assert_eq!(known, Some(LastUse::at(Timestamp::MAX)));
    }
}
