//! What every part of a running system has in common: the log, the state beside it, the clock.
//!
//! Knows nothing of tasks. A task holds this, and never the handle that stops tasks: so dropping the last handle
//! stops them.

use std::sync::Arc;

use annals_core::{Clock, EventStore, SystemClock, Timestamp};

use crate::state::Opened;
use crate::stream_locks::StreamLocks;

pub(crate) struct Shared {
    pub store: Arc<dyn EventStore>,
    pub state: Opened,
    pub clock: Arc<dyn Clock>,
    /// One command at a time for each aggregate in this process.
    pub stream_locks: StreamLocks,
}

impl Shared {
    /// The time, for what is written in a status. The clock may be a user's that panics.
    pub fn now(&self) -> Timestamp {
        crate::failure::caught(|| Ok(self.clock.now())).unwrap_or_else(|_| SystemClock.now())
    }
}
