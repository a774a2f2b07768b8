//! HTTP/2: the recorded exchanges, many at once on each connection.

use std::{collections::BTreeMap, time::Duration};

use agentsight::demo::receiver::{KIND_CLIENT, Span};
use agentsight_tests::{
    corpus::{self, Planned, judge, judge_midway},
    engine::{Engine, Finished, KIND_SERVER},
    http2::{Client, Peers},
    live::Live,
};

/// How long spans may take to come out after the last reply.
const ARRIVAL_DURATION_MAX: Duration = Duration::from_secs(10);

/// Waits for the spans of `plan`, and stops the engine.
fn stop(engine: Engine, plan: &[Planned]) -> Finished {
    engine.wait_for_spans(ARRIVAL_DURATION_MAX, |spans: &[Span]| {
        let traces = corpus::traces(spans);
        plan.iter().all(|planned| traces.contains(planned.trace_id.as_str()))
    });
    let finished = engine.stop();
    corpus::no_secret(&finished.stdout);
    finished
}

fn exact(spans: &[Span], kind: i32, plan: &[Planned]) {
    let score = judge(spans, kind, plan);
    println!("{} of {} are exact", score.exact, plan.len());
    let complete = score.faults.is_empty() && score.missing.is_empty() && score.absent == 0;
    assert!(complete, "{} absent, missing {:?}, {}", score.absent, score.missing, corpus::summary(&score.faults));
}

fn check(client: Client, connections: usize, seed: u64) {
    let Some(live) = Live::begin() else { return };
    let Some(folder) = corpus::folder() else { return };
    let plan = corpus::plan(&folder, seed, connections, 1);
    assert!(plan.len() > 900, "only {} exchanges", plan.len());
    let Some(mut peers) = Peers::start(client, &plan, live.folder.path()) else { return };
    // Others on this machine speak over plain sockets too, and what is lost of that is not asked about.
    let pids = format!("{},{}", peers.client_pid(), peers.server_pid());
    let engine = live.engine(&["--role", "both", "--pid", &pids]);
    peers.send_phase();
    let finished = stop(engine, &plan);
    let spans = finished.spans();
    exact(&spans, KIND_CLIENT, &plan);
    exact(&spans, KIND_SERVER, &plan);
    let mut drops = finished.drops();
    // A connection of somebody else's, first met in the middle, may begin with a response.
    drops.remove("response_without_request");
    assert!(drops.is_empty(), "{drops:?}\n{}", finished.stderr);
}

#[test]
fn one_connection_of_node() {
    check(Client::Node, 1, 1);
}

#[test]
fn many_connections_of_node() {
    check(Client::Node, 8, 2);
}

#[test]
fn many_connections_of_node_without_tls() {
    check(Client::NodePlain, 4, 5);
}

#[test]
fn many_connections_of_httpx() {
    check(Client::Httpx, 8, 3);
}

/// Of a connection whose start nobody saw, header fields may stay unknown, but none is wrong. Encoders differ:
/// some refer to the name of `traceparent` by their newest entry that has it, and that is known by its
/// predecessor, and so on back to one that was not seen; then no span has a parent.
fn midway(client: Client) {
    const PHASES: usize = 3;
    let Some(live) = Live::begin() else { return };
    let Some(folder) = corpus::folder() else { return };
    let plan = corpus::plan(&folder, 4, 4, PHASES);
    let Some(mut peers) = Peers::start(client, &plan, live.folder.path()) else { return };
    peers.send_phase();
    let engine = live.engine(&[]);
    for _ in 1..PHASES {
        peers.send_phase();
    }
    let (unwatched, watched): (Vec<_>, Vec<_>) = plan.into_iter().partition(|planned| planned.phase == 0);
    let pid = peers.client_pid();
    let own = |spans: &[Span]| spans.iter().filter(|span| span.attributes["process.pid"] == pid).count();
    engine.wait_for_spans(ARRIVAL_DURATION_MAX, |spans| own(spans) >= watched.len());
    let mut spans = engine.stop().spans();
    spans.retain(|span| span.attributes["process.pid"] == pid);
    let score = judge_midway(&spans, KIND_CLIENT, &watched);
    println!(
        "{} of {} are exact, {} absent, missing {:?}",
        score.exact,
        watched.len(),
        score.absent,
        tally(&score.missing)
    );
    assert!(score.faults.is_empty(), "{}", corpus::summary(&score.faults));
    assert!(score.absent * 10 < watched.len(), "nothing is known of {} of {}", score.absent, watched.len());
    let unseen = judge(&spans, KIND_CLIENT, &unwatched);
    assert_eq!(unseen.absent, unwatched.len(), "spans out of nothing");
}

fn tally(names: &[String]) -> BTreeMap<&str, usize> {
    let mut tally = BTreeMap::new();
    names.iter().for_each(|name| *tally.entry(name.as_str()).or_default() += 1);
    tally
}

#[test]
fn node_that_was_connected_before_the_engine_came() {
    midway(Client::Node);
}

#[test]
fn httpx_that_was_connected_before_the_engine_came() {
    midway(Client::Httpx);
}
