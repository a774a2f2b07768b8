//! What this crate encodes, the generated types of `opentelemetry-proto` decode to the same values.

mod common;

use agentsight_otlp::{
    Appended, Encoding, Envelope, Kind, Request, Scope,
    metric::{Data, Exemplar, HistogramPoint, Metric, Number, NumberPoint, Temporality},
    request::SizeLimits,
};
use common::{Given, attributes};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{self as oracle, exemplar, metric, number_data_point},
};
use proptest::{collection::vec, prelude::*};
use prost::Message;

fn double() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("comparable", |value| !value.is_nan())
}

fn exemplars() -> impl Strategy<Value = Vec<oracle::Exemplar>> {
    let value =
        prop_oneof![any::<i64>().prop_map(exemplar::Value::AsInt), double().prop_map(exemplar::Value::AsDouble)];
    let one = (any::<u64>(), value, any::<[u8; 8]>(), any::<[u8; 16]>());
    let one = one.prop_map(|(time_unix_nano, value, span_id, trace_id)| oracle::Exemplar {
        time_unix_nano,
        value: Some(value),
        span_id: span_id.to_vec(),
        trace_id: trace_id.to_vec(),
        ..Default::default()
    });
    vec(one, 0..3)
}

fn numbers() -> impl Strategy<Value = Vec<oracle::NumberDataPoint>> {
    let value = prop_oneof![
        any::<i64>().prop_map(number_data_point::Value::AsInt),
        double().prop_map(number_data_point::Value::AsDouble)
    ];
    let point = (any::<u64>(), any::<u64>(), value, attributes());
    let point = point.prop_map(|(start_time_unix_nano, time_unix_nano, value, attributes)| oracle::NumberDataPoint {
        start_time_unix_nano,
        time_unix_nano,
        value: Some(value),
        attributes,
        ..Default::default()
    });
    vec(point, 0..4)
}

fn histograms() -> impl Strategy<Value = Vec<oracle::HistogramDataPoint>> {
    let optional = || proptest::option::of(prop_oneof![Just(0.0), double()]);
    let times = (any::<u64>(), any::<u64>(), any::<u64>(), exemplars(), attributes());
    let point = (times, optional(), optional(), optional(), vec(any::<u64>(), 0..30), vec(double(), 0..30));
    let point = point.prop_map(|(times, sum, min, max, bucket_counts, explicit_bounds)| oracle::HistogramDataPoint {
        start_time_unix_nano: times.0,
        time_unix_nano: times.1,
        count: times.2,
        exemplars: times.3,
        attributes: times.4,
        sum,
        min,
        max,
        bucket_counts,
        explicit_bounds,
        flags: 0,
    });
    vec(point, 0..4)
}

fn data() -> impl Strategy<Value = metric::Data> {
    prop_oneof![
        numbers().prop_map(|data_points| metric::Data::Gauge(oracle::Gauge { data_points })),
        (numbers(), 1..=2, any::<bool>()).prop_map(|(data_points, aggregation_temporality, is_monotonic)| {
            metric::Data::Sum(oracle::Sum { data_points, aggregation_temporality, is_monotonic })
        }),
        (histograms(), 1..=2).prop_map(|(data_points, aggregation_temporality)| {
            metric::Data::Histogram(oracle::Histogram { data_points, aggregation_temporality })
        }),
    ]
}

fn metrics() -> impl Strategy<Value = Vec<oracle::Metric>> {
    let metric = (".{0,20}", ".{0,20}", ".{0,5}", data());
    let metric = metric.prop_map(|(name, description, unit, data)| oracle::Metric {
        name,
        description,
        unit,
        data: Some(data),
        ..Default::default()
    });
    vec(metric, 0..5)
}

/// Appends a generated metric in this crate's terms.
fn append(request: &mut Request, metric: &oracle::Metric) -> Appended {
    let temporality = |value| if value == 1 { Temporality::Delta } else { Temporality::Cumulative };
    let mut append = |data: Data<'_>| {
        request.append(&Metric { name: &metric.name, description: &metric.description, unit: &metric.unit, data })
    };
    match metric.data.as_ref().unwrap() {
        metric::Data::Gauge(gauge) => with_numbers(&gauge.data_points, |points| append(Data::Gauge(points))),
        metric::Data::Sum(sum) => with_numbers(&sum.data_points, |points| {
            let temporality = temporality(sum.aggregation_temporality);
            append(Data::Sum { points, temporality, monotonic: sum.is_monotonic })
        }),
        metric::Data::Histogram(histogram) => with_histograms(&histogram.data_points, |points| {
            append(Data::Histogram { points, temporality: temporality(histogram.aggregation_temporality) })
        }),
        _ => unreachable!("not generated"),
    }
}

fn with_numbers<R>(points: &[oracle::NumberDataPoint], then: impl FnOnce(&Vec<NumberPoint<'_>>) -> R) -> R {
    let attributes: Vec<_> = points.iter().map(|point| Given(&point.attributes)).collect();
    let points = points.iter().zip(&attributes).map(|(point, attributes)| NumberPoint {
        attributes,
        start_time_unix_nano: point.start_time_unix_nano,
        time_unix_nano: point.time_unix_nano,
        value: match point.value.unwrap() {
            number_data_point::Value::AsInt(value) => Number::Int(value),
            number_data_point::Value::AsDouble(value) => Number::Double(value),
        },
    });
    then(&points.collect())
}

fn with_histograms<R>(points: &[oracle::HistogramDataPoint], then: impl FnOnce(&Vec<HistogramPoint<'_>>) -> R) -> R {
    let attributes: Vec<_> = points.iter().map(|point| Given(&point.attributes)).collect();
    let exemplars: Vec<Vec<_>> = points.iter().map(|point| point.exemplars.iter().map(exemplar_of).collect()).collect();
    let points =
        points.iter().zip(&attributes).zip(&exemplars).map(|((point, attributes), exemplars)| HistogramPoint {
            attributes,
            start_time_unix_nano: point.start_time_unix_nano,
            time_unix_nano: point.time_unix_nano,
            count: point.count,
            sum: point.sum,
            min: point.min,
            max: point.max,
            bucket_counts: &point.bucket_counts,
            explicit_bounds: &point.explicit_bounds,
            exemplars,
        });
    then(&points.collect())
}

fn exemplar_of(exemplar: &oracle::Exemplar) -> Exemplar {
    Exemplar {
        time_unix_nano: exemplar.time_unix_nano,
        value: match exemplar.value.unwrap() {
            exemplar::Value::AsInt(value) => Number::Int(value),
            exemplar::Value::AsDouble(value) => Number::Double(value),
        },
        span_id: exemplar.span_id[..].try_into().unwrap(),
        trace_id: exemplar.trace_id[..].try_into().unwrap(),
    }
}

/// Puts a number for each double that is none.
fn make_finite(metric: &mut oracle::Metric) {
    let finite = |double: &mut f64| *double = if double.is_finite() { *double } else { 0.1 };
    let exemplar = |exemplar: &mut oracle::Exemplar| {
        if let Some(exemplar::Value::AsDouble(double)) = &mut exemplar.value {
            finite(double);
        }
    };
    let number = |point: &mut oracle::NumberDataPoint| {
        common::make_finite(&mut point.attributes);
        if let Some(number_data_point::Value::AsDouble(double)) = &mut point.value {
            finite(double);
        }
    };
    match metric.data.as_mut().unwrap() {
        metric::Data::Gauge(gauge) => gauge.data_points.iter_mut().for_each(number),
        metric::Data::Sum(sum) => sum.data_points.iter_mut().for_each(number),
        metric::Data::Histogram(histogram) => histogram.data_points.iter_mut().for_each(|point| {
            common::make_finite(&mut point.attributes);
            point.exemplars.iter_mut().for_each(exemplar);
            point.explicit_bounds.iter_mut().for_each(finite);
            [&mut point.sum, &mut point.min, &mut point.max].into_iter().flatten().for_each(finite);
        }),
        _ => unreachable!("not generated"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_request_decodes_to_what_went_into_it(resource in attributes(), metrics in metrics()) {
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let (mut resource, mut metrics) = (resource.clone(), metrics.clone());
            if encoding == Encoding::Json {
                common::make_finite(&mut resource);
                metrics.iter_mut().for_each(make_finite);
            }
            let scope = Scope { name: "s", version: "1" };
            let envelope = Envelope::encoded(encoding, Kind::Metrics, &Given(&resource), scope, "http://schema");
            let limits = SizeLimits { target_bytes: 1 << 30, bytes_max: 1 << 30 };
            let mut building = Request::new(&envelope, limits, Vec::new());
            for metric in &metrics {
                prop_assert_eq!(append(&mut building, metric), Appended::Yes);
            }
            let body = building.finish(&envelope);
            let mut decoded = match encoding {
                Encoding::Json => common::from_json(body.as_ref()),
                Encoding::Protobuf => {
                    let decoded = ExportMetricsServiceRequest::decode(body.as_ref()).unwrap();
                    prop_assert_eq!(body.as_ref().len(), decoded.encoded_len(), "no padding");
                    decoded
                }
            };
            let mut resource_metrics = decoded.resource_metrics.remove(0);
            prop_assert_eq!(&resource_metrics.resource.unwrap().attributes, &resource);
            let scope_metrics = resource_metrics.scope_metrics.remove(0);
            let scope = scope_metrics.scope.unwrap();
            prop_assert_eq!((&*scope.name, &*scope.version, &*scope_metrics.schema_url), ("s", "1", "http://schema"));
            prop_assert_eq!(&scope_metrics.metrics, &metrics);
        }
    }
}
