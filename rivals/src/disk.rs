//! The disk under the stores: how much files take, what memory holds of them, what a process takes of memory.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Bytes of the files below a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Blocks that the files have on the disk, as `du` counts.
    pub allocated: u64,
    /// Lengths of the files, as `ls` shows them.
    pub apparent: u64,
    /// Lengths of the files without the zeros at their ends: what is left out was allocated ahead.
    pub written: u64,
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
            sum.written += below.written;
        } else {
            sum.allocated += metadata.blocks() * 512;
            sum.apparent += metadata.len();
            sum.written += written(&File::open(entry.path())?, metadata.len())?;
        }
    }
    Ok(sum)
}

/// The end of the last byte that is not zero.
fn written(file: &File, length: u64) -> Result<u64> {
    let mut chunk = vec![0; 1 << 20];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(chunk.len() as u64);
        let bytes = &mut chunk[..(end - start) as usize];
        file.read_exact_at(bytes, start)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Waits until what was written before is on the disk and this process rests: what one store still does after
/// its round must not be paid by the next. Some work begins only when nothing was appended for a while, so it
/// must have rested for a while. Waits a moment for the rest of the machine too, but not longer: others may
/// go on for hours.
pub fn settle() {
    rustix::fs::sync();
    let mut rested = 0;
    for window in 0..300 {
        let before = Used::now();
        std::thread::sleep(Duration::from_millis(20));
        let now = Used::now();
        rested = if now.own - before.own < Duration::from_millis(2) { rested + 1 } else { 0 };
        let others_rest = now.busy - before.busy <= TICK;
        if rested >= RESTED_WINDOWS && (others_rest || window >= 2 * RESTED_WINDOWS) {
            return;
        }
    }
}

/// Windows of 20 milliseconds: a store that has not begun anything in this many is at rest.
const RESTED_WINDOWS: u32 = 6;
/// What the system counts the processors' time in.
const TICK: Duration = Duration::from_millis(10);

/// Time of all processors since the machine was started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    busy: Duration,
    all: Duration,
    own: Duration,
}

impl Used {
    /// Until now; nothing where the system does not tell.
    pub fn now() -> Self {
        let own = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let own = Duration::new(own.tv_sec as u64, own.tv_nsec as u32);
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let ticks: Vec<u32> = fields.filter_map(|field| Some(field.parse::<u64>().ok()? as u32)).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let sum = |places: &[usize]| TICK * places.iter().filter_map(|place| ticks.get(*place)).sum::<u32>();
        let busy = sum(&[0, 1, 2, 5, 6, 7]);
        Self { busy, all: busy + sum(&[3, 4]), own }
    }

    /// How much of the processors' time other processes had since then, in percent; `None` if that was too
    /// short to tell.
    pub fn others(self, since: Self) -> Option<f64> {
        let others = (self.busy - since.busy).saturating_sub(self.own - since.own);
        let all = self.all - since.all;
        (all > TICK * 50).then(|| 100.0 * others.as_secs_f64() / all.as_secs_f64())
    }
}

/// Makes the system forget what memory holds of the files below this directory; and of all files, if it lets
/// us.
///
/// # Errors
/// As the operating system's.
pub fn forget(directory: &Path) -> Result<()> {
    annals_bench::forget_pages(directory)?;
    // Only root may; the call before did most of it.
    let _ = fs::write("/proc/sys/vm/drop_caches", "1");
    Ok(())
}

/// Makes the system hold in memory what is in the files below this directory: what is measured next is no
/// disk.
///
/// # Errors
/// As the operating system's.
pub fn recall(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            recall(&path)?;
        } else {
            std::io::copy(&mut File::open(&path)?, &mut std::io::sink())?;
        }
    }
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
        assert_eq!((size.apparent, size.written), (5100, 5100));
    }

    #[test]
    fn zeros_at_the_end_were_allocated_ahead() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = vec![0; 3 << 20];
        bytes[4_999] = 1;
        fs::write(directory.path().join("one"), &bytes).unwrap();
        fs::write(directory.path().join("zeros"), [0; 10]).unwrap();
        let size = size(directory.path()).unwrap();
        assert_eq!((size.apparent, size.written), ((3 << 20) + 10, 5_000));
    }

    #[test]
    fn the_most_memory_is_at_least_what_there_is() {
        assert!(memory("VmHWM").unwrap() >= memory("VmRSS").unwrap() / 2);
    }
}
