//! The server: HTTP and JSON over any store, server-sent events, health, metrics and a console.
//!
//! ```text
//! connections.rs   accepts, ends gracefully
//! flow.rs          cuts off clients that take nothing; room.rs, bounds.rs: what all connections together may take
//! auth.rs access.rs  tokens, and what a request may do and see; tls.rs: certificates; reload.rs: both read again
//! guard.rs hosts.rs  refuses what a page of another site may have sent; observe.rs: counts every request
//! headers.rs       refuses headers that were meant to be others
//! routes.rs        every method and path, the right that each needs, and the layers around them
//!   append.rs read.rs live.rs      the API          health.rs backup.rs openapi.rs   for operators
//!   token.rs etag.rs expected.rs   positions that name their history, and what is expected of them
//!   metrics.rs maintenance.rs      what is counted, and backups and figures of the store
//!   console.rs browsers.rs         for people       problem.rs                        what fails, and what is said of it
//! ```
//!
//! It knows the contract of stores, how a log is followed (`annals-consume`) and an event's JSON form (`annals-json`), and no
//! store: it is given one. What it serves is described in `docs/http.md` and, for machines, in `openapi.json`; a test keeps the
//! second equal to the routes.
//!
//! An append comes in through `append.rs`, which hands it to [`EventStore::append`].
#![forbid(unsafe_code)]

mod access;
mod app;
mod auth;
mod bounds;
mod browsers;
mod connections;
mod flow;
mod guard;
mod headers;
mod hosts;
mod observe;
mod reload;
mod room;
mod routes;
mod tls;

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

mod backup;
mod health;
mod maintenance;
mod metrics;
mod openapi;

mod console;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{EventStore, Limits};
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub use access::Right;
pub use auth::{Grant, Issued, TokenFile, check_tokens};
pub use axum::http::StatusCode;
pub use bounds::Bounds;
use maintenance::Figures;
pub use maintenance::{Maintenance, Metric};
pub use problem::Problem;
pub use reload::Reload;
pub use routes::{rights, served};
pub use tls::TlsFiles;

/// A server over a store, to be furnished and then started with [`serve`](Self::serve).
pub struct Server {
    store: Arc<dyn EventStore>,
    limits: Limits,
    body_bytes_max: Option<usize>,
    bounds: Bounds,
    grace: Duration,
    maintenance: Option<Arc<dyn Maintenance>>,
    hosts: Vec<String>,
    gate: auth::Gate,
    tls: Option<TlsFiles>,
    insecure: bool,
    reload: Reload,
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
            maintenance: None,
            hosts: Vec::new(),
            gate: auth::Gate::Open,
            tls: None,
            insecure: false,
            reload: Reload::default(),
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
    pub fn maintenance(mut self, maintenance: Arc<dyn Maintenance>) -> Self {
        self.maintenance = Some(Arc::clone(&maintenance));
        self.metrics(move || maintenance.metrics())
    }

    /// Shows these figures at `/metrics` too. They are asked for at each request and must not block.
    #[must_use]
    pub fn metrics(mut self, metrics: impl Fn() -> Vec<Metric> + Send + Sync + 'static) -> Self {
        self.figures.push(Figures(Arc::new(metrics)));
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
        self.hosts.push(hosts::host_name(&name.into()).to_owned());
        self
    }

    /// Lets in only who has one of these tokens, and shows what it may see. The file is read again when it changes.
    #[must_use]
    pub fn tokens(mut self, file: TokenFile) -> Self {
        self.gate = auth::Gate::of(file);
        self
    }

    /// Takes connections over TLS only, with this certificate. Its files are read again when they change.
    #[must_use]
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// Serves everybody who reaches an address that is not a loopback address, although there are no tokens.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.insecure = true;
        self
    }

    /// What lets the files of tokens and certificates be read again at once, and not only within a second or two.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
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
    /// If the listener has no address, or one that others than this machine reach although there are no tokens and
    /// [`insecure`](Self::insecure) was not said. A connection that fails ends alone.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let address = listener.local_addr()?;
        let loopback = address.ip().to_canonical().is_loopback();
        check_address(loopback, &self.gate, self.tls.is_some(), self.insecure)?;
        let (stop, stopping) = watch::channel(false);
        let body_bytes_max = self.body_bytes_max.unwrap_or_else(|| body_bytes_for(&self.limits));
        let sending = Arc::new(room::Room::new(self.bounds.sending_bytes));
        let bodies = Arc::new(room::Room::new(self.bounds.body_bytes.max(body_bytes_max)));
        let mut figures = self.figures;
        figures.push(room::figures(Arc::clone(&sending), Arc::clone(&bodies)));
        let app = Arc::new(app::App {
            live_pages: live_pages::LivePages::new(Arc::clone(&sending)),
            store: app::Store(self.store),
            body_bytes_max,
            bodies,
            live_streams: Arc::new(Semaphore::new(self.bounds.live_streams)),
            bounds: self.bounds,
            sending,
            limits: self.limits,
            metrics: metrics::Metrics::new(figures),
            maintenance: self.maintenance,
            gate: self.gate,
            has_tls: self.tls.is_some(),
            hosts: hosts::Hosts { loopback, named: self.hosts },
            backing_up: Arc::default(),
            links: self.links,
            stopping,
        });
        let router = routes::router(Arc::clone(&app), self.mounted);
        tracing::info!(%address, "listening");
        let tls = self.tls.map(Arc::new);
        let acceptor = tls.as_ref().map(|files| files.acceptor());
        let reloading = tokio::spawn(reload::for_ever(self.reload, Arc::clone(&app), tls));
        connections::serve(listener, app, acceptor, router, shutdown, stop, self.grace).await;
        reloading.abort();
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

/// What to do about an address that others reach while there are no tokens.
pub const UNGUARDED: &str = "Give a file of tokens (`annals token`, then --tokens FILE), listen on a loopback address, or say \
                             --insecure if all who reach the address may read and append";

/// Refuses to serve everybody who reaches an address without knowing it.
fn check_address(loopback: bool, gate: &auth::Gate, has_tls: bool, insecure: bool) -> io::Result<()> {
    if loopback {
        return Ok(());
    }
    if !gate.is_open() {
        if !has_tls {
            tracing::warn!(
                "tokens and events cross the network in clear: give a certificate (--tls-cert, --tls-key), or let a proxy \
                 on this machine have it"
            );
        }
        return Ok(());
    }
    if insecure {
        tracing::warn!("all who reach this address may read and append: there are no tokens");
        return Ok(());
    }
    let problem =
        format!("the address can be reached by other machines, and there are no tokens. {UNGUARDED}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

/// Bytes of JSON that the largest append may need: base64 takes four bytes for three.
fn body_bytes_for(limits: &Limits) -> usize {
    limits.append_bytes_max.saturating_mul(4) / 3 + (1 << 20)
}
