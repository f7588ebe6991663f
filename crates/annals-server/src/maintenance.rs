//! The operations of a store beyond its contract: backups on request, and metrics.
//!
//! The server does not depend on a backend, so the program passes an implementation of [`Maintenance`].

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::Value;

/// Backups and metrics of a store while it is served.
pub trait Maintenance: Send + Sync + 'static {
    /// Makes a backup in the configured backup storage and returns a report. It may take long and block.
    ///
    /// # Errors
    /// Why there is no new backup, as text. Existing backups are unchanged.
    fn backup(&self) -> Result<Value, String>;

    /// Whether backups of the store are configured.
    fn backs_up(&self) -> bool;

    /// The current metrics, for `/metrics`. It must not block.
    fn metrics(&self) -> Vec<Metric>;
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name, with its unit, in the format of Prometheus; without `_total`.
    pub name: &'static str,
    /// Its description.
    pub help: &'static str,
    /// Its value.
    pub value: f64,
    /// Whether it never decreases while the server runs.
    pub counter: bool,
}

/// A source of metrics that is called at each scrape.
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
