//! Metrics against a collector on loopback: they agree with the spans, and what is not delivered is
//! counted.

mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use agentsight::{
    exchange::{Call, Exchange},
    export::{
        config::{self, Flags, MetricSettings, Retry},
        exporter::{Exporter, Inlet, Outputs},
    },
    handoff::Handoff,
    intervals::Intervals,
    log::{Level, Log},
    metrics::{Cause, Metrics, Total},
};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{HistogramDataPoint, metric},
};
use prost::Message;
use support::{Answer, Collector, Received, exchange_with, ok};

fn settings(collector: &Collector, temporality: &str, interval_ms: u64) -> MetricSettings {
    let env = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE" => Some(temporality.to_owned()),
        "OTEL_METRIC_EXPORT_INTERVAL" => Some(interval_ms.to_string()),
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS" => Some("x-metrics=1".to_owned()),
        _ => None,
    };
    let flags = Flags { endpoint: Some(format!("http://{}/base", collector.address)) };
    let mut settings = config::metrics(true, &flags, &env).unwrap().settings.unwrap();
    settings.transport.retry = Retry {
        attempt_timeout: Some(Duration::from_millis(300)),
        total_timeout: Some(Duration::from_millis(600)),
        pause_initial: Duration::from_millis(10),
        pause_max: Duration::from_millis(50),
    };
    settings
}

/// An interval that no test lasts.
const NEVER_MS: u64 = 3_600_000;

/// A running exporter with its queue.
struct Running {
    exporter: Exporter,
    queue: Arc<Handoff>,
    metrics: Arc<Metrics>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Running {
    fn start(outputs: Outputs) -> Self {
        let queue = Arc::new(Handoff::new(10_000));
        let (metrics, log) = (Arc::new(Metrics::default()), Arc::new(Mutex::new(Vec::new())));
        let lines = Arc::clone(&log);
        let exporter = Exporter::spawn(
            Inlet { exchanges: Arc::clone(&queue), arenas: vec![] },
            outputs,
            Arc::clone(&metrics),
            Log::new(Some(Level::Info), move |line: &str| lines.lock().unwrap().push(line.to_owned())),
        );
        Self { exporter: exporter.unwrap(), queue, metrics, log }
    }

    fn of_metrics(settings: MetricSettings) -> Self {
        Self::start(Outputs { metrics: Some(settings), ..Outputs::default() })
    }

    fn push(&self, exchange: Exchange) {
        assert!(self.queue.push(exchange).is_ok());
    }

    /// Ends it; gives the points that were exported and the losses.
    fn stop(self, limit: Duration) -> (u64, Vec<(Cause, u64)>) {
        let report = self.exporter.shutdown(limit);
        (self.metrics.total(Total::MetricPointsExported), report.losses)
    }
}

/// Points by metric.
fn points(received: &Received) -> BTreeMap<String, Vec<HistogramDataPoint>> {
    assert!(received.head.starts_with("POST /base/v1/metrics HTTP/1.1\r\n"), "{}", received.head);
    assert_eq!(received.header("x-metrics"), Some("1"));
    assert_eq!(received.header("content-type"), Some("application/x-protobuf"));
    let mut request = ExportMetricsServiceRequest::decode(&*received.body).unwrap();
    let mut resource_metrics = request.resource_metrics.remove(0);
    assert!(text(&resource_metrics.resource.unwrap().attributes, "service.name").is_some());
    let metrics = resource_metrics.scope_metrics.remove(0).metrics;
    let points = metrics.into_iter().map(|metric| match metric.data {
        Some(metric::Data::Histogram(histogram)) => (metric.name, histogram.data_points),
        other => panic!("{other:?}"),
    });
    points.collect()
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|pair| pair.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{other:?}"),
    }
}

fn wait_for(what: &str, reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Calls of several models, some failed, some streamed, some without usage.
fn varied(index: u64) -> Exchange {
    let number = index as i64;
    let mut exchange = exchange_with(index, Box::default(), |call| Call {
        request_model: Some(["small", "large", "huge"][index as usize % 3]),
        input_tokens: (!index.is_multiple_of(4)).then_some(number * 7),
        output_tokens: (!index.is_multiple_of(5)).then_some(number * number),
        error_type: index.is_multiple_of(6).then_some("overloaded_error"),
        stream: index.is_multiple_of(2),
        ..call
    });
    exchange.end_unix_nano = exchange.start_unix_nano + index * 3_000_000;
    if index.is_multiple_of(2) {
        exchange.first_chunk_nano = Some(index * 1_000_000);
        let mut intervals = Intervals::default();
        intervals.add(index * 100_000, index);
        exchange.chunk_intervals = intervals;
    }
    exchange
}

#[test]
fn metrics_and_spans_agree() {
    const CALLS: u64 = 200;
    let collector = Collector::start(vec![ok()]);
    let flags = Flags { endpoint: Some(format!("http://{}/base", collector.address)) };
    let spans = config::settings(&flags, &|_| None).unwrap().settings;
    let metrics = Some(settings(&collector, "cumulative", NEVER_MS));
    let running = Running::start(Outputs { otlp: spans, metrics, ..Outputs::default() });
    (0..CALLS).for_each(|index| running.push(varied(index)));
    let exchanges: Vec<_> = (0..CALLS).map(varied).collect();
    let (exported, losses) = running.stop(Duration::from_secs(10));
    assert_eq!(losses, []);

    let (metrics, spans): (Vec<_>, Vec<_>) =
        collector.received().into_iter().partition(|received| received.head.contains("/v1/metrics"));
    let [metrics] = &metrics[..] else { panic!("{} requests at the end", metrics.len()) };
    let points = points(metrics);
    assert_eq!(points.values().map(Vec::len).sum::<usize>() as u64, exported);

    // What the spans say, by model, as it came over the wire.
    let (mut tokens, mut durations) = (BTreeMap::new(), BTreeMap::new());
    for received in &spans {
        let request = ExportTraceServiceRequest::decode(&*received.body).unwrap();
        for span in request.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans) {
            let said = |key: &str| text(&span.attributes, key);
            let model = said("gen_ai.request.model").unwrap();
            for (kind, key) in [("input", "gen_ai.usage.input_tokens"), ("output", "gen_ai.usage.output_tokens")] {
                if let Some(count) = said(key) {
                    let (calls, sum) = tokens.entry((model.clone(), kind.to_owned())).or_insert((0, 0.0));
                    *calls += 1;
                    *sum += count.parse::<f64>().unwrap();
                }
            }
            let (calls, sum) = durations.entry((model, said("error.type"))).or_insert((0, 0));
            *calls += 1;
            *sum += span.end_time_unix_nano - span.start_time_unix_nano;
        }
    }
    let model = |point: &HistogramDataPoint| text(&point.attributes, "gen_ai.request.model").unwrap();
    let of_points = points["gen_ai.client.token.usage"].iter().map(|point| {
        let key = (model(point), text(&point.attributes, "gen_ai.token.type").unwrap());
        (key, (point.count, point.sum.unwrap()))
    });
    assert_eq!(of_points.collect::<BTreeMap<_, _>>(), tokens);
    let of_points = points["gen_ai.client.operation.duration"].iter().map(|point| {
        let key = (model(point), text(&point.attributes, "error.type"));
        (key, (point.count, (point.sum.unwrap() * 1e9).round() as u64))
    });
    assert_eq!(of_points.collect::<BTreeMap<_, _>>(), durations);

    let count = |name: &str| points[name].iter().map(|point| point.count).sum::<u64>();
    let first_chunks = exchanges.iter().filter(|exchange| exchange.first_chunk_nano.is_some()).count();
    assert_eq!(count("gen_ai.client.operation.time_to_first_chunk"), first_chunks as u64);
    let intervals: u64 = exchanges.iter().map(|exchange| exchange.chunk_intervals.count()).sum();
    assert_eq!(count("gen_ai.client.operation.time_per_output_chunk"), intervals);
}

/// How many calls each request tells, with one call every time that a request has arrived.
fn calls_told(temporality: &str) -> Vec<(u64, u64, u64)> {
    let collector = Collector::start(vec![ok()]);
    let running = Running::of_metrics(settings(&collector, temporality, 30));
    for sent in 0..3 {
        running.push(varied(1));
        wait_for("a collection", || {
            let received = collector.received();
            received.len() > sent && (temporality == "delta" || count(received.last().unwrap()) > sent as u64)
        });
    }
    running.push(varied(1));
    let (_, losses) = running.stop(Duration::from_secs(5));
    assert_eq!(losses, []);
    let told = |received: &Received| {
        let point = &points(received)["gen_ai.client.operation.duration"][0];
        (point.start_time_unix_nano, point.time_unix_nano, point.count)
    };
    collector.received().iter().map(told).collect()
}

fn count(received: &Received) -> u64 {
    points(received)["gen_ai.client.operation.duration"][0].count
}

#[test]
fn cumulative_values_grow_from_one_start() {
    let told = calls_told("cumulative");
    assert!(told.len() >= 4, "{told:?}");
    assert!(told.iter().all(|(start, end, _)| *start == told[0].0 && start < end), "{told:?}");
    assert!(told.is_sorted_by(|a, b| a.1 < b.1 && a.2 <= b.2), "{told:?}");
    assert_eq!(told.last().unwrap().2, 4);
}

#[test]
fn deltas_follow_on_each_other() {
    let told = calls_told("delta");
    assert_eq!(told.iter().map(|(.., count)| count).sum::<u64>(), 4, "{told:?}");
    // Where nothing happened nothing is sent, so there may be time between them.
    assert!(told.is_sorted_by(|a, b| a.1 <= b.0), "{told:?}");
}

#[test]
fn without_calls_nothing_is_sent() {
    let collector = Collector::start(vec![ok()]);
    let running = Running::of_metrics(settings(&collector, "", 5));
    thread::sleep(Duration::from_millis(50));
    assert_eq!(running.stop(Duration::from_secs(5)), (0, vec![]));
    assert_eq!(collector.received().len(), 0);
}

#[test]
fn a_collector_in_trouble() {
    let check = |answers: Vec<Answer>, limit_ms, exported, losses: &[(Cause, u64)], said: &str| {
        let collector = Collector::start(answers);
        let running = Running::of_metrics(settings(&collector, "", NEVER_MS));
        // Duration, and tokens in and out.
        running.push(varied(1));
        let log = Arc::clone(&running.log);
        let outcome = running.stop(Duration::from_millis(limit_ms));
        assert_eq!(outcome, (exported, losses.to_vec()));
        let log = log.lock().unwrap().join("\n");
        assert!(log.contains(said), "{log}");
        assert!(!log.contains("spans"), "{log}");
    };
    let busy = || Answer::Reply(503, "", Vec::new());
    check(vec![busy(), Answer::Close, ok()], 5_000, 3, &[], "works again");
    check(vec![Answer::Reply(400, "", vec![])], 5_000, 0, &[(Cause::MetricsRefused, 3)], "refuses the metrics");
    check(vec![busy()], 5_000, 0, &[(Cause::MetricsRetriesExhausted, 3)], "metrics are dropped");
    check(vec![Answer::Hang], 100, 0, &[(Cause::MetricsShutdownDeadline, 3)], "");
}

/// While a request is on its way no other is made, and what came meanwhile is in the next.
#[test]
fn one_request_at_a_time_and_the_next_makes_up_for_it() {
    let collector = Collector::start(vec![Answer::Hang, Answer::Reply(400, "", vec![]), ok()]);
    let running = Running::of_metrics(settings(&collector, "cumulative", 5));
    running.push(varied(1));
    wait_for("the first request", || !collector.received().is_empty());
    for _ in 0..4 {
        running.push(varied(1));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(collector.received().len(), 1, "one at a time");
    wait_for("a refusal and a success", || collector.received().len() >= 3);
    let (exported, losses) = running.stop(Duration::from_secs(5));
    assert!(exported >= 3);
    assert_eq!(losses, [(Cause::MetricsRefused, 3)]);
    assert_eq!(count(collector.received().last().unwrap()), 5);
}
