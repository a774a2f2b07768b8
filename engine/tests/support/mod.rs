//! A collector on loopback that does as it is told, and exchanges to send to it.

#![allow(dead_code, reason = "each test needs a part of it")]

pub mod tls;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use agentsight::{
    arena::Travelling,
    exchange::{Call, CallFamily, Exchange, Process, Role, TraceContext},
    export::{
        config::Settings,
        exporter::{Exporter, Inlet, Outputs, Report, SpawnError},
    },
    handoff::Handoff,
    log::{Level, Log},
    metrics::Metrics,
};

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A status, header lines, and a body, which is protobuf unless a line says otherwise.
    Reply(u16, &'static str, Vec<u8>),
    /// Say nothing and keep the connection.
    Hang,
    /// Close the connection without a word.
    Close,
}

pub fn ok() -> Answer {
    Answer::Reply(200, "", Vec::new())
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub connection: usize,
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Answers the n-th request with the n-th answer, and the rest with the last one.
pub struct Collector {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    pub fn start(answers: Vec<Answer>) -> Self {
        Self::start_with(answers, |stream| stream)
    }

    /// With something between the connection and what is said over it: TLS.
    pub fn start_with<S: Read + Write>(
        answers: Vec<Answer>,
        wrap: impl Fn(TcpStream) -> S + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (received, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (received, stop) = (Arc::clone(&received), Arc::clone(&stop));
            move || {
                for (connection, stream) in listener.incoming().enumerate() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let (received, answers, wrap) = (Arc::clone(&received), answers.clone(), wrap.clone());
                    let stream = stream.unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    thread::spawn(move || serve(wrap(stream), connection, &answers, &received));
                }
            }
        });
        Self { address, received, stop, thread: Some(thread) }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Serves one connection until it ends.
fn serve(stream: impl Read + Write, connection: usize, answers: &[Answer], received: &Mutex<Vec<Received>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(reader.read_line(&mut head), Ok(1..)) {
                return;
            }
        }
        let mut request = Received { connection, head, body: Vec::new() };
        let len = request.header("content-length").unwrap().parse().unwrap();
        request.body.resize(len, 0);
        reader.read_exact(&mut request.body).unwrap();
        let answer = {
            let mut received = received.lock().unwrap();
            received.push(request);
            answers.get(received.len() - 1).or(answers.last()).unwrap().clone()
        };
        match answer {
            Answer::Reply(status, headers, body) => {
                let media_type = "content-type: application/x-protobuf\r\n";
                let media_type = if headers.contains("content-type") { "" } else { media_type };
                let len = body.len();
                let head = format!("HTTP/1.1 {status} X\r\n{headers}{media_type}content-length: {len}\r\n\r\n");
                let stream = reader.get_mut();
                if stream.write_all(&[head.as_bytes(), &body].concat()).and_then(|()| stream.flush()).is_err() {
                    return;
                }
            }
            Answer::Hang => {
                // Until the other side gives up.
                let _ = reader.read(&mut [0]);
                return;
            }
            Answer::Close => return,
        }
    }
}

/// What became of spans that were to be exported.
pub struct Exported {
    pub report: Report,
    pub log: Vec<String>,
    pub took: Duration,
}

/// Exports so many spans, which are delivered or counted, and ends within `limit`.
pub fn export(settings: Settings, spans: u64, limit: Duration) -> Result<Exported, SpawnError> {
    let queue = Arc::new(Handoff::new(10_000));
    (0..spans).for_each(|index| assert!(queue.push(exchange(index)).is_ok()));
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let begun = Instant::now();
    let exporter = Exporter::spawn(
        Inlet { exchanges: queue, arenas: vec![] },
        Outputs { otlp: Some(settings), ..Outputs::default() },
        Arc::new(Metrics::default()),
        Log::new(Some(Level::Info), move |line: &str| lines.lock().unwrap().push(line.to_owned())),
    )?;
    let report = exporter.shutdown(limit);
    let took = begun.elapsed();
    let lost: u64 = report.losses.iter().map(|(_, count)| count).sum();
    let log = log.lock().unwrap().clone();
    assert_eq!(report.exported + lost, spans, "{report} {log:?}");
    Ok(Exported { report, log, took })
}

/// The `index`-th exchange: it has the index in its ids, so that none can be mistaken for another.
pub fn exchange(index: u64) -> Exchange {
    exchange_with(index, Box::default(), |call| call)
}

/// An exchange whose call is changed by `change`, in `arena`.
pub fn exchange_with(
    index: u64,
    arena: Box<bumpalo::Bump>,
    change: impl for<'a> FnOnce(Call<'a>) -> Call<'a>,
) -> Exchange {
    let call = Travelling::<CallFamily>::new(arena, |arena| {
        arena.alloc(change(Call {
            operation: "chat",
            provider: "openai",
            server_address: Some("api.openai.com"),
            server_port: Some(443),
            request_model: Some(arena.alloc_str("gpt-4o-mini")),
            response_model: Some(arena.alloc_str("gpt-4o-mini-2024-07-18")),
            response_id: Some(arena.alloc_str(&format!("chatcmpl-{index}"))),
            finish_reasons: Some(arena.alloc_slice_copy(&["stop"])),
            temperature: Some(0.7),
            max_tokens: Some(256),
            input_tokens: Some(12),
            output_tokens: Some(34),
            status_code: Some(200),
            ..Call::default()
        }))
    });
    let start = 1_700_000_000_000_000_000 + index;
    Exchange {
        role: Role::Client,
        trace: TraceContext {
            trace_id: (u128::from(index) + 1).to_be_bytes(),
            span_id: (index + 1).to_be_bytes(),
            parent_span_id: None,
            flags: 1,
        },
        process: Arc::new(Process { pid: 42, executable: Some("python3".to_owned()), ..Process::default() }),
        network: Default::default(),
        thread_id: 43,
        start_unix_nano: start,
        end_unix_nano: start + 1_234_567_890,
        first_chunk_nano: None,
        chunk_intervals: Default::default(),
        end_unseen: false,
        lost_bytes: 0,
        incomplete: false,
        worker: 0,
        call,
    }
}
