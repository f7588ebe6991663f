//! `/health/live` and `/health/ready`: whether the process runs, and whether it can serve requests.
//!
//! Readiness tests the path of an append: it sends the store one whose condition cannot hold. A store that
//! can take appends reports a conflict and writes nothing; a poisoned or hung one fails or times out.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Append, Error, Expected, NewEvent, StreamId, Version};
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::access::Access;
use crate::app::App;
use crate::auth::Categories;
use crate::params::Params;
use crate::problem::Problem;

/// The time limit for the store.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Reports that the process runs.
pub(crate) async fn live(RawQuery(query): RawQuery) -> Result<Json<Value>, Problem> {
    Params::of(query.as_deref()).finish()?;
    Ok(Json(json!({"status": "live"})))
}

/// Reports whether the store takes appends and serves reads.
pub(crate) async fn ready(
    State(app): State<Arc<App>>,
    access: Access,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    Params::of(query.as_deref()).finish()?;
    if app.is_stopping() {
        let detail = "the server takes no new work";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "shutting-down", detail));
    }
    let log = app.log();
    let checked = tokio::time::timeout(ANSWER_MAX, async {
        match log.append(impossible()).await {
            Err(Error::Conflict(_)) => log.head().await.map_err(Problem::from),
            Err(error) => Err(Problem::from(error)),
            Ok(_) => unreachable!("no stream reaches the last version there is"),
        }
    });
    let checked = checked.await.unwrap_or_else(|_| {
        let detail = format!("the store did not answer within {} seconds", ANSWER_MAX.as_secs());
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail))
    });
    // The head and the text of a store's error are shown only to a token that may read the whole log.
    let sees_all = access.rights.read == Categories::All;
    match checked {
        Ok(head) if sees_all => Ok(Json(json!({"status": "ready", "head": head.get()}))),
        Ok(_) => Ok(Json(json!({"status": "ready"}))),
        Err(problem) if sees_all => Err(problem),
        Err(problem) => Err(problem.explained("the store takes no appends; the server's log has the cause")),
    }
}

/// An append that every working store refuses with a conflict.
fn impossible() -> Append {
    let stream = StreamId::new("annals-ready").expect("the name is short and plain");
    let event = NewEvent::new("asked", "{}").expect("the type is short and plain");
    Append::to(stream, Expected::Exact(Version::MAX), [event])
}
