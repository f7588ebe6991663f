//! The list of every method and path that is served: the router is built from it, and a test compares it with
//! `openapi.json`.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::access::{self, Right};
use crate::app::App;
use crate::browsers;
use crate::guard::guard;
use crate::headers;
use crate::problem::Problem;
use crate::room;
use crate::{append, backup, console, health, live, observe, openapi, read};

/// One method of one path, the right that it needs, and its handler.
struct Route(&'static str, &'static str, Right, MethodRouter<Arc<App>>);

/// Routes that a program adds to our own.
pub(crate) struct Mounted {
    pub(crate) path: String,
    pub(crate) router: Router,
    /// Whether their requests are checked like ours (`hosts.rs`).
    pub(crate) checked: bool,
}

fn routes() -> Vec<Route> {
    vec![
        Route("POST", "/v1/append", Right::Append, post(append::to_streams)),
        Route("POST", "/v1/streams/{stream}", Right::Append, post(append::to_stream)),
        Route("GET", "/v1/streams/{stream}", Right::Read, get(read::stream)),
        Route("POST", "/v1/stream", Right::Append, post(append::to_named)),
        Route("GET", "/v1/stream", Right::Read, get(read::named)),
        Route("GET", "/v1/streams", Right::Read, get(read::streams)),
        Route("GET", "/v1/events", Right::Read, get(read::log)),
        Route("GET", "/v1/events/live", Right::Read, get(live::live)),
        Route("POST", "/v1/backup", Right::Backup, post(backup::backup)),
        Route("GET", "/health/live", Right::Open, get(health::live)),
        Route("GET", "/health/ready", Right::Open, get(health::ready)),
        Route("GET", "/metrics", Right::Metrics, get(observe::metrics)),
        Route("GET", "/openapi.json", Right::Open, get(openapi::openapi)),
        Route("GET", "/", Right::Read, get(console::newest)),
        Route("GET", "/streams", Right::Read, get(console::streams)),
        Route("GET", "/streams/{stream}", Right::Read, get(console::stream)),
        Route("GET", "/stream", Right::Read, get(console::named_stream)),
        Route("GET", "/events/{position}", Right::Read, get(console::event)),
        Route("GET", "/login", Right::Open, get(console::sign_in_form)),
        Route("POST", "/login", Right::Open, post(console::sign_in)),
        Route("POST", "/logout", Right::Open, post(console::sign_out)),
        Route("GET", "/console.css", Right::Open, get(console::style)),
        Route("GET", "/console.js", Right::Open, get(console::script)),
        Route("GET", "/favicon.ico", Right::Open, get(console::icon)),
    ]
}

/// Every method and path that is served, without the mounted routes.
pub fn served() -> Vec<(&'static str, &'static str)> {
    routes().into_iter().map(|Route(method, path, ..)| (method, path)).collect()
}

/// Every method and path that is served, with the right that it needs.
pub fn rights() -> Vec<(&'static str, &'static str, Right)> {
    routes().into_iter().map(|Route(method, path, right, _)| (method, path, right)).collect()
}

/// The routes, with all layers around them.
pub(crate) fn router(app: Arc<App>, mounted: Vec<Mounted>) -> Router {
    let own = routes().into_iter().fold(Router::new(), |router, Route(_, path, right, handler)| {
        let admitted = middleware::from_fn_with_state((Arc::clone(&app), right), access::admit);
        router.route(path, handler.route_layer(admitted))
    });
    let own =
        own.method_not_allowed_fallback(no_such_method).fallback(no_such_route).with_state(Arc::clone(&app));
    let own = own.layer(middleware::from_fn(headers::known)).layer(middleware::map_response(revalidate));
    let nest = |router: Router, mounted: Mounted| router.nest(&mounted.path, mounted.router);
    let (checked, others): (Vec<_>, Vec<_>) = mounted.into_iter().partition(|mounted| mounted.checked);
    let whole = middleware::from_fn_with_state(Arc::clone(&app), access::admit_whole);
    let checked =
        checked.into_iter().map(|mounted| Mounted { router: mounted.router.layer(whole.clone()), ..mounted });
    let own = checked.fold(own, nest);
    let own = own.layer(middleware::from_fn_with_state(Arc::clone(&app), guard));
    let all = others.into_iter().fold(own, nest);
    all.layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), browsers::pages))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), account))
        .layer(middleware::map_response(harden))
        .layer(middleware::from_fn_with_state(app, observe::observe))
}

async fn no_such_route(uri: Uri) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not-found",
        format!("there is no `{}`; see /openapi.json", uri.path()),
    )
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("`{}` does not take {method}; see the header Allow", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
}

/// The response if a handler panics. Other requests are not affected.
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
    tracing::error!("a handler panicked: {text}");
    let detail = "an internal error; the log of the server has the details";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).into_response()
}

/// Takes room for large responses before they are sent.
async fn account(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    room::account(&app.sending, &method, next.run(request).await)
}

/// Makes caches revalidate every response, because a stream may have grown since. ETags make that cheap.
async fn revalidate(mut response: Response) -> Response {
    let header = response.headers_mut().entry(header::CACHE_CONTROL);
    header.or_insert(HeaderValue::from_static("no-cache"));
    response
}

/// Adds headers against content sniffing and embedding, unless a mounted router has set them.
async fn harden(mut response: Response) -> Response {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        // No page of another site may embed a response.
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        let header = response.headers_mut().entry(HeaderName::from_static(name));
        header.or_insert(HeaderValue::from_static(value));
    }
    response
}
