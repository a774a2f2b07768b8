//! Exchanges, clients and engines that end before their time.

use std::{collections::BTreeMap, time::Duration};

use agentsight::demo::{
    receiver::STATUS_ERROR,
    script::Script,
    talk::{Dialect, Talk},
};
use agentsight_tests::{
    drive::{self, Drive},
    live::{Live, mixed, wait_for},
};
use serde_json::Value;

/// Streams that go on for longer than any client waits in these tests.
fn long_streams(prefix: &str) -> Vec<Script> {
    let stream = |number: i64| {
        let talk = Talk::numbered(Dialect::Chat, number).streamed();
        Script::new(format!("{prefix}-{number}"), "", &talk).paced(Duration::ZERO, Duration::from_secs(1))
    };
    (0..4).map(stream).collect()
}

#[test]
fn a_stream_that_the_client_cancels_is_no_error() {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&[]);
    let sendings = live.sendings(long_streams("cancelled"));
    drive::send(&live, "cancelling", &[&sendings], 1);
    assert!(wait_for(&engine, &sendings), "every cancelled stream gives a span");
    let finished = engine.stop();
    for sending in &sendings {
        let spans = finished.spans();
        let own: Vec<_> = spans.iter().filter(|span| span.trace_id == sending.trace.trace_id).collect();
        let [span] = own[..] else { panic!("{} spans", own.len()) };
        assert_eq!(span.status, 0, "{span:?}");
        assert_eq!(span.attributes.get("error.type"), None);
        assert_eq!(span.attributes["http.response.status_code"], 200);
        assert_eq!(
            span.attributes["gen_ai.response.id"],
            *sending.script.expected.attributes["gen_ai.response.id"].as_str().unwrap()
        );
        assert_eq!(span.attributes.get("gen_ai.usage.output_tokens"), None, "the count never came");
    }
    assert_eq!(finished.drops(), BTreeMap::new());
}

#[test]
fn a_process_that_is_gone_without_its_reply_gives_an_error() {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&[]);
    let scripts = mixed("vanished", 4).into_iter().map(|script| {
        // The mock is silent until the client is gone.
        script.paced(Duration::from_secs(3), Duration::ZERO)
    });
    let sendings = live.sendings(scripts);
    assert_eq!(Drive::start(&live, "vanishing", &[&sendings], 1).finish().len(), 4);
    assert!(wait_for(&engine, &sendings), "a request whose reply never comes gives a span");
    let finished = engine.stop();
    for sending in &sendings {
        let spans = finished.spans();
        let own: Vec<_> = spans.iter().filter(|span| span.trace_id == sending.trace.trace_id).collect();
        let [span] = own[..] else { panic!("{} spans", own.len()) };
        assert_eq!(span.name, sending.script.expected.name);
        assert_eq!(span.status, STATUS_ERROR, "{span:?}");
        assert!(span.attributes.contains_key("error.type"));
        assert_eq!(span.attributes.get("http.response.status_code"), None);
    }
}

#[test]
fn an_engine_that_is_killed_is_not_noticed_by_the_clients() {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&[]);
    let sendings = live.sendings(mixed("killed", 16));
    let mut drive = Drive::start(&live, "looping", &sendings.chunks(4).collect::<Vec<_>>(), 2);
    drive.wait_for("looping");
    assert!(engine.wait_for_spans(Duration::from_secs(15), |spans| spans.len() > 50), "spans while it lives");
    engine.signal("KILL");
    let status = engine.wait().status;
    assert!(!status.success());
    let served_then = live.mock.served().len();
    std::thread::sleep(Duration::from_secs(1));
    drive.go_on();
    let outcome = drive.finish();
    let [Value::Object(counts)] = &outcome[..] else { panic!("{outcome:?}") };
    assert_eq!(counts["failed"], 0);
    let served = live.mock.served();
    assert!(served.len() > served_then, "the clients went on");
    assert_eq!(counts["answered"], served.len());
    assert!(served.iter().all(|request| request.intact), "every request arrived as it was sent");

    // Nothing is left behind that is in the way of the next engine.
    let engine = live.engine(&[]);
    let sendings = live.sendings(mixed("after", 10));
    drive::send(&live, "threads", &[&sendings], 1);
    live.conclude(engine, &sendings);
}
