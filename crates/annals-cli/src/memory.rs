//! Returns freed memory of a server to the operating system.
//!
//! glibc keeps freed memory for later allocations, so a server that once had many clients would never return
//! their memory. If each large block were returned when it is freed, every large buffer would be a mapping of
//! its own, which halves the speed of reads. So a thread returns free memory periodically when there is much.
//! This is the only file of the command line with unsafe code: the allocator has no other interface.
#![allow(unsafe_code)]

/// Starts a thread that returns free memory.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn give_back() -> std::io::Result<()> {
    use std::time::Duration;

    /// The interval of the checks.
    const LOOK: Duration = Duration::from_secs(1);
    /// The number of free bytes that are kept for later allocations.
    const KEPT_BYTES: usize = 16 << 20;

    let watch = || {
        loop {
            std::thread::sleep(LOOK);
            // SAFETY: it only reads statistics, under the locks of the allocator.
            let figures = unsafe { libc::mallinfo2() };
            let in_use = figures.uordblks + figures.hblkhd;
            if in_memory() > in_use + KEPT_BYTES {
                // SAFETY: it may be called at any time and does not change memory in use.
                unsafe { libc::malloc_trim(0) };
            }
        }
    };
    std::thread::Builder::new().name("annals-memory".into()).spawn(watch).map(drop)
}

/// The resident bytes of the process that are not pages of files; 0 if they cannot be read.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn in_memory() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = text.split(' ').skip(1).map_while(|pages| pages.parse::<usize>().ok());
    let (resident, of_files) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(of_files) * rustix::param::page_size()
}

/// Other allocators return memory by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() -> std::io::Result<()> {
    Ok(())
}
