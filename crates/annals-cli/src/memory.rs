//! What a server does with memory that it no longer needs: it gives it back to the system.
//!
//! glibc keeps freed memory for the next request of the same size. A server that has had many clients once would never return
//! what they took. To have each large piece returned when it is freed would make every large buffer a mapping of its own,
//! which halves the speed of reads; so what is free is returned from time to time, when it is much. The one place of the
//! command line with unsafe code: the allocator has no other interface.
#![allow(unsafe_code)]

/// Starts a thread that gives back what is free.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn give_back() -> std::io::Result<()> {
    use std::time::Duration;

    /// How often it is looked.
    const LOOK: Duration = Duration::from_secs(1);
    /// This many bytes are kept for what comes next.
    const KEPT_BYTES: usize = 16 << 20;

    let watch = || {
        loop {
            std::thread::sleep(LOOK);
            // SAFETY: it only reads figures, under the locks of the allocator.
            let figures = unsafe { libc::mallinfo2() };
            let in_use = figures.uordblks + figures.hblkhd;
            if in_memory() > in_use + KEPT_BYTES {
                // SAFETY: it may be called at any time; memory in use stays as it is.
                unsafe { libc::malloc_trim(0) };
            }
        }
    };
    std::thread::Builder::new().name("annals-memory".into()).spawn(watch).map(drop)
}

/// Bytes in memory that are not pages of files; 0 if the system does not tell.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn in_memory() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = text.split(' ').skip(1).map_while(|pages| pages.parse::<usize>().ok());
    let (resident, of_files) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(of_files) * rustix::param::page_size()
}

/// Other allocators give memory back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() -> std::io::Result<()> {
    Ok(())
}
