//! WebSockets over the system's TLS library.

use std::{process::Command, time::Duration};

use agentsight_tests::{
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
