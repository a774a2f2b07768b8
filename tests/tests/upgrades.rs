//! HTTP/2 that a connection of HTTP/1 becomes, HTTP/2 from the first byte without TLS's help, and
//! WebSockets inside HTTP/2 streams, from records to spans.

use agentsight::{
    demo::receiver::{STATUS_ERROR, Span},
    flow::Roles,
    metrics::Cause,
};
use agentsight_abi::Direction::{self, Read, Write as Sent};
use agentsight_tests::records::{Outcome, records, run};
use serde_json::{Value, json};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field block of literals that no table needs (RFC 7541 section 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![];
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            match u8::try_from(text.len()) {
                Ok(length @ 0..127) => bytes.push(length),
                // Section 5.1, with one more byte.
                _ => bytes.extend([127, u8::try_from(text.len() - 127).unwrap()]),
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

fn head(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
}

fn parent() -> String {
    format!("00-{TRACE}-{SPAN}-01")
}

fn asked(model: &str) -> Vec<u8> {
    json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]}).to_string().into_bytes()
}

fn answered(id: &str, tokens: i64) -> Vec<u8> {
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": "Ho"}, "finish_reason": "stop"});
    let usage = json!({"prompt_tokens": tokens, "completion_tokens": 2, "total_tokens": tokens + 2});
    json!({"id": id, "object": "chat.completion", "model": "served", "choices": [choice], "usage": usage})
        .to_string()
        .into_bytes()
}

fn request(stream: u32, model: &str) -> Vec<u8> {
    let traceparent = parent();
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/chat/completions"),
        (":authority", "gateway.example:8080"),
        ("content-type", "application/json"),
        ("traceparent", &*traceparent),
    ];
    [head(stream, 0, &fields), frame(DATA, END_STREAM, stream, &asked(model))].concat()
}

fn response(stream: u32, id: &str, tokens: i64) -> Vec<u8> {
    let fields = [(":status", "200"), ("content-type", "application/json")];
    [head(stream, 0, &fields), frame(DATA, END_STREAM, stream, &answered(id, tokens))].concat()
}

/// Cuts of records. The first byte of a preface alone could as well begin a method.
const CUTS: [usize; 6] = [usize::MAX, 2, 3, 9, 50, 333];

/// Requires one span for each model, id and count of tokens, whatever the cut.
fn check(bytes: &[(Direction, Vec<u8>)], expect: &[(&str, &str, i64)]) {
    for cut in CUTS {
        let outcome = run(&records(bytes, || cut), Roles::Client);
        let said: Vec<_> = outcome.spans.iter().map(said).collect();
        let expect: Vec<_> =
            expect.iter().map(|(model, id, tokens)| (json!(model), json!(id), json!(tokens))).collect();
        assert_eq!(said, expect, "cut into {cut}");
        for span in &outcome.spans {
            assert_eq!((span.trace_id.as_str(), span.parent_span_id.as_str()), (TRACE, SPAN));
            assert_eq!(span.attributes["server.address"], "gateway.example");
            assert_eq!(span.attributes["server.port"], 8080);
            assert_eq!(span.attributes["http.response.status_code"], 200);
            assert!(!span.attributes.contains_key("agentsight.capture.incomplete"));
        }
        nothing_lost(&outcome);
    }
}

fn said(span: &Span) -> (Value, Value, Value) {
    let said = |name: &str| span.attributes.get(name).cloned().unwrap_or(Value::Null);
    (said("gen_ai.request.model"), said("gen_ai.response.id"), said("gen_ai.usage.input_tokens"))
}

fn nothing_lost(outcome: &Outcome) {
    let losses: Vec<_> = outcome.metrics.all_losses().collect();
    assert!(losses.is_empty(), "{losses:?}");
}

/// RFC 7540 section 3.2: the request that asks for the upgrade is answered as stream 1.
fn upgrading(chunked: bool) -> Vec<(Direction, Vec<u8>)> {
    let body = asked("first");
    let (framing, body) = if chunked {
        let body = [format!("{:x}\r\n", body.len()).into_bytes(), body, b"\r\n0\r\n\r\n".to_vec()].concat();
        ("Transfer-Encoding: chunked".to_owned(), body)
    } else {
        (format!("Content-Length: {}", body.len()), body)
    };
    let start = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.example:8080\r\nConnection: Upgrade, HTTP2-Settings\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nContent-Type: application/json\r\n\
         traceparent: {}\r\n{framing}\r\n\r\n",
        parent()
    );
    let agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".to_vec();
    let settings = frame(SETTINGS, 0, 0, &[]);
    vec![
        (Sent, [start.into_bytes(), body].concat()),
        // The server goes on at once.
        (Read, [agreed, settings.clone(), response(1, "one", 11)].concat()),
        (Sent, [PREFACE.to_vec(), settings.clone(), frame(SETTINGS, 1, 0, &[]), request(3, "second")].concat()),
        (Sent, request(5, "third")),
        (Read, [frame(SETTINGS, 1, 0, &[]), response(5, "three", 33), response(3, "two", 22)].concat()),
    ]
}

#[test]
fn an_upgrade_to_http2_is_followed() {
    for chunked in [false, true] {
        check(&upgrading(chunked), &[("first", "one", 11), ("third", "three", 33), ("second", "two", 22)]);
    }
}

#[test]
fn an_upgrade_that_is_ignored_changes_nothing() {
    let mut bytes = upgrading(false);
    bytes.truncate(1);
    let body = answered("one", 11);
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    bytes.push((Read, [reply.into_bytes(), body].concat()));
    let again = bytes.clone();
    bytes.extend(again);
    check(&bytes, &[("first", "one", 11), ("first", "one", 11)]);
}

/// An agreement before all of the request was sent leaves nothing to rely on.
#[test]
fn an_early_agreement_is_counted() {
    let mut bytes = upgrading(false);
    let request = &mut bytes[0].1;
    let rest = request.split_off(request.len() - 10);
    bytes.insert(2, (Sent, rest));
    let outcome = run(&records(&bytes, || usize::MAX), Roles::Client);
    assert!(outcome.ignored);
    assert_eq!(outcome.metrics.losses(Cause::ConnectionGivenUp), 1);
    assert!(outcome.spans.iter().all(|span| span.attributes.contains_key("agentsight.capture.incomplete")));
}

#[test]
fn prior_knowledge_needs_no_upgrade() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let bytes = [
        (Sent, [PREFACE.to_vec(), settings.clone(), request(1, "first")].concat()),
        (Read, [settings, response(1, "one", 11)].concat()),
    ];
    check(&bytes, &[("first", "one", 11)]);
}

/// A WebSocket's frame of text, from the client or from the server.
fn text(from_client: bool, event: &Value) -> Vec<u8> {
    let event = event.to_string();
    let length = u16::try_from(event.len()).unwrap().to_be_bytes();
    if from_client {
        // A mask of zeros leaves the payload as it is.
        [&[0x81, 0xfe], &length[..], &[0; 4], event.as_bytes()].concat()
    } else {
        [&[0x81, 0x7e], &length[..], event.as_bytes()].concat()
    }
}

/// RFC 8441 section 5.
fn connect(stream: u32, path: &str, protocol: &str) -> Vec<u8> {
    let traceparent = parent();
    let fields = [
        (":method", "CONNECT"),
        (":protocol", protocol),
        (":scheme", "https"),
        (":path", path),
        (":authority", "api.openai.com"),
        ("sec-websocket-version", "13"),
        ("traceparent", &*traceparent),
    ];
    head(stream, 0, &fields)
}

fn create(model: &str) -> Vec<u8> {
    text(true, &json!({"type": "response.create", "model": model, "input": "word ".repeat(50)}))
}

fn done(id: &str, tokens: i64) -> Vec<u8> {
    let usage = json!({"input_tokens": tokens, "output_tokens": 5, "total_tokens": tokens + 5});
    let response = json!({"id": id, "status": "completed", "model": "served", "output": [], "usage": usage});
    text(false, &json!({"type": "response.completed", "response": response}))
}

#[test]
fn sockets_inside_streams_are_followed() {
    let open = |stream: u32| head(stream, 0, &[(":status", "200")]);
    // Frames of streams lie between each other, and a message lies in several of them.
    let (first, second) = (create("first"), create("second"));
    let (early, late) = first.split_at(40);
    let (begin, end) = (done("one", 11), done("two", 22));
    let (begin_early, begin_late) = begin.split_at(33);
    let bytes = [
        (Sent, [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[]), connect(1, "/v1/responses", "websocket")].concat()),
        (Read, [frame(SETTINGS, 0, 0, &[]), open(1)].concat()),
        (Sent, connect(3, "/v1/responses", "websocket")),
        (Read, open(3)),
        (Sent, [frame(DATA, 0, 1, early), frame(DATA, 0, 3, &second), frame(DATA, 0, 1, late)].concat()),
        (Sent, request(5, "beside")),
        (Read, [frame(DATA, 0, 1, begin_early), frame(DATA, 0, 3, &end), frame(DATA, 0, 1, begin_late)].concat()),
        (Read, response(5, "three", 33)),
        // Refused; of no use; and one that the client leaves.
        (Sent, [connect(7, "/v1/realtime?model=gpt-realtime", "websocket"), connect(9, "/x", "connect-udp")].concat()),
        (Read, head(7, END_STREAM, &[(":status", "403")])),
        (Sent, frame(DATA, 0, 3, &create("left"))),
        (Sent, frame(RESET, 0, 3, &8_u32.to_be_bytes())),
    ];
    for cut in CUTS {
        let outcome = run(&records(&bytes, || cut), Roles::Client);
        let said: Vec<_> = outcome.spans.iter().map(said).collect();
        let expect = [
            (json!("second"), json!("two"), json!(22)),
            (json!("first"), json!("one"), json!(11)),
            (json!("beside"), json!("three"), json!(33)),
            (json!("gpt-realtime"), Value::Null, Value::Null),
            (json!("left"), Value::Null, Value::Null),
        ];
        assert_eq!(said, expect, "cut into {cut}");
        let status = |at: usize| (outcome.spans[at].status, &outcome.spans[at].attributes["http.response.status_code"]);
        assert_eq!((status(0), status(3)), ((0, &json!(200)), (STATUS_ERROR, &json!(403))));
        assert_eq!((status(4), outcome.spans[3].attributes["error.type"].as_str()), ((0, &json!(200)), Some("403")));
        let ids: std::collections::BTreeSet<_> = outcome.spans.iter().map(|span| &span.span_id).collect();
        assert_eq!(ids.len(), outcome.spans.len());
        assert!(
            outcome.spans.iter().all(|span| (span.trace_id.as_str(), span.parent_span_id.as_str()) == (TRACE, SPAN))
        );
        nothing_lost(&outcome);
    }
}

/// Nothing that was lost makes a span wrong.
#[test]
fn a_lost_record_makes_nothing_wrong() {
    let exchanges = [upgrading(false), upgrading(true)];
    for bytes in exchanges {
        let count = records(&bytes, || 40).len();
        for lost in 1..count - 1 {
            let mut records = records(&bytes, || 40);
            records.remove(lost);
            for span in run(&records, Roles::Client).spans {
                let (model, id, tokens) = said(&span);
                let known = [("first", "one", 11), ("second", "two", 22), ("third", "three", 33)];
                let fits = |(known_model, known_id, known_tokens): &(&str, &str, i64)| {
                    let agrees = |said: &Value, known: Value| said.is_null() || *said == known;
                    agrees(&model, json!(known_model))
                        && agrees(&id, json!(known_id))
                        && agrees(&tokens, json!(known_tokens))
                };
                assert!(known.iter().any(fits), "record {lost}: {span:#?}");
            }
        }
    }
}
