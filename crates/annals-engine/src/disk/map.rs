//! Reading a file through a memory map: small reads at random offsets need no system call.
//!
//! A failed read of a map gives an error, as with a system call. If the system cannot load a page, because
//! the device failed or the file was truncated, it sends SIGBUS, which by default ends the process. So a
//! signal handler maps a page of zeros there and marks the map as broken; the reader then uses a system call
//! instead, and gets its error. Signals for addresses outside our maps are passed on to the previous handler.
//!
//! - M1  Bytes are copied out of the map before they are checked: no reference into the map exists.
//! - M2  Copied bytes are used only if the map is not broken after the copy.
//!
//! This is the only module with unsafe code: memory maps and signal handlers require it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// The most maps at a time. Further files are read by system calls.
const SLOTS: usize = 16 << 10;

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;
/// The most bytes that are prefetched into the cache.
const NEAR_BYTES_MAX: u64 = 1 << 10;

/// The address of a map. The signal handler reads it, so it is written before the map is read and never
/// moves.
struct Slot {
    start: AtomicPtr<u8>,
    length: AtomicUsize,
    taken: AtomicBool,
    broken: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicPtr::new(ptr::null_mut()),
        length: AtomicUsize::new(0),
        taken: AtomicBool::new(false),
        broken: AtomicBool::new(false),
    }
}; SLOTS];

/// A read-only memory map of a file.
pub struct Map {
    slot: &'static Slot,
}

impl Map {
    /// Maps the first `length` bytes of a file, which may still be shorter. If it is `sparse`, the system
    /// does not read ahead.
    ///
    /// # Errors
    /// As the operating system's, or if there are too many maps.
    pub fn new(file: &File, length: usize, sparse: bool) -> io::Result<Self> {
        handle_signals()?;
        let free = |slot: &&Slot| !slot.taken.swap(true, Ordering::Acquire);
        let slot = TABLE.iter().find(free).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the system chooses an unused address range; only this map refers to it, and it only reads.
        let start = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0) };
        let start = start.inspect_err(|_| slot.taken.store(false, Ordering::Release))?;
        if sparse {
            // SAFETY: the map was just created. If this fails, reads are slower.
            let _ = unsafe { madvise(start, length, Advice::Random) };
        }
        slot.broken.store(false, Ordering::Relaxed);
        slot.length.store(length, Ordering::Relaxed);
        slot.start.store(start.cast(), Ordering::Release);
        Ok(Self { slot })
    }

    /// Prefetches the bytes into the processor's cache if they are in memory. Otherwise it has no effect.
    pub fn bring_near(&self, offset: u64, length: u64) {
        let (from, to) = (offset, offset.saturating_add(length.min(NEAR_BYTES_MAX)));
        if to > self.slot.length.load(Ordering::Relaxed) as u64 {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        for at in (from..to).step_by(LINE_BYTES) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let start = self.slot.start.load(Ordering::Relaxed);
            // SAFETY: a hint, which never fails; the address is within the map.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(at as usize).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (from, to);
    }

    /// Loads the pages with these bytes and enters them into the page table, so that no later copy waits for
    /// them. If that fails, copies do it.
    pub fn load(&self, offset: u64, length: u64) {
        let page = rustix::param::page_size() as u64;
        let from = offset / page * page;
        let end = offset.saturating_add(length);
        if from >= end || end > self.slot.length.load(Ordering::Relaxed) as u64 {
            return;
        }
        let start = self.slot.start.load(Ordering::Relaxed);
        // SAFETY: the range is within the map, which lives as long as `self`, and nothing is written.
        let _ = unsafe {
            madvise(start.add(from as usize).cast(), (end - from) as usize, Advice::LinuxPopulateRead)
        };
    }

    /// Copies bytes to the buffer; returns whether that succeeded. The file must contain all of them.
    pub fn copy(&self, buffer: &mut [u8], offset: u64) -> bool {
        let Ok(offset) = usize::try_from(offset) else { return false };
        let end = offset.checked_add(buffer.len());
        if end.is_none_or(|end| end > self.slot.length.load(Ordering::Relaxed)) {
            return false;
        }
        let start = self.slot.start.load(Ordering::Relaxed);
        // SAFETY: the bytes are within the map, which lives as long as `self`; the buffer is borrowed
        // exclusively.
        unsafe { ptr::copy_nonoverlapping(start.add(offset), buffer.as_mut_ptr(), buffer.len()) };
        !self.slot.broken.load(Ordering::Acquire)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let start = self.slot.start.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: the map belongs to `self`, and is not read after this.
        let _ = unsafe { munmap(start.cast(), self.slot.length.load(Ordering::Relaxed)) };
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// The previous handler of the signal.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once per process.
fn handle_signals() -> io::Result<()> {
    static IN_PLACE: OnceLock<bool> = OnceLock::new();
    let in_place = IN_PLACE.get_or_init(|| {
        // SAFETY: all zeros are a valid value of this C type, and it is filled in before it is used.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: reads the current action, and changes nothing.
        if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) } != 0 {
            return false;
        }
        // The handler may run as soon as it is installed.
        BEFORE.get_or_init(|| before);
        // SAFETY: as above.
        let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
        ours.sa_sigaction = on_bus_error as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        // SAFETY: the handler has the type for SA_SIGINFO, and is async-signal-safe.
        unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) == 0 }
    });
    if *in_place { Ok(()) } else { Err(io::Error::other("no handler for a failed read of a map")) }
}

/// The signal handler, called when a page of a map cannot be read. It must be async-signal-safe: it makes
/// only system calls and takes no lock.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the system passes a valid `info`.
    let address = unsafe { (*info).si_addr() } as usize;
    let ours = TABLE.iter().find(|slot| {
        let start = slot.start.load(Ordering::Acquire) as usize;
        start != 0 && address.wrapping_sub(start) < slot.length.load(Ordering::Relaxed)
    });
    let Some(slot) = ours else { return pass_on(signal, info, context) };
    slot.broken.store(true, Ordering::Release);
    let page_bytes = rustix::param::page_size();
    let page = (address & !(page_bytes - 1)) as *mut libc::c_void;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: the page is in one of our maps, which are only read.
    let replaced = unsafe { rustix::mm::mmap_anonymous(page, page_bytes, ProtFlags::READ, flags) };
    if replaced.is_err() {
        pass_on(signal, info, context);
    }
}

/// Passes the signal on to the previous handler.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.get();
    match before.map_or(libc::SIG_DFL, |before| before.sa_sigaction) {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: with the default action installed, the read is retried and ends the process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        handler if before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0) => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: it was installed with this flag, so it is a handler of this type.
            let handler: Handler = unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: it was installed without the flag, so it is a handler of this type.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_cut_is_not_read_and_does_not_end_the_process() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &[7; 20_000]).unwrap();
        let map = Map::new(&file, 1 << 20, true).unwrap();
        let mut buffer = [0; 100];
        assert!(map.copy(&mut buffer, 15_000));
        assert_eq!(buffer, [7; 100]);
        file.set_len(100).unwrap();
        assert!(!map.copy(&mut buffer, 15_000));
        // A broken map stays broken: the file is read by system calls from now on.
        assert!(!map.copy(&mut buffer, 0));
        assert!(!map.copy(&mut buffer, 1 << 20), "beyond the map");
        drop(map);
        let again = Map::new(&file, 4096, false).unwrap();
        assert!(again.copy(&mut buffer, 0));
    }
}
