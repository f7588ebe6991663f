//! What an operator asks of a server beside the contract of its store: a backup now, and figures.
//!
//! The server knows no store, so it is given something that answers: a [`Maintenance`].

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::Value;

/// The care that a store is given while it is served.
pub trait Maintenance: Send + Sync + 'static {
    /// Backs the store up to where backups of it go, and tells what came of it. It may take long and block.
    ///
    /// # Errors
    /// Why there is no new backup, in words. Those that there were are as they were.
    fn backup(&self) -> Result<Value, String>;

    /// Whether backups of the store go anywhere.
    fn backs_up(&self) -> bool;

    /// What is known now, for `/metrics`. It must not block.
    fn metrics(&self) -> Vec<Metric>;
}

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name, with its unit, in the form of Prometheus; without `_total`.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// How much it is.
    pub value: f64,
    /// Whether it only ever grows while the server runs.
    pub counter: bool,
}

/// Figures that are made whenever they are asked for.
#[derive(Clone)]
pub(crate) struct Figures(pub(crate) Arc<dyn Fn() -> Vec<Metric> + Send + Sync>);

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Figures")
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for Metric { name, help, value, counter } in (self.0)() {
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
