//! Reading a file through memory: small reads at random places cost no call to the system.
//!
//! A map reads as a call to the system does, errors included. Where the system cannot bring a page into memory, because
//! the device failed or somebody has cut the file, it sends the process the signal SIGBUS, which ends it. So a handler
//! puts a page of zeros there and notes that the map is broken, and the reader asks the system by a call instead, and
//! gets its error. Signals that are not about a map of ours are passed on to the previous handler.
//!
//! - M1  Bytes are copied out of the map, and checked afterwards: nothing refers to it.
//! - M2  What a map says is used only if it is not broken after it was read.
//!
//! The one place with unsafe code: a map, and a handler of a signal, cannot be had without.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// Maps that there may be at once. Who gets none reads by calls.
const SLOTS: usize = 16 << 10;

/// What a processor fetches at once.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;
/// More than this need not be near.
const NEAR_BYTES_MAX: u64 = 1 << 10;

/// Where a map is. The handler looks for it here, so it is written before the map is read and never moves.
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

/// A file in memory, to be read only.
pub struct Map {
    slot: &'static Slot,
}

impl Map {
    /// Maps the first bytes of a file; there need not be as many yet. If it is `sparse`, what lies around a place that is
    /// read is not worth to be fetched with it.
    ///
    /// # Errors
    /// As the operating system's, or if there are too many maps.
    pub fn new(file: &File, length: usize, sparse: bool) -> io::Result<Self> {
        handle_signals()?;
        let free = |slot: &&Slot| !slot.taken.swap(true, Ordering::Acquire);
        let slot = TABLE.iter().find(free).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the system chooses a place where nothing is; nothing refers to it but this map, which only reads.
        let start = unsafe { mmap(ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0) };
        let start = start.inspect_err(|_| slot.taken.store(false, Ordering::Release))?;
        if sparse {
            // SAFETY: the map was just made. Without the advice, it is slower.
            let _ = unsafe { madvise(start, length, Advice::Random) };
        }
        slot.broken.store(false, Ordering::Relaxed);
        slot.length.store(length, Ordering::Relaxed);
        slot.start.store(start.cast(), Ordering::Release);
        Ok(Self { slot })
    }

    /// Has the processor fetch the bytes, if they are in memory. Otherwise it has no effect.
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

    /// Copies bytes out; whether that could be done. The file must reach to the end of them.
    pub fn copy(&self, buffer: &mut [u8], offset: u64) -> bool {
        let Ok(offset) = usize::try_from(offset) else { return false };
        let end = offset.checked_add(buffer.len());
        if end.is_none_or(|end| end > self.slot.length.load(Ordering::Relaxed)) {
            return false;
        }
        let start = self.slot.start.load(Ordering::Relaxed);
        // SAFETY: the bytes lie within the map, which lives as long as `self`; the buffer is ours alone.
        unsafe { ptr::copy_nonoverlapping(start.add(offset), buffer.as_mut_ptr(), buffer.len()) };
        !self.slot.broken.load(Ordering::Acquire)
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let start = self.slot.start.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: the map is ours, and nobody reads it any more.
        let _ = unsafe { munmap(start.cast(), self.slot.length.load(Ordering::Relaxed)) };
        self.slot.taken.store(false, Ordering::Release);
    }
}

/// Who handled the signal before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Puts the handler in place, once for the process.
fn handle_signals() -> io::Result<()> {
    static IN_PLACE: OnceLock<bool> = OnceLock::new();
    let in_place = IN_PLACE.get_or_init(|| {
        // SAFETY: all zeros are a valid value of this type of C, and are filled in before it is used.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: asks for the action that is there, and changes nothing.
        if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) } != 0 {
            return false;
        }
        // The handler may run as soon as it is in place.
        BEFORE.get_or_init(|| before);
        // SAFETY: as above.
        let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
        ours.sa_sigaction = on_bus_error as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        // SAFETY: the handler is one for SA_SIGINFO, and does only what a handler may do.
        unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) == 0 }
    });
    if *in_place { Ok(()) } else { Err(io::Error::other("no handler for a failed read of a map")) }
}

/// Called by the system when a page of a map cannot be read. It may call nothing but the system, and takes no lock.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the system hands over a valid `info`.
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
    // SAFETY: the page is in a map of ours, which is only ever read.
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
            // SAFETY: with the default action in place, the read is tried again and ends the process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        handler if before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0) => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: it was in place with this flag, so it is a handler of this type.
            let handler: Handler = unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: it was in place without the flag, so it is a handler of this type.
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
        // Broken is broken: it is read by calls from now on.
        assert!(!map.copy(&mut buffer, 0));
        assert!(!map.copy(&mut buffer, 1 << 20), "beyond the map");
        drop(map);
        let again = Map::new(&file, 4096, false).unwrap();
        assert!(again.copy(&mut buffer, 0));
    }
}
