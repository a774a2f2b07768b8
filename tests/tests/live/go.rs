//! Go's own TLS: net/http as a client and as a server, and `tls.Conn` alone.

use std::collections::BTreeMap;

use agentsight::demo::{
    catalogue,
    receiver::{KIND_CLIENT, Span},
    script::Script,
    talk::{Dialect, Failure, Talk},
};
use agentsight_tests::{
    engine::KIND_SERVER,
    go::{self, Linking, Sender, Server, Toolchain},
    live::{ARRIVAL_DURATION_MAX, Live, judge, large, mixed},
};

/// The demo's catalogue and more, over connections that are kept alive, several at once.
fn http1(toolchain: Toolchain, linking: Linking) {
    let Some(live) = Live::begin() else { return };
    let Some(program) = go::build(toolchain, linking) else { return };
    let engine = live.engine(&[]);
    let sendings = live.sendings(catalogue::scripts().into_iter().chain(mixed("go", 24)));
    let (address, ca) = (live.mock.address().to_string(), live.mock.ca_pem().expect("a certificate"));
    let sender = Sender { concurrent: 4, ..Sender::default() };
    go::send(&engine, &program, (&address, ca), sender, &sendings, live.folder.path());
    live.conclude(engine, &sendings);
}

#[test]
fn http1_by_the_systems_go() {
    http1(Toolchain::System, Linking::Plain);
}

#[test]
fn http1_by_the_systems_go_stripped_and_linked_by_the_systems_linker() {
    http1(Toolchain::System, Linking::External);
}

#[test]
fn http1_by_the_current_go() {
    http1(Toolchain::Current, Linking::Plain);
}

#[test]
fn http1_by_the_current_go_stripped() {
    http1(Toolchain::Current, Linking::Stripped);
}

#[test]
fn http1_by_the_current_go_position_independent() {
    http1(Toolchain::Current, Linking::Pie);
}

/// Plain, streamed, refused, broken off and large, which a server of Go's own answers.
fn answered() -> Vec<Script> {
    let refused = Failure::Refused { status: 429, kind: "requests", code: Some("rate_limit_exceeded") };
    let failures = [
        Talk { failure: Some(refused), ..Talk::numbered(Dialect::Chat, 91) },
        Talk { failure: Some(Failure::CutOff), ..Talk::numbered(Dialect::Chat, 92).streamed() },
    ];
    let failures = failures.iter().enumerate().map(|(index, talk)| Script::new(format!("failure-{index}"), "", talk));
    let mut scripts = mixed("go2", 36);
    scripts.extend(failures);
    scripts.extend(large("go2-large").into_iter().take(2));
    scripts
}

/// Both sides by Go: a span of each for every exchange, which say the same.
fn both_sides(toolchain: Toolchain, linking: Linking, http2: bool, restless: bool) {
    both_sides_of(answered(), usize::MAX, (toolchain, linking), http2, restless);
}

/// The same of these scripts, each so many of which are another client's.
fn both_sides_of(
    scripts: Vec<Script>,
    for_each_client: usize,
    (toolchain, linking): (Toolchain, Linking),
    http2: bool,
    restless: bool,
) {
    let Some(live) = Live::begin() else { return };
    let Some(program) = go::build(toolchain, linking) else { return };
    let engine = live.engine(&["--role", "both"]);
    let sendings = live.sendings(scripts);
    let server = Server::start(&program, &sendings, live.folder.path(), restless);
    let sender = Sender { http2, concurrent: 8, raw: false, restless };
    for sendings in sendings.chunks(for_each_client.min(sendings.len())) {
        let peer = (server.address.as_str(), server.ca.as_path());
        let protocol = go::send(&engine, &program, peer, sender, sendings, live.folder.path());
        assert_eq!(protocol, if http2 { "HTTP/2.0" } else { "HTTP/1.1" });
    }
    let traces: Vec<&str> = sendings.iter().map(|sending| sending.trace.trace_id.as_str()).collect();
    let ours = |spans: &[Span]| {
        let ours = spans.iter().filter(|span| traces.contains(&span.trace_id.as_str())).cloned();
        ours.partition::<Vec<Span>, _>(|span| span.kind == KIND_CLIENT)
    };
    engine.wait_for_spans(ARRIVAL_DURATION_MAX, |spans| {
        let (clients, servers) = ours(spans);
        clients.len() >= sendings.len() && servers.len() >= sendings.len()
    });
    drop(server);
    let finished = engine.stop();
    let (clients, servers) = ours(&finished.spans());
    judge(&clients, &sendings);
    let said = |span: &Span| -> BTreeMap<String, String> {
        let said = span.attributes.iter().filter(|(name, _)| name.starts_with("gen_ai.") && !name.contains("time_to"));
        said.map(|(name, value)| (name.clone(), value.to_string())).collect()
    };
    for client in &clients {
        let of_trace: Vec<_> = servers.iter().filter(|span| span.trace_id == client.trace_id).collect();
        let [server] = of_trace[..] else { panic!("{} spans of the server: {client:#?}", of_trace.len()) };
        assert_eq!(server.kind, KIND_SERVER);
        assert_eq!(
            (said(server), server.status),
            (said(client), client.status),
            "{server:#?}\n{:?}\n{}",
            finished.drops(),
            finished.stderr
        );
    }
    let mut drops = finished.drops();
    // A connection of somebody else's, first met in the middle, may begin with a response.
    drops.remove("response_without_request");
    assert!(drops.is_empty(), "{drops:?}\n{}", finished.stderr);
}

#[test]
fn http2_by_the_systems_go() {
    both_sides(Toolchain::System, Linking::Plain, true, false);
}

#[test]
fn http2_by_the_current_go() {
    both_sides(Toolchain::Current, Linking::Stripped, true, false);
}

/// A goroutine that is stopped where a function begins will begin it again, while others go on to read.
#[test]
fn http2_by_the_current_go_with_goroutines_that_are_stopped() {
    both_sides(Toolchain::Current, Linking::Plain, true, true);
}

/// A client that has its last answer goes at once, so its connections may be closed by the server before
/// the write of that answer has returned.
#[test]
fn connections_that_end_with_their_last_answer() {
    let two = |client| large(&format!("go-end-{client}")).into_iter().take(2);
    both_sides_of((0..30).flat_map(two).collect(), 2, (Toolchain::Current, Linking::Plain), true, false);
}

#[test]
fn a_server_of_the_current_go() {
    both_sides(Toolchain::Current, Linking::Plain, false, false);
}

/// Reads into buffers on a goroutine's stack, which is moved while it grows.
#[test]
fn buffers_on_a_stack_that_moves() {
    let Some(live) = Live::begin() else { return };
    let Some(program) = go::build(Toolchain::Current, Linking::Plain) else { return };
    let engine = live.engine(&[]);
    let sendings = live.sendings(mixed("go-raw", 40));
    let (address, ca) = (live.mock.address().to_string(), live.mock.ca_pem().expect("a certificate"));
    let sender = Sender { concurrent: 4, raw: true, ..Sender::default() };
    go::send(&engine, &program, (&address, ca), sender, &sendings, live.folder.path());
    live.conclude(engine, &sendings);
}
