//! An OTLP/HTTP receiver on loopback that keeps the spans and metrics that it is sent.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    io::{self, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use prost::Message;
use serde_json::{Value, json};

use super::{
    http::{Received, read_request},
    points::{self, Point},
};

/// A body that expands to more is refused.
const DECODED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The kind of a CLIENT span on the wire.
pub const KIND_CLIENT: i32 = 3;
/// The status code of a failed span on the wire.
pub const STATUS_ERROR: i32 = 2;

/// A span as it was received.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// The span's name.
    pub name: String,
    /// The span's kind, as on the wire.
    pub kind: i32,
    /// Trace id in lower-case hex.
    pub trace_id: String,
    /// Span id in lower-case hex.
    pub span_id: String,
    /// Parent span id in lower-case hex, or empty.
    pub parent_span_id: String,
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// End, nanoseconds since the Unix epoch.
    pub end_unix_nano: u64,
    /// The status code, as on the wire.
    pub status: i32,
    /// The attributes.
    pub attributes: BTreeMap<String, Value>,
    /// The attributes of its resource.
    pub resource: BTreeMap<String, Value>,
}

/// The running receiver. It ends when this is dropped.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    spans: Mutex<Vec<Span>>,
    points: Mutex<Vec<Point>>,
    requests: Mutex<Vec<Received>>,
    /// Replies with these status codes come first; afterwards every reply is a 200.
    refusals: Mutex<VecDeque<u16>>,
    stopping: AtomicBool,
}

impl Receiver {
    /// Starts a receiver that takes everything.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_refusing([])
    }

    /// Starts a receiver that answers its first requests with these status codes and keeps none of their spans.
    pub fn start_refusing(statuses: impl IntoIterator<Item = u16>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("can't listen on loopback")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { refusals: Mutex::new(statuses.into_iter().collect()), ..Shared::default() });
        let receiver = Self { address, shared: Arc::clone(&shared) };
        thread::Builder::new().name("demo-receiver".to_owned()).spawn(move || {
            for connection in listener.incoming() {
                if shared.stopping.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(connection), shared) = (connection, Arc::clone(&shared)) else { continue };
                let _ = thread::Builder::new().name("demo-receiver-conn".to_owned()).spawn(move || {
                    // An exporter that goes away is not the receiver's fault.
                    let _ = serve(connection, &shared);
                });
            }
        })?;
        Ok(receiver)
    }

    /// The base URL for `--otel-endpoint`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.shared.spans).clone()
    }

    /// The points of each metric in the last request that had it: where values are cumulative, all that there are.
    pub fn points(&self) -> Vec<Point> {
        lock(&self.shared.points).clone()
    }

    /// The requests received so far.
    pub fn requests(&self) -> Vec<Received> {
        lock(&self.shared.requests).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // Wakes the thread that waits in `accept`.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut socket: TcpStream, shared: &Shared) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut stream = BufReader::new(socket.try_clone()?);
    while let Some(received) =
        read_request(&mut stream, |stream| stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n"))?
    {
        let status = answer(&received, shared);
        let closes = received.closes();
        lock(&shared.requests).push(received);
        // An empty body is a response of either service without any field set.
        let reply = format!("HTTP/1.1 {status} -\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");
        socket.write_all(reply.as_bytes())?;
        if closes {
            break;
        }
    }
    Ok(())
}

fn answer(received: &Received, shared: &Shared) -> u16 {
    if let Some(status) = lock(&shared.refusals).pop_front() {
        return status;
    }
    let keep: fn(&[u8], &Shared) -> anyhow::Result<()> = match &*received.target {
        "/v1/traces" => |body, shared| {
            lock(&shared.spans).extend(spans(body)?);
            Ok(())
        },
        "/v1/metrics" => |body, shared| {
            let new = points::decode(body)?;
            let mut points = lock(&shared.points);
            points.retain(|old| new.iter().all(|point| point.metric != old.metric));
            points.extend(new);
            Ok(())
        },
        _ => return 404,
    };
    if received.method != "POST" {
        return 405;
    }
    if received.header("content-type") != Some("application/x-protobuf") {
        return 415;
    }
    match body(received).and_then(|body| keep(&body, shared)) {
        Ok(()) => 200,
        Err(_) => 400,
    }
}

fn body(received: &Received) -> anyhow::Result<Cow<'_, [u8]>> {
    match received.header("content-encoding") {
        Some("gzip") => {
            let mut decoded = vec![];
            flate2::read::GzDecoder::new(&received.body[..]).take(DECODED_BYTES_MAX).read_to_end(&mut decoded)?;
            Ok(decoded.into())
        }
        None => Ok(Cow::Borrowed(&received.body)),
        Some(other) => anyhow::bail!("content coding {other}"),
    }
}

fn spans(body: &[u8]) -> anyhow::Result<Vec<Span>> {
    let request = ExportTraceServiceRequest::decode(body)?;
    let mut spans = vec![];
    for resource_spans in request.resource_spans {
        let resource = attributes(resource_spans.resource.unwrap_or_default().attributes);
        let wire_spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(wire_spans.map(|span| Span {
            name: span.name,
            kind: span.kind,
            trace_id: hex(&span.trace_id),
            span_id: hex(&span.span_id),
            parent_span_id: hex(&span.parent_span_id),
            start_unix_nano: span.start_time_unix_nano,
            end_unix_nano: span.end_time_unix_nano,
            status: span.status.unwrap_or_default().code,
            attributes: attributes(span.attributes),
            resource: resource.clone(),
        }));
    }
    Ok(spans)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn attributes(list: Vec<KeyValue>) -> BTreeMap<String, Value> {
    list.into_iter().map(|pair| (pair.key, pair.value.map_or(Value::Null, any_value))).collect()
}

fn any_value(value: AnyValue) -> Value {
    match value.value {
        None => Value::Null,
        Some(Any::String(text)) => json!(text),
        Some(Any::Bool(truth)) => json!(truth),
        Some(Any::Int(number)) => json!(number),
        Some(Any::Double(number)) => json!(number),
        Some(Any::Array(array)) => Value::Array(array.values.into_iter().map(any_value).collect()),
        Some(Any::Map(map)) => Value::Object(attributes(map.values).into_iter().collect()),
        Some(Any::Bytes(bytes)) => json!(hex(&bytes)),
    }
}

// The messages of opentelemetry-proto's trace service that hold what the demo looks at. They are
// declared apart from the encoder's, so that a wrong field number there shows here.

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<WireSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct WireSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3, 4, 5, 6, 7")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Array(ArrayValue),
    #[prost(message, tag = "6")]
    Map(KeyValueList),
    #[prost(bytes, tag = "7")]
    Bytes(Vec<u8>),
}

#[derive(Clone, PartialEq, Message)]
struct ArrayValue {
    #[prost(message, repeated, tag = "1")]
    values: Vec<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValueList {
    #[prost(message, repeated, tag = "1")]
    values: Vec<KeyValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(receiver: &Receiver, target: &str, body: &[u8]) -> String {
        let mut socket = TcpStream::connect(receiver.address).unwrap();
        let head = format!(
            "POST {target} HTTP/1.1\r\ncontent-type: application/x-protobuf\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut reply = String::new();
        socket.read_to_string(&mut reply).unwrap();
        reply.split(' ').nth(1).unwrap().to_owned()
    }

    #[test]
    fn spans_are_kept_and_refusals_keep_none() {
        let attribute = |value: Any| KeyValue { key: "k".to_owned(), value: Some(AnyValue { value: Some(value) }) };
        let span = WireSpan {
            trace_id: vec![0xab; 16],
            name: "chat m".to_owned(),
            kind: KIND_CLIENT,
            attributes: vec![attribute(Any::Int(-7))],
            status: Some(Status { message: String::new(), code: STATUS_ERROR }),
            ..WireSpan::default()
        };
        let resource = Resource { attributes: vec![attribute(Any::String("v".to_owned()))] };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource),
                scope_spans: vec![ScopeSpans { spans: vec![span] }],
            }],
        };
        let body = request.encode_to_vec();
        let receiver = Receiver::start_refusing([503]).unwrap();
        assert_eq!(post(&receiver, "/v1/traces", &body), "503");
        assert_eq!(post(&receiver, "/v1/logs", &body), "404");
        assert_eq!(post(&receiver, "/v1/metrics", b"\xff"), "400");
        assert_eq!(post(&receiver, "/v1/traces", b"\xff"), "400");
        assert_eq!(receiver.spans(), []);
        assert_eq!(post(&receiver, "/v1/traces", &body), "200");
        let [span] = &receiver.spans()[..] else { panic!("one span") };
        assert_eq!(span.trace_id, "ab".repeat(16));
        assert_eq!((span.kind, span.status), (KIND_CLIENT, STATUS_ERROR));
        assert_eq!(span.attributes["k"], json!(-7));
        assert_eq!(span.resource["k"], json!("v"));
        assert_eq!(receiver.requests().len(), 5);
    }
}
