//! A collector that does everything wrong: for each fault, spans in are spans delivered and spans
//! counted under the cause that it has, and none is delivered twice unless the collector left us
//! in doubt.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use agentsight::{
    export::config::{self, Batch, Flags, Retry, Settings},
    metrics::Cause,
};
use agentsight_otlp::response::{ExportResponse, PartialSuccess};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::support::{self, Exported};

const SPANS: u64 = 20;
const SPANS_IN_BATCH: usize = 10;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Nobody listens.
    Refused,
    /// Somebody listens but takes no connection.
    HangingAccept,
    /// The request is read and never answered.
    NoAnswer,
    /// The request is read so slowly that there is no end to it.
    SlowRead,
    /// The connection is reset once the request is read.
    ResetBeforeAnswer,
    /// It is reset after the first bytes of an answer.
    ResetInHead,
    /// It is reset after a part of the answer's body.
    ResetInBody(u16),
    /// The answer is no HTTP.
    GarbageHead,
    /// The answer says it is protobuf and is not.
    GarbageBody(u16),
    /// The answer's head has no end.
    EndlessHead,
    /// The answer's body has no end and comes fast.
    EndlessBody(u16),
    /// It has no end and comes slowly.
    DrippingBody(u16),
    /// An answer with some header lines and nothing else.
    Status(u16, &'static str),
    /// It is put off to a date, by a clock that is so many seconds ahead of ours.
    PutOffByClock(i64),
    /// The request is taken but for a few spans.
    Partial(u64),
    /// The request is refused before it is read.
    RefusedUnread,
}

/// What may become of the spans of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    Delivered,
    /// Lost at once.
    Lost(Cause),
    /// Tried again, and lost when the time is over.
    Later,
    Rejected(u64),
}

/// Whether the collector may have taken spans without our knowing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Doubt {
    No,
    Yes,
}

struct Collector {
    address: SocketAddr,
    /// How often each span was taken.
    taken: Arc<Mutex<HashMap<Vec<u8>, usize>>>,
    stop: Arc<AtomicBool>,
}

impl Collector {
    /// The first `faulty` requests meet the fault, the others are taken.
    fn start(fault: Fault, faulty: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, stop) = (Arc::new(Mutex::new(HashMap::new())), Arc::new(AtomicBool::new(false)));
        let collector = Self { address, taken: Arc::clone(&taken), stop: Arc::clone(&stop) };
        thread::spawn(move || {
            let wait = |time| {
                let end = SystemTime::now() + time;
                while SystemTime::now() < end && !stop.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(5));
                }
            };
            let away = if faulty == usize::MAX { Duration::from_secs(60) } else { Duration::from_millis(300) };
            let listener = match fault {
                Fault::Refused => {
                    drop(listener);
                    wait(away);
                    // Somebody else may have got the port by now; then nothing is delivered.
                    TcpListener::bind(address).unwrap()
                }
                Fault::HangingAccept => {
                    wait(away);
                    listener
                }
                _ => listener,
            };
            // Once somebody takes connections, nothing is wrong any more.
            let faulty = if matches!(fault, Fault::Refused | Fault::HangingAccept) { 0 } else { faulty };
            let requests = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (taken, requests) = (Arc::clone(&taken), Arc::clone(&requests));
                thread::spawn(move || serve(stream.unwrap(), fault, faulty, &requests, &taken));
            }
        });
        collector
    }

    /// How many different spans were taken, and how many more than once.
    fn taken(&self) -> (u64, u64) {
        let taken = self.taken.lock().unwrap();
        (taken.len() as u64, taken.values().filter(|count| **count > 1).count() as u64)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// Serves a connection; whatever goes wrong with it ends it.
fn serve(
    mut stream: TcpStream,
    fault: Fault,
    faulty: usize,
    requests: &AtomicUsize,
    taken: &Mutex<HashMap<Vec<u8>, usize>>,
) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_nodelay(true).unwrap();
    loop {
        let head = head(&mut stream)?;
        let is_faulty = requests.fetch_add(1, Ordering::SeqCst) < faulty;
        if is_faulty && fault == Fault::RefusedUnread {
            stream.write_all(b"HTTP/1.1 413 X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").ok()?;
            stream.shutdown(Shutdown::Write).ok()?;
            // A server that closes at once would reset the connection, and its answer with it.
            io::copy(&mut stream, &mut io::sink()).ok()?;
            return None;
        }
        let len =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; len?];
        if is_faulty && fault == Fault::SlowRead {
            for byte in &mut body {
                stream.read_exact(std::slice::from_mut(byte)).ok()?;
                thread::sleep(Duration::from_millis(1));
            }
        } else {
            stream.read_exact(&mut body).ok()?;
        }
        let take = || {
            let request = ExportTraceServiceRequest::decode(&*body).unwrap();
            let spans = request.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
            let mut taken = taken.lock().unwrap();
            spans.for_each(|span| *taken.entry(span.span_id).or_default() += 1);
        };
        if !is_faulty {
            take();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
            continue;
        }
        // Where there is doubt the worst is done: spans are kept, and that is not said.
        if doubt(fault) == Doubt::Yes || expected(fault) == Expected::Delivered {
            take();
        }
        if let Fault::Partial(_) = fault {
            take();
        }
        misbehave(&mut stream, fault)?;
    }
}

/// Does what the fault is about; nothing is the end of the connection.
fn misbehave(stream: &mut TcpStream, fault: Fault) -> Option<()> {
    const PROTOBUF: &str = "content-type: application/x-protobuf\r\n";
    let mut say = |text: &str| stream.write_all(text.as_bytes()).ok();
    match fault {
        Fault::Refused | Fault::HangingAccept | Fault::RefusedUnread => unreachable!("before there is a request"),
        Fault::NoAnswer | Fault::SlowRead => {
            thread::sleep(Duration::from_secs(5));
            return None;
        }
        Fault::ResetBeforeAnswer => return reset(stream),
        Fault::ResetInHead => {
            say("HTTP/1.1 20")?;
            thread::sleep(Duration::from_millis(20));
            return reset(stream);
        }
        Fault::ResetInBody(status) => {
            say(&format!("HTTP/1.1 {status} X\r\n{PROTOBUF}content-length: 100\r\n\r\n0123456789"))?;
            thread::sleep(Duration::from_millis(20));
            return reset(stream);
        }
        Fault::GarbageHead => {
            say("\u{1}\u{2}\u{3} this is no HTTP\r\n\r\n")?;
            return None;
        }
        Fault::GarbageBody(status) => {
            say(&format!(
                "HTTP/1.1 {status} X\r\n{PROTOBUF}content-length: 6\r\n\r\n\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}"
            ))?;
        }
        Fault::EndlessHead => {
            say("HTTP/1.1 200 OK\r\n")?;
            loop {
                say("x-again: and again\r\n")?;
                thread::sleep(Duration::from_millis(1));
            }
        }
        Fault::EndlessBody(status) => {
            say(&format!("HTTP/1.1 {status} X\r\n{PROTOBUF}transfer-encoding: chunked\r\n\r\n"))?;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            loop {
                say(&chunk)?;
            }
        }
        Fault::DrippingBody(status) => {
            say(&format!("HTTP/1.1 {status} X\r\n{PROTOBUF}transfer-encoding: chunked\r\n\r\n"))?;
            loop {
                say("1\r\nx\r\n")?;
                thread::sleep(Duration::from_millis(10));
            }
        }
        Fault::Status(status, headers) => say(&format!("HTTP/1.1 {status} X\r\n{headers}content-length: 0\r\n\r\n"))?,
        Fault::PutOffByClock(ahead_seconds) => {
            let now = SystemTime::now();
            let ahead = Duration::from_secs(ahead_seconds.unsigned_abs());
            let theirs = if ahead_seconds < 0 { now - ahead } else { now + ahead };
            let date = httpdate::fmt_http_date(theirs);
            let until = httpdate::fmt_http_date(theirs + Duration::from_secs(1));
            say(&format!("HTTP/1.1 503 X\r\ndate: {date}\r\nretry-after: {until}\r\ncontent-length: 0\r\n\r\n"))?;
        }
        Fault::Partial(rejected) => {
            let partial = PartialSuccess { rejected: rejected as i64, error_message: "a few".to_owned() };
            let body = ExportResponse { partial_success: Some(partial) }.encode_to_vec();
            say(&format!("HTTP/1.1 200 OK\r\n{PROTOBUF}content-length: {}\r\n\r\n", body.len()))?;
            stream.write_all(&body).ok()?;
        }
    }
    Some(())
}

/// Closes a connection with bytes unread, which the kernel tells the peer by a reset.
fn reset(stream: &mut TcpStream) -> Option<()> {
    // The peer sends nothing more, so there is nothing to be unread; lingering for no time does it.
    socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).ok()?;
    None
}

fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// The contract: what each fault has to lead to.
fn expected(fault: Fault) -> Expected {
    match fault {
        Fault::Refused
        | Fault::HangingAccept
        | Fault::NoAnswer
        | Fault::SlowRead
        | Fault::ResetBeforeAnswer
        | Fault::ResetInHead
        | Fault::GarbageHead
        | Fault::EndlessHead
        | Fault::PutOffByClock(_)
        | Fault::Status(429 | 502 | 503 | 504, _)
        | Fault::ResetInBody(503)
        | Fault::DrippingBody(503)
        | Fault::GarbageBody(503) => Expected::Later,
        Fault::ResetInBody(200) | Fault::DrippingBody(200) | Fault::GarbageBody(200) => Expected::Delivered,
        Fault::Partial(rejected) => Expected::Rejected(rejected),
        Fault::RefusedUnread
        | Fault::EndlessBody(_)
        | Fault::Status(..)
        | Fault::GarbageBody(_)
        | Fault::ResetInBody(_)
        | Fault::DrippingBody(_) => Expected::Lost(Cause::ExportRefused),
    }
}

fn doubt(fault: Fault) -> Doubt {
    match fault {
        Fault::HangingAccept
        | Fault::NoAnswer
        | Fault::SlowRead
        | Fault::ResetBeforeAnswer
        | Fault::ResetInHead
        | Fault::GarbageHead
        | Fault::EndlessHead => Doubt::Yes,
        _ => Doubt::No,
    }
}

fn settings(address: SocketAddr, attempt: Duration, total: Duration) -> Settings {
    let flags = Flags { endpoint: Some(format!("http://{address}")) };
    let settings = config::settings(&flags, &|_| None).unwrap().settings.unwrap();
    let batch = Batch { spans_max: SPANS_IN_BATCH, delay: Duration::from_millis(10), ..settings.batch };
    let retry = Retry {
        attempt_timeout: Some(attempt),
        total_timeout: Some(total),
        pause_initial: Duration::from_millis(10),
        pause_max: Duration::from_millis(40),
    };
    Settings { batch, retry, ..settings }
}

fn run(fault: Fault, faulty: usize, total: Duration) -> (Exported, Collector) {
    let collector = Collector::start(fault, faulty);
    // Megabytes that are no answer are to be met, however slow the machine, before the time is over.
    let attempt = Duration::from_millis(if matches!(fault, Fault::EndlessBody(_)) { 20_000 } else { 250 });
    let settings = settings(collector.address, attempt, total.max(attempt));
    let exported = support::export(settings, SPANS, Duration::from_secs(30)).unwrap();
    (exported, collector)
}

/// The fault for good, and then at the first request only.
fn check(fault: Fault) {
    let batches = SPANS / SPANS_IN_BATCH as u64;
    let (done, collector) = run(fault, usize::MAX, Duration::from_millis(600));
    let (exported, losses) = match expected(fault) {
        Expected::Delivered => (SPANS, vec![]),
        Expected::Lost(cause) => (0, vec![(cause, SPANS)]),
        Expected::Later => (0, vec![(Cause::ExportRetriesExhausted, SPANS)]),
        Expected::Rejected(count) => (SPANS - batches * count, vec![(Cause::ExportPartialRejected, batches * count)]),
    };
    assert_eq!((done.report.exported, done.report.losses), (exported, losses), "{fault:?} for good: {:?}", done.log);
    assert!(done.log.len() <= 2, "{fault:?}: {:?}", done.log);
    let (taken, twice) = collector.taken();
    assert!(taken >= exported, "{fault:?}: {taken} taken");
    assert!(twice == 0 || doubt(fault) == Doubt::Yes, "{fault:?}: {twice} taken twice");

    let (done, collector) = run(fault, 1, Duration::from_secs(10));
    let batch = SPANS_IN_BATCH as u64;
    let (exported, losses) = match expected(fault) {
        Expected::Delivered | Expected::Later => (SPANS, vec![]),
        Expected::Lost(cause) => (SPANS - batch, vec![(cause, batch)]),
        Expected::Rejected(count) => (SPANS - count, vec![(Cause::ExportPartialRejected, count)]),
    };
    assert_eq!((done.report.exported, done.report.losses), (exported, losses), "{fault:?} once: {:?}", done.log);
    let (taken, twice) = collector.taken();
    assert!(taken >= exported, "{fault:?}: {taken} taken");
    assert!(twice == 0 || doubt(fault) == Doubt::Yes, "{fault:?}: {twice} taken twice");
}

#[test]
fn nobody_is_there() {
    check(Fault::Refused);
    check(Fault::HangingAccept);
}

#[test]
fn no_answer_or_not_all_of_it() {
    check(Fault::NoAnswer);
    check(Fault::SlowRead);
    check(Fault::ResetBeforeAnswer);
    check(Fault::ResetInHead);
    [200, 400, 503].into_iter().for_each(|status| check(Fault::ResetInBody(status)));
}

#[test]
fn answers_that_make_no_sense() {
    check(Fault::GarbageHead);
    check(Fault::EndlessHead);
    for status in [200, 400, 503] {
        check(Fault::GarbageBody(status));
        check(Fault::EndlessBody(status));
        check(Fault::DrippingBody(status));
    }
}

#[test]
fn refusals_and_postponements() {
    for status in [300, 301, 400, 401, 403, 404, 408, 413, 500, 501] {
        check(Fault::Status(status, ""));
    }
    for status in [429, 502, 503, 504] {
        check(Fault::Status(status, ""));
        check(Fault::Status(status, "retry-after: 0\r\n"));
        check(Fault::Status(status, "retry-after: soon\r\n"));
    }
    check(Fault::Status(429, "retry-after: 1\r\n"));
    check(Fault::Partial(3));
    check(Fault::RefusedUnread);
}

/// Years between its clock and ours change nothing: a date is as far away as its own clock says.
#[test]
fn a_clock_that_jumps() {
    const YEAR: i64 = 365 * 24 * 60 * 60;
    for ahead_seconds in [-10 * YEAR, 0, 10 * YEAR] {
        check(Fault::PutOffByClock(ahead_seconds));
    }
}
