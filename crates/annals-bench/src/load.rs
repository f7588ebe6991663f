//! How much of a workload is done.

/// How much is done, and by how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Events in all.
    pub events: usize,
    /// Events of one append.
    pub batch: usize,
    /// Callers that append at the same time, each to a stream of its own.
    pub writers: usize,
    /// Bytes of an event's data.
    pub data_bytes: usize,
}

impl Load {
    /// For tests: enough to be right or wrong, too little to measure.
    pub const TINY: Self = Self { events: 40, batch: 2, writers: 4, data_bytes: 16 };

    /// Appends of each writer; at least one.
    pub fn appends_each(&self) -> usize {
        (self.events / self.batch / self.writers).max(1)
    }
}
