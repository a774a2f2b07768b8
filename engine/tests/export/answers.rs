//! What is made of each answer: every span that goes in is delivered or counted.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Answer, Collector, Received, exchange, exchange_with, ok};
use agentsight::{
    exchange::Exchange,
    export::{
        config::{self, Batch, Compression, Flags, Retry, Settings},
        exporter::{Exporter, Inlet, Outputs, Report},
    },
    handoff::Handoff,
    log::{Level, Log},
    metrics::{Cause, Metrics},
    output::{Lines, Style},
};
use agentsight_otlp::response::{ExportResponse, PartialSuccess, RpcStatus};
use crossbeam_queue::ArrayQueue;
use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};
use prost::Message;

/// One run of the exporter.
struct Run {
    answers: Vec<Answer>,
    spans: u64,
    batch: Batch,
    retry: Retry,
    compression: Compression,
    limit: Duration,
}

impl Run {
    /// `spans` exchanges in requests of ten, with pauses that suit a test.
    fn new(spans: u64, answers: Vec<Answer>) -> Self {
        Self {
            answers,
            spans,
            batch: Batch { spans_max: 10, delay: Duration::from_millis(20), ..Batch::default() },
            retry: Retry {
                attempt_timeout: Some(Duration::from_millis(200)),
                total_timeout: Some(Duration::from_secs(3)),
                pause_initial: Duration::from_millis(10),
                pause_max: Duration::from_millis(50),
            },
            compression: Compression::None,
            limit: Duration::from_secs(10),
        }
    }

    fn go(self) -> Done {
        self.go_with(&exchange)
    }

    /// With exchanges that `make` makes.
    fn go_with(self, make: &dyn Fn(u64) -> Exchange) -> Done {
        let collector = Collector::start(self.answers);
        let settings = Settings {
            batch: self.batch,
            retry: self.retry,
            compression: self.compression,
            ..settings(&format!("http://{}/base/", collector.address))
        };
        let queue = Arc::new(Handoff::new(10_000));
        for index in 0..self.spans {
            assert!(queue.push(make(index)).is_ok());
        }
        let arenas = Arc::new(ArrayQueue::new(10_000));
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let begun = Instant::now();
        let exporter = Exporter::spawn(
            Inlet { exchanges: queue, arenas: vec![Arc::clone(&arenas)] },
            Outputs { otlp: Some(settings), ..Outputs::default() },
            Arc::new(Metrics::default()),
            Log::new(Some(Level::Info), move |line: &str| lines.lock().unwrap().push(line.to_owned())),
        )
        .unwrap();
        let report = exporter.shutdown(self.limit);
        assert_eq!(report.exchanges, self.spans);
        assert_eq!(report.exported + report.losses.iter().map(|(_, count)| count).sum::<u64>(), self.spans);
        let kept = arenas.len() as u64;
        let log = log.lock().unwrap().clone();
        Done { report, kept, received: collector.received(), log, took: begun.elapsed() }
    }
}

struct Done {
    report: Report,
    /// Arenas that came back.
    kept: u64,
    received: Vec<Received>,
    log: Vec<String>,
    took: Duration,
}

impl Done {
    fn check(&self, exported: u64, losses: &[(Cause, u64)], requests: usize) {
        assert_eq!((self.report.exported, self.report.losses.as_slice()), (exported, losses), "{:?}", self.log);
        assert_eq!(self.received.len(), requests, "{:?}", self.log);
        assert_eq!(self.kept, self.report.exchanges, "every arena comes back");
    }
}

fn settings(endpoint: &str) -> Settings {
    let env = |name: &str| (name == "OTEL_EXPORTER_OTLP_HEADERS").then(|| "api-key=s3cret,x-a=b".to_owned());
    let configured = config::settings(&Flags { endpoint: Some(endpoint.to_owned()) }, &env).unwrap();
    assert_eq!(configured.warnings, [""; 0]);
    configured.settings.unwrap()
}

fn spans(body: &[u8]) -> Vec<Span> {
    let mut request = ExportTraceServiceRequest::decode(body).unwrap();
    assert_eq!(request.resource_spans.len(), 1);
    request.resource_spans.remove(0).scope_spans.remove(0).spans
}

fn partial(rejected: i64, message: &str) -> Answer {
    let partial_success = Some(PartialSuccess { rejected, error_message: message.to_owned() });
    Answer::Reply(200, "", ExportResponse { partial_success }.encode_to_vec())
}

fn refusal(status: u16, headers: &'static str, message: &str) -> Answer {
    Answer::Reply(status, headers, RpcStatus { code: 3, message: message.to_owned() }.encode_to_vec())
}

#[test]
fn spans_arrive_in_order_over_one_connection() {
    let done = Run::new(35, vec![ok()]).go();
    done.check(35, &[], 4);
    assert_eq!(done.log, [""; 0]);
    let arrived: Vec<_> = done.received.iter().flat_map(|request| spans(&request.body)).collect();
    let ids: Vec<_> = arrived.iter().map(|span| u64::from_be_bytes(span.span_id[..].try_into().unwrap())).collect();
    assert_eq!(ids, (1..=35).collect::<Vec<_>>());
    for request in &done.received {
        assert_eq!(request.connection, 0);
        assert!(request.head.starts_with("POST /base/v1/traces HTTP/1.1\r\n"), "{}", request.head);
        assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
        assert!(request.header("user-agent").unwrap().contains("OTel-OTLP-Exporter-Rust/"));
        assert_eq!(request.header("api-key"), Some("s3cret"));
        assert_eq!(request.header("content-encoding"), None);
    }
}

#[test]
fn retryable_answers_are_retried() {
    for status in [429, 502, 503, 504] {
        let done = Run::new(15, vec![refusal(status, "", "busy"), refusal(status, "", "busy"), ok()]).go();
        done.check(15, &[], 4);
        assert_eq!(done.received[0].body, done.received[2].body, "the same request again");
        assert_eq!(done.log.len(), 2, "{:?}", done.log);
    }
}

#[test]
fn broken_connections_are_retried() {
    Run::new(15, vec![Answer::Close, Answer::Close, ok()]).go().check(15, &[], 4);
}

#[test]
fn an_attempt_that_hangs_ends_in_time() {
    let done = Run::new(5, vec![Answer::Hang, ok()]).go();
    done.check(5, &[], 2);
    assert!(done.took >= Duration::from_millis(200) && done.took < Duration::from_secs(3));
}

#[test]
fn retry_after_is_obeyed() {
    let done = Run::new(5, vec![refusal(429, "retry-after: 1\r\n", "later"), ok()]).go();
    done.check(5, &[], 2);
    assert!(done.took >= Duration::from_secs(1), "{:?}", done.took);
}

#[test]
fn a_refusal_is_final_and_said_once() {
    for status in [301, 400, 401, 404, 413, 500, 501] {
        let done = Run::new(30, vec![refusal(status, "", "no thanks\n\x1b[31m")]).go();
        done.check(0, &[(Cause::ExportRefused, 30)], 3);
        assert_eq!(done.log.len(), 1, "{:?}", done.log);
        assert!(done.log[0].contains("no thanks") && !done.log[0].contains('\x1b'), "{:?}", done.log);
    }
}

#[test]
fn partial_success_is_counted_and_not_retried() {
    let done = Run::new(20, vec![partial(3, "three are bad"), ok()]).go();
    done.check(17, &[(Cause::ExportPartialRejected, 3)], 2);
    assert!(done.log[0].contains("three are bad"), "{:?}", done.log);
    // A warning, an impossible count, and a negative one.
    Run::new(10, vec![partial(0, "beware")]).go().check(10, &[], 1);
    Run::new(10, vec![partial(11, "more than there are")]).go().check(0, &[(Cause::ExportPartialRejected, 10)], 1);
    Run::new(10, vec![partial(-1, "less than none")]).go().check(10, &[], 1);
}

#[test]
fn a_collector_that_stays_away_is_given_up() {
    let mut run = Run::new(20, vec![refusal(503, "", "down")]);
    run.retry.total_timeout = Some(Duration::from_millis(150));
    let done = run.go();
    assert_eq!((done.report.exported, done.report.losses), (0, vec![(Cause::ExportRetriesExhausted, 20)]));
    assert!(done.received.len() > 4, "several attempts each: {}", done.received.len());
    assert_eq!(done.log.len(), 2, "{:?}", done.log);
}

#[test]
fn shutdown_ends_in_time_and_counts_what_is_left() {
    let mut run = Run::new(25, vec![ok(), Answer::Hang]);
    run.retry.attempt_timeout = None;
    run.retry.total_timeout = None;
    run.limit = Duration::from_millis(300);
    let done = run.go();
    done.check(10, &[(Cause::ShutdownDeadline, 15)], 2);
    assert!(done.took < Duration::from_secs(2), "{:?}", done.took);
}

#[test]
fn the_newest_requests_are_dropped_when_too_many_wait() {
    let mut run = Run::new(100, vec![Answer::Hang, ok()]);
    run.batch.waiting_spans_max = 40;
    let done = run.go();
    assert_eq!((done.report.exported, done.report.losses.as_slice()), (40, [(Cause::ExportQueueFull, 60)].as_slice()));
    let first = &spans(&done.received[1].body)[0];
    assert_eq!(first.span_id, 1_u64.to_be_bytes(), "the oldest is kept");
}

/// An exchange with `bytes` of content.
fn large(index: u64, bytes: usize) -> Exchange {
    let arena = Box::new(bumpalo::Bump::with_capacity(bytes + 4096));
    let mut exchange = exchange_with(index, arena, |call| call);
    exchange.call.with_mut(|arena, call| {
        call.input_messages = Some(arena.alloc_str(&"x".repeat(bytes)));
    });
    exchange
}

#[test]
fn requests_keep_to_their_size_and_the_queue_to_its_own() {
    let mut run = Run::new(50, vec![Answer::Hang, ok()]);
    run.retry.total_timeout = None;
    let done = run.go_with(&|index| large(index, 3 << 19));
    // Two of them fit into 4 MiB, and twenty-one times two into 64 MiB.
    assert_eq!((done.report.exported, done.report.losses), (42, vec![(Cause::ExportQueueFull, 8)]));
    assert!(done.received.iter().all(|request| request.body.len() <= 4 << 20));
    assert_eq!(done.kept, 0, "large arenas are not kept");
}

#[test]
fn a_span_beyond_the_largest_request_is_counted() {
    let done =
        Run::new(3, vec![ok()]).go_with(&|index| if index == 1 { large(index, 64 << 20) } else { exchange(index) });
    assert_eq!((done.report.exported, done.report.losses), (2, vec![(Cause::ExportSpanTooLarge, 1)]));
    assert_eq!(done.kept, 2);
}

#[test]
fn the_log_has_no_secrets() {
    let env = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some("http://user:s3cret@127.0.0.1:1/path?key=s3cret".to_owned()),
        "OTEL_EXPORTER_OTLP_HEADERS" => Some("api-key=s3cret".to_owned()),
        "OTEL_BSP_EXPORT_TIMEOUT" => Some("1".to_owned()),
        _ => None,
    };
    let settings = config::settings(&Flags::default(), &env).unwrap().settings;
    let queue = Arc::new(Handoff::new(1));
    assert!(queue.push(exchange(0)).is_ok());
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let exporter = Exporter::spawn(
        Inlet { exchanges: queue, arenas: vec![] },
        Outputs { otlp: settings, ..Outputs::default() },
        Arc::new(Metrics::default()),
        Log::new(Some(Level::Info), move |line: &str| lines.lock().unwrap().push(line.to_owned())),
    )
    .unwrap();
    assert_eq!(exporter.shutdown(Duration::MAX).losses, [(Cause::ExportRetriesExhausted, 1)]);
    let log = log.lock().unwrap().join("\n");
    assert!(log.contains("http://127.0.0.1:1/path") && !log.contains("s3cret"), "{log}");
}

#[test]
fn a_response_without_end_is_refused() {
    let done = Run::new(5, vec![Answer::Reply(200, "", vec![0; 5 << 20])]).go();
    done.check(0, &[(Cause::ExportRefused, 5)], 1);
}

#[test]
fn gzip_is_what_it_says() {
    let mut run = Run::new(10, vec![ok()]);
    run.compression = Compression::Gzip;
    let done = run.go();
    done.check(10, &[], 1);
    assert_eq!(done.received[0].header("content-encoding"), Some("gzip"));
    let mut plain = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(done.received[0].body.as_slice());
    std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
    assert_eq!(spans(&plain).len(), 10);
    assert!(done.received[0].body.len() * 3 < plain.len());
}

#[test]
fn a_span_does_not_wait_for_others_for_long() {
    let collector = Collector::start(vec![ok()]);
    let queue = Arc::new(Handoff::new(10));
    let mut settings = settings(&format!("http://{}", collector.address));
    settings.batch.delay = Duration::from_millis(20);
    let exporter = Exporter::spawn(
        Inlet { exchanges: Arc::clone(&queue), arenas: vec![] },
        Outputs { otlp: Some(settings), ..Outputs::default() },
        Arc::new(Metrics::default()),
        Log::new(Some(Level::Info), |line: &str| panic!("{line}")),
    )
    .unwrap();
    assert!(queue.push(exchange_with(7, Box::default(), |call| call)).is_ok());
    let begun = Instant::now();
    while collector.received().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(exporter.shutdown(Duration::from_secs(5)).exported, 1);
}

/// Any sequence of answers, with shutdown at any time: the sum is right, nothing is delivered
/// twice unless the collector was left in doubt, and what is reported as exported has arrived.
#[test]
fn whatever_the_collector_does_every_span_is_accounted_for() {
    // A small generator of our own keeps the runs few and the failures repeatable.
    for seed in 0..24_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
        let mut draw = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let answers: Vec<_> = (0..12)
            .map(|_| match draw(8) {
                0 => refusal(503, "", "busy"),
                1 => refusal(429, "retry-after: 0\r\n", "later"),
                2 => refusal(400, "", "bad"),
                3 => partial(2, "two"),
                4 => Answer::Close,
                5 if seed % 4 == 0 => Answer::Hang,
                _ => ok(),
            })
            .collect();
        let mut run = Run::new(40 + draw(60), answers);
        run.retry.attempt_timeout = Some(Duration::from_millis(30));
        run.retry.total_timeout = Some(Duration::from_millis(100));
        run.batch.waiting_spans_max = 20 + usize::try_from(draw(100)).unwrap();
        run.limit = Duration::from_millis(draw(400));
        let done = run.go();
        let arrived: std::collections::HashSet<_> =
            done.received.iter().flat_map(|request| spans(&request.body)).map(|span| span.span_id).collect();
        assert!(arrived.len() as u64 >= done.report.exported, "seed {seed}: {:?}", done.report);
    }
}

#[test]
fn lines_and_spans_come_from_the_same_exchanges() {
    struct Shared(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let collector = Collector::start(vec![ok()]);
    let out = Arc::new(Mutex::new(Vec::new()));
    let queue = Arc::new(Handoff::new(100));
    let metrics = Arc::new(Metrics::default());
    let lines = Lines::new(Style::Json, Box::new(Shared(Arc::clone(&out))), Arc::clone(&metrics)).unwrap();
    let exporter = Exporter::spawn(
        Inlet { exchanges: Arc::clone(&queue), arenas: vec![] },
        Outputs {
            otlp: Some(settings(&format!("http://{}", collector.address))),
            lines: Some(lines),
            ..Outputs::default()
        },
        metrics,
        Log::new(Some(Level::Info), |line: &str| panic!("{line}")),
    )
    .unwrap();
    // From several workers at once, while the exporter runs.
    thread::scope(|scope| {
        for worker in 0..4 {
            let queue = &queue;
            scope.spawn(move || {
                for index in 0..250 {
                    let mut next = Some(exchange(worker * 1000 + index));
                    while let Some(exchange) = next.take() {
                        next = queue.push(exchange).err();
                        thread::yield_now();
                    }
                }
            });
        }
    });
    let report = exporter.shutdown(Duration::from_secs(10));
    assert_eq!((report.exchanges, report.exported, report.losses.as_slice()), (1000, 1000, [].as_slice()));
    let out = String::from_utf8(out.lock().unwrap().clone()).unwrap();
    let written: Vec<String> = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["span_id"].as_str().unwrap().to_owned())
        .collect();
    let arrived = collector.received().iter().flat_map(|request| spans(&request.body)).collect::<Vec<_>>();
    let arrived: Vec<String> = arrived
        .iter()
        .map(|span| format!("{:016x}", u64::from_be_bytes(span.span_id[..].try_into().unwrap())))
        .collect();
    assert_eq!(written, arrived);
}

/// An exporter that has had nothing for a while sleeps for seconds, but for an exchange and what is due.
#[test]
fn a_sleeping_exporter_is_woken() {
    let collector = Collector::start(vec![ok()]);
    let queue = Arc::new(Handoff::new(100));
    let settings = settings(&format!("http://{}", collector.address));
    let batch = Batch { delay: Duration::from_millis(300), ..settings.batch };
    let exporter = Exporter::spawn(
        Inlet { exchanges: Arc::clone(&queue), arenas: vec![] },
        Outputs { otlp: Some(Settings { batch, ..settings }), ..Outputs::default() },
        Arc::default(),
        Log::new(Some(Level::Info), |line: &str| panic!("{line}")),
    )
    .unwrap();
    let mut slowest = Duration::ZERO;
    for index in 0..3 {
        thread::sleep(Duration::from_millis(400));
        assert!(queue.push(exchange(index)).is_ok());
        let pushed = Instant::now();
        while collector.received().len() <= index as usize {
            assert!(pushed.elapsed() < Duration::from_secs(30), "it sleeps on");
            thread::sleep(Duration::from_millis(5));
        }
        slowest = slowest.max(pushed.elapsed());
    }
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    assert_eq!(exporter.shutdown(Duration::from_secs(10)).exported, 3);
}
