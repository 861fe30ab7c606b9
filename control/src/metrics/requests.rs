//! The API's own figures: how many requests and how long they took, by method, route and status.

use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use std::time::Duration;

/// Counts the API's requests. Labels are routes, not paths, so their number is bounded.
#[derive(Debug, Clone)]
pub(crate) struct RequestMetrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
}

impl RequestMetrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let requests = Opts::new("aljibe_api_requests_total", "API requests answered.");
        let duration = HistogramOpts::new("aljibe_api_request_duration_seconds", "Time of an API request.")
            .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(requests, &["method", "route", "status"])?,
            duration: HistogramVec::new(duration, &["method", "route"])?,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.duration.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn count(&self, method: &str, route: &str, status: u16, duration: Duration) {
        self.requests.with_label_values(&[method, route, status.to_string().as_str()]).inc();
        self.duration.with_label_values(&[method, route]).observe(duration.as_secs_f64());
    }

    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}
