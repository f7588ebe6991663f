//! A directory that appears whole or not at all: it is made under another name, and gets its own when it is done.
//!
//! - H1  What a killed run left is removed by the next: it has a mark, and nobody holds it. Without the mark only what is
//!       as good as empty is taken for that; anything else of that name may be somebody's store. So the mark is durable
//!       before anything else is written, and is removed after the directory has its name for good.
//! - H2  A directory with the mark is not opened as a store: it holds a part of one, and the next run would remove it. When
//!       all is there the mark says so, and then it only has to be removed.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, FileDisk, lock};

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
        // The lock is held, so nobody else works here, and what is here may be removed.
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
        let mut mark = fs::File::create(self.path.join(MARK))?;
        mark.write_all(FINISHED)?;
        mark.sync_all()?;
        fs::File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, &self.target)?;
        let above = self.target.parent().expect("a directory with a name lies in another one");
        if let Err(error) = fs::File::open(above).and_then(|above| above.sync_all()) {
            // Under its old name it is removed.
            let _ = fs::rename(&self.target, &self.path);
            return Err(error);
        }
        self.finished = true;
        // If this is not done, the next who opens the store does it.
        let _ = fs::remove_file(self.target.join(MARK));
        Ok(())
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
/// What is in that file when all is there, and the directory only lacks its name.
const FINISHED: &[u8] = b"finished\n";

/// Checks that a directory, which is held, is not one on its way. Removes the mark of one that was finished.
pub(crate) fn check_finished(directory: &Path) -> io::Result<()> {
    let mark = directory.join(MARK);
    match fs::read(&mark) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // On a medium that cannot be written the mark stays, and does no harm.
        Ok(text) if text == FINISHED => fs::remove_file(&mark).or(Ok(())),
        Ok(_) => Err(io::Error::other(format!(
            "it is what a restore or a repair is making, or has left half done: run that again. If it is whole all the same, \
             remove {}",
            mark.display()
        ))),
        Err(error) => Err(error),
    }
}

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
    /// Wherever a run is killed: what is left is not opened by mistake, and the next run works, or there is the directory.
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
        // Before all is there.
        left(&unfinished, Some(b""));
        let refused = check_finished(&unfinished).unwrap_err().to_string();
        assert!(refused.contains("UNFINISHED"), "{refused}");
        // When all is there, but for the name: the next run does it again, unless somebody has opened it.
        left(&unfinished, Some(FINISHED));
        Fresh::begin(&target).unwrap().finish().unwrap();
        assert!(!unfinished.exists() && !target.join("log/x").exists() && !target.join(MARK).exists());
        fs::remove_dir_all(&target).unwrap();
        left(&unfinished, Some(FINISHED));
        check_finished(&unfinished).unwrap();
        assert_eq!(Fresh::begin(&target).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert!(unfinished.join("log/x").exists());
        fs::remove_dir_all(&unfinished).unwrap();
        // When it has its name: the mark goes, so it is nobody's to remove, whatever it is called later.
        left(&target, Some(FINISHED));
        check_finished(&target).unwrap();
        assert!(target.join("log/x").exists() && !target.join(MARK).exists());
        fs::rename(&target, &unfinished).unwrap();
        assert_eq!(Fresh::begin(&target).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    }
}
