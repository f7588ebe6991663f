//! `/openapi.json`: the machine-readable description of the API. It is written by hand; a test keeps it equal
//! to the routes.

use axum::extract::RawQuery;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::params::Params;
use crate::problem::Problem;

/// The description of the API.
pub(crate) async fn openapi(RawQuery(query): RawQuery) -> Result<Response, Problem> {
    Params::of(query.as_deref()).finish()?;
    let media_type = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, media_type)], include_str!("openapi.json")).into_response())
}
