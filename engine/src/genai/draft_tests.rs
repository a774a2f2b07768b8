//! Whole exchanges as data: what a wire says and what the call is to say.

use bumpalo::Bump;

use super::{BodyKind, Draft, Ended, Options, Scratch, Verdict};
use crate::{
    exchange::Call,
    wire::{Field, RequestHead, ResponseHead},
};

/// An exchange. Names and values of fields alternate in lines of `name: value`.
#[derive(Clone, Copy)]
struct Wire<'w> {
    method: &'w str,
    host: &'w str,
    path: &'w str,
    fields: &'w [(&'w str, &'w str)],
    request: &'w str,
    status: u16,
    response_fields: &'w [(&'w str, &'w str)],
    /// A body, or the events of a stream.
    response: &'w [&'w str],
    ended: Ended,
    capture_content: bool,
}

const PLAIN: Wire<'static> = Wire {
    method: "POST",
    host: "llm.example:8000",
    path: "/",
    fields: &[],
    request: "",
    status: 200,
    response_fields: &[("content-type", "application/json")],
    response: &[""],
    ended: Ended::Complete,
    capture_content: false,
};

const SSE: &[(&str, &str)] = &[("Content-Type", "text/event-stream; charset=utf-8")];

fn fields<'f>(pairs: &'f [(&'f str, &'f str)]) -> Vec<Field<'f>> {
    pairs.iter().map(|(name, value)| Field { name: name.as_bytes(), value: value.as_bytes() }).collect()
}

impl Wire<'_> {
    fn drive<'a>(&self, arena: &'a Bump) -> Option<Call<'a>> {
        let options = Options { capture_content: self.capture_content, ..Options::default() };
        let mut scratch = Scratch::default();
        let list = fields(self.fields);
        let host = Some(self.host.as_bytes());
        let head = RequestHead {
            method: self.method.as_bytes(),
            target: self.path.as_bytes(),
            authority: host,
            fields: &list,
        };
        let mut draft = Draft::new(arena, &head, &options)?;
        let verdict = if draft.wants_request_body() {
            draft.request_body(arena, &mut self.request.as_bytes().to_vec(), &mut scratch, &options)
        } else {
            Verdict::Call
        };
        (verdict == Verdict::Call).then_some(())?;
        let list = fields(self.response_fields);
        match draft.response_head(arena, &ResponseHead { status: self.status, fields: &list }) {
            BodyKind::Skip => {}
            BodyKind::Json => {
                let mut body = self.response.concat().into_bytes();
                draft.response_body(arena, &mut body, &mut scratch, &options);
            }
            _ => {
                for event in self.response {
                    // An event's name before a bar, where there is one.
                    let (name, data) = event.split_once('|').unwrap_or(("", event));
                    draft.event(arena, name.as_bytes(), data.as_bytes(), &mut scratch, &options);
                }
            }
        }
        Some(draft.finish(arena, self.ended, &options))
    }
}

/// `expect` has one `field: value` a line, in the form that `Debug` gives it.
#[track_caller]
fn check(wire: Wire<'_>, expect: &[&str]) {
    let arena = Bump::new();
    let Some(call) = wire.drive(&arena) else { return assert!(expect.is_empty(), "no call: {}", wire.path) };
    let told = format!("{call:#?}");
    let told: Vec<_> = told
        .replace("Some(\n        ", "")
        .replace(",\n    ),", ",")
        .lines()
        .map(|line| line.trim().trim_end_matches(',').to_owned())
        .collect();
    for line in expect {
        assert!(told.iter().any(|told| told == line), "{}: {line} is not in {told:#?}", wire.path);
    }
    assert!(!expect.is_empty(), "a call: {call:?}");
}

#[test]
fn dialects_without_recordings_are_read() {
    check(
        Wire {
            path: "/model/amazon.nova-lite-v1%3A0/invoke-with-response-stream",
            host: "bedrock-runtime.us-east-1.amazonaws.com",
            fields: &[("X-Amzn-Bedrock-GuardrailIdentifier", "g1")],
            request: r#"{"messages":[],"inferenceConfig":{"max_new_tokens":5,"topP":0.5}}"#,
            response_fields: &[("content-type", "application/vnd.amazon.eventstream")],
            response: &[
                // {"messageStop":{"stopReason":"max_tokens"}}
                r#"chunk|{"bytes":"eyJtZXNzYWdlU3RvcCI6eyJzdG9wUmVhc29uIjoibWF4X3Rva2VucyJ9fQ==","p":"abc"}"#,
                // {"metadata":{"usage":{"inputTokens":3,"outputTokens":4,"cacheReadInputTokenCount":5}}}
                concat!(
                    r#"chunk|{"bytes":"eyJtZXRhZGF0YSI6eyJ1c2FnZSI6eyJpbnB1dFRva2VucyI6Myw"#,
                    r#"ib3V0cHV0VG9rZW5zIjo0LCJjYWNoZVJlYWRJbnB1dFRva2VuQ291bnQiOjV9fX0="}"#
                ),
            ],
            ..PLAIN
        },
        &[
            "operation: \"chat\"",
            "provider: \"aws.bedrock\"",
            "request_model: \"amazon.nova-lite-v1:0\"",
            "max_tokens: 5",
            "top_p: 0.5",
            "bedrock_guardrail_id: \"g1\"",
            "input_tokens: 8",
            "output_tokens: 4",
            "cache_read_tokens: 5",
            "stream: true",
            "error_type: None",
        ],
    );
    check(
        Wire {
            path: "/model/m/converse-stream",
            host: "bedrock-runtime.us-east-1.amazonaws.com",
            response_fields: &[("content-type", "application/vnd.amazon.eventstream"), ("x-amzn-requestid", "r1")],
            response: &["messageStart|{\"role\":\"assistant\"}", "throttlingException|{\"message\":\"slow down\"}"],
            request: "{}",
            ..PLAIN
        },
        &["error_type: \"throttlingException\"", "response_id: \"r1\"", "status_code: 200"],
    );
    check(
        Wire {
            path: "/agents/A/agentAliases/B/sessions/s%201/text",
            host: "bedrock-agent-runtime.us-east-1.amazonaws.com",
            response_fields: &[("content-type", "application/vnd.amazon.eventstream")],
            request: r#"{"inputText":"hi"}"#,
            response: &["chunk|{\"bytes\":\"aGVsbG8=\"}"],
            capture_content: true,
            ..PLAIN
        },
        &[
            "operation: \"invoke_agent\"",
            "conversation_id: \"s 1\"",
            r#"output_messages: "[{\"role\":\"assistant\",\"parts\":[{\"type\":\"text\",\"content\":\"hello\"}],\"finish_reason\":\"\"}]""#,
        ],
    );
    check(
        Wire {
            method: "GET",
            path: "/v1/responses/resp_1?stream=true&starting_after=7",
            response_fields: SSE,
            response: &[
                r#"response.completed|{"type":"response.completed","response":{"id":"resp_1","model":"m","status":"completed","output":[{"type":"function_call"}],"usage":{"input_tokens":1}}}"#,
            ],
            ended: Ended::Cut,
            ..PLAIN
        },
        &[
            "operation: \"fetch_response\"",
            "stream_cursor: 7",
            "response_status: \"completed\"",
            "input_tokens: None",
            "response_id: \"resp_1\"",
            "stream: true",
            "error_type: None",
            "\"tool_calls\"",
        ],
    );
    check(
        Wire {
            path: "/v1/responses",
            request: concat!(
                r#"{"model":"m","input":"hi","stream":true,"conversation":{"id":"conv_1"},"reasoning":{"effort":"high"},"#,
                r#""text":{"format":{"type":"json_schema"}},"previous_response_id":"resp_0","service_tier":"auto","#,
                r#""prompt":{"id":"p1","version":"2"}}"#
            ),
            response_fields: SSE,
            response: &[
                r#"{"type":"response.created","response":{"id":"resp_1","model":"m-1","status":"in_progress"}}"#,
                r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error"},"service_tier":"default"}}"#,
            ],
            ..PLAIN
        },
        &[
            "conversation_id: \"conv_1\"",
            "reasoning_level: \"high\"",
            "output_type: \"json\"",
            "prompt_name: \"p1\"",
            "prompt_version: \"2\"",
            "previous_response_id: \"resp_0\"",
            "openai_request_service_tier: None",
            "openai_response_service_tier: \"default\"",
            "error_type: \"server_error\"",
            "\"error\"",
            "openai_api_type: \"responses\"",
            "server_port: 8000",
            "provider: \"llm.example\"",
        ],
    );
    check(
        Wire {
            path: "/api/chat",
            request: r#"{"model":"llama","messages":[],"think":"low","format":{"type":"object"},"options":{"num_predict":9,"stop":"x"}}"#,
            response_fields: &[("content-type", "application/x-ndjson")],
            response: &[
                r#"{"model":"llama","message":{"content":"a"},"done":false}"#,
                r#"{"error":"the model has gone away"}"#,
            ],
            ..PLAIN
        },
        &[
            "stream: true",
            "max_tokens: 9",
            "reasoning_level: \"low\"",
            "output_type: \"json\"",
            "error_type: \"_OTHER\"",
        ],
    );
    check(
        Wire {
            host: "api.x.ai",
            path: "/v1/chat/completions",
            request: r#"{"model":"grok","messages":[],"n":1,"max_completion_tokens":7,"max_tokens":3,"modalities":["text","audio"]}"#,
            response: &[
                r#"{"id":"1","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":1,"completion_tokens_details":{"reasoning_tokens":228}}}"#,
            ],
            ..PLAIN
        },
        &[
            "provider: \"x_ai\"",
            "output_tokens: 229",
            "reasoning_tokens: 228",
            "choice_count: None",
            "max_tokens: 7",
            "output_type: \"speech\"",
        ],
    );
    check(
        Wire {
            host: "api.mistral.ai",
            path: "/v1/conversations",
            request: r#"{"model":"m","inputs":"hi","completion_args":{"temperature":0.5}}"#,
            response: &[
                r#"{"conversation_id":"conv_1","outputs":[{"type":"message.output","model":"m-1","content":"x"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
            ],
            ..PLAIN
        },
        &["conversation_id: \"conv_1\"", "response_model: \"m-1\"", "temperature: 0.5", "output_tokens: 2"],
    );
    check(
        Wire {
            path: "/generate_stream",
            request: r#"{"inputs":"hi","parameters":{"max_new_tokens":5}}"#,
            response_fields: SSE,
            response: &[
                r#"{"token":{"text":"a"},"generated_text":null,"details":null}"#,
                r#"{"token":{"text":"b"},"generated_text":"ab","details":{"finish_reason":"length","generated_tokens":5,"input_length":3}}"#,
            ],
            ..PLAIN
        },
        &["operation: \"text_completion\"", "max_tokens: 5", "input_tokens: 3", "output_tokens: 5", "stream: true"],
    );
    check(
        Wire {
            path: "/completion",
            request: r#"{"prompt":"hi","n_predict":5,"stream":true}"#,
            response_fields: SSE,
            response: &[
                r#"{"content":"a","stop":false}"#,
                r#"{"content":"","stop":true,"stop_type":"limit","tokens_evaluated":3,"tokens_predicted":5}"#,
            ],
            ended: Ended::Cut,
            ..PLAIN
        },
        &["\"limit\"", "input_tokens: 3", "output_tokens: 5", "error_type: None"],
    );
    check(
        Wire {
            host: "generativelanguage.googleapis.com",
            path: "/v1beta/models/g:streamGenerateContent?key=secret",
            request: r#"{"contents":[],"generation_config":{"top_k":40.0,"response_mime_type":"application/json","candidate_count":2}}"#,
            response_fields: &[("content-type", "application/json; charset=UTF-8")],
            response: &[
                r#"{"candidates":[{"index":1,"finishReason":2},{"index":0,"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":1,"toolUsePromptTokenCount":2,"thoughtsTokenCount":5}}"#,
            ],
            ..PLAIN
        },
        &[
            "top_k: 40",
            "choice_count: 2",
            "input_tokens: 3",
            "output_tokens: 5",
            "\"stop\"",
            "\"max_tokens\"",
            "stream: true",
        ],
    );
}

#[test]
fn envelopes_are_opened() {
    check(
        Wire {
            host: "cloudcode-pa.googleapis.com",
            path: "/v1internal:streamGenerateContent?alt=sse",
            request: r#"{"model":"g","request":{"contents":[{"role":"user","parts":[{"text":"hi"}]}],"generationConfig":{"topP":0.5}}}"#,
            response_fields: SSE,
            response: &[
                r#"{"response":{"candidates":[{"content":{"parts":[{"text":"yes"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":2,"candidatesTokenCount":3},"responseId":"r"}}"#,
            ],
            capture_content: true,
            ..PLAIN
        },
        &[
            "operation: \"generate_content\"",
            "provider: \"gcp.gen_ai\"",
            "request_model: \"g\"",
            "top_p: 0.5",
            "input_tokens: 2",
            "output_tokens: 3",
            "response_id: \"r\"",
            r#"input_messages: "[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"hi\"}]}]""#,
            r#"output_messages: "[{\"role\":\"assistant\",\"parts\":[{\"type\":\"text\",\"content\":\"yes\"}],\"finish_reason\":\"stop\"}]""#,
        ],
    );
}

#[test]
fn unknown_paths_are_judged_by_their_bodies() {
    let json: &[(&str, &str)] = &[("content-type", "application/json")];
    for (path, request, expect) in [
        ("/x", r#"{"model":"m","messages":[]}"#, "operation: \"chat\""),
        ("/x", r#"{"model":"m","prompt":"p"}"#, "operation: \"text_completion\""),
        ("/x", r#"{"contents":[{}]}"#, "operation: \"generate_content\""),
        ("/x", r#"{"model":"m","input":"i"}"#, "operation: \"embeddings\""),
        ("/x", r#"{"messages":[],"anthropic_version":"v"}"#, "openai_api_type: None"),
        ("/x", r#"{"model":"m"}"#, ""),
        ("/x", r#"{"model":1,"messages":[]}"#, ""),
        ("/x", r#"{"model":"m","messages":"#, ""),
        ("/x", "", ""),
        ("/v1/threads/t/messages", r#"{"model":"m","messages":[]}"#, ""),
        ("/v1/images/generations", r#"{"model":"m","prompt":"p"}"#, ""),
        ("/v1/moderations", r#"{"model":"m","input":"i"}"#, ""),
        ("/v1/messages/count_tokens", r#"{"model":"m","messages":[]}"#, ""),
        ("/v1/messages/batches", r#"{"model":"m","messages":[]}"#, ""),
        ("/survey/responses", r#"{"answers":[]}"#, ""),
        ("/v1beta/models/g:countTokens", r#"{"contents":[]}"#, ""),
        (
            "/v1/publishers/anthropic/models/count-tokens:rawPredict",
            r#"{"model":"m","messages":[],"anthropic_version":"v"}"#,
            "",
        ),
        ("/v1/engines/codex/completions", r#"{"prompt":"p"}"#, "request_model: \"codex\""),
        ("/pooling", r#"{"model":"m","input":"i"}"#, ""),
    ] {
        let response = &[r#"{"object":"list","data":[],"model":"m"}"#];
        let wire = Wire { path, request, fields: json, response, ..PLAIN };
        check(wire, if expect.is_empty() { &[] } else { std::slice::from_ref(&expect) });
    }
    check(
        Wire {
            path: "/x",
            request: r#"{"model":"m","messages":[]}"#,
            fields: &[("content-type", "text/plain")],
            ..PLAIN
        },
        &[],
    );
    check(Wire { method: "GET", path: "/v1/chat/completions", ..PLAIN }, &[]);
    check(Wire { method: "GET", path: "/survey/responses/12", ..PLAIN }, &[]);
}

#[test]
fn ends_and_errors_are_told_apart() {
    let stream = |response: &'static [&'static str], ended| Wire {
        path: "/v1/chat/completions",
        request: r#"{"model":"m","messages":[],"stream":true}"#,
        response_fields: SSE,
        response,
        ended,
        ..PLAIN
    };
    let piece = r#"{"id":"1","choices":[{"delta":{"content":"a"}}]}"#;
    let pieces = std::slice::from_ref(Box::leak(Box::new(piece)));
    check(stream(pieces, Ended::Complete), &["error_type: None"]);
    check(stream(pieces, Ended::Cut), &["error_type: \"_OTHER\""]);
    check(stream(pieces, Ended::Cancelled), &["error_type: None"]);
    check(stream(pieces, Ended::Lost), &["error_type: None"]);
    check(stream(&["[DONE]"], Ended::Cut), &["error_type: None"]);
    check(
        stream(
            &[r#"{"id":"1","error":{"code":502,"message":"m"},"choices":[{"index":0,"finish_reason":"error"}]}"#],
            Ended::Complete,
        ),
        &["error_type: \"_OTHER\"", "\"error\""],
    );
    check(stream(&[r#"error|{"message":"m","code":"overloaded"}"#], Ended::Complete), &["error_type: \"overloaded\""]);
    let plain = |status, response: &'static [&'static str]| Wire {
        status,
        response,
        path: "/v1/chat/completions",
        request: r#"{"model":"m","messages":[]}"#,
        ..PLAIN
    };
    check(
        plain(200, &[r#"{"error":{"code":"content_filter"}}"#]),
        &["error_type: \"content_filter\"", "status_code: 200"],
    );
    check(plain(429, &[r#"{"error":{"type":"rate_limit_error","code":null}}"#]), &["error_type: \"rate_limit_error\""]);
    check(plain(503, &["<html>"]), &["error_type: \"503\""]);
    check(plain(404, &[""]), &["error_type: \"404\"", "response_model: None"]);
    check(Wire { ended: Ended::NoResponse, ..plain(200, &[""]) }, &["error_type: \"_OTHER\""]);
    // A stream that calls itself a document.
    check(
        plain(200, &["data: {\"id\":\"1\",\"choices\":[{\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n"]),
        &["response_id: \"1\"", "\"stop\""],
    );
}

#[test]
fn a_long_stream_takes_no_memory() {
    let arena = Bump::new();
    let (options, mut scratch) = (Options::default(), Scratch::default());
    let head = RequestHead { method: b"POST", target: b"/v1/chat/completions", authority: Some(b"h"), fields: &[] };
    let mut draft = Draft::new(&arena, &head, &options).unwrap();
    draft.request_body(&arena, &mut br#"{"model":"m","messages":[]}"#.to_vec(), &mut scratch, &options);
    draft.response_head(&arena, &ResponseHead { status: 200, fields: &fields(SSE) });
    let before = arena.allocated_bytes();
    for number in 0..100_000 {
        // Ids, models, reasons and usage that are different each time, as no server sends them.
        let event = format!(
            r#"{{"id":"{number}","model":"{number}","choices":[{{"index":{number},"finish_reason":"r{number}"}}],"usage":{{"prompt_tokens":{number}}}}}"#
        );
        assert!(draft.event(&arena, b"", event.as_bytes(), &mut scratch, &options));
    }
    assert!(arena.allocated_bytes() - before <= 128 * 1024, "{}", arena.allocated_bytes());
    let call = draft.finish(&arena, Ended::Complete, &options);
    assert_eq!((call.response_id, call.input_tokens), (Some("0"), Some(99_999)));
}

#[test]
fn drafts_can_move_between_threads() {
    fn movable<T: Send>() {}
    movable::<Draft<'static>>();
}
