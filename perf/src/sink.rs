//! A collector that only counts, so that it takes little of the machine that is measured.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

/// Takes OTLP over HTTP and answers that all is well. It ends with the process.
pub struct Sink {
    address: SocketAddr,
    counts: Arc<Counts>,
}

/// What has arrived.
#[derive(Default)]
pub struct Counts {
    spans: AtomicU64,
    incomplete: AtomicU64,
}

impl Sink {
    /// Listens on loopback.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        thread::spawn({
            let counts = Arc::clone(&counts);
            move || {
                for connection in listener.incoming().flatten() {
                    let counts = Arc::clone(&counts);
                    thread::spawn(move || serve(connection, &counts));
                }
            }
        });
        Ok(Self { address, counts })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has arrived so far, and goes on to.
    pub fn counter(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

impl Counts {
    /// Spans that have arrived.
    pub fn spans(&self) -> u64 {
        self.spans.load(Relaxed)
    }

    /// Those of them that say that something of their exchange was lost.
    pub fn incomplete(&self) -> u64 {
        self.incomplete.load(Relaxed)
    }
}

fn serve(connection: TcpStream, counts: &Counts) -> Option<()> {
    let mut answers = connection.try_clone().ok()?;
    let mut requests = BufReader::new(connection);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let mut len = 0;
        loop {
            line.clear();
            if requests.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                len = value.trim().parse().ok()?;
            }
        }
        body.clear();
        requests.by_ref().take(len).read_to_end(&mut body).ok()?;
        if let Ok(request) = ExportTraceServiceRequest::decode(body.as_slice()) {
            count(&request, counts);
        }
        answers
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
    }
}

fn count(request: &ExportTraceServiceRequest, counts: &Counts) {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    for span in scopes.flat_map(|scope| &scope.spans) {
        let incomplete = span.attributes.iter().any(|attribute| attribute.key == "agentsight.capture.incomplete");
        counts.incomplete.fetch_add(u64::from(incomplete), Relaxed);
        counts.spans.fetch_add(1, Relaxed);
    }
}
