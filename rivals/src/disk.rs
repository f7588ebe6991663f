//! The disk under the stores: how much files take, what memory holds of them, what a process takes of memory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Bytes of the files below a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Blocks that the files have on the disk, as `du` counts.
    pub allocated: u64,
    /// Lengths of the files, as `ls` shows them.
    pub apparent: u64,
}

/// How large the files below this directory are.
///
/// # Errors
/// As the operating system's.
pub fn size(directory: &Path) -> Result<Size> {
    let mut sum = Size::default();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            let below = size(&entry.path())?;
            sum.allocated += below.allocated;
            sum.apparent += below.apparent;
        } else {
            sum.allocated += metadata.blocks() * 512;
            sum.apparent += metadata.len();
        }
    }
    Ok(sum)
}

/// Makes the system forget what memory holds of the files below this directory; and of all files, if it lets us.
///
/// # Errors
/// As the operating system's.
pub fn forget(directory: &Path) -> Result<()> {
    annals_bench::forget_pages(directory)?;
    // Only root may; the call before did most of it.
    let _ = fs::write("/proc/sys/vm/drop_caches", "1");
    Ok(())
}

/// Memory of this process in bytes: `VmRSS` is what it has now, `VmHWM` the most that it had.
///
/// # Errors
/// If the system does not tell.
pub fn memory(field: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no such field of memory")?;
    Ok(kib.trim().parse::<u64>()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_counts_files_in_folders_too() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("below")).unwrap();
        fs::write(directory.path().join("one"), [1; 100]).unwrap();
        fs::write(directory.path().join("below/two"), [1; 5000]).unwrap();
        let size = size(directory.path()).unwrap();
        assert_eq!(size.apparent, 5100);
    }

    #[test]
    fn the_most_memory_is_at_least_what_there_is() {
        assert!(memory("VmHWM").unwrap() >= memory("VmRSS").unwrap() / 2);
    }
}
