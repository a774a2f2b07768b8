//! HTTP without TLS, over TCP and UNIX sockets.

use std::time::Duration;

use agentsight::demo::{
    clients::{Program, Sending, send_all},
    mock::Mock,
};
use agentsight_tests::{
    engine::KIND_SERVER,
    live::{Live, large, mixed},
    prepared::{conclude, plan, run},
};

/// A mock without TLS that serves `scripts`.
fn plain(live: &mut Live, scripts: impl IntoIterator<Item = agentsight::demo::script::Script>) -> Vec<Sending> {
    live.mock = Mock::start_plain([]).expect("a mock");
    live.sendings(scripts)
}

#[test]
fn curl() {
    let Some(mut live) = Live::begin() else { return };
    let sendings = plain(&mut live, mixed("plain-curl", 20));
    let engine = live.engine(&["--role", "both"]);
    send_all(Program::Curl, &live.mock, &sendings, live.folder.path()).unwrap();
    let port = live.mock.address().port();
    assert!(engine.wait_for_spans(Duration::from_secs(15), |spans| {
        sendings.iter().all(|own| spans.iter().filter(|span| span.trace_id == own.trace.trace_id).count() == 2)
    }));
    let finished = conclude(engine, &sendings);
    for span in finished.spans().iter().filter(|span| sendings.iter().any(|own| own.trace.trace_id == span.trace_id)) {
        let text = |name: &str| span.attributes.get(name).cloned().unwrap_or_default();
        assert_eq!(text("network.peer.address"), "127.0.0.1", "{span:?}");
        if span.kind == KIND_SERVER {
            assert_eq!(text("client.address"), "127.0.0.1");
            assert_eq!(text("client.port"), text("network.peer.port"));
        } else {
            assert_eq!(text("network.peer.port"), port);
            assert_eq!(text("process.executable.name"), "curl");
        }
        // The request names a host without a port; the kernel knows which one it was.
        assert_eq!(text("server.port"), port, "{span:?}");
    }
}

#[test]
fn python() {
    let Some(mut live) = Live::begin() else { return };
    let sendings =
        plain(&mut live, mixed("plain-python", 20).into_iter().chain(large("plain-python-large").into_iter().take(2)));
    let engine = live.engine(&[]);
    send_all(Program::Python, &live.mock, &sendings, live.folder.path()).unwrap();
    conclude(engine, &sendings);
}

#[test]
fn node() {
    let Some(mut live) = Live::begin() else { return };
    let sendings = plain(&mut live, mixed("plain-node", 20));
    let engine = live.engine(&[]);
    run(&["node"], "plain.mjs", &plan(&live, "", &sendings));
    conclude(engine, &sendings);
}

#[test]
fn every_system_call() {
    let Some(mut live) = Live::begin() else { return };
    let sendings = plain(&mut live, mixed("plain-calls", 24));
    let engine = live.engine(&[]);
    run(&["python3"], "plain.py", &plan(&live, "calls", &sendings));
    conclude(engine, &sendings);
}

#[test]
fn descriptors_that_change_hands() {
    let Some(mut live) = Live::begin() else { return };
    let sendings = plain(&mut live, mixed("plain-descriptors", 12));
    let engine = live.engine(&[]);
    run(&["python3"], "plain.py", &plan(&live, "descriptors", &sendings));
    conclude(engine, &sendings);
}

#[test]
fn unix_sockets() {
    let Some(mut live) = Live::begin() else { return };
    let sendings = plain(&mut live, mixed("plain-unix", 12));
    let engine = live.engine(&[]);
    run(&["python3"], "plain.py", &plan(&live, "unix", &sendings));
    let finished = conclude(engine, &sendings);
    for span in finished.spans().iter().filter(|span| span.trace_id == sendings[0].trace.trace_id) {
        let peer = span.attributes["network.peer.address"].as_str().expect("a path");
        assert!(peer.ends_with("/llm.sock"), "{peer}");
        assert!(!span.attributes.contains_key("network.peer.port"));
    }
}

#[test]
fn connections_from_before_the_start() {
    let Some(mut live) = Live::begin() else { return };
    let sendings = plain(&mut live, mixed("plain-before", 6));
    let mut drive = agentsight_tests::drive::Drive::start(&live, "waiting", &[&sendings], 1);
    drive.wait_for("waiting");
    let engine = live.engine(&[]);
    drive.go_on();
    drive.finish();
    conclude(engine, &sendings[1..]);
}

#[test]
fn it_can_be_left_out() {
    let Some(mut live) = Live::begin() else { return };
    let sendings = plain(&mut live, mixed("plain-off", 4));
    let engine = live.engine(&["--no-plain"]);
    send_all(Program::Curl, &live.mock, &sendings, live.folder.path()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(engine.stop().spans(), []);
}

#[test]
fn tls_is_seen_once_and_with_its_address() {
    let Some(live) = Live::begin() else { return };
    let sendings = live.sendings(mixed("tls-address", 6));
    let engine = live.engine(&[]);
    send_all(Program::Curl, &live.mock, &sendings, live.folder.path()).unwrap();
    let finished = conclude(engine, &sendings);
    let port = live.mock.address().port();
    for span in finished.spans().iter().filter(|span| sendings.iter().any(|own| own.trace.trace_id == span.trace_id)) {
        assert_eq!(span.attributes["network.peer.address"], "127.0.0.1", "{span:?}");
        assert_eq!(span.attributes["network.peer.port"], port);
    }
}
