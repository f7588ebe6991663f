//! The shared parts of a running system: the log, the state beside it, the clock.
//!
//! Independent of tasks. A task holds this, but never the handle that stops tasks, so that dropping the last
//! handle stops them.

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
    /// The time for a status. If the user's clock panics, that of the system.
    pub fn now(&self) -> Timestamp {
        crate::failure::caught(|| Ok(self.clock.now())).unwrap_or_else(|_| SystemClock.now())
    }
}
