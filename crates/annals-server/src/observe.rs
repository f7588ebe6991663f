//! The layer that counts and times every request, and the endpoint `/metrics`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, RawQuery, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::params::Params;
use crate::problem::Problem;

/// The time limit for reading the head of the log.
const HEAD_MAX: Duration = Duration::from_secs(2);

/// Counts and times each request under its route.
pub(crate) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known_method(request.method().as_str()).to_owned();
    // An unknown path must not become a label: a client can send any number of them.
    let route = request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    tracing::debug!(method, route, status, micros = elapsed.as_micros(), "answered");
    app.metrics.answered(method, route, status, elapsed);
    response
}

/// The method as a label: a client can send any number of non-standard methods, so these share one.
fn known_method(method: &str) -> &str {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => method,
        _ => "(other)",
    }
}

/// The metrics as text.
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Params::of(query.as_deref()).finish()?;
    // A store that fails must not hide the other metrics.
    if let Ok(Ok(head)) = tokio::time::timeout(HEAD_MAX, app.log().head()).await {
        app.metrics.ends_at(head);
    }
    let media_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, media_type)], app.metrics.text()).into_response())
}
