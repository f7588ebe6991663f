//! `POST /v1/backup`: makes a backup. Only one runs at a time.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use serde_json::Value;

use crate::app::App;
use crate::params::Params;
use crate::problem::Problem;

/// Backs the store up.
pub(crate) async fn backup(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<(StatusCode, Json<Value>), Problem> {
    Params::of(query.as_deref()).finish()?;
    let Some(maintenance) = app.maintenance.clone().filter(|maintenance| maintenance.backs_up()) else {
        let detail = "this server has no backup destination";
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", detail));
    };
    let Ok(turn) = app.backing_up.clone().try_lock_owned() else {
        return Err(Problem::new(StatusCode::CONFLICT, "busy", "a backup is being made"));
    };
    // The backup continues even if the client disconnects.
    let made = tokio::task::spawn_blocking(move || {
        let made = maintenance.backup();
        drop(turn);
        made
    });
    let made = made.await.unwrap_or_else(|stopped| Err(stopped.to_string()));
    let failed = |why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "backup-failed", why);
    Ok((StatusCode::CREATED, Json(made.map_err(failed)?)))
}
