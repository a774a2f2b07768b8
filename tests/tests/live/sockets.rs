//! WebSockets over TLS: after an upgrade of HTTP/1.1 by Python, and inside HTTP/2 by Node.

use std::{process::Command, time::Duration};

use agentsight::demo::{
    receiver::{KIND_CLIENT, Span},
    verdict::TraceParent,
};
use agentsight_tests::{
    engine::KIND_SERVER,
    gate::skip,
    live::{Live, mixed},
    program::root,
};
use serde_json::json;

const RESPONSES: usize = 12;

fn check(live: &Live, mode: &str) {
    let engine = live.engine(&[]);
    let (key, certificate) = live.certificate();
    let sendings = live.sendings(mixed(mode, 1));
    let trace = &sendings[0].trace;
    let status = Command::new("python3")
        .arg(root().join("tests/clients/websocket.py"))
        .args([&key, &certificate])
        .args([&trace.header(), mode, &RESPONSES.to_string()])
        .status();
    assert!(status.unwrap().success());
    let own = |spans: &[agentsight::demo::receiver::Span]| {
        let own = spans.iter().filter(|span| span.trace_id == trace.trace_id);
        own.cloned().collect::<Vec<_>>()
    };
    engine.wait_for_spans(Duration::from_secs(15), |spans| own(spans).len() >= RESPONSES);
    let finished = engine.stop();
    let spans = own(&finished.spans());
    assert_eq!(spans.len(), RESPONSES, "{mode}: {spans:#?}\n{}", finished.stderr);
    for (at, span) in spans.iter().enumerate() {
        assert_eq!(span.name, "chat gpt-5");
        for (name, value) in [
            ("gen_ai.response.id", json!(format!("resp_{}", at + 1))),
            ("gen_ai.response.model", json!("gpt-5-1")),
            ("gen_ai.usage.input_tokens", json!(101 + at)),
            ("gen_ai.usage.output_tokens", json!(1 + at)),
            ("gen_ai.response.finish_reasons", json!(["stop"])),
            ("http.response.status_code", json!(101)),
            ("server.address", json!("api.openai.com")),
        ] {
            assert_eq!(span.attributes.get(name), Some(&value), "{mode}: {name} of {span:#?}");
        }
        assert!(span.attributes["gen_ai.response.time_to_first_chunk"].as_f64().unwrap() > 0.0);
        assert!(!span.attributes.contains_key("agentsight.capture.incomplete"));
    }
    assert!(!finished.drops().contains_key("socket_given_up"), "{:?}", finished.drops());
}

#[test]
fn each_response_over_a_socket_is_a_span() {
    let Some(live) = Live::begin() else { return };
    check(&live, "plain");
    check(&live, "takeover");
}

/// RFC 8441: three sockets side by side on one connection, whose frames lie between each other.
#[test]
fn each_response_over_a_socket_inside_http2_is_a_span() {
    let Some(live) = Live::begin() else { return };
    if Command::new("node").arg("--version").output().is_err() {
        skip("this machine has no node");
        return;
    }
    let engine = live.engine(&["--role", "both"]);
    let (key, certificate) = live.certificate();
    let jobs =
        [("/v1/responses", false, 100), ("/v1/responses", true, 200), ("/v1/realtime?model=gpt-realtime", true, 300)];
    let traces = jobs.map(|_| TraceParent::random());
    let plan: Vec<_> = jobs
        .iter()
        .zip(&traces)
        .map(|((path, deflate, first), trace)| {
            json!({"path": path, "traceparent": trace.header(), "count": RESPONSES, "first": first, "deflate": deflate})
        })
        .collect();
    let script = root().join("tests/clients/websocket_http2.mjs");
    let status = Command::new("node").arg(script).args([&key, &certificate]).arg(json!(plan).to_string()).status();
    assert!(status.unwrap().success());
    let of = |spans: &[Span], kind: i32, trace: &TraceParent| {
        let own = spans.iter().filter(|span| span.kind == kind && span.trace_id == trace.trace_id);
        own.cloned().collect::<Vec<_>>()
    };
    let kinds = [KIND_CLIENT, KIND_SERVER];
    engine.wait_for_spans(Duration::from_secs(15), |spans| {
        traces.iter().all(|trace| kinds.iter().all(|kind| of(spans, *kind, trace).len() >= RESPONSES))
    });
    let finished = engine.stop();
    let all = finished.spans();
    for ((path, _, first), trace) in jobs.iter().zip(&traces) {
        let realtime = path.starts_with("/v1/realtime");
        for kind in kinds {
            let spans = of(&all, kind, trace);
            assert_eq!(spans.len(), RESPONSES, "{path}, kind {kind}: {spans:#?}\n{}", finished.stderr);
            for (number, span) in (*first..).zip(&spans) {
                assert_eq!(span.name, if realtime { "chat gpt-realtime" } else { "chat gpt-5" });
                assert_eq!(span.parent_span_id, trace.parent_id);
                for (name, value) in [
                    ("gen_ai.response.id", json!(format!("resp_{number}"))),
                    ("gen_ai.usage.input_tokens", json!(100 + number)),
                    ("gen_ai.usage.output_tokens", json!(number)),
                    ("gen_ai.response.finish_reasons", json!(["stop"])),
                    ("http.response.status_code", json!(200)),
                    ("server.address", json!("api.openai.com")),
                ] {
                    assert_eq!(span.attributes.get(name), Some(&value), "{path}: {name} of {span:#?}");
                }
                let model = (!realtime).then(|| json!("gpt-5-1"));
                assert_eq!(span.attributes.get("gen_ai.response.model"), model.as_ref());
                assert!(span.attributes["gen_ai.response.time_to_first_chunk"].as_f64().unwrap() > 0.0);
                assert!(!span.attributes.contains_key("agentsight.capture.incomplete"));
            }
        }
    }
    assert!(!finished.drops().contains_key("socket_given_up"), "{:?}", finished.drops());
}
