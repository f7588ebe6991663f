//! What every handler sees: the store, the limits, the figures, and whether the server is shutting down.

use std::sync::Arc;

use annals_core::{EventStore, Limits};
use tokio::sync::watch;

use crate::guard::Hosts;
use crate::metrics::Metrics;
use crate::upkeep::Upkeep;

/// Shared by all requests.
pub(crate) struct App {
    /// Where the events are.
    pub(crate) store: Arc<dyn EventStore>,
    /// How large an append may be.
    pub(crate) limits: Limits,
    /// How large the body of a request may be.
    pub(crate) body_bytes_max: usize,
    /// The care that the store is given, if it is given any.
    pub(crate) upkeep: Option<Arc<dyn Upkeep>>,
    /// The names under which the server answers.
    pub(crate) hosts: Hosts,
    /// Held while a backup is made.
    pub(crate) backing_up: Arc<tokio::sync::Mutex<()>>,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Entries of the console's navigation beside its own: name and path.
    pub(crate) links: Vec<(String, String)>,
    /// Becomes true when the server begins to shut down.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl App {
    /// Whether the server is shutting down.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until the server is shutting down.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // A sender that is gone belongs to a server that has stopped.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}
