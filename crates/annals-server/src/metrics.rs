//! The server's metrics, in the format that Prometheus reads.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use annals_core::{Appended, Error, Position, Result};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::maintenance::Figures;

/// The upper bounds of the latency buckets, in seconds.
const LATENCY_SECONDS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// The server's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram, fn() -> Histogram>,
    events: Counter,
    conflicts: Counter,
    duplicates: Counter,
    subscribers: Gauge,
    head: Gauge<u64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: String,
    route: String,
}

impl Metrics {
    /// New metrics, all zero except for the start time, and these sources, which are called at each scrape.
    pub(crate) fn new(figures: Vec<Figures>) -> Self {
        let mut registry = Registry::default();
        let this = Self {
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_SECONDS)),
            events: Counter::default(),
            conflicts: Counter::default(),
            duplicates: Counter::default(),
            subscribers: Gauge::default(),
            head: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("annals_http_requests", "Requests answered", this.requests.clone());
        registry.register_with_unit(
            "annals_http_request_duration",
            "Time from a request to the head of its answer",
            Unit::Seconds,
            this.latency.clone(),
        );
        registry.register("annals_events_appended", "Events appended over HTTP", this.events.clone());
        registry.register(
            "annals_append_conflicts",
            "Appends refused by a condition",
            this.conflicts.clone(),
        );
        let help = "Appends answered with an earlier outcome";
        registry.register("annals_append_duplicates", help, this.duplicates.clone());
        registry.register("annals_live_subscribers", "Open live streams", this.subscribers.clone());
        registry.register("annals_head_position", "Position of the newest event", this.head.clone());
        let started = Gauge::<f64, AtomicU64>::default();
        started.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
        registry.register_with_unit("process_start_time", "When the server started", Unit::Seconds, started);
        for figures in figures {
            registry.register_collector(Box::new(figures));
        }
        Self { registry, ..this }
    }

    /// Records the count and the duration of a request under its route.
    pub(crate) fn answered(&self, method: String, route: String, status: u16, elapsed: Duration) {
        let labels = RouteLabels { method: method.clone(), route: route.clone() };
        self.latency.get_or_create(&labels).observe(elapsed.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { method, route, status }).inc();
    }

    /// Sets the position of the newest event.
    pub(crate) fn ends_at(&self, head: Position) {
        self.head.set(head.get());
    }

    /// The metrics as text, in the OpenMetrics format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("a string takes every write");
        // OpenMetrics requires `+Inf`; the encoder writes infinity as Rust does.
        text.replace(" inf\n", " +Inf\n").replace(" -inf\n", " -Inf\n")
    }

    /// Counts the outcome of an append.
    pub(crate) fn appended(&self, outcome: &Result<Appended>) {
        match outcome {
            Ok(appended) if appended.duplicate => {
                self.duplicates.inc();
            }
            Ok(appended) => {
                self.events.inc_by(appended.count());
            }
            Err(Error::Conflict(_)) => {
                self.conflicts.inc();
            }
            Err(_) => {}
        }
    }

    /// Counts a live stream until the returned guard is dropped.
    pub(crate) fn subscriber(&self) -> Subscriber {
        self.subscribers.inc();
        Subscriber(self.subscribers.clone())
    }
}

/// Counts a live stream while it exists.
pub(crate) struct Subscriber(Gauge);

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.0.dec();
    }
}
