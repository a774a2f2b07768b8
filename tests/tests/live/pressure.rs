//! Rings that fill because the engine gets no time: what is given up is told, and taken up again.

use std::{thread, time::Duration};

use agentsight::demo::{
    clients::Sending,
    receiver::Span,
    script::Script,
    talk::{Dialect, Talk},
};
use agentsight_tests::{
    drive,
    live::{Live, mixed, wait_for},
};
use serde_json::Value;

/// Each span of `sendings` with what it is the span of.
fn spans_of<'a>(spans: &'a [Span], sendings: &'a [Sending]) -> Vec<(&'a Span, &'a Sending)> {
    let of = |span: &Span| sendings.iter().find(|sending| sending.trace.trace_id == span.trace_id);
    spans.iter().filter_map(|span| Some((span, of(span)?))).collect()
}

/// Whatever a span says of its exchange is right, or it is not said. The scripts know nothing of content.
fn says_nothing_wrong(span: &Span, sending: &Sending) {
    let is_fact = |name: &str| name.starts_with("gen_ai.") && !name.ends_with("messages");
    for (name, expected) in sending.script.expected.attributes.iter().filter(|(name, _)| is_fact(name)) {
        let said = span.attributes.get(*name);
        let same =
            said.is_none_or(|said| said == expected || said.as_f64().is_some_and(|n| expected.as_f64() == Some(n)));
        assert!(same, "{name} is {said:?}, not {expected}");
    }
}

fn is_marked(span: &Span) -> bool {
    let marks = ["agentsight.capture.incomplete", "agentsight.capture.content_withheld"];
    marks.iter().any(|name| span.attributes.get(*name) == Some(&Value::Bool(true)))
}

#[test]
fn steps_are_taken_told_and_undone() {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&["--ring-size", "64K", "--otel-capture-content"]);
    // Messages that are large enough for head and tail to be all that is kept of them.
    let large = |number| {
        let text = "All work and no play. ".repeat(500);
        let talk = Talk { prompt: text.clone(), answer: text, ..Talk::numbered(Dialect::Chat, number) };
        Script::new(format!("large-{number}"), "", &talk)
    };
    // Each core has a ring of its own to be filled.
    let cores = thread::available_parallelism().map_or(1, usize::from).min(8);
    let many = live.sendings((0..40 * cores as i64).map(large));
    engine.signal("STOP");
    drive::send(&live, "threads", &many.chunks(4).collect::<Vec<_>>(), 1);
    engine.signal("CONT");
    // The steps are undone when there has been room for a second; what comes then is whole.
    thread::sleep(Duration::from_millis(2500));
    let after = live.sendings(mixed("after", 10));
    drive::send(&live, "threads", &[&after], 1);
    wait_for(&engine, &after);
    let finished = engine.stop();
    let spans = finished.spans();

    let whole = spans_of(&spans, &after);
    assert_eq!(whole.len(), after.len(), "{}", finished.stderr);
    for (span, sending) in whole {
        says_nothing_wrong(span, sending);
        assert!(!is_marked(span), "{span:#?}");
        let is_chat = sending.script.expected.attributes["gen_ai.operation.name"] == "chat";
        assert!(!is_chat || span.attributes.contains_key("gen_ai.output.messages"), "{span:#?}");
    }
    let drops = finished.drops();
    for cause in ["kernel.pressure_middle", "kernel.pressure_connection", "content_withheld"] {
        assert!(drops.contains_key(cause), "{cause} is not among {drops:?}\n{}", finished.stderr);
    }
    let told = ["half full", "three quarters full", "nearly full", "room again"]
        .map(|words| finished.stderr.find(words).unwrap_or_else(|| panic!("{words}: {}", finished.stderr)));
    assert!(told.is_sorted(), "{}", finished.stderr);
    for (span, sending) in spans_of(&spans, &many) {
        says_nothing_wrong(span, sending);
        assert!(is_marked(span) || span.attributes.contains_key("gen_ai.output.messages"), "{span:#?}");
    }
}
