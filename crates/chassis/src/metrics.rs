//! Prometheus metrics: helpers to make and register one in a single step, and the HTTP pair that
//! every server records.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

/// Makes and registers metrics. A name that is registered twice keeps counting apart and is not exported twice.
#[derive(Clone, Debug)]
pub struct Metrics {
    service: &'static str,
    registry: Registry,
}

impl Metrics {
    pub(crate) fn new(service: &'static str) -> Self {
        Self { service, registry: Registry::new() }
    }

    /// The registry behind it.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A counter with labels. Every metric also carries the label `service`.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(self.opts(name, help), labels))
    }

    /// A gauge.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(self.opts(name, help)))
    }

    /// A gauge with labels.
    #[must_use]
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(self.opts(name, help), labels))
    }

    /// A histogram of seconds with labels, from 0.5 ms to a minute.
    #[must_use]
    pub fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
        let opts = HistogramOpts { common_opts: self.opts(name, help), buckets };
        self.register(HistogramVec::new(opts, labels))
    }

    /// Everything registered, in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).const_label("service", self.service)
    }

    fn register<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("metric names and labels are constants of the code and well formed");
        if let Err(error) = self.registry.register(Box::new(collector.clone())) {
            tracing::warn!(%error, "a metric is not exported");
        }
        collector
    }
}

/// What every HTTP server counts.
#[derive(Clone, Debug)]
pub(crate) struct HttpMetrics {
    pub(crate) requests: IntCounterVec,
    pub(crate) duration: HistogramVec,
}

impl HttpMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.counter(
                "wharfage_http_requests_total",
                "HTTP requests answered",
                &["method", "route", "status"],
            ),
            duration: metrics.seconds(
                "wharfage_http_request_duration_seconds",
                "Time until the head of the answer",
                &["method", "route"],
            ),
        }
    }
}
