//! The disk: the only module of the engine that does I/O.
//!
//! A [`Disk`] is one flat directory of files. The engine relies only on these guarantees:
//!
//! - D1  Bytes that [`File::write_at`] and [`File::allocate`] wrote survive a crash once [`File::sync`] has
//!       returned; before that any part of them may survive, in any order.
//! - D2  The creation, renaming or removal of a file survives a crash once [`Disk::sync_directory`] has
//!       returned; before that it may or may not survive.
//! - D3  A rename is atomic: after a crash either the rename was done completely, or the names are as before.
//! - D4  After a failed `write_at` or `sync` the state of the unsynced bytes of that file is unknown. They
//!       may be read correctly and still be lost in a crash, even after later syncs, unless they are written
//!       again.
//!
//! [`FileDisk`] is the real implementation. `disk/faulty.rs` gives exactly these guarantees, for tests.

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

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// As the operating system's.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Creates a file; an existing one is truncated.
    ///
    /// # Errors
    /// As the operating system's.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Renames a file, replacing a file that has the new name.
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

    /// Whether this name still refers to the open file. If not, the file may disappear when its last user
    /// closes it.
    ///
    /// # Errors
    /// As the operating system's.
    fn is_in_place(&self, name: &str, file: &dyn File) -> io::Result<bool> {
        let _ = (name, file);
        Ok(true)
    }

    /// The last use of the store with a plausible clock; `None` if it is unknown.
    fn last_use(&self) -> Option<LastUse> {
        None
    }

    /// Records the last use. It may be lost in a crash.
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

    /// Advises the system to begin reading these bytes from the device, for a [`read_at`](Self::read_at) soon
    /// after.
    fn prefetch(&self, offset: u64, length: u64) {
        let _ = (offset, length);
    }

    /// Prefetches these bytes into the processor's cache if they are in memory, for a
    /// [`read_at`](Self::read_at) that follows at once.
    fn bring_near(&self, offset: u64, length: u64) {
        let _ = (offset, length);
    }

    /// Loads these bytes, so that small reads of them do not wait until the system has loaded their pages.
    /// Waits for the device.
    fn load(&self, offset: u64, length: u64) {
        let _ = (offset, length);
    }

    /// Writes all of the bytes at this offset.
    ///
    /// # Errors
    /// As the operating system's.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Extends the file to `end` with zeros, so that later writes there need no new space and their sync no
    /// metadata. A file that is long enough is left unchanged.
    ///
    /// # Errors
    /// As the operating system's; `StorageFull` if there is no space. The old contents of the file are
    /// unchanged.
    fn allocate(&self, end: u64) -> io::Result<()>;

    /// Like [`allocate`](Self::allocate), but the zeros need not be written. It is cheaper for large writes,
    /// for which metadata is a small part of the sync.
    ///
    /// # Errors
    /// As of [`allocate`](Self::allocate).
    fn reserve(&self, end: u64) -> io::Result<()> {
        self.allocate(end)
    }

    /// Truncates the file to this length.
    ///
    /// # Errors
    /// As the operating system's.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// As the operating system's. The unsynced bytes must be taken for lost (D4).
    fn sync(&self) -> io::Result<()>;

    /// Length of the file in bytes.
    ///
    /// # Errors
    /// As the operating system's.
    fn length(&self) -> io::Result<u64>;

    /// The inode number of the file, which does not depend on its name; `None` if there is none.
    fn number(&self) -> Option<FileNumber> {
        None
    }

    /// The end of the last write that a sync of this handle made durable; 0 if there is none.
    fn synced_to(&self) -> u64 {
        0
    }
}

/// A device and an inode number on it.
pub type FileNumber = (u64, u64);

/// A directory of the operating system, which one process at a time may lock.
///
/// Two locks are held: one on the directory itself, which cannot be removed and created again without losing
/// its contents, and one on the file `LOCK`, because earlier versions lock only that, and not every file
/// system can lock directories.
pub struct FileDisk {
    directory: PathBuf,
    /// The exclusive lock that permits changes; `None` if opened for reading only.
    lock: Option<LockFile>,
    /// Locks of directories and of readers. They are released when this is dropped, and when the process is
    /// killed.
    locks: Vec<fs::File>,
    /// Whether the lock file must stay in place, because the directory itself cannot be locked.
    watches_lock: bool,
    /// The mode of files that are created.
    mode: u32,
}

impl FileDisk {
    /// Acquires the lock of a directory, which is created if it does not exist. The files are in `log/`,
    /// beside the lock file.
    ///
    /// # Errors
    /// `WouldBlock` if another process (or another disk in this process) holds the lock; otherwise as the
    /// operating system's.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        Self::acquire(&root, root.join("log"))
    }

    /// Like [`open`](Self::open), or like [`look`](Self::look) if the directory cannot be written.
    ///
    /// # Errors
    /// As of both.
    pub fn open_or_look(root: &Path) -> io::Result<Self> {
        Self::open(root).or_else(|error| match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::look(root),
            _ => Err(error),
        })
    }

    /// Acquires the lock of a directory that contains the files itself, without `log/`. It is created if it
    /// does not exist.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn folder(directory: &Path) -> io::Result<Self> {
        let directory = std::path::absolute(directory)?;
        Self::acquire(&directory, directory.clone())
    }

    /// Acquires a shared lock of a directory, to read the files in `log/`. Creates and changes nothing, so
    /// the directory may be on a read-only medium.
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

    /// The files of a directory, for reading only and without a lock: another process may have the directory
    /// open.
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

    /// Both paths are absolute, because the process may change its working directory.
    fn acquire(root: &Path, directory: PathBuf) -> io::Result<Self> {
        let missing: Vec<_> = directory.ancestors().take_while(|above| !above.exists()).collect();
        private::directory().recursive(true).create(&directory)?;
        let mode = private::mode_of_files(&directory)?;
        let lock = LockFile::acquire(root, mode)?;
        let of_directory = locked_directory(&directory, true)?;
        let watches_lock = of_directory.is_none();
        // Make new directories durable: each is an entry of its parent directory.
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

/// File modes. New files are private to their owner, because logs contain personal data. Existing files keep
/// their modes, and if existing segments are readable by others, or readable or writable by the group, new
/// files are too.
mod private {
    use std::fs::{self, DirBuilder, OpenOptions, Permissions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
    use std::path::Path;

    /// The default mode of a file.
    pub(super) const MODE: u32 = 0o600;
    /// The bits of existing files' modes that new files get too.
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

    /// The mode for new files in a directory of a log or of backups.
    pub(super) fn mode_of_files(directory: &Path) -> io::Result<u32> {
        let mut mode = MODE;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_ours =
                name.ends_with(".seg") || name.starts_with("segment-") || name.ends_with(".manifest");
            // A file that was removed in the meantime is ignored.
            if is_ours && let Ok(found) = entry.metadata() {
                mode |= found.mode() & KEPT;
            }
        }
        Ok(mode)
    }

    /// Sets the mode of a new file, regardless of the umask. Errors are ignored: not every file system has
    /// modes.
    pub(super) fn set_mode(file: &fs::File, mode: u32) {
        if mode != MODE {
            let _ = file.set_permissions(Permissions::from_mode(mode));
        }
    }
}

fn number_of(found: &fs::Metadata) -> FileNumber {
    (found.dev(), found.ino())
}

/// Whether the file is known to be the same by its number. Some network file systems have no inode numbers,
/// or change them: then the caller compares contents.
fn is_known(found: FileNumber, number: FileNumber) -> bool {
    number.1 != 0 && found == number
}

/// The number of the file at this path. On Linux only the number is requested: since 6.13, reading a file's
/// timestamps makes the next write update them with a finer resolution, and the sync of that write takes half
/// as long again.
fn number_at(path: &Path) -> io::Result<FileNumber> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
        // If the kernel or a sandbox does not support this, use the fallback below.
        if let Ok(found) = statx(CWD, path, AtFlags::empty(), StatxFlags::INO)
            && found.stx_mask & StatxFlags::INO.bits() != 0
        {
            return Ok((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino));
        }
    }
    fs::metadata(path).map(|found| number_of(&found))
}

/// Maps the error for a missing file to `false`.
fn found(found: io::Result<bool>) -> io::Result<bool> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => found,
    }
}

/// The number of bytes, up to the newest durable one, that are compared to distinguish a file from an older
/// copy.
const COMPARED_BYTES: u64 = 4 << 10;

/// Whether the file at this path has the bytes that were last made durable in the open file; its first bytes,
/// if none were.
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

/// Reads of this many bytes or more use system calls: a memory map is not faster for them.
const MAPPED_BYTES_MAX: usize = 64 << 10;
/// The limit for files that are read in blocks. Blocks are cached, so only reads without the cache gain from
/// a map.
const MAPPED_BYTES_OF_BLOCKS_MAX: usize = 1 << 10;
/// The minimum size of a memory map, so that the file can grow into it.
const MAP_BYTES_MIN: u64 = 256 << 20;

struct OsFile {
    file: fs::File,
    /// The length up to which the file may be read through the memory map; 0 if others may change the file.
    length: AtomicU64,
    /// Whether small reads are at random offsets.
    sparse: bool,
    /// The end of the last write, and of the last synced write. Zeros written by `allocate` do not count.
    written_to: AtomicU64,
    synced_to: AtomicU64,
    /// Its inode number; `None` if others may change the file.
    number: Option<FileNumber>,
    /// The memory map, created at the first small read; `None` if that fails.
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
            // In other files, the bytes near a read are usually needed soon.
            sparse: name.ends_with(".seg"),
            #[cfg(target_os = "linux")]
            map: OnceLock::new(),
        })
    }

    /// A file that other processes may change: it is read by system calls only.
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

    /// Reads the bytes from the memory map. Returns whether that was possible.
    #[cfg(target_os = "linux")]
    fn read_mapped(&self, buffer: &mut [u8], offset: u64) -> bool {
        let most = if self.sparse { MAPPED_BYTES_MAX } else { MAPPED_BYTES_OF_BLOCKS_MAX };
        if buffer.len() >= most {
            return false;
        }
        self.mapped(offset, buffer.len() as u64).is_some_and(|map| map.copy(buffer, offset))
    }

    /// The memory map, if the file may be read through it up to the end of these bytes.
    #[cfg(target_os = "linux")]
    fn mapped(&self, offset: u64, bytes: u64) -> Option<&map::Map> {
        let length = self.length.load(Ordering::Relaxed);
        if offset.saturating_add(bytes) > length {
            return None;
        }
        let map = self.map.get_or_init(|| {
            let length = usize::try_from(length.max(MAP_BYTES_MIN)).ok()?;
            map::Map::new(&self.file, length, self.sparse).ok()
        });
        map.as_ref()
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
    fn load(&self, offset: u64, length: u64) {
        if let Some(map) = self.mapped(offset, length) {
            map.load(offset, length);
        }
    }

    #[cfg(target_os = "linux")]
    fn prefetch(&self, offset: u64, length: u64) {
        use rustix::fs::{Advice, fadvise};
        // If this fails, the bytes are read later.
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
        // Query the length: a write that failed halfway may have extended the file.
        let mut at = self.file.metadata()?.len();
        // Write zeros rather than reserve space: writing to a reserved extent changes metadata.
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
        // First the length for readers of the map, which must not read after the end of the file.
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

/// Lowers the priority of the calling thread, for background work.
pub fn step_back() {
    // On Linux the nice value is per thread. Elsewhere, all threads keep the same priority.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}
