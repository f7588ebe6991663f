//! The options of a store, and their valid ranges.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Clock, Invalid, Limits, SystemClock};

use crate::index::Offset;
use crate::log::frame;
use crate::machine;

/// The options with which a store is opened.
#[derive(Clone)]
pub struct Options {
    /// The maximum size of a segment file in bytes; a larger append gets its own segment. 256 MiB by default,
    /// at least 256 bytes and at most 1 GiB.
    pub segment_bytes: u64,
    /// The number of events after which a run ends and its index is written. The events of the newest run are
    /// indexed in memory, and are read when the store is opened. 65,536 by default, at least 1.
    pub run_events: u32,
    /// The number of bytes of the log after which a run ends. 16 MiB by default, at least 1.
    pub run_bytes: u64,
    /// Whether a single append may be executed on the thread of its caller, if the disk is known to be fast.
    /// That saves two context switches, but the thread waits for the disk, as it does in reads. True by
    /// default. Appends are decided on the threads of callers in any case, which reads indexes as a read
    /// does.
    pub callers_may_wait: bool,
    /// How much memory the caches may take, in bytes: of versions of streams, and of blocks of indexes, half
    /// each. By default a 64th of the memory of the machine or its container, at least 32 MiB and at most 1
    /// GiB. It is taken as it is used. If it is too small for the streams that are written to, appends look
    /// for versions in the indexes, and take longer. At opening, filters of indexes of up to half as many
    /// bytes are loaded too, into the system's cache of files.
    pub cache_bytes: u64,
    /// The maximum size of an append: at least one event of one byte, at most 65,536 events and 512 MiB.
    pub limits: Limits,
    /// The clock for recorded times.
    pub clock: Arc<dyn Clock>,
    /// By how much the clock may be ahead of the log. Recorded time never decreases, so one append with a
    /// clock that is years ahead would hold it there for years. So an append is refused as `Unavailable` if
    /// its time is ahead of both the newest event and the last use of the store by more than this. To use a
    /// store again that was unused for longer, open it once with a larger value. 366 days by default; with
    /// [`Duration::MAX`] no append is refused.
    pub clock_ahead_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            run_events: 1 << 16,
            run_bytes: 16 << 20,
            callers_may_wait: true,
            cache_bytes: cache_bytes_of(machine::memory_bytes()),
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
            clock_ahead_max: Duration::from_secs(366 * 24 * 60 * 60),
        }
    }
}

/// The size of the caches where this much memory is.
fn cache_bytes_of(memory: Option<u64>) -> u64 {
    const LEAST: u64 = 32 << 20;
    const MOST: u64 = 1 << 30;
    memory.map_or(LEAST, |bytes| (bytes / 64).clamp(LEAST, MOST))
}

/// The header of a segment, and space for a small frame.
const SEGMENT_BYTES_MIN: u64 = 256;
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// With fields and names an append is larger, but every record must be within the range of an [`Offset`].
const APPEND_BYTES_MAX: usize = 512 << 20;
const _: () = assert!(SEGMENT_BYTES_MAX < Offset::MAX && 3 * (APPEND_BYTES_MAX as u64) < Offset::MAX);

impl Options {
    /// Checks that the values are within their ranges.
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let within = |field: &str, value: u64, least: u64, most: u64, unit: &str| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Invalid::new(field, format!("is {value}; it can be from {least} to {most} {unit}")))
        };
        let Limits { event_bytes_max, append_bytes_max, append_events_max, .. } = self.limits;
        let bytes_max = APPEND_BYTES_MAX as u64;
        within("segment_bytes", self.segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX, "bytes")?;
        within("run_events", self.run_events.into(), 1, u32::MAX.into(), "events")?;
        within("run_bytes", self.run_bytes, 1, u64::MAX, "bytes")?;
        within("limits.event_bytes_max", event_bytes_max as u64, 1, bytes_max, "bytes")?;
        within("limits.append_bytes_max", append_bytes_max as u64, 1, bytes_max, "bytes")?;
        within("limits.append_events_max", append_events_max as u64, 1, frame::EVENTS_MAX as u64, "events")
    }
}
