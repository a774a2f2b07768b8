//! The recorded exchanges of `AGENTSIGHT_CORPUS` as a plan for HTTP/2 clients and servers, and the
//! verdict on the spans that come of it.
//!
//! Framing and codings were not recorded, so they are made up here, from a seed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    path::{Path, PathBuf},
};

use agentsight::demo::receiver::{STATUS_ERROR, Span};
use flate2::{Compression, read::GzDecoder, write};
use serde_json::{Value, json};

use crate::gate::skip;

/// What clients send as their secret.
const CANARY: &str = "sk-secret-canary-0001";

/// An exchange as it is sent, and what its span must say.
#[derive(Clone)]
pub struct Planned {
    /// Its name in the corpus.
    pub id: String,
    /// Trace id of its `traceparent`.
    pub trace_id: String,
    /// Parent id of its `traceparent`.
    pub parent_id: String,
    /// Which connection it is sent over.
    pub connection: usize,
    /// Exchanges of one phase are sent at once, phases one after the other.
    pub phase: usize,
    /// The content codings of its response.
    pub coding: &'static str,
    /// Attributes, and whether the status is an error.
    expected: (Value, bool),
    line: Value,
}

impl Planned {
    /// The request and the response as HTTP/1.1 messages; every third response is chunked.
    pub fn messages(&self) -> (Vec<u8>, Vec<u8>) {
        let message = |start: String, part: &Value, chunked: bool| {
            let mut bytes = start.into_bytes();
            for field in part["fields"].as_array().expect("fields") {
                bytes.extend_from_slice(format!("{}: {}\r\n", text_of(&field[0]), text_of(&field[1])).as_bytes());
            }
            let body = decoded(part["body"].as_str().expect("a body"));
            if chunked {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(1_000) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            } else {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(&body);
            }
            bytes
        };
        let (request, response) = (&self.line["request"], &self.line["response"]);
        let (method, path) = (text_of(&request["method"]), text_of(&request["path"]));
        let start = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", text_of(&request["authority"]));
        let status = format!("HTTP/1.1 {} X\r\n", response["status"]);
        (message(start, request, false), message(status, response, self.id.len().is_multiple_of(3)))
    }
}

/// Splitmix64: enough for splits that repeat.
pub struct Seeded(pub u64);

impl Seeded {
    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % end.max(1) as u64).expect("below a usize")
    }

    /// Sizes of a few pieces of `length` bytes.
    fn pieces(&mut self, length: usize) -> Vec<usize> {
        let (mut left, count) = (length, self.below(7));
        let mut piece = || {
            let size = self.below(left.min(20_000)) + 1;
            left = left.checked_sub(size)?;
            Some(size)
        };
        (0..count).map_while(|_| piece()).collect()
    }
}

/// The folder of the corpus; where there is none the test is skipped, except in CI.
pub fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("AGENTSIGHT_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        skip("AGENTSIGHT_CORPUS is not set");
    }
    folder
}

/// A plan for all exchanges that expectations are known of, over so many connections in so many phases.
pub fn plan(folder: &Path, seed: u64, connections: usize, phases: usize) -> Vec<Planned> {
    let mut seeded = Seeded(seed);
    let mut text = String::new();
    let file = fs::File::open(folder.join("exchanges.jsonl.gz")).expect("exchanges");
    GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    let expected = fs::read_to_string(folder.join("expected.jsonl")).expect("expectations");
    let mut expected: HashMap<String, (Value, bool)> = expected
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .map(|line: Value| (text_of(&line["id"]), (line["expect"].clone(), line["error"] == true)))
        .collect();
    let mut exchanges: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|exchange: &Value| expected.contains_key(exchange["id"].as_str().unwrap_or_default()))
        .collect();
    for at in (1..exchanges.len()).rev() {
        exchanges.swap(at, seeded.below(at + 1));
    }
    let count = exchanges.len();
    let planned = |(number, exchange): (usize, &Value)| {
        let expected = expected.remove(exchange["id"].as_str()?)?;
        let mut planned = planned(number, exchange, expected, &mut seeded);
        (planned.connection, planned.phase) = (number % connections, number * phases / count);
        (planned.line["connection"], planned.line["phase"]) = (json!(planned.connection), json!(planned.phase));
        Some(planned)
    };
    exchanges.iter().enumerate().filter_map(planned).collect()
}

/// Writes the plan for a program to read.
pub fn write(plan: &[Planned], file: &Path) {
    let mut lines = String::new();
    plan.iter().for_each(|planned| writeln!(lines, "{}", planned.line).expect("a string takes all"));
    fs::write(file, lines).expect("the plan is written");
}

fn planned(number: usize, exchange: &Value, expected: (Value, bool), seeded: &mut Seeded) -> Planned {
    const CODINGS: [&str; 8] = ["", "", "gzip", "br", "zstd", "deflate", "gzip, br", "zstd, gzip"];
    let id = text_of(&exchange["id"]);
    let (trace_id, parent_id) = (format!("{:016x}{number:016x}", seeded.0 | 1), format!("{:016x}", number + 1));
    let authority = match &exchange["port"] {
        Value::Null => text_of(&exchange["host"]),
        port => format!("{}:{port}", text_of(&exchange["host"])),
    };
    let mut message = |fields: &Value, body: &Value, coding: &str, added: Vec<(&str, String)>| {
        let body = coded(&decoded(body.as_str().expect("a body")), coding);
        let mut fields = fields.as_array().expect("fields").clone();
        // What HTTP/2 forbids, and what the client makes itself.
        const OWN: [&str; 8] = [
            "connection",
            "keep-alive",
            "transfer-encoding",
            "upgrade",
            "host",
            "te",
            "content-length",
            "proxy-connection",
        ];
        fields.retain(|field| !OWN.contains(&text_of(&field[0]).to_lowercase().as_str()));
        if !fields.iter().any(|field| text_of(&field[0]).eq_ignore_ascii_case("content-type")) {
            fields.push(json!(["content-type", "application/json"]));
        }
        fields.extend(added.into_iter().map(|(name, value)| json!([name, value])));
        if !coding.is_empty() {
            fields.push(json!(["content-encoding", coding]));
        }
        // A head of more than one frame.
        if seeded.below(40) == 0 {
            fields.push(json!(["x-filler", "long ".repeat(6_000)]));
        }
        json!({"fields": fields, "pieces": seeded.pieces(body.len()), "body": encoded(&body)})
    };
    let added = vec![
        ("x-replay-id", number.to_string()),
        ("traceparent", format!("00-{trace_id}-{parent_id}-01")),
        ("authorization", format!("Bearer {CANARY}")),
    ];
    let request_coding = if number.is_multiple_of(5) { "gzip" } else { "" };
    let coding = CODINGS[number / 2 % CODINGS.len()];
    let mut request = message(&exchange["req_headers"], &exchange["req_body"], request_coding, added);
    let mut response = message(&exchange["resp_headers"], &exchange["resp_body"], coding, vec![]);
    (request["method"], request["path"], request["authority"]) =
        (exchange["method"].clone(), exchange["path"].clone(), json!(authority));
    response["status"] = exchange["status"].clone();
    (response["interim"], response["trailers"]) = (json!(number.is_multiple_of(7)), json!(number.is_multiple_of(6)));
    let line = json!({"id": id, "request": request, "response": response});
    Planned { id, trace_id, parent_id, connection: 0, phase: 0, coding, expected, line }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The body in these codings, the first one innermost (RFC 9110 section 8.4).
fn coded(body: &[u8], codings: &str) -> Vec<u8> {
    codings.split(", ").fold(body.to_vec(), |body, coding| match coding {
        "gzip" => {
            let mut encoder = write::GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&body).and_then(|()| encoder.finish()).expect("gzip")
        }
        "deflate" => {
            let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&body).and_then(|()| encoder.finish()).expect("zlib")
        }
        "br" => {
            let mut out = Vec::new();
            let parameters = brotli::enc::BrotliEncoderParams { quality: 3, ..Default::default() };
            brotli::BrotliCompress(&mut &body[..], &mut out, &parameters).expect("brotli");
            out
        }
        "zstd" => {
            let mut out = Vec::with_capacity(zstd_safe::compress_bound(body.len()));
            zstd_safe::compress(&mut out, &body, 1).expect("zstd");
            out
        }
        _ => body,
    })
}

/// The letters of base64 (RFC 4648 section 4).
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn decoded(text: &str) -> Vec<u8> {
    let (mut bits, mut count, mut out) = (0u32, 0, Vec::with_capacity(text.len()));
    for letter in text.bytes().take_while(|&letter| letter != b'=') {
        let value = LETTERS.iter().position(|&other| other == letter).expect("base64");
        bits = bits << 6 | u32::try_from(value).expect("six bits");
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    out
}

fn encoded(bytes: &[u8]) -> String {
    let letter = |bits: u32| char::from(LETTERS[(bits & 63) as usize]);
    let triple = |chunk: &[u8]| {
        let bits = chunk.iter().chain(&[0; 2]).take(3).fold(0u32, |bits, &byte| bits << 8 | u32::from(byte));
        let mut text: Vec<char> = [18, 12, 6, 0].iter().map(|shift| letter(bits >> shift)).collect();
        text[chunk.len() + 1..].fill('=');
        text
    };
    bytes.chunks(3).flat_map(triple).collect()
}

/// How exact the spans of some exchanges are.
#[derive(Debug, Default)]
pub struct Score {
    /// All is there, and right.
    pub exact: usize,
    /// Exchanges without a span.
    pub absent: usize,
    /// What is missing on spans that say that something was lost.
    pub missing: Vec<String>,
    /// Everything else.
    pub faults: Vec<String>,
}

/// Holds the spans of one kind against what is expected of `plan`.
pub fn judge(spans: &[Span], kind: i32, plan: &[Planned]) -> Score {
    let mut by_trace: HashMap<&str, Vec<&Span>> = HashMap::new();
    for span in spans.iter().filter(|span| span.kind == kind) {
        by_trace.entry(&span.trace_id).or_default().push(span);
    }
    let mut score = Score::default();
    for planned in plan {
        let mut fault = |text: String| score.faults.push(format!("{} ({}): {text}", planned.id, planned.coding));
        match by_trace.get(planned.trace_id.as_str()).map(Vec::as_slice) {
            None => score.absent += 1,
            Some(&[span]) => {
                let (missing, wrong) = differences(span, planned);
                if missing.is_empty() && wrong.is_empty() {
                    score.exact += 1;
                }
                wrong.into_iter().for_each(&mut fault);
                if span.attributes.contains_key("agentsight.capture.incomplete") {
                    score.missing.extend(missing);
                } else {
                    missing.into_iter().for_each(|name| fault(format!("{name} is missing")));
                }
            }
            Some(several) => fault(format!("{} spans", several.len())),
        }
    }
    score
}

/// The same where `traceparent` may have been lost with other fields: a span that has no parent then, and
/// says that it is incomplete, is that of the exchange that agrees best with it, and there has to be one.
pub fn judge_midway(spans: &[Span], kind: i32, plan: &[Planned]) -> Score {
    let known: BTreeSet<&str> = plan.iter().map(|planned| planned.trace_id.as_str()).collect();
    let spans = spans.iter().filter(|span| span.kind == kind);
    let (named, mut unnamed): (Vec<_>, Vec<_>) = spans.partition(|span| known.contains(span.trace_id.as_str()));
    // Those that say most can be taken for the fewest others.
    unnamed.sort_by_key(|span| std::cmp::Reverse(span.attributes.len()));
    let named: Vec<Span> = named.into_iter().cloned().collect();
    let traces = traces(&named);
    let mut left: Vec<&Planned> = plan.iter().filter(|planned| !traces.contains(planned.trace_id.as_str())).collect();
    let mut score = judge(&named, kind, plan);
    for span in unnamed {
        let agreeing = |(at, planned): (usize, &&Planned)| {
            let (missing, wrong) = attribute_differences(span, planned);
            wrong.is_empty().then_some((missing, at))
        };
        let best = left.iter().enumerate().filter_map(agreeing).min_by_key(|(missing, _)| missing.len());
        let says_so = span.attributes.contains_key("agentsight.capture.incomplete") && span.parent_span_id.is_empty();
        let Some((missing, at)) = best.filter(|_| says_so) else {
            score.faults.push(format!("no exchange is like {span:?}"));
            continue;
        };
        left.swap_remove(at);
        score.absent -= 1;
        score.exact += usize::from(missing.is_empty());
        score.missing.extend(missing);
    }
    score
}

fn differences(span: &Span, planned: &Planned) -> (Vec<String>, Vec<String>) {
    let (missing, mut wrong) = attribute_differences(span, planned);
    if span.parent_span_id != planned.parent_id {
        wrong.push(format!("parent {}", span.parent_span_id));
    }
    (missing, wrong)
}

fn attribute_differences(span: &Span, planned: &Planned) -> (Vec<String>, Vec<String>) {
    let (mut missing, mut wrong) = (vec![], vec![]);
    let (attributes, error) = &planned.expected;
    for (name, expected) in attributes.as_object().expect("attributes") {
        match span.attributes.get(name) {
            None => missing.push(name.clone()),
            Some(actual) if same(expected, actual) => {}
            Some(actual) => wrong.push(format!("{name}: expected {expected}, got {actual}")),
        }
    }
    if (span.status == STATUS_ERROR) != *error {
        wrong.push(format!("status {}", span.status));
    }
    (missing, wrong)
}

fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => (one - other).abs() < 1e-6,
        _ => one == other,
    }
}

/// Requires that no secret is in any line of output.
pub fn no_secret(lines: &[String]) {
    assert!(!lines.iter().any(|line| line.contains(CANARY)), "a secret came out");
}

/// The trace ids of the spans that there are.
pub fn traces(spans: &[Span]) -> BTreeSet<&str> {
    spans.iter().map(|span| span.trace_id.as_str()).collect()
}

/// How often each fault occurs, for a person to read.
pub fn summary(faults: &[String]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for fault in faults {
        *counts.entry(fault.rsplit(": ").next().unwrap_or_default()).or_default() += 1;
    }
    let first = faults.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
    format!("{} faults {counts:?}\n{first}", faults.len())
}
