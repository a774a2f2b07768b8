//! Bodies of every size, in both directions.

use agentsight::demo::{
    script::{Coding, Framing, Script},
    talk::{Dialect, Talk},
};
use agentsight_tests::{
    drive,
    live::{Live, judge, wait_for},
    retry,
};
use serde_json::{Value, json};

/// Around the sizes of TLS records, of pages, and of the ring's size classes. With its head the last is
/// just within the 4 MiB that are captured of one call.
const SIZES: [usize; 16] = [
    0, 1, 100, 4_000, 4_096, 16_383, 16_384, 16_385, 40_000, 65_536, 100_000, 262_144, 500_000, 1_048_576, 2_500_000,
    4_193_280,
];

/// One exchange for each size, with a text of that size in the request, or in the reply.
fn sized(prefix: &str, in_request: bool, change: impl Fn(Talk) -> Talk) -> Vec<Script> {
    let script = |(number, &size): (usize, &usize)| {
        let text = "All work and no play. ".chars().cycle().take(size).collect();
        let talk = Talk::numbered(Dialect::Chat, i64::try_from(number).unwrap());
        let talk = if in_request { Talk { prompt: text, ..talk } } else { Talk { answer: text, ..talk } };
        Script::new(format!("{prefix}-{size}"), "", &change(talk))
    };
    SIZES.iter().enumerate().map(script).collect()
}

fn check(scripts: Vec<Script>, pieces: usize) {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&[]);
    let sendings = live.sendings(scripts);
    drive::send(&live, "threads", &sendings.chunks(4).collect::<Vec<_>>(), pieces);
    live.conclude(engine, &sendings);
}

#[test]
fn of_requests() {
    check(sized("request", true, |talk| talk), 1);
}

#[test]
fn of_requests_in_many_pieces() {
    check(sized("request-pieces", true, |talk| talk), 37);
}

#[test]
fn of_replies() {
    check(sized("reply", false, |talk| talk), 1);
}

#[test]
fn of_replies_in_chunks() {
    let chunked = |script: Script| script.framed(Framing::Chunked).cut_into(10_000);
    check(sized("reply-chunks", false, |talk| talk).into_iter().map(chunked).collect(), 1);
}

#[test]
fn of_replies_in_gzip() {
    let coded = |script: Script| script.cut_into(100_000).coded(Coding::Gzip).framed(Framing::Chunked);
    check(sized("reply-gzip", false, |talk| talk).into_iter().map(coded).collect(), 1);
}

#[test]
fn of_streams() {
    check(sized("stream", false, Talk::streamed), 1);
}

/// What is beyond the budget of one call is cut out of its middle, and the span says so.
#[test]
fn of_a_call_beyond_the_budget() {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&[]);
    let long = Talk { prompt: "All work and no play. ".repeat(300_000), ..Talk::numbered(Dialect::Chat, 3) };
    let sendings =
        live.sendings([Script::new("beyond", "", &long), Script::new("next", "", &Talk::numbered(Dialect::Chat, 4))]);
    drive::send(&live, "threads", &[&sendings], 1);
    assert!(wait_for(&engine, &sendings));
    let spans = engine.stop().spans();
    judge(&spans, &sendings[1..]);
    let span = spans.iter().find(|span| span.trace_id == sendings[0].trace.trace_id).unwrap();
    assert_eq!(span.attributes["agentsight.capture.incomplete"], true);
    let lost = span.attributes["agentsight.capture.lost_bytes"].as_u64().unwrap();
    let beyond = sendings[0].script.request.body.len() as u64 - 4 * 1024 * 1024;
    assert!((beyond..beyond + 1024 * 1024).contains(&lost), "{lost} bytes are lost, {beyond} are too many");
    // What the request said in its lost middle may be absent, and the reply is whole.
    for (name, value) in sendings[0].script.expected.attributes.iter().filter(|(name, _)| name.contains("usage")) {
        assert_eq!(span.attributes.get(*name).unwrap_or(&Value::Null), value, "{name}");
    }
}

/// No script of the demo has an empty body, which is what a proxy sends that has nothing to say.
#[test]
fn of_nothing() {
    let mut script = Script::new("empty", "", &Talk::numbered(Dialect::Chat, 1));
    script.reply.status = 503;
    script.reply.pieces.clear();
    script.expected.error = true;
    let expected = &mut script.expected.attributes;
    expected.retain(|name, _| !name.starts_with("gen_ai.response.") && !name.starts_with("gen_ai.usage."));
    expected.insert("http.response.status_code", json!(503));
    expected.insert("error.type", json!("503"));
    expected.insert("gen_ai.response.id", Value::Null);
    expected.insert("gen_ai.usage.input_tokens", Value::Null);
    check(vec![script], 1);
}

/// One call that writes 4 MiB and one that reads it: what Python never does.
#[test]
fn of_one_call() {
    let Some(live) = Live::begin() else { return };
    let Some(program) = retry::build(live.folder.path()) else { return };
    let engine = live.engine(&[]);
    let mut scripts = sized("call-request", true, |talk| talk);
    scripts.extend(sized("call-reply", false, |talk| talk));
    let sendings = live.sendings(scripts);
    retry::send(&live, &program, "whole", &sendings);
    live.conclude(engine, &sendings);
}
