//! A directory that appears whole or not at all: it is made under another name, and gets its own when it is done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, FileDisk};

/// A directory on its way.
pub struct Fresh {
    target: PathBuf,
    /// Where it is made.
    path: PathBuf,
    disk: Option<Arc<dyn Disk>>,
    finished: bool,
}

impl Fresh {
    /// Begins a directory that does not exist yet, for a store.
    ///
    /// # Errors
    /// `AlreadyExists` if it does exist, or if what an earlier run left half done does; else as the operating
    /// system's.
    pub fn begin(target: &Path) -> io::Result<Self> {
        let refuse = |path: &Path, why: &str| {
            let text = format!("{} {why}", path.display());
            Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
        };
        let Some(name) = target.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the directory has no name"));
        };
        let mut unfinished = name.to_owned();
        unfinished.push(".unfinished");
        let path = target.with_file_name(unfinished);
        if target.symlink_metadata().is_ok() {
            return refuse(target, "exists already; name a directory that does not");
        }
        if path.symlink_metadata().is_ok() {
            return refuse(&path, "is what an earlier run left half done; remove it first");
        }
        let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&path)?);
        Ok(Self { target: target.to_owned(), path, disk: Some(disk), finished: false })
    }

    /// Where the directory is until it is done.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log in it.
    pub fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone().expect("it is given up at the end only")
    }

    /// Makes everything durable and gives the directory its name.
    ///
    /// # Errors
    /// As the operating system's; then nothing is left.
    pub fn finish(mut self) -> io::Result<()> {
        self.disk().sync_directory()?;
        fs::File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, &self.target)?;
        self.finished = true;
        let above = self.target.parent().filter(|above| !above.as_os_str().is_empty());
        fs::File::open(above.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.disk = None;
        if !self.finished {
            // What cannot be removed is refused by the next run, which says where it is.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_appears_when_it_is_finished_and_leaves_nothing_otherwise() {
        let place = tempfile::tempdir().unwrap();
        let (target, unfinished) = (place.path().join("new"), place.path().join("new.unfinished"));
        let fresh = Fresh::begin(&target).unwrap();
        fresh.disk().create("x").unwrap();
        assert!(unfinished.join("log/x").exists() && !target.exists());
        drop(fresh);
        assert!(!unfinished.exists() && !target.exists());
        let fresh = Fresh::begin(&target).unwrap();
        fresh.disk().create("x").unwrap();
        fresh.finish().unwrap();
        assert!(!unfinished.exists() && target.join("log/x").exists());
        let taken = Fresh::begin(&target).err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        fs::create_dir(place.path().join("other.unfinished")).unwrap();
        let left = Fresh::begin(&place.path().join("other")).err().unwrap();
        assert!(left.to_string().ends_with("remove it first"), "{left}");
    }
}
