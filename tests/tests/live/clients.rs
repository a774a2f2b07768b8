//! Each of the real clients, through every kind of exchange.

use agentsight::demo::{
    catalogue,
    clients::{Program, found, send_all},
};
use agentsight_tests::{drive, gate::skip, live::Live};

/// The demo's whole catalogue through one of its clients.
fn check(program: Program) {
    let Some(live) = Live::begin() else { return };
    if !found().iter().any(|client| client.program == program) {
        skip(&format!("this machine has no {}", program.name()));
        return;
    }
    let engine = live.engine(&[]);
    let sendings = live.sendings(catalogue::scripts());
    send_all(program, &live.mock, &sendings, live.folder.path()).unwrap();
    live.conclude(engine, &sendings);
}

#[test]
fn curl() {
    check(Program::Curl);
}

#[test]
fn python_blocking() {
    check(Program::Python);
}

#[test]
fn openssl_s_client() {
    check(Program::Openssl);
}

#[test]
fn python_asyncio() {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&[]);
    let sendings = live.sendings(agentsight_tests::live::mixed("asyncio", 60));
    drive::send(&live, "tasks", &sendings.chunks(10).collect::<Vec<_>>(), 3);
    live.conclude(engine, &sendings);
}

#[test]
fn a_client_that_was_connected_before_the_engine_came() {
    let Some(live) = Live::begin() else { return };
    let sendings = live.sendings(agentsight_tests::live::mixed("before", 20));
    let connections: Vec<_> = sendings.chunks(5).collect();
    let mut drive = drive::Drive::start(&live, "waiting", &connections, 2);
    drive.wait_for("waiting");
    let engine = live.engine(&[]);
    drive.go_on();
    assert_eq!(drive.finish().len(), 16);
    // The first request of each connection was made before anybody watched.
    let watched: Vec<_> = connections.iter().flat_map(|sendings| &sendings[1..]).cloned().collect();
    let spans = live.conclude(engine, &watched).spans();
    for unwatched in connections.iter().map(|sendings| &sendings[0]) {
        assert!(spans.iter().all(|span| span.trace_id != unwatched.trace.trace_id), "a span out of nothing");
    }
}
