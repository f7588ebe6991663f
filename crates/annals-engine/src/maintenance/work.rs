//! Long-running work: its progress, speed limit and cancellation.
//!
//! The caller shares a [`Work`] with the work it starts, and may use it from any thread. The work reads
//! through [`Watched`], a file that counts bytes, throttles reads, and returns an error once the work is
//! stopped. So the walk over a segment does not depend on any of this.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals_core::Error;
use parking_lot::Mutex;

use crate::disk::File;

/// Long-running work, shared by the thread that does it and those that watch it.
#[derive(Debug)]
pub struct Work {
    /// Bytes per second; 0 means no limit.
    rate: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
    /// When the next read may begin.
    next: Mutex<Instant>,
}

/// The longest sleep between checks for cancellation.
const NAP: Duration = Duration::from_millis(20);

impl Work {
    /// Work that may read `rate` bytes per second; `None` means no limit.
    pub fn new(rate: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            rate: AtomicU64::new(rate.unwrap_or(0)),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            next: Mutex::new(Instant::now()),
        })
    }

    /// The bytes (for a migration, the events) that are done, and their total. Both may grow.
    pub fn progress(&self) -> (u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        (done, self.total.load(Ordering::Relaxed).max(done))
    }

    /// Stops the work at its next read.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the work was stopped.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn set_done(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    pub(crate) fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits until this many bytes may be read.
    ///
    /// # Errors
    /// If the work was stopped.
    pub(crate) fn spend(&self, bytes: u64) -> io::Result<()> {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate > 0 {
            let begin = {
                let mut next = self.next.lock();
                // Unused time is not accumulated.
                let begin = (*next).max(Instant::now());
                *next = begin + Duration::from_secs_f64(bytes as f64 / rate as f64);
                begin
            };
            while !self.is_stopped()
                && let left = begin.saturating_duration_since(Instant::now())
                && !left.is_zero()
            {
                std::thread::sleep(left.min(NAP));
            }
        }
        // Not `Interrupted`, on which many readers retry.
        self.stopped().map_err(io::Error::other)
    }

    /// Returns an error if the work was stopped.
    pub(crate) fn stopped(&self) -> Result<(), Stopped> {
        if self.is_stopped() { Err(Stopped) } else { Ok(()) }
    }
}

/// The error of work that was stopped before it finished.
#[derive(Debug, thiserror::Error)]
#[error("it was stopped")]
pub struct Stopped;

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Self {
        Self::Unavailable(Box::new(stopped))
    }
}

/// A file, or the beginning of one, that is read as part of some work.
pub struct Watched {
    file: Arc<dyn File>,
    /// Readers see the end of the file here, or earlier if the file is shorter.
    end: u64,
    work: Arc<Work>,
    /// The offset up to which it was read.
    seen: AtomicU64,
    /// The first bytes of the unreadable sectors.
    unreadable: Mutex<BTreeSet<u64>>,
}

/// Bytes that a disk reads, or fails to read, as a unit.
const SECTOR_BYTES: usize = 4 << 10;

impl Watched {
    /// The whole file.
    pub fn whole(file: Arc<dyn File>, work: &Arc<Work>) -> Self {
        Self::beginning(file, u64::MAX, work)
    }

    /// The first bytes of the file, as if it ended there.
    pub fn beginning(file: Arc<dyn File>, end: u64, work: &Arc<Work>) -> Self {
        Self { file, end, work: work.clone(), seen: AtomicU64::new(0), unreadable: Mutex::default() }
    }

    /// The unreadable sectors, by their first byte. They are read as zeros: so only the frames in them are
    /// broken.
    pub fn unreadable(&self) -> Vec<u64> {
        self.unreadable.lock().iter().copied().collect()
    }

    /// Reads sector by sector, with zeros for the unreadable ones.
    fn read_around(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let length = self.file.length()?;
        let count = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let mut at = 0;
        while at < count {
            let here = offset + at as u64;
            let step = (SECTOR_BYTES - (here % SECTOR_BYTES as u64) as usize).min(count - at);
            let part = &mut buffer[at..at + step];
            if !matches!(self.file.read_at(part, here), Ok(read) if read == part.len()) {
                part.fill(0);
                self.unreadable.lock().insert(here - here % SECTOR_BYTES as u64);
            }
            at += step;
        }
        Ok(count)
    }
}

impl File for Watched {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        self.work.spend(wanted as u64)?;
        let buffer = &mut buffer[..wanted];
        let count = self.file.read_at(buffer, offset).or_else(|_| self.read_around(buffer, offset))?;
        let end = offset + count as u64;
        let seen = self.seen.fetch_max(end, Ordering::Relaxed);
        self.work.advance(end.saturating_sub(seen));
        Ok(count)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.length()?.min(self.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_allowed_and_a_stop_ends_a_wait() {
        let work = Work::new(Some(1 << 20));
        let begun = Instant::now();
        for _ in 0..3 {
            work.spend(100 << 10).unwrap();
        }
        assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
        // The next read may begin in about 34 years.
        work.spend(u64::MAX >> 14).unwrap();
        let waiting = std::thread::spawn({
            let work = work.clone();
            move || work.spend(1)
        });
        work.stop();
        let stopped = waiting.join().unwrap().unwrap_err();
        assert!(stopped.get_ref().is_some_and(|why| why.is::<Stopped>()));
    }
}
