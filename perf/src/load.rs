//! The load: clients with keep-alive connections, each with one request under way. Their TLS is rustls,
//! which no probe is on, so that only the gateway pays.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Builder,
    sync::Barrier,
    time::{sleep_until, timeout},
};
use tokio_rustls::TlsConnector;

use crate::{process, reply::Shape};

/// A request without an answer for so long has failed.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// What is asked for, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Where the gateway listens.
    pub port: u16,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// What each request asks for.
    pub shape: Shape,
    /// Bytes of each request's body.
    pub request_bytes: usize,
    /// Requests a second of all connections together; none for as many as go.
    pub rate: Option<f64>,
    /// How long requests are begun.
    pub duration: Duration,
    /// Requests of each connection, if fewer are wanted than the duration allows.
    pub requests_max: u64,
    /// The core to run on.
    pub core: Option<usize>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests that were answered in full.
    pub calls: u64,
    /// Requests, or connections, that failed.
    pub failed: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Nanoseconds from the first byte of a request to the last of its answer, in order of size.
    pub latencies_ns: Vec<u64>,
}

impl Outcome {
    /// Calls a second.
    pub fn rate(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency in microseconds that a share of the calls didn't pass.
    pub fn quantile_us(&self, share: f64) -> f64 {
        let index = (self.latencies_ns.len() as f64 * share) as usize;
        let last = self.latencies_ns.len().saturating_sub(1);
        self.latencies_ns.get(index.min(last)).map_or(f64::NAN, |&ns| ns as f64 / 1e3)
    }
}

struct Shared {
    load: Load,
    config: Arc<ClientConfig>,
    request: Vec<u8>,
    /// Numbers of requests, which say when each is due.
    tickets: AtomicU64,
    failed: AtomicU64,
    over: AtomicBool,
}

/// Runs a load from a thread of its own and returns what came of it. `connected` is called when all
/// connections are there, before the first request.
pub fn run(load: Load, folder: &Path, connected: impl FnOnce() + Send + 'static) -> anyhow::Result<Outcome> {
    let config = client(folder)?;
    let request = load.shape.request(load.request_bytes);
    let shared = Arc::new(Shared {
        load,
        config,
        request,
        tickets: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let thread = std::thread::spawn(move || {
        if let Some(core) = load.core {
            process::pin(core);
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(drive(&shared, connected))
    });
    thread.join().ok().context("the load generator failed")?
}

fn client(folder: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fs::read(folder.join("cert.pem"))?)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn drive(shared: &Arc<Shared>, connected: impl FnOnce()) -> anyhow::Result<Outcome> {
    let load = shared.load;
    let barrier = Arc::new(Barrier::new(load.connections + 1));
    let tasks: Vec<_> = (0..load.connections)
        .map(|_| {
            let (shared, barrier) = (Arc::clone(shared), Arc::clone(&barrier));
            tokio::spawn(async move { connection(&shared, &barrier).await })
        })
        .collect();
    barrier.wait().await;
    connected();
    let began = Instant::now();
    barrier.wait().await;
    tokio::spawn({
        let shared = Arc::clone(shared);
        async move {
            tokio::time::sleep(load.duration).await;
            shared.over.store(true, Relaxed);
        }
    });
    let mut outcome = Outcome::default();
    for task in tasks {
        outcome.latencies_ns.extend(task.await.context("a client failed")?);
    }
    outcome.elapsed = began.elapsed();
    outcome.calls = outcome.latencies_ns.len() as u64;
    outcome.failed = shared.failed.load(Relaxed);
    outcome.latencies_ns.sort_unstable();
    Ok(outcome)
}

/// One client: connects, waits for the others, then asks until it is over.
async fn connection(shared: &Shared, barrier: &Barrier) -> Vec<u64> {
    let stream = timeout(ANSWER_MAX, connect(shared)).await;
    barrier.wait().await;
    barrier.wait().await;
    let Ok(Ok(mut stream)) = stream else {
        shared.failed.fetch_add(1, Relaxed);
        return Vec::new();
    };
    let load = &shared.load;
    let (mut latencies, mut buffer) = (Vec::new(), vec![0; 32 * 1024]);
    let began = tokio::time::Instant::now();
    for _ in 0..load.requests_max {
        if let Some(rate) = load.rate {
            let ticket = shared.tickets.fetch_add(1, Relaxed);
            let due = Duration::from_secs_f64(ticket as f64 / rate);
            if due > load.duration {
                break;
            }
            sleep_until(began + due).await;
        }
        if shared.over.load(Relaxed) {
            break;
        }
        let asked = Instant::now();
        match timeout(ANSWER_MAX, ask(&mut stream, &shared.request, &mut buffer)).await {
            Ok(Ok(())) => latencies.push(asked.elapsed().as_nanos() as u64),
            _ => {
                shared.failed.fetch_add(1, Relaxed);
                break;
            }
        }
    }
    let _ = timeout(Duration::from_secs(1), stream.shutdown()).await;
    latencies
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(shared: &Shared) -> io::Result<Stream> {
    let socket = TcpStream::connect(("127.0.0.1", shared.load.port)).await?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    TlsConnector::from(Arc::clone(&shared.config)).connect(name, socket).await
}

async fn ask(stream: &mut Stream, request: &[u8], buffer: &mut [u8]) -> io::Result<()> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    let end = loop {
        let len = stream.read(buffer).await?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&buffer[..len]);
        if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = std::str::from_utf8(&head[..end]).map_err(io::Error::other)?;
    let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    match length.and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => {
            let mut left = (end + length).saturating_sub(head.len());
            while left > 0 {
                let len = stream.read(buffer).await?;
                if len == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                left = left.saturating_sub(len);
            }
        }
        // There is one answer at a time, so the last chunk is the last thing there is.
        None => {
            const LAST: &[u8] = b"\r\n0\r\n\r\n";
            let mut tail = head[head.len().saturating_sub(LAST.len())..].to_vec();
            while !tail.ends_with(LAST) {
                let len = stream.read(buffer).await?;
                if len == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                tail.extend_from_slice(&buffer[len.saturating_sub(LAST.len())..len]);
                tail.drain(..tail.len().saturating_sub(LAST.len()));
            }
        }
    }
    Ok(())
}
