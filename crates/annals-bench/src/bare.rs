//! What the disk itself can do, to hold the figures of a store against; and how to make it forget.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::Figures;

/// Writes this many bytes and syncs, `count` times, to a file in the directory that is filled with zeros
/// before, as a segment is; removes it afterwards.
///
/// # Errors
/// As the operating system's.
pub fn bare(directory: &Path, bytes: usize, count: usize) -> io::Result<Figures> {
    let path = directory.join("bare.bench");
    let file = File::create(&path)?;
    let total = (bytes * count).next_multiple_of(1 << 20);
    file.write_all_at(&vec![0; total], 0)?;
    file.sync_all()?;
    let data = vec![1; bytes];
    let mut latencies = Vec::with_capacity(count);
    let started = Instant::now();
    for index in 0..count {
        let asked = Instant::now();
        file.write_all_at(&data, (index * bytes) as u64)?;
        file.sync_data()?;
        latencies.push(asked.elapsed());
    }
    let elapsed = started.elapsed();
    std::fs::remove_file(path)?;
    Ok(Figures::new(count as u64, elapsed, latencies, (bytes * count) as u64))
}

/// Makes the operating system forget what it holds in memory of the files below this directory, as far as it
/// is written: the next read of them goes to the disk.
///
/// # Errors
/// As the operating system's.
pub fn forget_pages(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            forget_pages(&path)?;
        } else {
            let file = File::open(&path)?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}
