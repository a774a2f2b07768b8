//! Rings that fill because the engine gets no time: what is given up is told, and taken up again.

use std::{thread, time::Duration};

use agentsight::demo::{
    script::Script,
    talk::{Dialect, Talk},
};
use agentsight_tests::{
    drive,
    live::{Live, judge, mixed, wait_for},
};
use serde_json::Value;

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
    let of = |wanted: &[_]| -> Vec<_> {
        let traces: Vec<&str> =
            wanted.iter().map(|sending: &agentsight::demo::clients::Sending| sending.trace.trace_id.as_str()).collect();
        spans.iter().filter(|span| traces.contains(&span.trace_id.as_str())).cloned().collect()
    };
    judge(&of(&after), &after);

    let drops = finished.drops();
    for cause in ["kernel.pressure_middle", "kernel.pressure_connection", "content_withheld"] {
        assert!(drops.contains_key(cause), "{cause} is not among {drops:?}\n{}", finished.stderr);
    }
    let told: Vec<_> = ["half full", "three quarters full", "nearly full", "room again"]
        .iter()
        .map(|words| finished.stderr.find(words).unwrap_or_else(|| panic!("{words}: {}", finished.stderr)))
        .collect();
    assert!(told.is_sorted(), "{}", finished.stderr);
    // Whatever a span says of an exchange under pressure is right, or it is not said.
    for span in of(&many) {
        let says = |name: &str| span.attributes.get(name).cloned();
        let sending = many.iter().find(|sending| sending.trace.trace_id == span.trace_id).unwrap();
        let facts = |name: &str| name.starts_with("gen_ai.") && !name.ends_with("messages");
        for (name, expected) in sending.script.expected.attributes.iter().filter(|(name, _)| facts(name)) {
            let said = says(name);
            assert!(said.is_none() || said.as_ref() == Some(expected), "{name} is {said:?}, not {expected}");
        }
        let marks = ["agentsight.capture.incomplete", "agentsight.capture.content_withheld"];
        let marked = marks.iter().any(|name| says(name) == Some(Value::Bool(true)));
        assert!(marked || says("gen_ai.output.messages").is_some(), "{span:#?}");
    }
}
