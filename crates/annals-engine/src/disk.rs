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
mod lock;
#[cfg(target_os = "linux")]
mod map;

pub use fresh::Fresh;
pub(crate) use fresh::check_finished;
pub use lock::LastUse;
use lock::{LockFile, locked, locked_directory};

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

    /// When the store was last in use with a clock that could be right; `None` if nothing says so.
    fn last_use(&self) -> Option<LastUse> {
        None
    }

    /// Notes that time. It may be lost in a crash.
    fn note_use(&self, last: LastUse) {
        let _ = last;
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
    /// space and their sync no metadata. A file that reaches that far is left as it is.
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

    /// Identity of the file for the operating system, independent of its name; `None` where it has none.
    fn number(&self) -> Option<FileNumber> {
        None
    }

    /// Where the last of the writes ends that this handle has made durable; 0 if there is none.
    fn synced_to(&self) -> u64 {
        0
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
    /// The lock of who may change files; `None` for those who only read.
    lock: Option<LockFile>,
    /// Locks of directories and of readers, held for as long as the disk is: they go with it, also when the process is
    /// killed.
    locks: Vec<fs::File>,
    /// Whether the lock file must be in its place, because the directory itself cannot be locked.
    watches_lock: bool,
    /// The mode of files that are created.
    mode: u32,
}

impl FileDisk {
    /// Acquires the lock of a directory; creates it if need be. The files lie in `log/`, beside the lock.
    ///
    /// # Errors
    /// `WouldBlock` if another process (or another disk of this one) holds it; else as the operating system's.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        Self::acquire(&root, root.join("log"))
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

    /// Acquires the lock of a directory in which the files lie side by side; creates it if need be.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn folder(directory: &Path) -> io::Result<Self> {
        let directory = std::path::absolute(directory)?;
        Self::acquire(&directory, directory.clone())
    }

    /// Acquires the lock of a directory to read the files in `log/`, beside others who only read. Creates and changes nothing,
    /// so it may lie on a disk that cannot be written.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if there is no such directory.
    pub fn look(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        let directory = root.join("log");
        fs::read_dir(&directory)?;
        let mut locks = Vec::new();
        match fs::File::open(root.join(lock::NAME)) {
            Ok(lock) => locks.push(locked(lock, false)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        locks.extend(locked_directory(&directory, false)?);
        Ok(Self { locks, ..Self::unlocked(directory) })
    }

    /// The files of a directory, opened for reading only, also while another process has it.
    ///
    /// # Errors
    /// As the operating system's, and if there is no such directory.
    pub fn reading(directory: &Path) -> io::Result<Self> {
        let directory = std::path::absolute(directory)?;
        fs::read_dir(&directory)?;
        Ok(Self::unlocked(directory))
    }

    fn unlocked(directory: PathBuf) -> Self {
        Self { directory, lock: None, locks: Vec::new(), watches_lock: false, mode: private::MODE }
    }

    /// Both are absolute: the process may change its working directory.
    fn acquire(root: &Path, directory: PathBuf) -> io::Result<Self> {
        let missing: Vec<_> = directory.ancestors().take_while(|above| !above.exists()).collect();
        private::directory().recursive(true).create(&directory)?;
        let mode = private::mode_of_files(&directory)?;
        let lock = LockFile::acquire(root, mode)?;
        let of_directory = locked_directory(&directory, true)?;
        let watches_lock = of_directory.is_none();
        // What was created must survive a crash: each directory is an entry of the one above it.
        for above in missing.into_iter().filter_map(|created| created.parent()) {
            fs::File::open(above)?.sync_all()?;
        }
        fs::File::open(root)?.sync_all()?;
        let locks = of_directory.into_iter().collect();
        Ok(Self { directory, lock: Some(lock), locks, watches_lock, mode })
    }

    fn may_write(&self) -> io::Result<()> {
        if self.lock.is_some() { Ok(()) } else { Err(io::ErrorKind::ReadOnlyFilesystem.into()) }
    }

    fn file(&self, file: fs::File, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(OsFile::new(file, name)?))
    }
}

/// What a store creates is its owner's alone: a log has names and addresses of people in it. What is there already keeps
/// its mode, and if others may read the segments that are there, or write them as the group, so may they the next ones.
mod private {
    use std::fs::{self, DirBuilder, OpenOptions, Permissions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
    use std::path::Path;

    /// The mode of a file where nothing says another.
    pub(super) const MODE: u32 = 0o600;
    /// What of the modes of the files that are there holds for others.
    const KEPT: u32 = 0o064;

    pub(super) fn directory() -> DirBuilder {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder
    }

    pub(super) fn file() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.mode(MODE);
        options
    }

    /// The mode for the next file among those of a log, or of backups.
    pub(super) fn mode_of_files(directory: &Path) -> io::Result<u32> {
        let mut mode = MODE;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_ours =
                name.ends_with(".seg") || name.starts_with("segment-") || name.ends_with(".manifest");
            // One that was removed meanwhile says nothing.
            if is_ours && let Ok(found) = entry.metadata() {
                mode |= found.mode() & KEPT;
            }
        }
        Ok(mode)
    }

    /// Gives a file that was created this mode, whatever the process masks. Not every file system has modes.
    pub(super) fn set_mode(file: &fs::File, mode: u32) {
        if mode != MODE {
            let _ = file.set_permissions(Permissions::from_mode(mode));
        }
    }
}

fn number_of(found: &fs::Metadata) -> FileNumber {
    (found.dev(), found.ino())
}

/// Whether this is the file with that number. Some network file systems have no numbers, or give a file another one after
/// a while: then its content decides.
fn is_known(found: FileNumber, number: FileNumber) -> bool {
    number.1 != 0 && found == number
}

/// The number of the file of this name. It is asked for alone: on Linux 6.13 and later, a file whose times somebody has
/// looked at gets finer ones with the next write, and the sync of that costs half as much again.
fn number_at(path: &Path) -> io::Result<FileNumber> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
        // What a kernel or a sandbox does not have is asked for below.
        if let Ok(found) = statx(CWD, path, AtFlags::empty(), StatxFlags::INO)
            && found.stx_mask & StatxFlags::INO.bits() != 0
        {
            return Ok((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino));
        }
    }
    fs::metadata(path).map(|found| number_of(&found))
}

/// `false` for a file that is not there.
fn found(found: io::Result<bool>) -> io::Result<bool> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => found,
    }
}

/// How many bytes, with the newest durable ones among them, distinguish a file from a copy.
const COMPARED_BYTES: u64 = 4 << 10;

/// Whether the file of this name has what was made durable in the open one last; its beginning, if nothing was yet.
fn has_the_newest(path: &Path, file: &dyn File) -> io::Result<bool> {
    let end = Some(file.synced_to()).filter(|end| *end > 0).unwrap_or(COMPARED_BYTES.min(file.length()?));
    let from = end.saturating_sub(COMPARED_BYTES);
    let mut ours = vec![0; (end - from) as usize];
    let mut theirs = ours.clone();
    let count = file.read_at(&mut ours, from)?;
    match fs::File::open(path)?.read_exact_at(&mut theirs[..count], from) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| ours[..count] == theirs[..count]),
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.directory)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file =
            OpenOptions::new().read(true).write(self.lock.is_some()).open(self.directory.join(name))?;
        if self.lock.is_none() && self.locks.is_empty() {
            Ok(Arc::new(OsFile::of_others(file)))
        } else {
            self.file(file, name)
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.may_write()?;
        let mut options = private::file();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(self.directory.join(name))?;
        private::set_mode(&file, self.mode);
        self.file(file, name)
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
        self.lock.is_some()
    }

    fn is_in_place(&self, name: &str, file: &dyn File) -> io::Result<bool> {
        if let Some(lock) = self.lock.as_ref().filter(|_| self.watches_lock)
            && !lock.is_in_place()?
        {
            return Ok(false);
        }
        let Some(number) = file.number() else { return Ok(true) };
        let path = self.directory.join(name);
        let is_there = || Ok(is_known(number_at(&path)?, number) || has_the_newest(&path, file)?);
        found(is_there())
    }

    fn last_use(&self) -> Option<LastUse> {
        self.lock.as_ref()?.last_use()
    }

    fn note_use(&self, last: LastUse) {
        if let Some(lock) = &self.lock {
            lock.note(Some(last));
        }
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
    /// Where the last write ends, and the last that was synced. Zeros that make room are none.
    written_to: AtomicU64,
    synced_to: AtomicU64,
    /// By what the system knows it; `None` for one that others may change.
    number: Option<FileNumber>,
    /// Made at the first small read; `None` if the system refuses it.
    #[cfg(target_os = "linux")]
    map: OnceLock<Option<map::Map>>,
}

impl OsFile {
    fn new(file: fs::File, name: &str) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            file,
            length: found.len().into(),
            written_to: 0.into(),
            synced_to: 0.into(),
            number: Some(number_of(&found)),
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
            written_to: 0.into(),
            synced_to: 0.into(),
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
        let end = offset + bytes.len() as u64;
        self.written_to.store(end, Ordering::Relaxed);
        self.wrote_to(end);
        Ok(())
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        // The system is asked: a write that failed half way may have made it longer.
        let mut at = self.file.metadata()?.len();
        // Zeros are written rather than reserved: a reserved extent still changes metadata when it is filled.
        while at < end {
            let count = usize::try_from(end - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.file.write_all_at(&ZEROS[..count], at)?;
            at += count as u64;
            self.wrote_to(at);
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
        let written_to = self.written_to.load(Ordering::Relaxed);
        self.file.sync_data()?;
        self.synced_to.store(written_to, Ordering::Relaxed);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn number(&self) -> Option<FileNumber> {
        self.number
    }

    fn synced_to(&self) -> u64 {
        self.synced_to.load(Ordering::Relaxed)
    }
}

/// Lets the other threads of the process go first from now on: for work that nobody waits for.
pub fn step_back() {
    // On Linux this is a matter of the thread. Where it cannot be done, all threads have the same priority.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}
