//! The storage of backups: objects by name, each written atomically.
//!
//! [`DiskBackupStorage`] is a directory. Object storage is another implementation, outside of this crate,
//! because the engine does no network I/O.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, File, FileDisk};

/// The suffix of the temporary name under which an object is written.
pub const ON_ITS_WAY: &str = ".tmp";
/// Bytes that are read or written at a time.
const PART_BYTES: usize = 1 << 20;

/// A storage for the backups of one log. All calls may block.
pub trait BackupStorage: Send + Sync {
    /// Names of all objects.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Writes an object of `bytes` bytes durably and atomically, replacing an existing one. If the reader
    /// fails or returns fewer bytes, no object is written.
    ///
    /// # Errors
    /// If it cannot be written, or read from the reader.
    fn put(&self, name: &str, reader: &mut dyn Read, bytes: u64) -> io::Result<()>;

    /// Writes a small object durably and atomically, but only if there is none of this name.
    ///
    /// # Errors
    /// `AlreadyExists`; or if it cannot be written.
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Calls `each` with the bytes of an object, part by part, in order.
    ///
    /// # Errors
    /// `NotFound`; or if it cannot be read; or the error of `each`.
    fn get(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;

    /// Removes an object.
    ///
    /// # Errors
    /// If it cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A directory of backups.
pub struct DiskBackupStorage(Arc<dyn Disk>);

impl DiskBackupStorage {
    /// The backups on this disk.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self(disk)
    }

    /// Opens this directory for writing backups, exclusively. Creates it if it does not exist.
    ///
    /// # Errors
    /// `WouldBlock` if another process has it open for writing; otherwise as the operating system's.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self::new(Arc::new(FileDisk::folder(directory)?)))
    }

    /// Opens this directory for reading backups. Another process may be writing to it.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn reading(directory: &Path) -> io::Result<Self> {
        Ok(Self::new(Arc::new(FileDisk::reading(directory)?)))
    }

    /// Writes a file under a temporary name, and renames it when it is durable.
    fn write(&self, name: &str, write: &mut dyn FnMut(&dyn File) -> io::Result<()>) -> io::Result<()> {
        let temporary = format!("{name}{ON_ITS_WAY}");
        let written = self.0.create(&temporary).and_then(|file| {
            write(&*file)?;
            file.sync()
        });
        written.and_then(|()| self.0.rename(&temporary, name)).inspect_err(|_| {
            // If this fails, the next backup removes the file.
            let _ = self.0.remove(&temporary);
        })?;
        self.0.sync_directory()
    }
}

impl BackupStorage for DiskBackupStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn put(&self, name: &str, reader: &mut dyn Read, bytes: u64) -> io::Result<()> {
        self.write(name, &mut |file| {
            let mut part = vec![0; PART_BYTES];
            let mut at = 0;
            while at < bytes {
                let left = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(part.len());
                let count = reader.read(&mut part[..left])?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                file.write_at(&part[..count], at)?;
                at += count as u64;
            }
            Ok(())
        })
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.0.list()?.iter().any(|there| there == name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.write(name, &mut |file| file.write_at(bytes, 0))
    }

    fn get(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let file = self.0.open(name)?;
        let mut part = vec![0; PART_BYTES];
        let mut at = 0;
        loop {
            let count = file.read_at(&mut part, at)?;
            if count == 0 {
                return Ok(());
            }
            each(&part[..count])?;
            at += count as u64;
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)?;
        self.0.sync_directory()
    }
}
