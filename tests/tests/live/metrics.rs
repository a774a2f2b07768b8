//! Metrics of both sides of real traffic, held against the spans of the same calls.

use std::{collections::BTreeMap, time::Duration};

use agentsight::demo::{
    points::Point,
    receiver::{KIND_CLIENT, Receiver, STATUS_ERROR, Span},
};
use agentsight_tests::{
    corpus,
    engine::KIND_SERVER,
    http2::{Client, Peers},
    live::Live,
};
use serde_json::Value;

/// How long spans may take to come out after the last reply.
const ARRIVAL_DURATION_MAX: Duration = Duration::from_secs(10);

/// Count and sum of some values.
type Tally = (u64, f64);

/// By the attributes that tell points apart, as far as a span has them too.
fn key(attributes: &BTreeMap<String, Value>) -> String {
    const NAMES: [&str; 6] = [
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "server.address",
        "server.port",
    ];
    NAMES.map(|name| attributes.get(name).map_or_else(String::new, Value::to_string)).join(" ")
}

fn of_spans(spans: &[Span], kind: i32, value: impl Fn(&Span) -> Option<f64>) -> BTreeMap<String, Tally> {
    let mut tallies = BTreeMap::new();
    for span in spans.iter().filter(|span| span.kind == kind) {
        if let Some(value) = value(span) {
            let (count, sum) = tallies.entry(key(&span.attributes)).or_insert((0, 0.0));
            (*count, *sum) = (*count + 1, *sum + value);
        }
    }
    tallies
}

fn of_points(points: &[Point], metric: &str, token_type: Option<&str>) -> BTreeMap<String, Tally> {
    let mut tallies = BTreeMap::new();
    for point in points.iter().filter(|point| point.metric == metric) {
        assert_eq!(point.buckets.iter().sum::<u64>(), point.count, "{point:?}");
        assert_eq!(point.buckets.len(), point.bounds.len() + 1, "{point:?}");
        assert!(point.start_unix_nano < point.end_unix_nano, "{point:?}");
        if point.attributes.get("gen_ai.token.type").and_then(Value::as_str) == token_type {
            // Points that differ in `error.type` alone are of calls whose keys are the same here.
            let (count, sum) = tallies.entry(key(&point.attributes)).or_insert((0, 0.0));
            (*count, *sum) = (*count + point.count, *sum + point.sum);
        }
    }
    tallies
}

fn same(what: &str, spans: &BTreeMap<String, Tally>, points: &BTreeMap<String, Tally>) {
    assert!(!spans.is_empty(), "no span has {what}");
    assert_eq!(spans.keys().collect::<Vec<_>>(), points.keys().collect::<Vec<_>>(), "{what}");
    for (key, (count, sum)) in spans {
        let (points_count, points_sum) = points[key];
        let close = (sum - points_sum).abs() <= 1e-6 * sum.abs().max(1.0);
        assert!(*count == points_count && close, "{what} of {key}: {count}, {sum}; {points_count}, {points_sum}");
    }
}

#[test]
fn metrics_of_both_sides_agree_with_the_spans() {
    let Some(live) = Live::begin() else { return };
    let Some(folder) = corpus::folder() else { return };
    let mut plan = corpus::plan(&folder, 5, 4, 1);
    plan.truncate(200);
    let Some(mut peers) = Peers::start(Client::Node, &plan, live.folder.path()) else { return };
    let receiver = Receiver::start().expect("a receiver");
    // Points don't name the process, so nobody else may be captured.
    let pids = format!("{},{}", peers.client_pid(), peers.server_pid());
    let engine = live.engine(&["--pid", &pids, "--role", "both", "--otel-metrics", "--otel-endpoint", &receiver.url()]);
    peers.send_phase();
    engine.wait_for_spans(ARRIVAL_DURATION_MAX, |spans| spans.len() >= 2 * plan.len());
    let finished = engine.stop();
    let (spans, points) = (finished.spans(), receiver.points());
    assert_eq!(spans.len(), 2 * plan.len(), "{}", finished.stderr);

    let number = |name: &'static str| move |span: &Span| span.attributes.get(name).and_then(Value::as_f64);
    let duration = |span: &Span| Some((span.end_unix_nano - span.start_unix_nano) as f64 / 1e9);
    let first_chunk = number("gen_ai.response.time_to_first_chunk");
    let check = |metric: &str, kind: i32, token_type: Option<&str>, value: &dyn Fn(&Span) -> Option<f64>| {
        same(metric, &of_spans(&spans, kind, value), &of_points(&points, metric, token_type));
    };
    let tokens = "gen_ai.client.token.usage";
    check(tokens, KIND_CLIENT, Some("input"), &number("gen_ai.usage.input_tokens"));
    check(tokens, KIND_CLIENT, Some("output"), &number("gen_ai.usage.output_tokens"));
    check("gen_ai.client.operation.duration", KIND_CLIENT, None, &duration);
    check("gen_ai.client.operation.time_to_first_chunk", KIND_CLIENT, None, &first_chunk);
    check("gen_ai.server.request.duration", KIND_SERVER, None, &duration);
    let succeeded = |span: &Span| first_chunk(span).filter(|_| span.status != STATUS_ERROR);
    check("gen_ai.server.time_to_first_token", KIND_SERVER, None, &succeeded);

    // Spans don't say these, but for which calls there are any.
    let streamed = |kind, value: &dyn Fn(&Span) -> Option<f64>| of_spans(&spans, kind, value);
    for (metric, kind) in [
        ("gen_ai.client.operation.time_per_output_chunk", KIND_CLIENT),
        ("gen_ai.server.time_per_output_token", KIND_SERVER),
    ] {
        let (of_points, of_spans) = (of_points(&points, metric, None), streamed(kind, &first_chunk));
        assert!(!of_points.is_empty(), "{metric}");
        assert!(of_points.keys().all(|key| of_spans.contains_key(key)), "{of_points:?}");
        // Chunks that come at once have no time between them, but not all of them do.
        assert!(of_points.values().any(|(_, sum)| *sum > 0.0), "{of_points:?}");
    }
}
