//! What netd tells about itself: how long changes take, how many sandboxes there are, what failed.

use std::time::Duration;

use chassis::{
    metrics::Metrics,
    prometheus::{HistogramVec, IntCounterVec, IntGauge},
};
use contract::net::NetStatus;
use model::Error;

/// The metrics.
#[derive(Clone, Debug)]
pub(crate) struct Measures {
    seconds: HistogramVec,
    failures: IntCounterVec,
    sandboxes: IntGauge,
}

impl Measures {
    /// Registers them.
    #[must_use]
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            seconds: metrics.seconds(
                "wharfage_netd_apply_seconds",
                "Time to bring a change into the kernel.",
                &["what"],
            ),
            failures: metrics.counter("wharfage_netd_failures_total", "Things that could not be made.", &["what"]),
            sandboxes: metrics.gauge("wharfage_netd_sandboxes", "Sandboxes in the kernel."),
        }
    }

    /// One request was answered.
    pub(crate) fn applied(&self, what: &str, took: Duration, status: &Result<NetStatus, Error>) {
        self.seconds.with_label_values(&[what]).observe(took.as_secs_f64());
        let failed = status.as_ref().map_or(1, |s| s.failed.len() as u64);
        self.failures.with_label_values(&[what]).inc_by(failed);
    }

    /// So many sandboxes are there now.
    pub(crate) fn sandboxes(&self, count: usize) {
        self.sandboxes.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
