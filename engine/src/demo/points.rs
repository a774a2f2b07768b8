//! What a metrics request says: the points of its histograms.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::Value;

use super::receiver::{KeyValue, attributes};

/// A point of a histogram as it was received.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The metric's name.
    pub metric: String,
    /// The metric's unit.
    pub unit: String,
    /// The point's attributes.
    pub attributes: BTreeMap<String, Value>,
    /// How many values there were.
    pub count: u64,
    /// Their sum, in the metric's unit.
    pub sum: f64,
    /// How many values there were in each bucket.
    pub buckets: Vec<u64>,
    /// The buckets' upper bounds; the last bucket has none.
    pub bounds: Vec<f64>,
    /// Counted since then, nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// Counted until then, nanoseconds since the Unix epoch.
    pub end_unix_nano: u64,
}

/// The points of an encoded `ExportMetricsServiceRequest`; an error when it isn't one.
pub(super) fn decode(body: &[u8]) -> anyhow::Result<Vec<Point>> {
    let request = ExportMetricsServiceRequest::decode(body)?;
    let metrics = request.resource_metrics.into_iter().flat_map(|of| of.scope_metrics).flat_map(|of| of.metrics);
    let points = metrics.flat_map(|Metric { name, unit, histogram }| {
        let of_metric = move |point: WirePoint| Point {
            metric: name.clone(),
            unit: unit.clone(),
            attributes: attributes(point.attributes),
            count: point.count,
            sum: point.sum.unwrap_or(f64::NAN),
            buckets: point.bucket_counts,
            bounds: point.explicit_bounds,
            start_unix_nano: point.start_time_unix_nano,
            end_unix_nano: point.time_unix_nano,
        };
        histogram.unwrap_or_default().data_points.into_iter().map(of_metric)
    });
    Ok(points.collect())
}

// The messages of opentelemetry-proto's metrics service that hold this, apart from the encoder's as those of the
// trace service are.

#[derive(Clone, PartialEq, Message)]
struct ExportMetricsServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceMetrics {
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeMetrics {
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    unit: String,
    #[prost(message, optional, tag = "9")]
    histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<WirePoint>,
}

#[derive(Clone, PartialEq, Message)]
struct WirePoint {
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(fixed64, tag = "2")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, optional, tag = "5")]
    sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    explicit_bounds: Vec<f64>,
}
