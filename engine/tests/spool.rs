//! The exporter with a spool, against collectors that are away: every span is delivered once and in
//! order, by this run or the next, or counted.

mod support;

use std::{
    fs,
    net::TcpListener,
    ops::Range,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use agentsight::{
    export::{
        config::{self, Batch, Flags, Retry, Settings},
        exporter::{Exporter, Inlet, Outputs, Report},
    },
    handoff::Handoff,
    log::{Level, Log},
    metrics::{Cause, Metrics, Total},
    spool::{self, Bounds},
};
use crossbeam_queue::ArrayQueue;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use support::{Answer, Collector, exchange, ok};

/// A folder that is gone when the test is.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("agentsight-export-spool-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn spool(&self) -> spool::Settings {
        spool::Settings { folder: self.0.join("spool"), bounds: Bounds::default(), sync: spool::Sync::Never }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An exporter that runs.
struct Run {
    exporter: Exporter,
    queue: Arc<Handoff>,
    metrics: Arc<Metrics>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Run {
    /// With requests of ten spans, memory for a hundred, and pauses that suit a test.
    fn start(url: &str, spool: Option<spool::Settings>) -> Self {
        let configured = config::settings(&Flags { endpoint: Some(url.to_owned()) }, &|_| None).unwrap();
        let settings = Settings {
            batch: Batch { spans_max: 10, delay: Duration::from_millis(5), waiting_spans_max: 100 },
            retry: Retry {
                attempt_timeout: Some(Duration::from_millis(200)),
                total_timeout: Some(Duration::from_secs(1)),
                pause_initial: Duration::from_millis(5),
                pause_max: Duration::from_millis(20),
            },
            ..configured.settings.unwrap()
        };
        let (metrics, log) = (Arc::new(Metrics::default()), Arc::new(Mutex::new(Vec::new())));
        let queue = Arc::new(Handoff::new(10_000));
        let lines = Arc::clone(&log);
        let exporter = Exporter::spawn(
            Inlet { exchanges: Arc::clone(&queue), arenas: vec![Arc::new(ArrayQueue::new(10))] },
            Outputs { otlp: Some(settings), spool, ..Outputs::default() },
            Arc::clone(&metrics),
            Log::new(Some(Level::Info), move |line: &str| lines.lock().unwrap().push(line.to_owned())),
        )
        .unwrap();
        Self { exporter, queue, metrics, log }
    }

    /// Exchanges as they come from a busy machine: not all at once.
    fn put(&self, indices: Range<u64>) {
        for index in indices {
            assert!(self.queue.push(exchange(index)).is_ok());
            if index % 10 == 9 {
                thread::sleep(Duration::from_millis(3));
            }
        }
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Metrics) -> bool) {
        let began = Instant::now();
        while !is_so(&self.metrics) {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}: {:?}", self.log.lock().unwrap());
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn end(self, limit: Duration) -> (Report, Vec<String>) {
        let report = self.exporter.shutdown(limit);
        let log = self.log.lock().unwrap().clone();
        (report, log)
    }
}

const LIMIT: Duration = Duration::from_secs(15);
const SHORT_LIMIT: Duration = Duration::from_millis(600);

fn unavailable() -> Answer {
    Answer::Reply(503, "", Vec::new())
}

/// The indices of the exchanges that arrived with answers that take them, in the order of arrival.
fn arrived(collector: &Collector, refused: usize) -> Vec<u64> {
    let mut ids = vec![];
    for received in collector.received().into_iter().skip(refused) {
        let mut request = ExportTraceServiceRequest::decode(&received.body[..]).unwrap();
        let spans = request.resource_spans.remove(0).scope_spans.remove(0).spans;
        ids.extend(spans.iter().map(|span| u64::from_be_bytes(span.span_id[..].try_into().unwrap()) - 1));
    }
    ids
}

/// A port at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn url(collector: &Collector) -> String {
    format!("http://{}", collector.address)
}

#[test]
fn an_outage_longer_than_memory_lasts_costs_nothing() {
    const REFUSED: usize = 60;
    let temp = Temp::new();
    let mut answers = vec![unavailable(); REFUSED];
    answers.push(ok());
    let collector = Collector::start(answers);
    let run = Run::start(&url(&collector), Some(temp.spool()));
    run.put(0..2_000);
    let (report, log) = run.end(LIMIT);
    assert_eq!((report.exported, report.kept, report.losses), (2_000, 0, vec![]), "{log:?}");
    assert_eq!(arrived(&collector, REFUSED), (0..2_000).collect::<Vec<_>>());
    assert_eq!(log.len(), 2, "trouble, and its end: {log:?}");
}

#[test]
fn without_a_spool_an_outage_costs_what_memory_does_not_hold() {
    let collector = Collector::start(vec![unavailable()]);
    let run = Run::start(&url(&collector), None);
    run.put(0..500);
    let (report, _) = run.end(SHORT_LIMIT);
    assert_eq!((report.exported, report.kept), (0, 0));
    assert_eq!(report.losses.iter().map(|(_, count)| count).sum::<u64>(), 500);
    assert!(report.losses.iter().any(|(cause, _)| *cause == Cause::ExportQueueFull), "{report:?}");
}

#[test]
fn what_one_run_can_not_deliver_the_next_one_does_first() {
    let temp = Temp::new();
    let run = Run::start(&nobody(), Some(temp.spool()));
    run.put(0..300);
    let (report, log) = run.end(SHORT_LIMIT);
    assert_eq!((report.exported, report.kept, report.losses), (0, 300, vec![]), "{log:?}");

    // Another one that delivers nothing either, and hangs at that.
    let collector = Collector::start(vec![Answer::Hang]);
    let run = Run::start(&url(&collector), Some(temp.spool()));
    run.put(300..310);
    let (report, log) = run.end(SHORT_LIMIT);
    assert_eq!((report.exported, report.kept, report.losses), (0, 310, vec![]), "{log:?}");

    let collector = Collector::start(vec![ok()]);
    let run = Run::start(&url(&collector), Some(temp.spool()));
    run.put(310..400);
    let metrics = Arc::clone(&run.metrics);
    let (report, log) = run.end(LIMIT);
    assert_eq!((report.exported, report.kept, report.losses), (400, 0, vec![]), "{log:?}");
    assert_eq!(metrics.total(Total::SpansFound), 310);
    assert_eq!(arrived(&collector, 0), (0..400).collect::<Vec<_>>());

    let collector = Collector::start(vec![ok()]);
    let run = Run::start(&url(&collector), Some(temp.spool()));
    run.put(400..401);
    assert_eq!(run.end(LIMIT).0.exported, 1);
    assert_eq!(arrived(&collector, 0), [400], "nothing comes twice");
}

#[test]
fn a_collector_that_is_well_needs_no_folder() {
    let temp = Temp::new();
    let collector = Collector::start(vec![ok()]);
    let run = Run::start(&url(&collector), Some(temp.spool()));
    run.put(0..50);
    assert_eq!(run.end(LIMIT).0.exported, 50);
    assert!(!temp.spool().folder.exists());
}

#[test]
fn what_the_collector_refuses_for_good_is_not_kept() {
    let temp = Temp::new();
    let run = Run::start(&nobody(), Some(temp.spool()));
    run.put(0..40);
    assert_eq!(run.end(SHORT_LIMIT).0.kept, 40);
    let collector = Collector::start(vec![ok(), Answer::Reply(400, "", Vec::new()), ok()]);
    let run = Run::start(&url(&collector), Some(temp.spool()));
    let (report, log) = run.end(LIMIT);
    assert_eq!((report.exported, report.kept, report.losses), (30, 0, vec![(Cause::ExportRefused, 10)]), "{log:?}");
}

/// A folder that can't be made, or is not safe: spans wait in memory, and that is said once.
#[test]
fn a_folder_that_can_not_be_used_leaves_memory() {
    let check = |folder: PathBuf, word: &str| {
        const REFUSED: usize = 8;
        let mut answers = vec![unavailable(); REFUSED];
        answers.push(ok());
        let collector = Collector::start(answers);
        let spool = spool::Settings { folder, bounds: Bounds::default(), sync: spool::Sync::Always };
        let run = Run::start(&url(&collector), Some(spool));
        run.put(0..60);
        let (report, log) = run.end(LIMIT);
        assert_eq!((report.exported, report.kept, report.losses), (60, 0, vec![]), "{log:?}");
        assert_eq!(arrived(&collector, REFUSED), (0..60).collect::<Vec<_>>());
        let said: Vec<_> = log.iter().filter(|line| line.contains("spool")).collect();
        assert!(said.len() == 1 && said[0].contains(word), "{log:?}");
    };
    let temp = Temp::new();
    fs::write(temp.0.join("file"), "").unwrap();
    check(temp.0.join("file/spool"), "in memory");
    let shared = temp.0.join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    check(shared, "0700");
}

#[test]
fn two_engines_with_one_folder_do_not_harm_each_other() {
    let temp = Temp::new();
    let runs = [Run::start(&nobody(), Some(temp.spool())), Run::start(&nobody(), Some(temp.spool()))];
    runs[0].put(0..100);
    runs[1].put(100..200);
    for run in &runs {
        run.wait_until("spooled", |metrics| metrics.total(Total::SpansSpooled) == 100);
    }
    let [first, second] = runs;
    assert_eq!(first.end(SHORT_LIMIT).0.kept, 100);
    let (report, log) = second.end(SHORT_LIMIT);
    assert_eq!(report.kept, 100);
    assert!(log.iter().any(|line| line.contains("another engine")), "{log:?}");

    // One engine alone sends what both have left.
    let collector = Collector::start(vec![ok()]);
    let run = Run::start(&url(&collector), Some(temp.spool()));
    let (report, log) = run.end(LIMIT);
    assert_eq!((report.exported, report.kept, report.losses), (200, 0, vec![]), "{log:?}");
    let mut ids = arrived(&collector, 0);
    ids.sort_unstable();
    assert_eq!(ids, (0..200).collect::<Vec<_>>());
}

/// Whatever the collector does and whenever, the sums are right.
#[test]
fn under_any_weather_the_sums_are_right() {
    for seed in 0..6_u64 {
        let temp = Temp::new();
        let weather = |at: u64| match (seed * 7 + at * at + at / 3) % 11 {
            0..=3 => ok(),
            4..=6 => unavailable(),
            7 => Answer::Close,
            8 if at.is_multiple_of(5) => Answer::Hang,
            8 | 9 => Answer::Reply(429, "retry-after: 0\r\n", Vec::new()),
            _ => Answer::Reply(400, "", Vec::new()),
        };
        let collector = Collector::start((0..80).map(weather).chain([ok()]).collect());
        let run = Run::start(&url(&collector), Some(temp.spool()));
        run.put(0..1_000);
        let (report, log) = run.end(LIMIT);
        let lost: u64 = report.losses.iter().map(|(_, count)| count).sum();
        assert_eq!((report.exported + lost, report.kept), (1_000, 0), "seed {seed}: {report:?} {log:?}");
        assert!(report.losses.iter().all(|(cause, _)| *cause == Cause::ExportRefused), "seed {seed}: {report:?}");
        assert!(files(&temp.spool().folder) <= 2, "lock and cursor");
    }
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}
