//! What the process does with memory that it no longer needs: it gives it back.
//!
//! glibc keeps freed memory for the next request of the same size, and learns from each large one that it was freed
//! to keep larger ones. A server that has had many clients once would never return what they took. The one place of
//! the command line with unsafe code: the allocator has no other interface.
#![allow(unsafe_code)]

/// Allocations of at least this many bytes are given back to the system as soon as they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BYTES: libc::c_int = 128 << 10;

/// Makes the allocator give large pieces of memory back. Called once, before there are other threads.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn give_back() {
    // SAFETY: `mallopt` only sets parameters of the allocator, and no other thread runs yet.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
}

/// Other allocators give memory back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}
