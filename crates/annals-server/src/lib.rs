//! The server: HTTP and JSON over any store, server-sent events, health, metrics and a console.
//!
//! ```text
//! connections.rs   accepts, ends gracefully
//! flow.rs          disconnects clients that do not read; room.rs, bounds.rs: limits over all connections
//! auth.rs access.rs  tokens, and the rights and view of a request; tls.rs: certificates; reload.rs: reloads both
//! guard.rs hosts.rs  refuses requests that a page of another site may have sent; observe.rs: counts every request
//! headers.rs       refuses misspelt headers
//! routes.rs        every method and path, the right that each needs, and the layers around them
//!   append.rs read.rs live.rs      the API          health.rs backup.rs openapi.rs   for operators
//!   token.rs etag.rs expected.rs   positions with the id of their event, and preconditions on them
//!   metrics.rs maintenance.rs      counters, and backups and metrics of the store
//!   console.rs browsers.rs         for people       problem.rs                        error responses
//! ```
//!
//! It depends on the contract of stores, on following a log (`annals-consume`) and on the JSON form of events
//! (`annals-json`), and on no store: the caller passes one. `docs/http.md` describes the API, and
//! `openapi.json` does so for machines; a test keeps `openapi.json` equal to the routes.
//!
//! `append.rs` receives an append and passes it to [`EventStore::append`].
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

/// A server over a store: configured by its methods, then started with [`serve`](Self::serve).
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
    /// A server over this store, with the default limits. It serves only the API and the console.
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

    /// The limits of an append. The store's own limits apply too.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The maximum size of a request body. By default, enough for the largest append.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = Some(bytes);
        self
    }

    /// The limits over all connections together.
    #[must_use]
    pub fn bounds(mut self, bounds: Bounds) -> Self {
        self.bounds = bounds;
        self
    }

    /// How long a shutdown waits for requests in progress. 10 seconds by default.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Enables backups of the store on request, and adds its metrics to `/metrics`.
    #[must_use]
    pub fn maintenance(mut self, maintenance: Arc<dyn Maintenance>) -> Self {
        self.maintenance = Some(Arc::clone(&maintenance));
        self.metrics(move || maintenance.metrics())
    }

    /// Adds these metrics to `/metrics`. The closure is called at each request and must not block.
    #[must_use]
    pub fn metrics(mut self, metrics: impl Fn() -> Vec<Metric> + Send + Sync + 'static) -> Self {
        self.figures.push(Figures(Arc::new(metrics)));
        self
    }

    /// Also accepts requests for this host name, with any port.
    ///
    /// On a loopback address, the server accepts only the names of this machine, names without a dot and the
    /// names given here, so that no page of another site can reach it through DNS rebinding. On other
    /// addresses it accepts any name until one is given here; then it accepts the given names, addresses and
    /// names without a dot, as containers have. Give the name of a proxy if the proxy does not preserve
    /// `Host`. [Mounted](Self::mount) routes are not checked.
    #[must_use]
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(hosts::host_name(&name.into()).to_owned());
        self
    }

    /// Accepts only these tokens, and limits each request to the rights of its token. The file is reloaded
    /// when it changes.
    #[must_use]
    pub fn tokens(mut self, file: TokenFile) -> Self {
        self.gate = auth::Gate::of(file);
        self
    }

    /// Accepts only TLS connections, with this certificate. Its files are reloaded when they change.
    #[must_use]
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.tls = Some(files);
        self
    }

    /// Allows serving without tokens on an address that is not a loopback address: every client that reaches
    /// it has all rights.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.insecure = true;
        self
    }

    /// A handle that reloads the files of tokens and certificates immediately, instead of within a second or
    /// two.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Also serves these routes, below a path such as `/shop`. The checks of `Host` and `Origin` cover only
    /// the server's own routes: the mounted router does its own.
    #[must_use]
    pub fn mount(mut self, path: impl Into<String>, router: Router) -> Self {
        self.mounted.push(routes::Mounted { path: path.into(), router, checked: false });
        self
    }

    /// Like [`mount`](Self::mount), with the checks of `Host` and `Origin` of the server's own routes: for a
    /// program without a sign-in whose pages other sites must not use. If the server has tokens, a request
    /// needs one for all categories.
    #[must_use]
    pub fn mount_checked(mut self, path: impl Into<String>, router: Router) -> Self {
        self.mounted.push(routes::Mounted { path: path.into(), router, checked: true });
        self
    }

    /// Adds an entry to the console's navigation.
    #[must_use]
    pub fn link(mut self, name: impl Into<String>, path: impl Into<String>) -> Self {
        self.links.push((name.into(), path.into()));
        self
    }

    /// Serves connections until `shutdown` completes; then accepts no more, finishes the requests in
    /// progress, ends the live streams and returns.
    ///
    /// # Errors
    /// If the listener has no address, or if other machines can reach its address while there are no tokens
    /// and [`insecure`](Self::insecure) was not called. A connection that fails does not end the server.
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

/// The advice for an address that other machines can reach while there are no tokens.
pub const UNGUARDED: &str = "Pass a token file (`annals token`, then --tokens FILE), listen on a loopback address, or pass \
                             --insecure if every client that can reach the address may read and append";

/// Refuses to serve without tokens on an address that other machines can reach, unless `insecure` is set.
fn check_address(loopback: bool, gate: &auth::Gate, has_tls: bool, insecure: bool) -> io::Result<()> {
    if loopback {
        return Ok(());
    }
    if !gate.is_open() {
        if !has_tls {
            tracing::warn!(
                "tokens and events cross the network unencrypted: pass a certificate (--tls-cert, --tls-key), or terminate \
                 TLS in a proxy on this machine"
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

/// The maximum size in bytes of the largest append as JSON: base64 encodes three bytes as four.
fn body_bytes_for(limits: &Limits) -> usize {
    limits.append_bytes_max.saturating_mul(4) / 3 + (1 << 20)
}
