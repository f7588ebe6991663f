//! Where backups lie: objects by name, each written once and as a whole.
//!
//! [`DiskBackupStorage`] is a directory; object storage is one more implementation, outside of this crate, for the engine
//! talks to no network.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, File, FileDisk};

/// What a name ends with while the object is written.
pub const ON_ITS_WAY: &str = ".tmp";
/// What is read or written at once.
const PART_BYTES: usize = 1 << 20;

/// A place for backups. All calls may block.
pub trait BackupStorage: Send + Sync {
    /// Names of all objects.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Writes an object of that many bytes, durably, as a whole or not at all; one that is there is replaced. If the
    /// bytes cannot be read, or are fewer, there is no object.
    ///
    /// # Errors
    /// If it cannot be written, or read from the reader.
    fn put(&self, name: &str, reader: &mut dyn Read, bytes: u64) -> io::Result<()>;

    /// Writes a small object in the same way, but only if there is none of this name.
    ///
    /// # Errors
    /// `AlreadyExists`; or if it cannot be written.
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Hands out the bytes of an object in order.
    ///
    /// # Errors
    /// `NotFound`; or if it cannot be read; or what `each` answers.
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
    /// On this disk.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self(disk)
    }

    /// In this directory, which is created if need be, to write backups: nobody else may at the same time.
    ///
    /// # Errors
    /// `WouldBlock` if another process writes backups there; else as the operating system's.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self::new(Arc::new(FileDisk::folder(directory)?)))
    }

    /// In this directory, to read backups, also while another process writes there.
    ///
    /// # Errors
    /// As the operating system's.
    pub fn reading(directory: &Path) -> io::Result<Self> {
        Ok(Self::new(Arc::new(FileDisk::reading(directory)?)))
    }

    /// Writes a file under another name and gives it its own when it is durable.
    fn write(&self, name: &str, write: &mut dyn FnMut(&dyn File) -> io::Result<()>) -> io::Result<()> {
        let temporary = format!("{name}{ON_ITS_WAY}");
        let written = self.0.create(&temporary).and_then(|file| {
            write(&*file)?;
            file.sync()
        });
        written.and_then(|()| self.0.rename(&temporary, name)).inspect_err(|_| {
            // What cannot be removed now is removed by the next backup.
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
