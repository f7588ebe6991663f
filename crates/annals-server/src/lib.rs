//! The server: HTTP and JSON over any store, server-sent events, health, metrics and a console.
//!
//! ```text
//! connections.rs   accepts, ends gracefully
//! flow.rs          cuts off clients that take nothing; room.rs, bounds.rs: what all connections together may take
//! guard.rs         refuses what a page of another site may have sent
//! headers.rs       refuses headers that were meant to be others
//! routes.rs        every method and path, and the layers around them
//!   append.rs read.rs live.rs      the API          health.rs metrics.rs openapi.rs   for operators
//!   token.rs etag.rs expected.rs   positions that name their history, and what is expected of them
//!   upkeep.rs                                                                         backups and figures of the store
//!   console.rs browsers.rs         for people       problem.rs                        what fails, and what is said of it
//! event_json.rs    the one JSON form of an event, also of the command line's export and import
//! ```
//!
//! It knows the contract of stores and how a log is followed (`annals-consume`), and no store: it is given one. What it
//! serves is described in `docs/http.md` and, for machines, in `openapi.json`; a test keeps the second equal to the routes.
//!
//! An append comes in through `append.rs`, which hands it to [`EventStore::append`].
#![forbid(unsafe_code)]

mod app;
mod bounds;
mod browsers;
mod connections;
mod flow;
mod guard;
mod headers;
mod room;
mod routes;

mod append;
mod body;
mod etag;
mod expected;
mod links;
mod live;
mod live_pages;
mod paging;
mod params;
mod problem;
mod read;
mod token;

mod health;
mod metrics;
mod openapi;
mod upkeep;

mod console;

pub mod event_json;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{EventStore, Limits};
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub use axum::http::StatusCode;
pub use bounds::Bounds;
pub use problem::Problem;
pub use routes::served;
use upkeep::Figures;
pub use upkeep::{Figure, Upkeep};

/// A server over a store, to be furnished and then started with [`serve`](Self::serve).
pub struct Server {
    store: Arc<dyn EventStore>,
    limits: Limits,
    body_bytes_max: Option<usize>,
    bounds: Bounds,
    grace: Duration,
    upkeep: Option<Arc<dyn Upkeep>>,
    hosts: Vec<String>,
    figures: Vec<Figures>,
    mounted: Vec<routes::Mounted>,
    links: Vec<(String, String)>,
}

impl Server {
    /// A server over this store, with the default limits and nothing beside the API and the console.
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        Self {
            store,
            limits: Limits::default(),
            body_bytes_max: None,
            bounds: Bounds::default(),
            grace: Duration::from_secs(10),
            upkeep: None,
            hosts: Vec::new(),
            figures: Vec::new(),
            mounted: Vec::new(),
            links: Vec::new(),
        }
    }

    /// How large an append may be. The store's own limits hold as well.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How many bytes the body of a request may have. By default as many as the largest append may need.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = Some(bytes);
        self
    }

    /// What all connections together may take.
    #[must_use]
    pub fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// How long a shutdown waits for the requests that are under way. 10 seconds by default.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Takes care of the store: lets backups be asked for, and shows its figures.
    #[must_use]
    pub fn upkeep(mut self, upkeep: Arc<dyn Upkeep>) -> Self {
        self.upkeep = Some(Arc::clone(&upkeep));
        self.figures(move || upkeep.figures())
    }

    /// Shows these figures at `/metrics` too. They are asked for at each request and must not block.
    #[must_use]
    pub fn figures(mut self, figures: impl Fn() -> Vec<Figure> + Send + Sync + 'static) -> Self {
        self.figures.push(Figures(Arc::new(figures)));
        self
    }

    /// Answers under this name too, with whatever port.
    ///
    /// On a loopback address only the names of this machine and those given here are answered, so that no page of
    /// another site can reach the server by a name that was made to point to it. On other addresses any name is
    /// answered unless one is given here; then these, addresses and names without a dot, as containers have. A proxy's
    /// name is to be given if the proxy does not keep `Host`. What is [mounted](Self::mount) is not checked.
    #[must_use]
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(guard::host_name(&name.into()).to_owned());
        self
    }

    /// Serves these routes too, below a path such as `/shop`. Which names and origins they answer is theirs to say: the
    /// checks of `Host` and `Origin` are for the server's own routes.
    #[must_use]
    pub fn mount(mut self, path: impl Into<String>, router: Router) -> Self {
        self.mounted.push(routes::Mounted { path: path.into(), router, checked: false });
        self
    }

    /// The same, with the checks of `Host` and `Origin` that the server's own routes have: for a program without a sign-in,
    /// whose pages no other site may use.
    #[must_use]
    pub fn mount_checked(mut self, path: impl Into<String>, router: Router) -> Self {
        self.mounted.push(routes::Mounted { path: path.into(), router, checked: true });
        self
    }

    /// Shows one more entry in the console's navigation.
    #[must_use]
    pub fn link(mut self, name: impl Into<String>, path: impl Into<String>) -> Self {
        self.links.push((name.into(), path.into()));
        self
    }

    /// Answers connections until `shutdown` completes; then takes no more, finishes what is under way, ends the
    /// live streams and returns.
    ///
    /// # Errors
    /// If the listener has no address. A connection that fails ends alone.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let address = listener.local_addr()?;
        let (stop, stopping) = watch::channel(false);
        let body_bytes_max = self.body_bytes_max.unwrap_or_else(|| body_bytes_for(&self.limits));
        let sending = Arc::new(room::Room::new(self.bounds.sending_bytes));
        let bodies = Arc::new(room::Room::new(self.bounds.body_bytes.max(body_bytes_max)));
        let mut figures = self.figures;
        figures.push(room::figures(Arc::clone(&sending), Arc::clone(&bodies)));
        let app = Arc::new(app::App {
            live_pages: live_pages::LivePages::new(Arc::clone(&self.store), Arc::clone(&sending)),
            store: self.store,
            body_bytes_max,
            bodies,
            live_streams: Arc::new(Semaphore::new(self.bounds.live_streams)),
            bounds: self.bounds,
            sending,
            limits: self.limits,
            metrics: metrics::Metrics::new(figures),
            upkeep: self.upkeep,
            hosts: guard::Hosts { loopback: address.ip().to_canonical().is_loopback(), named: self.hosts },
            backing_up: Arc::default(),
            links: self.links,
            stopping,
        });
        let router = routes::router(Arc::clone(&app), self.mounted);
        tracing::info!(%address, "listening");
        connections::serve(listener, app, router, shutdown, stop, self.grace).await;
        tracing::info!("stopped");
        Ok(())
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("limits", &self.limits)
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

/// Bytes of JSON that the largest append may need: base64 takes four bytes for three.
fn body_bytes_for(limits: &Limits) -> usize {
    limits.append_bytes_max.saturating_mul(4) / 3 + (1 << 20)
}
