//! WebSockets from records to spans: the handshake, frames cut anywhere, one span for each response.

use agentsight::{demo::receiver::STATUS_ERROR, flow::Roles, metrics::Cause};
use agentsight_abi::{
    Direction::{self, Read, Write as Sent},
    RecordHeader,
};
use agentsight_tests::records::{records, run};
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;
use serde_json::{Value, json};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// One side of a connection and what it writes: frames, masked and compressed as it has to be.
struct Side {
    mask: Option<[u8; 4]>,
    compress: Option<Compress>,
}

impl Side {
    fn text(&mut self, event: &Value) -> Vec<u8> {
        let text = event.to_string().into_bytes();
        let Some(compress) = &mut self.compress else { return self.frame(0x81, &text) };
        let mut packed = Vec::with_capacity(text.len() + 1_000);
        compress.compress_vec(&text, &mut packed, FlushCompress::Sync).unwrap();
        packed.truncate(packed.len() - 4);
        self.frame(0xc1, &packed)
    }

    fn frame(&self, first: u8, payload: &[u8]) -> Vec<u8> {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match u16::try_from(payload.len()) {
            Ok(length @ 0..126) => bytes.push(masked | length as u8),
            Ok(length) => {
                bytes.push(masked | 126);
                bytes.extend(length.to_be_bytes());
            }
            Err(_) => {
                bytes.push(masked | 127);
                bytes.extend((payload.len() as u64).to_be_bytes());
            }
        }
        let mask = self.mask.unwrap_or_default();
        bytes.extend(self.mask.iter().flatten());
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        bytes
    }
}

/// What is said on one connection, in order.
struct Conversation {
    client: Side,
    server: Side,
    bytes: Vec<(Direction, Vec<u8>)>,
}

impl Conversation {
    fn open(target: &str, compressed: bool) -> Self {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: api.openai.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer x\r\n\
             traceparent: 00-{TRACE}-{SPAN}-01\r\n\r\n"
        );
        let extension = if compressed { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{extension}\r\n"
        );
        let compress = || compressed.then(|| Compress::new(Compression::default(), false));
        Self {
            client: Side { mask: Some([1, 0x80, 0, 0xff]), compress: compress() },
            server: Side { mask: None, compress: compress() },
            bytes: vec![(Sent, request.into_bytes()), (Read, response.into_bytes())],
        }
    }

    fn asks(&mut self, event: Value) -> &mut Self {
        self.bytes.push((Sent, self.client.text(&event)));
        self
    }

    /// The server's bytes go on where its last ones ended, in one record where nothing cuts them.
    fn says(&mut self, event: Value) -> &mut Self {
        let frame = self.server.text(&event);
        self.raw(Read, frame)
    }

    fn raw(&mut self, direction: Direction, frame: Vec<u8>) -> &mut Self {
        match self.bytes.last_mut() {
            Some((last, bytes)) if *last == direction => bytes.extend(frame),
            _ => self.bytes.push((direction, frame)),
        }
        self
    }

    fn records(&self, cut: impl FnMut() -> usize) -> Vec<(RecordHeader, Vec<u8>)> {
        records(&self.bytes, cut)
    }
}

/// Requires spans with these attributes, and nothing lost. `null`: the attribute is absent.
fn check(conversation: &Conversation, cut: impl FnMut() -> usize, expect: &[Value]) {
    let outcome = run(&conversation.records(cut), Roles::Client);
    assert_eq!(outcome.spans.len(), expect.len(), "{:#?}", outcome.spans);
    for (span, expect) in outcome.spans.iter().zip(expect) {
        for (name, value) in expect.as_object().unwrap() {
            let said = match name.as_str() {
                "name" => json!(span.name),
                "failed" => json!(span.status == STATUS_ERROR),
                _ => span.attributes.get(name).cloned().unwrap_or(Value::Null),
            };
            assert_eq!(said, *value, "{name} of {span:#?}");
        }
        assert_eq!((span.trace_id.as_str(), span.parent_span_id.as_str()), (TRACE, SPAN));
        assert_eq!(span.attributes["server.address"], "api.openai.com");
        assert_eq!(span.attributes["http.response.status_code"], 101);
        assert_eq!(span.attributes["gen_ai.request.stream"], true);
    }
    let losses: Vec<_> = outcome.metrics.all_losses().collect();
    assert!(losses.is_empty(), "{losses:?}");
}

/// Two responses, one with a call, and an error.
fn responses(compressed: bool) -> (Conversation, Vec<Value>) {
    let mut talk = Conversation::open("/v1/responses", compressed);
    let done = |id: &str, output: Value| {
        json!({"type": "response.completed", "sequence_number": 9, "response": {"id": id, "object": "response",
            "model": "gpt-5-2026", "status": "completed", "output": output, "usage": {"input_tokens": 36,
            "input_tokens_details": {"cached_tokens": 12}, "output_tokens": 87,
            "output_tokens_details": {"reasoning_tokens": 64}, "total_tokens": 123}}})
    };
    let created = |id: &str| json!({"type": "response.created", "response": {"id": id, "model": "gpt-5-2026", "status": "in_progress"}});
    talk.asks(
        json!({"type": "response.create", "model": "gpt-5", "input": "word ".repeat(30_000), "temperature": 0.5}),
    )
    .says(created("resp_1"))
    .says(json!({"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"}));
    let ping = talk.server.frame(0x89, b"still there?");
    talk.raw(Read, ping);
    talk.says(json!({"type": "response.output_text.delta", "output_index": 0, "delta": "lo"}))
        .says(done("resp_1", json!([{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}])));
    let pong = talk.client.frame(0x8a, b"still there?");
    talk.raw(Sent, pong)
        .asks(json!({"type": "response.create", "model": "gpt-5-mini", "input": [], "previous_response_id": "resp_1"}))
        .says(created("resp_2"))
        .says(done("resp_2", json!([{"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"}])))
        .asks(json!({"type": "response.create", "model": "gpt-5", "previous_response_id": "resp_0"}))
        .says(
            json!({"type": "error", "status": 400, "error": {"code": "previous_response_not_found", "message": "m"}}),
        );
    let close = talk.client.frame(0x88, &[3, 0xe8]);
    talk.raw(Sent, close);
    let expect = vec![
        json!({"name": "chat gpt-5", "gen_ai.response.id": "resp_1", "gen_ai.response.model": "gpt-5-2026",
            "gen_ai.request.temperature": 0.5, "gen_ai.usage.input_tokens": 36, "gen_ai.usage.output_tokens": 87,
            "gen_ai.usage.cache_read.input_tokens": 12, "gen_ai.usage.reasoning.output_tokens": 64,
            "gen_ai.response.finish_reasons": ["stop"], "openai.api.type": "responses", "failed": false,
            "gen_ai.provider.name": "openai", "gen_ai.conversation.id": null}),
        json!({"name": "chat gpt-5-mini", "gen_ai.response.id": "resp_2", "gen_ai.response.finish_reasons": ["tool_calls"],
            "gen_ai.request.previous_response.id": "resp_1", "gen_ai.request.temperature": null, "failed": false,
            "gen_ai.response.time_to_first_chunk": null}),
        json!({"name": "chat gpt-5", "gen_ai.response.id": null, "error.type": "previous_response_not_found",
            "failed": true, "gen_ai.usage.input_tokens": null}),
    ];
    (talk, expect)
}

fn created(id: &str) -> Value {
    json!({"type": "response.created", "event_id": "e", "response": {"object": "realtime.response", "id": id,
        "status": "in_progress", "conversation_id": "conv_1", "output": [], "usage": null}})
}

fn done(id: &str, tokens: i64) -> Value {
    json!({"type": "response.done", "event_id": "e", "response": {"object": "realtime.response", "id": id,
        "status": "completed", "conversation_id": "conv_1", "output": [], "usage": {"total_tokens": tokens + 5,
        "input_tokens": tokens, "output_tokens": 5, "input_token_details": {"cached_tokens": 3}}}})
}

/// A session with responses that the client asks for, that the server begins, that cross each other,
/// and that are refused.
fn realtime(compressed: bool) -> (Conversation, Vec<Value>) {
    let mut talk = Conversation::open("/v1/realtime?model=gpt-realtime", compressed);
    let delta = |id: &str| json!({"type": "response.output_audio.delta", "event_id": "e", "response_id": id, "delta": "QUJD".repeat(2_000)});
    // The server speaks first, in the bytes of its handshake.
    talk.says(json!({"type": "session.created", "event_id": "e", "session": {"id": "sess_1", "model": "gpt-realtime",
            "temperature": 0.8, "instructions": "Be kind."}}))
        .asks(json!({"type": "session.update", "session": {"max_output_tokens": 300}}))
        .asks(json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user",
            "content": [{"type": "input_text", "text": "Hi there"}]}}))
        .asks(json!({"type": "response.create"}))
        .says(json!({"type": "session.updated", "event_id": "e", "session": {"id": "sess_1", "model": "gpt-realtime",
            "temperature": 0.8, "max_output_tokens": 300}}))
        .says(created("resp_1"))
        .says(delta("resp_1"))
        .says(done("resp_1", 10))
        .asks(json!({"type": "input_audio_buffer.append", "audio": "AAAA".repeat(20_000)}))
        // The server's own decision.
        .says(created("resp_2"))
        // One beside it, asked for, that ends first.
        .asks(json!({"event_id": "mine", "type": "response.create", "response": {"conversation": "none",
            "max_output_tokens": 20, "output_modalities": ["text"]}}))
        .says(created("resp_3"))
        .says(delta("resp_2"))
        .says(done("resp_3", 30))
        .says(done("resp_2", 20))
        // Two that are refused: one by name; the other can only be meant.
        .asks(json!({"type": "response.create", "event_id": "refused"}))
        .says(json!({"type": "error", "error": {"type": "invalid_request_error", "code": "bad_one", "event_id": "refused"}}))
        .asks(json!({"type": "response.create"}))
        .says(json!({"type": "error", "error": {"type": "invalid_request_error", "code": "bad_two", "event_id": null}}))
        .asks(json!({"type": "response.create"}))
        .says(created("resp_4"))
        .says(delta("resp_4"));
    let close = talk.server.frame(0x88, &[3, 0xf3]);
    talk.raw(Read, close);
    let expect = vec![
        json!({"name": "chat gpt-realtime", "gen_ai.response.id": "resp_1", "gen_ai.conversation.id": "conv_1",
            "gen_ai.request.max_tokens": 300, "gen_ai.request.temperature": 0.8, "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 5, "gen_ai.usage.cache_read.input_tokens": 3, "failed": false,
            "gen_ai.response.finish_reasons": ["stop"], "openai.api.type": null, "gen_ai.response.model": null,
            "gen_ai.input.messages": "[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"Hi there\"}]}]"}),
        json!({"gen_ai.response.id": "resp_3", "gen_ai.usage.input_tokens": 30, "gen_ai.request.max_tokens": 20,
            "gen_ai.output.type": "text", "gen_ai.input.messages": null}),
        json!({"gen_ai.response.id": "resp_2", "gen_ai.usage.input_tokens": 20, "gen_ai.request.max_tokens": 300,
            "gen_ai.response.time_to_first_chunk": null, "agentsight.capture.incomplete": null}),
        json!({"name": "chat gpt-realtime", "error.type": "bad_one", "failed": true, "gen_ai.response.id": null}),
        json!({"error.type": "bad_two", "failed": true, "gen_ai.response.id": null}),
        json!({"gen_ai.response.id": "resp_4", "error.type": "_OTHER", "failed": true}),
    ];
    (talk, expect)
}

#[test]
fn each_response_is_a_span() {
    for compressed in [false, true] {
        for cut in [usize::MAX, 1, 2, 5, 100, 1_000, 16_384] {
            for (talk, expect) in [responses(compressed), realtime(compressed)] {
                check(&talk, || cut, &expect);
            }
        }
    }
}

#[test]
fn times_are_those_of_the_events() {
    let (talk, _) = responses(false);
    let outcome = run(&talk.records(|| usize::MAX), Roles::Client);
    let first = &outcome.spans[0];
    assert!(first.end_unix_nano > first.start_unix_nano);
    assert_eq!(first.attributes["gen_ai.response.time_to_first_chunk"], 1e-6);
    assert!(outcome.spans[1].start_unix_nano > first.end_unix_nano);
}

#[test]
fn an_end_without_a_last_event_is_told_apart() {
    let ask = json!({"type": "response.create", "model": "m", "input": "x"});
    let mut talk = Conversation::open("/v1/responses", false);
    talk.asks(ask.clone()).says(json!({"type": "response.created", "response": {"id": "r"}}));
    let (cancel, give_up) = (talk.client.frame(0x88, &[3, 0xe8]), talk.server.frame(0x88, &[3, 0xf3]));
    talk.raw(Sent, cancel);
    check(&talk, || usize::MAX, &[json!({"failed": false, "error.type": null, "gen_ai.response.id": "r"})]);
    let mut talk = Conversation::open("/v1/responses", false);
    talk.asks(ask).raw(Read, give_up);
    check(&talk, || usize::MAX, &[json!({"failed": true, "error.type": "_OTHER", "gen_ai.response.id": null})]);
}

/// A handshake that is refused is a call that failed, when it is known to be for calls.
#[test]
fn a_refused_handshake_is_an_error() {
    for (target, spans) in [("/v1/realtime?model=gpt-realtime", 1), ("/v1/responses", 1), ("/chat", 0)] {
        let mut talk = Conversation::open(target, false);
        talk.bytes.truncate(1);
        let body = r#"{"error":{"message":"m","type":"invalid_request_error","code":"invalid_api_key"}}"#;
        let length = body.len();
        let reply = format!(
            "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        talk.raw(Read, reply.into_bytes());
        // The connection goes on, and what comes next has nothing to do with it.
        let next = b"GET /v1/models HTTP/1.1\r\nHost: api.openai.com\r\n\r\n".to_vec();
        talk.raw(Sent, next).raw(Read, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec());
        for cut in [usize::MAX, 1, 9] {
            let outcome = run(&talk.records(|| cut), Roles::Client);
            assert_eq!(outcome.spans.len(), spans, "{target}: {:#?}", outcome.spans);
            for span in &outcome.spans {
                assert_eq!((span.status, &span.attributes["error.type"]), (STATUS_ERROR, &json!("invalid_api_key")));
                assert_eq!(span.attributes["http.response.status_code"], 401);
                assert_eq!(span.attributes["gen_ai.operation.name"], "chat");
                let model = target.contains("model").then_some("gpt-realtime");
                assert_eq!(span.attributes.get("gen_ai.request.model"), model.map(Value::from).as_ref());
                assert_eq!((span.trace_id.as_str(), span.parent_span_id.as_str()), (TRACE, SPAN));
            }
        }
    }
}

#[test]
fn other_sockets_and_other_sides_are_left_alone() {
    let event = json!({"type": "response.create", "model": "m", "input": "x"});
    for target in ["/chat", "/v1/responses/1"] {
        let mut talk = Conversation::open(target, false);
        let outcome = run(&talk.asks(event.clone()).records(|| usize::MAX), Roles::Client);
        assert!(outcome.spans.is_empty() && outcome.ignored, "{target}");
        assert_eq!(outcome.metrics.all_losses().count(), 0);
    }
    let mut talk = Conversation::open("/v1/responses", false);
    assert!(run(&talk.asks(event).records(|| usize::MAX), Roles::Server).spans.is_empty());
    // What says nothing that is known is given up soon.
    let mut talk = Conversation::open("/app/realtime", false);
    (0..20).for_each(|number| _ = talk.asks(json!([number, "phx_heartbeat"])));
    let outcome = run(&talk.records(|| usize::MAX), Roles::Client);
    assert!(outcome.spans.is_empty() && outcome.ignored);
}

/// Nothing that was lost makes a span wrong; at most it is missing, or says that it is incomplete.
#[test]
fn a_lost_record_makes_nothing_wrong() {
    for (talk, expect) in [responses(false), responses(true), realtime(false)] {
        let ids: Vec<_> = expect.iter().map(|expect| &expect["gen_ai.response.id"]).collect();
        let count = talk.records(|| 300).len();
        let mut with_loss = 0;
        for lost in 1..count - 1 {
            let mut records = talk.records(|| 300);
            records.remove(lost);
            let outcome = run(&records, Roles::Client);
            assert!(outcome.metrics.losses(Cause::BytesMissing) > 0 || outcome.ignored);
            for span in &outcome.spans {
                with_loss += usize::from(span.attributes.contains_key("agentsight.capture.incomplete"));
                let Some(id) = span.attributes.get("gen_ai.response.id") else { continue };
                let at = ids.iter().position(|known| *known == id).expect("an id that was on the wire");
                for name in
                    ["gen_ai.usage.input_tokens", "gen_ai.response.model", "gen_ai.request.previous_response.id"]
                {
                    if let (Some(said), Some(expect)) = (span.attributes.get(name), expect[at].get(name)) {
                        assert_eq!(said, expect, "record {lost}: {name} of {span:#?}");
                    }
                }
            }
        }
        assert!(with_loss > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_gives_the_same(lengths in proptest::collection::vec(1..3_000_usize, 1..100), compressed: bool) {
        for (talk, expect) in [responses(compressed), realtime(compressed)] {
            let mut lengths = lengths.iter().copied().cycle();
            check(&talk, || lengths.next().unwrap(), &expect);
        }
    }
}
