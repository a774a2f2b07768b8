//! The engine's own counters as OTLP metrics, under a scope of their own and always cumulative.

use agentsight_otlp::{
    AnyValue, Appended, Attributes, Envelope, Request, Scope,
    metric::{Data, HistogramPoint, Metric, Number, NumberPoint, NumberPoints, Temporality},
};

use super::collect::{Collected, SIZE_LIMITS};
use crate::{
    metrics::Metrics,
    telemetry::{Family, Kind, Value, families},
};

/// Who makes these metrics.
pub(super) const SCOPE: Scope<'_> = Scope { name: "agentsight.engine", version: env!("CARGO_PKG_VERSION") };

/// Since when the counters count, and when they are read.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub start_unix_nano: u64,
    pub end_unix_nano: u64,
}

/// Encodes every counter. All of them fit into one request, whose size the number of providers bounds.
pub(super) fn collect(metrics: &Metrics, envelope: &Envelope, times: Times) -> Collected {
    let mut request = Request::new(envelope, SIZE_LIMITS, Vec::new());
    let mut points = 0;
    for family in families() {
        let (numbers, histograms) = read(&family, metrics);
        let name = format!("agentsight.{}", family.name);
        let show = Numbers { family: &family, numbers: &numbers, times };
        let shown: Vec<_> = histograms.iter().map(|histogram| histogram.point(times)).collect();
        let data = match family.kind {
            Kind::Counter => Data::Sum { points: &show, temporality: Temporality::Cumulative, monotonic: true },
            Kind::Gauge => Data::Gauge(&show),
            Kind::Histogram => Data::Histogram { points: &shown, temporality: Temporality::Cumulative },
        };
        let metric = Metric { name: &name, description: family.description, unit: family.unit, data };
        if request.append(&metric) == Appended::Yes {
            points += (numbers.len() + histograms.len()) as u64;
        }
    }
    Collected { body: request.finish(envelope), points }
}

/// A histogram as it was read.
struct Distribution {
    bounds: Vec<f64>,
    counts: Vec<u64>,
    sum: f64,
}

impl Distribution {
    fn point(&self, times: Times) -> HistogramPoint<'_> {
        HistogramPoint {
            attributes: &Label(None),
            start_time_unix_nano: times.start_unix_nano,
            time_unix_nano: times.end_unix_nano,
            count: self.counts.iter().sum(),
            sum: Some(self.sum),
            min: None,
            max: None,
            bucket_counts: &self.counts,
            explicit_bounds: &self.bounds,
            exemplars: &[],
        }
    }
}

/// The points of a family.
fn read(family: &Family, metrics: &Metrics) -> (Vec<(Option<String>, Number)>, Vec<Distribution>) {
    let (mut numbers, mut histograms) = (Vec::new(), Vec::new());
    family.points(metrics, &mut |label, value| {
        let number = match value {
            Value::Count(count) => Number::Int(i64::try_from(count).unwrap_or(i64::MAX)),
            Value::Number(number) => Number::Double(number),
            Value::Histogram { bounds, counts, sum } => {
                histograms.push(Distribution { bounds: bounds.to_vec(), counts: counts.to_vec(), sum });
                return;
            }
        };
        numbers.push((label.map(str::to_owned), number));
    });
    (numbers, histograms)
}

struct Numbers<'a> {
    family: &'a Family,
    numbers: &'a [(Option<String>, Number)],
    times: Times,
}

impl NumberPoints for Numbers<'_> {
    fn visit(&self, visit: &mut dyn FnMut(&NumberPoint<'_>)) {
        for (label, value) in self.numbers {
            visit(&NumberPoint {
                attributes: &Label(self.family.label.zip(label.as_deref())),
                start_time_unix_nano: self.times.start_unix_nano,
                time_unix_nano: self.times.end_unix_nano,
                value: *value,
            });
        }
    }
}

/// At most one attribute.
struct Label<'a>(Option<(&'static str, &'a str)>);

impl Attributes for Label<'_> {
    fn visit(&self, visit: &mut dyn FnMut(&str, &AnyValue<'_>)) {
        if let Some((key, value)) = self.0 {
            visit(key, &AnyValue::Str(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry_proto::tonic::{
        collector::metrics::v1::ExportMetricsServiceRequest,
        common::v1::any_value,
        metrics::v1::{metric, number_data_point},
    };
    use prost::Message;

    use super::*;
    use crate::metrics::{Cause, Gauge, Total};

    #[test]
    fn every_family_is_a_metric_with_its_points() {
        let metrics = Metrics::default();
        metrics.add(Total::Spans, 9);
        metrics.lost(Cause::SpoolExpired, 4);
        metrics.set(Gauge::SpoolBytes, 77);
        metrics.count_provider("openai", 9);
        metrics.attempt_took(Duration::from_millis(30));
        let envelope = Envelope::new(&[("service.name".to_owned(), "s".to_owned())][..], SCOPE, "");
        let collected = collect(&metrics, &envelope, Times { start_unix_nano: 3, end_unix_nano: 8 });
        let mut request = ExportMetricsServiceRequest::decode(collected.body.as_ref()).unwrap();
        let scope = request.resource_metrics.remove(0).scope_metrics.remove(0);
        assert_eq!(scope.scope.unwrap().name, "agentsight.engine");
        let mut points = 0;
        let mut seen = vec![];
        for found in scope.metrics {
            let numbers = match found.data.unwrap() {
                metric::Data::Sum(sum) => {
                    assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{}", found.name);
                    sum.data_points
                }
                metric::Data::Gauge(gauge) => gauge.data_points,
                metric::Data::Histogram(histogram) => {
                    let point = &histogram.data_points[0];
                    assert_eq!((point.count, point.bucket_counts[3]), (1, 1));
                    points += histogram.data_points.len() as u64;
                    continue;
                }
                _ => panic!("{} is of another kind", found.name),
            };
            points += numbers.len() as u64;
            for point in numbers {
                assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (3, 8));
                if let Some(number_data_point::Value::AsInt(value @ 1..)) = point.value {
                    let label = point.attributes.first().map(|pair| match pair.value.clone().unwrap().value.unwrap() {
                        any_value::Value::StringValue(text) => format!("{}={text}", pair.key),
                        _ => panic!("a label is text"),
                    });
                    seen.push((found.name.clone(), label.unwrap_or_default(), value));
                }
            }
        }
        assert_eq!(points, collected.points);
        let expected = [
            ("agentsight.spans", "", 9),
            ("agentsight.spans_by_provider", "provider=openai", 9),
            ("agentsight.drops", "cause=spool_expired", 4),
            ("agentsight.spool_bytes", "", 77),
        ];
        let expected = expected.map(|(name, label, value)| (name.to_owned(), label.to_owned(), value));
        assert_eq!(seen, expected);
    }
}
