//! The disk: the only place from which the engine reaches the outside world.
//!
//! A [`Disk`] is one flat directory of files. The engine relies on this and on nothing else:
//!
//! - D1  What [`File::write_at`] and [`File::allocate`] wrote survives a crash once [`File::sync`] has returned;
//!       before that any part of it may be there, or not, or in any order.
//! - D2  A file that was created, renamed or removed is so after a crash once [`Disk::sync_directory`] has
//!       returned; before that either state may be found.
//! - D3  A rename is atomic: after a crash there is the old file under the new name, or what was there before.
//! - D4  After a failed `write_at` or `sync` nothing is known of the unsynced bytes of that file. They may be read
//!       and yet be lost, whatever is synced later, unless they are written again.
//!
//! [`FileDisk`] is the real one. `disk/faulty.rs` is one that keeps these promises and not a hair more.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub mod faulty;
mod fresh;
#[cfg(target_os = "linux")]
mod map;

pub use fresh::Fresh;

/// A flat directory of files.
pub trait Disk: Send + Sync + 'static {
    /// Names of all files, in any order.
    ///
    /// # Errors
    /// As the operating system's.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file that exists, to read and write.
    ///
    /// # Errors
    /// As the operating system's.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Creates a file; one that exists is made empty.
    ///
    /// # Errors
    /// As the operating system's.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, replacing a file that has it.
    ///
    /// # Errors
    /// As the operating system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the operating system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// As the operating system's.
    fn sync_directory(&self) -> io::Result<()>;

    /// Whether files may be changed.
    fn is_writable(&self) -> bool {
        true
    }

    /// Whether an open file is still the one of this name: what is written to one that is not may be gone with its last
    /// user.
    ///
    /// # Errors
    /// As the operating system's.
    fn is_in_place(&self, name: &str, file: &dyn File) -> io::Result<bool> {
        let _ = (name, file);
        Ok(true)
    }
}

/// An open file.
pub trait File: Send + Sync + 'static {
    /// Reads at this offset until the buffer is full or the file ends; returns how many bytes were read.
    ///
    /// # Errors
    /// As the operating system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Says that these bytes will be read soon: a [`read_at`](Self::read_at) that follows finds them on their way.
    fn prefetch(&self, offset: u64, length: u64) {
        let _ = (offset, length);
    }

    /// Says that these bytes will be read in a moment: brings them near, if they are in memory.
    fn bring_near(&self, offset: u64, length: u64) {
        let _ = (offset, length);
    }

    /// Writes all of the bytes at this offset.
    ///
    /// # Errors
    /// As the operating system's.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file reach to `end`, with zeros from its old end on, so that later writes there need no new
    /// space and their sync no metadata. Does nothing if it reaches that far.
    ///
    /// # Errors
    /// As the operating system's; `StorageFull` if there is no room. What was in the file is untouched.
    fn allocate(&self, end: u64) -> io::Result<()>;

    /// As [`allocate`](Self::allocate), but the zeros need not be written: cheaper for what is written in large pieces,
    /// whose sync may as well write metadata.
    ///
    /// # Errors
    /// As of [`allocate`](Self::allocate).
    fn reserve(&self, end: u64) -> io::Result<()> {
        self.allocate(end)
    }

    /// Cuts the file to this length.
    ///
    /// # Errors
    /// As the operating system's.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// As the operating system's. The bytes are lost, as far as anybody knows (D4).
    fn sync(&self) -> io::Result<()>;

    /// Length of the file in bytes.
    ///
    /// # Errors
    /// As the operating system's.
    fn length(&self) -> io::Result<u64>;

    /// By what the operating system knows the file, whatever its name; `None` where nothing tells.
    fn number(&self) -> Option<FileNumber> {
        None
    }
}

/// A device, and the number of a file on it.
pub type FileNumber = (u64, u64);

/// A directory of the operating system, which one process at a time may hold.
///
/// What is held is the directory itself, which cannot be removed and made again without losing what is in it, and the
/// file `LOCK`: earlier versions hold only that, and not every file system has locks on directories.
pub struct FileDisk {
    directory: PathBuf,
    /// Whether files may be changed.
    writable: bool,
    /// Held for as long as the disk is: they go with it, also when the process is killed.
    locks: Vec<fs::File>,
    /// The lock that must be in its place, if the directory itself cannot be locked.
    watched_lock: Option<(PathBuf, FileNumber)>,
    /// Whether files here keep their numbers: on some file systems they do not.
    keeps_numbers: bool,
}

impl FileDisk {
    /// Takes hold of a directory; creates it if need be. The files lie in `log/`, beside the lock.
    ///
    /// # Errors
    /// `WouldBlock` if another process (or another disk of this one) holds it; else as the operating system's.
    pub fn open(root: &Path) -> io::Result<Self> {
        Self::hold(root, root.join("log"))
    }

    /// As [`open`](Self::open); as [`look`](Self::look), if nothing can be written there.
    ///
    /// # Errors
    /// As of both.
    pub fn open_or_look(root: &Path) -> io::Result<Self> {
        Self::open(root).or_else(|error| match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::look(root),
            _ => Err(error),
        })
    }

    /// Takes hold of a directory in which the files lie side by side; creates it if need be.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn folder(directory: &Path) -> io::Result<Self> {
        Self::hold(directory, directory.to_owned())
    }

    /// Takes hold of a directory to read the files in `log/`, beside others who only read. Creates and changes nothing,
    /// so it may lie on a disk that cannot be written.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if there is no such directory.
    pub fn look(root: &Path) -> io::Result<Self> {
        let directory = root.join("log");
        fs::read_dir(&directory)?;
        let mut locks = Vec::new();
        match fs::File::open(root.join(LOCK)) {
            Ok(lock) => locks.push(locked(lock, false)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        locks.extend(locked_directory(&directory, false)?);
        Ok(Self { locks, ..Self::unlocked(directory) })
    }

    /// The files of a directory side by side, to read them, whoever else has it.
    ///
    /// # Errors
    /// As the operating system's, and if there is no such directory.
    pub fn reading(directory: &Path) -> io::Result<Self> {
        fs::read_dir(directory)?;
        Ok(Self::unlocked(directory.to_owned()))
    }

    fn unlocked(directory: PathBuf) -> Self {
        Self { directory, writable: false, locks: Vec::new(), watched_lock: None, keeps_numbers: false }
    }

    fn hold(root: &Path, directory: PathBuf) -> io::Result<Self> {
        let missing: Vec<_> = directory.ancestors().skip(1).take_while(|above| !above.exists()).collect();
        private::directory().recursive(true).create(&directory)?;
        let path = root.join(LOCK);
        let lock = private::file().create(true).truncate(false).write(true).open(&path)?;
        let lock = locked(lock, true)?;
        let number = number_of(&lock.metadata()?);
        let keeps_numbers = fs::metadata(&path).is_ok_and(|found| number_of(&found) == number);
        let mut locks = vec![lock];
        let of_directory = locked_directory(&directory, true)?;
        let watched_lock = (of_directory.is_none() && keeps_numbers).then_some((path, number));
        locks.extend(of_directory);
        // What was created must survive a crash: each directory is an entry of the one above it.
        for created in missing {
            let above = created.parent().filter(|above| !above.as_os_str().is_empty());
            fs::File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        fs::File::open(root)?.sync_all()?;
        Ok(Self { directory, writable: true, locks, watched_lock, keeps_numbers })
    }

    fn may_write(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::ReadOnlyFilesystem.into()) }
    }

    fn file(&self, file: fs::File, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(OsFile::new(file, name, self.keeps_numbers)?))
    }
}

/// What a store creates is its owner's alone: a log has names and addresses of people in it. What is there already keeps
/// its mode.
#[cfg(unix)]
mod private {
    use std::fs::{DirBuilder, OpenOptions};
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};

    pub(super) fn directory() -> DirBuilder {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder
    }

    pub(super) fn file() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.mode(0o600);
        options
    }
}

#[cfg(not(unix))]
mod private {
    use std::fs::{DirBuilder, OpenOptions};

    pub(super) fn directory() -> DirBuilder {
        DirBuilder::new()
    }

    pub(super) fn file() -> OpenOptions {
        OpenOptions::new()
    }
}

/// The file that the process holds which has the directory.
const LOCK: &str = "LOCK";

fn locked(lock: fs::File, alone: bool) -> io::Result<fs::File> {
    match if alone { lock.try_lock() } else { lock.try_lock_shared() } {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// The directory itself, locked; `None` if the file system has no such locks.
fn locked_directory(directory: &Path, alone: bool) -> io::Result<Option<fs::File>> {
    match locked(fs::File::open(directory)?, alone) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Ok(None),
        held => held.map(Some),
    }
}

fn number_of(found: &fs::Metadata) -> FileNumber {
    (found.dev(), found.ino())
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.directory)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(self.writable).open(self.directory.join(name))?;
        if self.locks.is_empty() { Ok(Arc::new(OsFile::of_others(file))) } else { self.file(file, name) }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.may_write()?;
        let mut options = private::file();
        options.read(true).write(true).create(true).truncate(true);
        self.file(options.open(self.directory.join(name))?, name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.may_write()?;
        fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.may_write()?;
        fs::remove_file(self.directory.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        fs::File::open(&self.directory)?.sync_all()
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn is_in_place(&self, name: &str, file: &dyn File) -> io::Result<bool> {
        let is_there = |path: &Path, number: FileNumber| match fs::metadata(path) {
            Ok(found) => Ok(number_of(&found) == number),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        if let Some((path, number)) = &self.watched_lock
            && !is_there(path, *number)?
        {
            return Ok(false);
        }
        file.number().map_or(Ok(true), |number| is_there(&self.directory.join(name), number))
    }
}

/// Reads of that many bytes or more are calls to the system: for those a map gains nothing.
const MAPPED_BYTES_MAX: usize = 64 << 10;
/// The same of files that are read in blocks, which are kept: only what is read past them gains.
const MAPPED_BYTES_OF_BLOCKS_MAX: usize = 1 << 10;
/// A map is at least this large: a file may grow into it.
const MAP_BYTES_MIN: u64 = 256 << 20;

struct OsFile {
    file: fs::File,
    /// Up to here it may be read through memory: all of it, if nobody else changes it.
    length: AtomicU64,
    /// Whether small reads are of places far apart.
    sparse: bool,
    /// By what the system knows it, if that stays.
    number: Option<FileNumber>,
    /// Made at the first small read; nothing, if it cannot be had.
    #[cfg(target_os = "linux")]
    map: OnceLock<Option<map::Map>>,
}

impl OsFile {
    fn new(file: fs::File, name: &str, keeps_number: bool) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            file,
            length: found.len().into(),
            number: keeps_number.then(|| number_of(&found)),
            // Other files are small and dense: their neighbours are soon needed too.
            sparse: name.ends_with(".seg"),
            #[cfg(target_os = "linux")]
            map: OnceLock::new(),
        })
    }

    /// A file that others may change meanwhile: it is read by calls only.
    fn of_others(file: fs::File) -> Self {
        Self {
            file,
            length: 0.into(),
            number: None,
            sparse: false,
            #[cfg(target_os = "linux")]
            map: OnceLock::new(),
        }
    }

    fn wrote_to(&self, end: u64) {
        self.length.fetch_max(end, Ordering::Relaxed);
    }

    /// Copies the bytes out of memory, if they can be had there.
    #[cfg(target_os = "linux")]
    fn read_mapped(&self, buffer: &mut [u8], offset: u64) -> bool {
        let length = self.length.load(Ordering::Relaxed);
        let most = if self.sparse { MAPPED_BYTES_MAX } else { MAPPED_BYTES_OF_BLOCKS_MAX };
        if buffer.len() >= most || offset.saturating_add(buffer.len() as u64) > length {
            return false;
        }
        let map = self.map.get_or_init(|| {
            let length = usize::try_from(length.max(MAP_BYTES_MIN)).ok()?;
            map::Map::new(&self.file, length, self.sparse).ok()
        });
        map.as_ref().is_some_and(|map| map.copy(buffer, offset))
    }

    #[cfg(not(target_os = "linux"))]
    fn read_mapped(&self, _buffer: &mut [u8], _offset: u64) -> bool {
        false
    }
}

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.read_mapped(buffer, offset) {
            return Ok(buffer.len());
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    #[cfg(target_os = "linux")]
    fn bring_near(&self, offset: u64, length: u64) {
        if let Some(Some(map)) = self.map.get() {
            map.bring_near(offset, length);
        }
    }

    #[cfg(target_os = "linux")]
    fn prefetch(&self, offset: u64, length: u64) {
        use rustix::fs::{Advice, fadvise};
        // If the system cannot be asked, the read will fetch them.
        let _ = fadvise(&self.file, offset, std::num::NonZeroU64::new(length), Advice::WillNeed);
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.wrote_to(offset + bytes.len() as u64);
        Ok(())
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        // The system is asked: a write that failed half way may have made it longer.
        let mut at = self.file.metadata()?.len();
        // Zeros are written rather than reserved: a reserved extent still changes metadata when it is filled.
        while at < end {
            let count = usize::try_from(end - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.write_at(&ZEROS[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn reserve(&self, end: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;

        let length = self.file.metadata()?.len();
        if length >= end {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::empty(), length, end - length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.allocate(end),
            reserved => {
                reserved?;
                self.wrote_to(end);
                Ok(())
            }
        }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        // First for those who read: they must not read behind the end.
        self.length.fetch_min(length, Ordering::Relaxed);
        self.file.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn number(&self) -> Option<FileNumber> {
        self.number
    }
}

/// Lets the other threads of the process go first from now on: for work that nobody waits for.
pub fn step_back() {
    // On Linux this is a matter of the thread. Where it cannot be done, all go on alike.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}
