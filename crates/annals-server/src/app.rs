//! The state that all handlers share: the store, the limits, the metrics, and whether the server is shutting
//! down.

use std::sync::Arc;

use annals_core::{EventStore, Limits};
use tokio::sync::{Semaphore, watch};

use crate::auth::Gate;
use crate::bounds::Bounds;
use crate::hosts::Hosts;
use crate::live_pages::LivePages;
use crate::maintenance::Maintenance;
use crate::metrics::Metrics;
use crate::room::Room;

/// Shared by all requests.
pub(crate) struct App {
    /// The store of the events. Handlers access it through `access.rs` only.
    pub(crate) store: Store,
    /// The limits of an append.
    pub(crate) limits: Limits,
    /// The maximum size of a request body.
    pub(crate) body_bytes_max: usize,
    /// Backups and metrics of the store, if they are enabled.
    pub(crate) maintenance: Option<Arc<dyn Maintenance>>,
    /// The tokens that are accepted.
    pub(crate) gate: Gate,
    /// Whether connections are TLS.
    pub(crate) has_tls: bool,
    /// The host names that the server accepts.
    pub(crate) hosts: Hosts,
    /// Held while a backup is made.
    pub(crate) backing_up: Arc<tokio::sync::Mutex<()>>,
    /// The limits over all connections together.
    pub(crate) bounds: Bounds,
    /// Room for responses that wait to be sent.
    pub(crate) sending: Arc<Room>,
    /// Room for bodies.
    pub(crate) bodies: Arc<Room>,
    /// A permit for each live stream.
    pub(crate) live_streams: Arc<Semaphore>,
    /// Pages of live streams.
    pub(crate) live_pages: LivePages,
    /// The server's metrics.
    pub(crate) metrics: Metrics,
    /// Additional entries of the console's navigation: name and path.
    pub(crate) links: Vec<(String, String)>,
    /// Becomes true when the server begins to shut down.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// The store, which only [`App::log`] hands out.
pub(crate) struct Store(pub(crate) Arc<dyn EventStore>);

impl App {
    /// The whole log.
    pub(crate) fn log(&self) -> Arc<dyn EventStore> {
        Arc::clone(&self.store.0)
    }

    /// Whether the server is shutting down.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until the server is shutting down.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // The sender is dropped when the server has stopped.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

#[cfg(test)]
impl App {
    /// An app over this store, with the defaults and at most ten live streams.
    pub(crate) fn plain(store: Arc<dyn EventStore>, stopping: watch::Receiver<bool>) -> Self {
        let bounds = Bounds { live_streams: 10, ..Bounds::default() };
        let sending = Arc::new(Room::new(bounds.sending_bytes));
        Self {
            live_pages: LivePages::new(Arc::clone(&sending)),
            store: Store(store),
            limits: Limits::default(),
            body_bytes_max: 90 << 20,
            maintenance: None,
            gate: Gate::Open,
            has_tls: false,
            hosts: Hosts { loopback: true, named: Vec::new() },
            backing_up: Arc::default(),
            bodies: Arc::new(Room::new(bounds.body_bytes)),
            live_streams: Arc::new(Semaphore::new(bounds.live_streams)),
            bounds,
            sending,
            metrics: Metrics::new(Vec::new()),
            links: Vec::new(),
            stopping,
        }
    }
}
