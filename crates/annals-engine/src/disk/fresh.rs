//! A directory that appears whole or not at all: it is made under another name, and gets its own when it is done.
//!
//! - H1  What a killed run left is removed by the next: it has a mark, and nobody holds it. Without the mark only what is
//!       as good as empty is taken for that; anything else of that name may be somebody's store.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, FileDisk, LOCK};

/// A directory on its way.
pub struct Fresh {
    target: PathBuf,
    /// Where it is made.
    path: PathBuf,
    disk: Option<Arc<dyn Disk>>,
    finished: bool,
    /// The process that makes it; one that forks does not remove it.
    process: u32,
}

impl Fresh {
    /// Begins a directory that does not exist yet, for a store. What an earlier run has left half done is removed, if no
    /// process is at it any more.
    ///
    /// # Errors
    /// `AlreadyExists` if it does exist, or if what has the name of a directory on its way is none; `WouldBlock` if another
    /// process is making it; else as the operating system's.
    pub fn begin(target: &Path) -> io::Result<Self> {
        let Some(name) = target.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the directory has no name"));
        };
        let mut unfinished = name.to_owned();
        unfinished.push(".unfinished");
        let path = target.with_file_name(unfinished);
        let refused = |kind, path: &Path, why: &str| {
            let text = format!("{} {why}", path.display());
            Err(io::Error::new(kind, text))
        };
        if target.symlink_metadata().is_ok() {
            let why = "exists already; name a directory that does not";
            return refused(io::ErrorKind::AlreadyExists, target, why);
        }
        if let Ok(found) = path.symlink_metadata()
            && !(found.is_dir() && is_left_half_done(&path)?)
        {
            let why = "is not what an earlier run left half done; move it away, or name another directory";
            return refused(io::ErrorKind::AlreadyExists, &path, why);
        }
        // The lock is held, so nobody else works here, and what is here may be removed.
        let disk = match FileDisk::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return refused(io::ErrorKind::WouldBlock, &path, "is being made by another process");
            }
            disk => disk?,
        };
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() && entry.file_name() != LOCK && entry.file_name() != MARK {
                fs::remove_file(entry.path())?;
            }
        }
        for name in disk.list()? {
            disk.remove(&name)?;
        }
        fs::File::create(path.join(MARK))?;
        let (target, disk) = (target.to_owned(), Some(Arc::new(disk) as Arc<dyn Disk>));
        Ok(Self { target, path, disk, finished: false, process: std::process::id() })
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
        // If this is not done, it says nothing of a directory that has its name.
        let _ = fs::remove_file(self.target.join(MARK));
        let above = self.target.parent().filter(|above| !above.as_os_str().is_empty());
        fs::File::open(above.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.finished && self.process == std::process::id() {
            // While it is held, so that nobody else is at it. What cannot be removed is removed by the next run.
            let _ = fs::remove_dir_all(&self.path);
        }
        self.disk = None;
    }
}

/// The file that says of a directory that it is on its way.
const MARK: &str = "UNFINISHED";

/// Whether a directory is what a run leaves that is killed.
fn is_left_half_done(path: &Path) -> io::Result<bool> {
    if path.join(MARK).is_file() {
        return Ok(true);
    }
    // It may have been killed before it wrote the mark.
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_ours = match entry.file_name().to_str() {
            Some("log") => entry.file_type()?.is_dir() && fs::read_dir(entry.path())?.next().is_none(),
            name => name == Some(LOCK),
        };
        if !is_ours {
            return Ok(false);
        }
    }
    Ok(true)
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
    }

    #[test]
    fn what_a_killed_run_left_is_begun_again_and_nothing_else_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let (target, unfinished) = (place.path().join("new"), place.path().join("new.unfinished"));
        // A run that is killed removes nothing; its locks are gone.
        fs::create_dir_all(unfinished.join("log")).unwrap();
        for name in ["LOCK", "UNFINISHED", "repair.jsonl"] {
            fs::write(unfinished.join(name), "").unwrap();
        }
        fs::write(unfinished.join("log/00000000000000000001.seg.tmp"), "half").unwrap();
        let fresh = Fresh::begin(&target).unwrap();
        assert_eq!(fresh.disk().list().unwrap(), Vec::<String>::new());
        assert!(!unfinished.join("repair.jsonl").exists());
        // While one is at it, another is refused, and leaves it alone.
        fresh.disk().create("x").unwrap();
        let refused = Fresh::begin(&target).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock, "{refused}");
        assert!(unfinished.join("log/x").exists());
        drop(fresh);
        // What somebody else keeps under the name stays, a store most of all.
        for name in ["thesis.txt", "log/00000000000000000001.seg"] {
            fs::create_dir_all(unfinished.join("log")).unwrap();
            fs::write(unfinished.join(name), "ten years").unwrap();
            let refused = Fresh::begin(&target).err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists, "{refused}");
            assert!(unfinished.join(name).exists());
            fs::remove_dir_all(&unfinished).unwrap();
        }
        // One that was killed at once has left nothing.
        fs::create_dir_all(unfinished.join("log")).unwrap();
        Fresh::begin(&target).unwrap().finish().unwrap();
        assert!(target.join("log").exists() && !target.join("UNFINISHED").exists());
    }
}
