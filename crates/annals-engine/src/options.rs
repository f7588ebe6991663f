//! How a store is opened, and which options there cannot be.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Clock, Invalid, Limits, SystemClock};

use crate::index::Offset;
use crate::log::frame;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Bytes of one segment file; an append larger than that has a segment of its own. 256 MiB by default, at
    /// least 256 bytes and at most 1 GiB.
    pub segment_bytes: u64,
    /// Events of a run, after which its index is written. Those of the newest run are indexed in memory, and walked
    /// over when the store is opened. 65,536 by default, at least 1.
    pub run_events: u32,
    /// The same in bytes of the log. 16 MiB by default, at least 1.
    pub run_bytes: u64,
    /// Whether an append that comes alone may be executed on the thread of its caller, if the disk is known to be
    /// fast. That saves two changes of threads; the thread waits for the disk, as it does for reads. True by default.
    /// Appends are judged on the threads of callers in any case, which reads indexes as a read does.
    pub callers_may_wait: bool,
    /// How large an append may be: at least one event of one byte, at most 65,536 events and 512 MiB.
    pub limits: Limits,
    /// Where recorded times come from.
    pub clock: Arc<dyn Clock>,
    /// By how much the clock may be ahead of the log. Recorded time never decreases, so one append with a clock that is
    /// years ahead would hold it for years: an append at a time that is further ahead of the newest event, and of when
    /// the store was last in use, is refused as `Unavailable`. A store that rested for longer is opened once with more
    /// than that. 366 days by default; with [`Duration::MAX`] none is refused.
    pub clock_ahead_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            run_events: 1 << 16,
            run_bytes: 16 << 20,
            callers_may_wait: true,
            limits: Limits::default(),
            clock: Arc::new(SystemClock),
            clock_ahead_max: Duration::from_secs(366 * 24 * 60 * 60),
        }
    }
}

/// A header, and a little more.
const SEGMENT_BYTES_MIN: u64 = 256;
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Fields and names take some more: a record stays where an offset reaches.
const APPEND_BYTES_MAX: usize = 512 << 20;
const _: () = assert!(SEGMENT_BYTES_MAX < Offset::MAX && 3 * (APPEND_BYTES_MAX as u64) < Offset::MAX);

impl Options {
    /// Refuses what cannot be.
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
