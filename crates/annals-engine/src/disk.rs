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
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod faulty;
mod fresh;

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
}

/// An open file.
pub trait File: Send + Sync + 'static {
    /// Reads at this offset until the buffer is full or the file ends; returns how many bytes were read.
    ///
    /// # Errors
    /// As the operating system's.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

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
}

/// A directory of the operating system, which one process at a time may hold.
pub struct FileDisk {
    directory: PathBuf,
    /// Whether files may be changed.
    writable: bool,
    /// Held for as long as the disk is: the lock goes with it, also when the process is killed.
    _lock: Option<fs::File>,
}

impl FileDisk {
    /// Takes hold of a directory; creates it if need be. The files lie in `log/`, beside the lock.
    ///
    /// # Errors
    /// `WouldBlock` if another process (or another disk of this one) holds it; else as the operating system's.
    pub fn open(root: &Path) -> io::Result<Self> {
        Self::hold(root, root.join("log"))
    }

    /// Takes hold of a directory in which the files lie side by side; creates it if need be.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn folder(directory: &Path) -> io::Result<Self> {
        Self::hold(directory, directory.to_owned())
    }

    /// Takes hold of a directory to read the files in `log/`. Creates and changes nothing, so it may lie on a disk
    /// that cannot be written. If nobody ever had it open there is no lock, and nobody is kept away.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if there is no such directory.
    pub fn look(root: &Path) -> io::Result<Self> {
        let directory = root.join("log");
        fs::read_dir(&directory)?;
        let lock = match fs::File::open(root.join(LOCK)) {
            Ok(lock) => Some(locked(lock)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { directory, writable: false, _lock: lock })
    }

    /// The files of a directory side by side, to read them, whoever else has it.
    ///
    /// # Errors
    /// As the operating system's, and if there is no such directory.
    pub fn reading(directory: &Path) -> io::Result<Self> {
        fs::read_dir(directory)?;
        Ok(Self { directory: directory.to_owned(), writable: false, _lock: None })
    }

    fn hold(root: &Path, directory: PathBuf) -> io::Result<Self> {
        let missing: Vec<_> = directory.ancestors().skip(1).take_while(|above| !above.exists()).collect();
        fs::create_dir_all(&directory)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(root.join(LOCK))?;
        let lock = locked(lock)?;
        // What was created must survive a crash: each directory is an entry of the one above it.
        for created in missing {
            let above = created.parent().filter(|above| !above.as_os_str().is_empty());
            fs::File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        fs::File::open(root)?.sync_all()?;
        Ok(Self { directory, writable: true, _lock: Some(lock) })
    }

    fn may_write(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::ReadOnlyFilesystem.into()) }
    }
}

/// The file that the process holds which has the directory.
const LOCK: &str = "LOCK";

fn locked(lock: fs::File) -> io::Result<fs::File> {
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.directory)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(self.writable).open(self.directory.join(name))?;
        Ok(Arc::new(OsFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.may_write()?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(OsFile(options.open(self.directory.join(name))?)))
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
}

struct OsFile(fs::File);

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut at = self.length()?;
        // Zeros are written rather than reserved: a reserved extent still changes metadata when it is filled.
        while at < end {
            let count = usize::try_from(end - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.0.write_all_at(&ZEROS[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
