//! What an operator asks of a server beside the contract of its store: a backup now, and figures.
//!
//! The server knows no store, so it is given something that answers: an [`Upkeep`]. One backup is made at a time.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::Value;

use crate::app::App;
use crate::params::Params;
use crate::problem::Problem;

/// The care that a store is given while it is served.
pub trait Upkeep: Send + Sync + 'static {
    /// Backs the store up to where backups of it go, and tells what came of it. It may take long and block.
    ///
    /// # Errors
    /// Why there is no new backup, in words. Those that there were are as they were.
    fn backup(&self) -> Result<Value, String>;

    /// Whether backups of the store go anywhere.
    fn backs_up(&self) -> bool;

    /// What is known now, for `/metrics`. It must not block.
    fn figures(&self) -> Vec<Figure>;
}

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Its name, with its unit, in the form of Prometheus; without `_total`.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// How much it is.
    pub value: f64,
    /// Whether it only ever grows while the server runs.
    pub counter: bool,
}

/// Backs the store up.
pub(crate) async fn backup(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<(StatusCode, Json<Value>), Problem> {
    Params::of(query.as_deref()).finish()?;
    let Some(upkeep) = app.upkeep.clone().filter(|upkeep| upkeep.backs_up()) else {
        let detail = "this server has no place for backups";
        return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", detail));
    };
    let Ok(turn) = app.backing_up.clone().try_lock_owned() else {
        return Err(Problem::new(StatusCode::CONFLICT, "busy", "a backup is being made"));
    };
    // It goes on if whoever asked for it does not wait.
    let made = tokio::task::spawn_blocking(move || {
        let made = upkeep.backup();
        drop(turn);
        made
    });
    let made = made.await.unwrap_or_else(|stopped| Err(stopped.to_string()));
    let failed = |why| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "backup-failed", why);
    Ok((StatusCode::CREATED, Json(made.map_err(failed)?)))
}

/// Figures that are made whenever they are asked for.
#[derive(Clone)]
pub(crate) struct Figures(pub(crate) Arc<dyn Fn() -> Vec<Figure> + Send + Sync>);

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for Figure { name, help, value, counter } in (self.0)() {
            if counter {
                let metric = ConstCounter::new(value);
                metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
            } else {
                let metric = ConstGauge::new(value);
                metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
            }
        }
        Ok(())
    }
}
