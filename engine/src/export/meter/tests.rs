//! The recorder against a list of every single value, and what is kept within bounds.

use std::{collections::BTreeMap, sync::Arc};

use agentsight_otlp::{Envelope, Scope, metric::Temporality};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value},
    metrics::v1::{HistogramDataPoint, metric},
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;

use super::{Recorder, Span, collect, instrument::INSTRUMENTS};
use crate::{
    arena::Travelling,
    exchange::{Call, CallFamily, Exchange, Process, Role, TraceContext},
    intervals::Intervals,
    limits::METRIC_SETS_MAX,
};

/// What of an exchange its metrics are made of.
#[derive(Clone, Debug)]
struct Seen {
    server: bool,
    operation: &'static str,
    request_model: Option<String>,
    response_model: Option<String>,
    port: Option<u16>,
    error: Option<String>,
    tier: Option<String>,
    tokens: [Option<i64>; 2],
    duration_nano: Option<u64>,
    first_chunk_nano: Option<u64>,
    intervals_nano: Vec<u64>,
    incomplete: bool,
}

/// The only provider of these tests.
const PROVIDER: &str = "openai";

fn exchange(seen: &Seen) -> Exchange {
    let call = Travelling::<CallFamily>::new(Box::default(), |arena| {
        let text = |text: &Option<String>| text.as_ref().map(|text| &*arena.alloc_str(text));
        arena.alloc(Call {
            operation: seen.operation,
            provider: PROVIDER,
            request_model: text(&seen.request_model),
            response_model: text(&seen.response_model),
            server_port: seen.port,
            error_type: text(&seen.error),
            openai_response_service_tier: text(&seen.tier),
            input_tokens: seen.tokens[0],
            output_tokens: seen.tokens[1],
            ..Call::default()
        })
    });
    let mut chunk_intervals = Intervals::default();
    seen.intervals_nano.iter().for_each(|nano| chunk_intervals.add(*nano, 1));
    Exchange {
        role: if seen.server { Role::Server } else { Role::Client },
        trace: TraceContext { trace_id: [1; 16], span_id: [1; 8], parent_span_id: None, flags: 1 },
        process: Arc::new(Process::default()),
        network: Arc::default(),
        thread_id: 1,
        start_unix_nano: 1_000,
        end_unix_nano: 1_000 + seen.duration_nano.unwrap_or(77),
        first_chunk_nano: seen.first_chunk_nano,
        chunk_intervals,
        end_unseen: seen.duration_nano.is_none(),
        lost_bytes: 0,
        incomplete: seen.incomplete,
        worker: 0,
        call,
    }
}

type Attributes = BTreeMap<String, String>;

/// A metric's name and a point's attributes.
type Key = (&'static str, Attributes);

/// Every value on its own, as the conventions' tables say it.
fn values(seen: &Seen) -> Vec<(Key, f64)> {
    let pairs = |pairs: &[(&str, Option<String>)]| -> Attributes {
        let some = pairs.iter().filter_map(|(key, value)| Some((String::from(*key), value.clone()?)));
        some.collect()
    };
    let common = pairs(&[
        ("gen_ai.operation.name", Some(seen.operation.into())),
        ("gen_ai.provider.name", Some(PROVIDER.into())),
        ("gen_ai.request.model", seen.request_model.clone()),
        ("gen_ai.response.model", seen.response_model.clone()),
        ("server.port", seen.port.map(|port| port.to_string())),
    ]);
    let with =
        |more: &[(&str, Option<String>)]| -> Attributes { common.clone().into_iter().chain(pairs(more)).collect() };
    let tier = ("openai.response.service_tier", seen.tier.clone());
    let error = ("error.type", seen.error.clone());
    let seconds = |nano: u64| nano as f64 / 1e9;
    let mut values = vec![];
    let mut add = |name, attributes: &Attributes, value: Option<f64>| {
        values.extend(value.map(|value| ((name, attributes.clone()), value)));
    };
    let duration = seen.duration_nano.map(seconds);
    let first = seen.first_chunk_nano.map(seconds);
    if seen.server {
        add("gen_ai.server.request.duration", &with(&[error]), duration);
        if seen.error.is_none() {
            add("gen_ai.server.time_to_first_token", &common, first);
            let tokens =
                seen.tokens[1].filter(|tokens| *tokens > 1 && !seen.incomplete && !seen.intervals_nano.is_empty());
            let whole = seconds(seen.intervals_nano.iter().sum());
            add("gen_ai.server.time_per_output_token", &common, tokens.map(|tokens| whole / (tokens - 1) as f64));
        }
    } else {
        for (kind, tokens) in ["input", "output"].into_iter().zip(seen.tokens) {
            let attributes = with(&[tier.clone(), ("gen_ai.token.type", Some(kind.into()))]);
            add(
                "gen_ai.client.token.usage",
                &attributes,
                tokens.filter(|tokens| *tokens >= 0).map(|tokens| tokens as f64),
            );
        }
        add("gen_ai.client.operation.duration", &with(&[tier, error]), duration);
        add("gen_ai.client.operation.time_to_first_chunk", &common, first);
        for nano in &seen.intervals_nano {
            add("gen_ai.client.operation.time_per_output_chunk", &common, Some(seconds(*nano)));
        }
    }
    values
}

/// Points of every metric that was collected.
fn points(recorder: &Recorder, span: Span) -> BTreeMap<Key, HistogramDataPoint> {
    let envelope = Envelope::new(&[("service.name".to_owned(), "s".to_owned())][..], Scope::default(), "http://schema");
    let mut points = BTreeMap::new();
    for collected in collect(recorder, &envelope, span) {
        let mut request = ExportMetricsServiceRequest::decode(collected.body.as_ref()).unwrap();
        let mut count = 0;
        for metric in request.resource_metrics.remove(0).scope_metrics.remove(0).metrics {
            let instrument = INSTRUMENTS.iter().find(|instrument| instrument.name == metric.name).unwrap();
            assert_eq!((&*metric.unit, &*metric.description), (instrument.unit, instrument.description));
            let Some(metric::Data::Histogram(histogram)) = metric.data else { panic!("a histogram") };
            assert_eq!(histogram.aggregation_temporality, span.temporality as i32);
            for point in histogram.data_points {
                assert_eq!(point.explicit_bounds, instrument.bounds);
                assert_eq!(point.bucket_counts.len(), instrument.bounds.len() + 1);
                assert_eq!(point.start_time_unix_nano, span.start_unix_nano);
                assert_eq!(point.time_unix_nano, span.end_unix_nano);
                count += 1;
                let key = (instrument.name, attributes(&point.attributes));
                assert!(points.insert(key, point).is_none(), "a point for each combination");
            }
        }
        assert_eq!(collected.points, count);
    }
    points
}

fn attributes(list: &[KeyValue]) -> Attributes {
    let text = |pair: &KeyValue| match pair.value.clone().unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(truth) => truth.to_string(),
        _ => panic!("no such attribute"),
    };
    list.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

fn span() -> Span {
    Span { temporality: Temporality::Cumulative, start_unix_nano: 3, end_unix_nano: 7 }
}

/// The points have to say what the values say.
fn compare(points: &BTreeMap<Key, HistogramDataPoint>, seen: &[Seen]) {
    let mut expected = BTreeMap::<Key, Vec<f64>>::new();
    for (key, value) in seen.iter().flat_map(values) {
        expected.entry(key).or_default().push(value);
    }
    assert_eq!(points.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (key, values) in expected {
        let point = &points[&key];
        assert_eq!(point.count, values.len() as u64, "{key:?}");
        assert_eq!(point.min, values.iter().copied().reduce(f64::min), "{key:?}");
        assert_eq!(point.max, values.iter().copied().reduce(f64::max), "{key:?}");
        let sum: f64 = values.iter().sum();
        assert!((point.sum.unwrap() - sum).abs() <= 1e-9 * sum.abs(), "{key:?}: {:?} is not {sum}", point.sum);
        let mut lower = f64::NEG_INFINITY;
        for (&upper, &count) in point.explicit_bounds.iter().chain([&f64::INFINITY]).zip(&point.bucket_counts) {
            let inside = values.iter().filter(|value| lower < **value && **value <= upper).count();
            assert_eq!(count, inside as u64, "{key:?}: from {lower} to {upper}");
            lower = upper;
        }
    }
}

fn word() -> impl Strategy<Value = Option<String>> {
    option::of("[a-c]".prop_map(String::from))
}

/// Times of every magnitude, bounds among them.
fn nano() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0..16_u32).prop_map(|power| 10_000_000_u64 << power),
        (0..16_u32).prop_map(|power| (10_000_000_u64 << power) + 1),
        0..200_000_000_000_u64,
        0..30_000_000_u64,
    ]
}

fn seen() -> impl Strategy<Value = Seen> {
    let tokens = || option::of(prop_oneof![-2..5_i64, (0..28_u32).prop_map(|power| 1 << power), 0..100_000_000_i64]);
    let who = (any::<bool>(), prop_oneof![Just("chat"), Just("embeddings")], word(), word(), option::of(1..3_u16));
    let times = (option::of(nano()), option::of(nano()), vec(nano(), 0..6));
    let made = (who, word(), word(), [tokens(), tokens()], times, any::<bool>());
    made.prop_map(|(who, error, tier, tokens, times, incomplete)| Seen {
        server: who.0,
        operation: who.1,
        request_model: who.2,
        response_model: who.3,
        port: who.4,
        error,
        tier,
        tokens,
        duration_nano: times.0,
        first_chunk_nano: times.1,
        intervals_nano: times.2,
        incomplete,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn points_say_what_the_values_say(seen in vec(seen(), 0..120)) {
        let mut recorder = Recorder::default();
        seen.iter().for_each(|seen| recorder.record(&exchange(seen)));
        compare(&points(&recorder, span()), &seen);
    }

    /// With delta temporality each collection has what came since the one before, and nothing else.
    #[test]
    fn a_restart_begins_anew(rounds in vec(vec(seen(), 0..40), 1..4)) {
        let span = Span { temporality: Temporality::Delta, ..span() };
        let mut recorder = Recorder::default();
        for seen in &rounds {
            seen.iter().for_each(|seen| recorder.record(&exchange(seen)));
            compare(&points(&recorder, span), seen);
            recorder.restart();
            assert!(points(&recorder, span).is_empty());
        }
    }
}

/// An exchange with a model of its own.
fn numbered(number: usize, server: bool) -> Seen {
    Seen {
        server,
        operation: "chat",
        request_model: Some(format!("model-{number}")),
        response_model: None,
        port: Some(443),
        error: None,
        tier: None,
        tokens: [Some(1), Some(2)],
        duration_nano: Some(1_000),
        first_chunk_nano: None,
        intervals_nano: vec![],
        incomplete: false,
    }
}

#[test]
fn sets_beyond_the_limit_share_one_point() {
    const BEYOND: u64 = 300;
    let overflow = Attributes::from([("otel.metric.overflow".to_owned(), "true".to_owned())]);
    let own = METRIC_SETS_MAX - 1;
    let mut recorder = Recorder::default();
    // Each twice: those that were known stay known when there is no more room.
    for _ in 0..2 {
        (0..own + BEYOND as usize).for_each(|number| recorder.record(&exchange(&numbered(number, false))));
    }
    let check = |points: &BTreeMap<Key, HistogramDataPoint>, name: &'static str, values: u64| {
        let own_points: Vec<_> = points.iter().filter(|(key, _)| key.0 == name && key.1 != overflow).collect();
        assert_eq!(own_points.len(), own * if values == 2 { 2 } else { 1 }, "{name}");
        assert!(own_points.iter().all(|(_, point)| point.count == 2), "{name}");
        let rest = &points[&(name, overflow.clone())];
        assert_eq!((rest.count, rest.bucket_counts.iter().sum()), (2 * BEYOND * values, 2 * BEYOND * values), "{name}");
    };
    let collected = points(&recorder, span());
    check(&collected, "gen_ai.client.operation.duration", 1);
    // Input and output alike.
    check(&collected, "gen_ai.client.token.usage", 2);
    assert_eq!(collected[&("gen_ai.client.token.usage", overflow.clone())].sum, Some(2.0 * 3.0 * BEYOND as f64));

    // What counts since the last time only makes room for others.
    recorder.restart();
    let other = numbered(usize::MAX, false);
    recorder.record(&exchange(&other));
    compare(&points(&recorder, span()), &[other]);
}

#[test]
fn requests_keep_to_their_size() {
    let mut recorder = Recorder::default();
    let long = "x".repeat(crate::limits::TEXT_BYTES_MAX - 10);
    for number in 0..METRIC_SETS_MAX {
        let seen = numbered(number, number % 2 == 0);
        recorder.record(&exchange(&Seen { response_model: Some(format!("{long}{number}")), ..seen }));
    }
    let envelope = Envelope::new(&[("service.name".to_owned(), "s".to_owned())][..], Scope::default(), "");
    let collected = collect(&recorder, &envelope, span());
    let sizes: Vec<_> = collected.iter().map(|collected| collected.body.as_ref().len()).collect();
    assert!(sizes.len() > 1 && sizes.iter().all(|size| *size < 8 << 20), "{sizes:?}");
    points(&recorder, span());
}

#[test]
fn after_warm_up_nothing_is_allocated() {
    let exchanges: Vec<_> = (0..200).map(|number| exchange(&numbered(number, number % 3 == 0))).collect();
    let mut recorder = Recorder::default();
    let mut record = || exchanges.iter().for_each(|exchange| recorder.record(exchange));
    record();
    assert_eq!(allocation_counter::measure(record).count_total, 0);
}
