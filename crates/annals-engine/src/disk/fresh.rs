//! Atomic creation of a directory: it is built under a temporary name and renamed when it is complete.
//!
//! - H1  The unfinished directory of a killed run is removed by the next run, if it has a mark and is not
//!       locked. Without the mark it is removed only if it is empty apart from an empty `log/` and a lock
//!       file; any other directory of that name may be a store. So the mark is durable before anything else
//!       is written, and is removed after the rename is durable.
//! - H2  A directory with the mark is not opened as a store: it contains a part of one, and the next run
//!       would remove it. When the contents are complete this is written to the mark; after that, opening the
//!       directory removes the mark.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, FileDisk, lock};

/// An unfinished directory. Dropping it removes the directory unless it was finished.
pub struct Fresh {
    target: PathBuf,
    /// The temporary path.
    path: PathBuf,
    disk: Option<Arc<dyn Disk>>,
    finished: bool,
    /// The process that creates it: a forked child must not remove it.
    process: u32,
}

impl Fresh {
    /// Begins a directory that does not exist yet, for a store. The unfinished directory of an earlier run is
    /// removed if no process has locked it.
    ///
    /// # Errors
    /// `AlreadyExists` if `target` exists, or if the temporary name is in use by something else; `WouldBlock`
    /// if another process is creating the directory; otherwise as the operating system's.
    pub fn begin(target: &Path) -> io::Result<Self> {
        let target = &std::path::absolute(target)?;
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
        // This process has the lock, so no other one uses the directory, and its contents may be removed.
        let disk = match FileDisk::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return refused(io::ErrorKind::WouldBlock, &path, "is being made by another process");
            }
            disk => disk?,
        };
        fs::File::create(path.join(MARK))?;
        fs::File::open(&path)?.sync_all()?;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() && entry.file_name() != lock::NAME && entry.file_name() != MARK {
                fs::remove_file(entry.path())?;
            }
        }
        for name in disk.list()? {
            disk.remove(&name)?;
        }
        let (target, disk) = (target.to_owned(), Some(Arc::new(disk) as Arc<dyn Disk>));
        Ok(Self { target, path, disk, finished: false, process: std::process::id() })
    }

    /// The temporary path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk of the log in it.
    pub fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone().expect("it is given up at the end only")
    }

    /// Makes the directory durable and renames it to its target.
    ///
    /// # Errors
    /// As the operating system's; the directory is removed then.
    pub fn finish(mut self) -> io::Result<()> {
        self.disk().sync_directory()?;
        let mut mark = fs::File::create(self.path.join(MARK))?;
        mark.write_all(FINISHED)?;
        mark.sync_all()?;
        fs::File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, &self.target)?;
        let above = self.target.parent().expect("a directory with a name lies in another one");
        if let Err(error) = fs::File::open(above).and_then(|above| above.sync_all()) {
            // Rename it back, so that it is removed on drop.
            let _ = fs::rename(&self.target, &self.path);
            return Err(error);
        }
        self.finished = true;
        // If this fails, the next open of the store removes the mark.
        let _ = fs::remove_file(self.target.join(MARK));
        Ok(())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.finished && self.process == std::process::id() {
            // The lock is still held, so no other process uses the directory. If this fails, the next run
            // removes it.
            let _ = fs::remove_dir_all(&self.path);
        }
        self.disk = None;
    }
}

/// The file that marks a directory as unfinished.
const MARK: &str = "UNFINISHED";
/// The contents of the mark when the directory is complete and only has to be renamed.
const FINISHED: &[u8] = b"finished\n";

/// Checks that a locked directory is not unfinished. Removes the mark of a finished one.
pub(crate) fn check_finished(directory: &Path) -> io::Result<()> {
    let mark = directory.join(MARK);
    match fs::read(&mark) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // On a read-only medium the mark stays, which does no harm.
        Ok(text) if text == FINISHED => fs::remove_file(&mark).or(Ok(())),
        Ok(_) => Err(io::Error::other(format!(
            "it is what a restore or a repair is making, or has left half done: run that again. If it is whole all the same, \
             remove {}",
            mark.display()
        ))),
        Err(error) => Err(error),
    }
}

/// Whether a directory was left by a killed run.
fn is_left_half_done(path: &Path) -> io::Result<bool> {
    if path.join(MARK).is_file() {
        return Ok(true);
    }
    // The run may have been killed before it wrote the mark.
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_ours = match entry.file_name().to_str() {
            Some("log") => entry.file_type()?.is_dir() && fs::read_dir(entry.path())?.next().is_none(),
            name => name == Some(lock::NAME),
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
        // A killed run removes nothing, and its locks are released.
        fs::create_dir_all(unfinished.join("log")).unwrap();
        for name in ["LOCK", "UNFINISHED", "repair.jsonl"] {
            fs::write(unfinished.join(name), "").unwrap();
        }
        fs::write(unfinished.join("log/00000000000000000001.seg.tmp"), "half").unwrap();
        let fresh = Fresh::begin(&target).unwrap();
        assert_eq!(fresh.disk().list().unwrap(), Vec::<String>::new());
        assert!(!unfinished.join("repair.jsonl").exists());
        // While one run is active, another is refused and changes nothing.
        fresh.disk().create("x").unwrap();
        let refused = Fresh::begin(&target).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock, "{refused}");
        assert!(unfinished.join("log/x").exists());
        drop(fresh);
        // Other files and stores under the temporary name are kept.
        for name in ["thesis.txt", "log/00000000000000000001.seg"] {
            fs::create_dir_all(unfinished.join("log")).unwrap();
            fs::write(unfinished.join(name), "ten years").unwrap();
            let refused = Fresh::begin(&target).err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists, "{refused}");
            assert!(unfinished.join(name).exists());
            fs::remove_dir_all(&unfinished).unwrap();
        }
        // A run that was killed early leaves an empty directory.
        fs::create_dir_all(unfinished.join("log")).unwrap();
        Fresh::begin(&target).unwrap().finish().unwrap();
        assert!(target.join("log").exists() && !target.join("UNFINISHED").exists());
    }
    /// At whichever step a run is killed: an unfinished directory is not opened, and the next run succeeds,
    /// or the target exists.
    #[test]
    fn a_run_may_be_killed_at_any_step() {
        let place = tempfile::tempdir().unwrap();
        let (target, unfinished) = (place.path().join("new"), place.path().join("new.unfinished"));
        let left = |directory: &Path, mark: Option<&[u8]>| {
            fs::create_dir_all(directory.join("log")).unwrap();
            fs::write(directory.join("log/x"), "x").unwrap();
            if let Some(mark) = mark {
                fs::write(directory.join(MARK), mark).unwrap();
            }
        };
        // Killed before the contents are complete.
        left(&unfinished, Some(b""));
        let refused = check_finished(&unfinished).unwrap_err().to_string();
        assert!(refused.contains("UNFINISHED"), "{refused}");
        // Killed before the rename: the next run starts again, unless the directory was opened as a store.
        left(&unfinished, Some(FINISHED));
        Fresh::begin(&target).unwrap().finish().unwrap();
        assert!(!unfinished.exists() && !target.join("log/x").exists() && !target.join(MARK).exists());
        fs::remove_dir_all(&target).unwrap();
        left(&unfinished, Some(FINISHED));
        check_finished(&unfinished).unwrap();
        assert_eq!(Fresh::begin(&target).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert!(unfinished.join("log/x").exists());
        fs::remove_dir_all(&unfinished).unwrap();
        // Killed after the rename: opening removes the mark, so no run removes the directory, even if it is
        // renamed later.
        left(&target, Some(FINISHED));
        check_finished(&target).unwrap();
        assert!(target.join("log/x").exists() && !target.join(MARK).exists());
        fs::rename(&target, &unfinished).unwrap();
        assert_eq!(Fresh::begin(&target).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    }
}
