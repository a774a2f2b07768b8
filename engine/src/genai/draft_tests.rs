//! What holds for every dialect: which requests are calls, how calls end, what they cost.

use bumpalo::Bump;

use super::{
    Draft, Ended, Options, Scratch,
    testing::{PLAIN, SSE, Wire, check, fields},
};
use crate::wire::{RequestHead, ResponseHead};

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

/// Data is told by its size and tools by their names, unless all of them is asked for.
#[test]
fn what_may_be_long_has_to_be_asked_for() {
    let wire = Wire {
        path: "/v1/chat/completions",
        request: concat!(
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,QUJDRA=="}},"#,
            r#"{"type":"image_url","image_url":{"url":"data:image/svg+xml,%3Csvg/%3E"}}]}],"#,
            r#""tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}]}"#
        ),
        capture_content: true,
        ..PLAIN
    };
    let svg = r#"{\"type\":\"blob_reference\",\"modality\":\"image\",\"mime_type\":\"image/svg+xml\"}"#;
    let png = r#"{\"type\":\"blob_reference\",\"modality\":\"image\",\"mime_type\":\"image/png\",\"byte_size\":4}"#;
    let tool = r#"tool_definitions: "[{\"type\":\"function\",\"name\":\"f\"}]""#;
    let input = |png| format!(r#"input_messages: "[{{\"role\":\"user\",\"parts\":[{png},{svg}]}}]""#);
    check(wire, &[&input(png), tool]);
    let png = r#"{\"type\":\"blob\",\"modality\":\"image\",\"mime_type\":\"image/png\",\"content\":\"QUJDRA==\"}"#;
    let tool = r#"tool_definitions: "[{\"type\":\"function\",\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\"}}]""#;
    check(Wire { content_full: true, ..wire }, &[&input(png), tool]);
}

#[test]
fn a_long_stream_takes_no_memory() {
    let arena = Bump::new();
    let (options, mut scratch) = (Options::default(), Scratch::default());
    let head = RequestHead {
        method: b"POST",
        target: b"/v1/chat/completions",
        authority: Some(b"h"),
        protocol: None,
        fields: &[],
    };
    let draft = Draft::new(&arena, &head, &mut scratch, &options).unwrap();
    draft.request_body(&arena, &mut br#"{"model":"m","messages":[]}"#.to_vec(), &mut scratch, &options);
    draft.response_head(&arena, &ResponseHead { status: 200, fields: &fields(SSE) });
    let before = arena.allocated_bytes();
    for number in 0..100_000 {
        // Ids, models, reasons and usage that are different each time, as no server sends them.
        let event = format!(
            r#"{{"id":"{number}","model":"{number}","choices":[{{"index":{number},"finish_reason":"r{number}"}}],"usage":{{"prompt_tokens":{number}}}}}"#
        );
        assert!(draft.event(&arena, b"", event.as_bytes(), &mut scratch, &options).is_chunk);
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
