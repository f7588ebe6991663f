//! Every request is counted and timed, and `/metrics` shows what was counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, RawQuery, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::params::Params;
use crate::problem::Problem;

/// How long the store may take to say where the log ends.
const HEAD_MAX: Duration = Duration::from_secs(2);

/// Counts and times each request under the route that it took.
pub(crate) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known_method(request.method().as_str()).to_owned();
    // A path that no route has is the client's invention and must not become a label.
    let route = request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    tracing::debug!(method, route, status, micros = elapsed.as_micros(), "answered");
    app.metrics.answered(method, route, status, elapsed);
    response
}

/// The method, if it is one of HTTP's own: others are the client's invention.
fn known_method(method: &str) -> &str {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => method,
        _ => "(other)",
    }
}

/// The figures as text.
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    Params::of(query.as_deref()).finish()?;
    // A store that cannot be asked must not hide the other figures.
    if let Ok(Ok(head)) = tokio::time::timeout(HEAD_MAX, app.log().head()).await {
        app.metrics.ends_at(head);
    }
    let media_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, media_type)], app.metrics.text()).into_response())
}
