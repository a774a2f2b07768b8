//! rustls as a server: the mock's, which is in this very process.

use std::{env, fs, process::Command};

use agentsight::demo::receiver::{KIND_CLIENT, Span};
use agentsight_tests::{
    engine::KIND_SERVER,
    live::{ARRIVAL_DURATION_MAX, Live, judge, mixed},
    matrix::{plan, run},
    rustls::{Build, build},
};

/// A span of each side for every exchange, which say the same.
#[test]
fn both_sides() {
    let Some(live) = Live::begin() else { return };
    let program = build(Build { profile: "release", ciphers: "ring", stripped: false });
    let sendings = live.sendings(mixed("rustls", 40));
    let engine = live.engine(&["--role", "both"]);
    engine.wait_until_attached(&fs::canonicalize(env::current_exe().expect("a path")).expect("a file"));
    engine.start_until_attached(&fs::canonicalize(&program).expect("a file"), Command::new(&program).arg("--idle"));
    run(&live, Command::new(&program), &plan(&live, &sendings), &sendings);
    let of_kind = |spans: &[Span], kind: i32| -> Vec<Span> {
        let is_ours =
            |span: &&Span| sendings.iter().any(|sending| sending.trace.trace_id == span.trace_id) && span.kind == kind;
        spans.iter().filter(is_ours).cloned().collect()
    };
    engine.wait_for_spans(ARRIVAL_DURATION_MAX, |spans| {
        [KIND_CLIENT, KIND_SERVER].iter().all(|&kind| of_kind(spans, kind).len() >= sendings.len())
    });
    let finished = engine.stop();
    judge(&of_kind(&finished.spans(), KIND_CLIENT), &sendings);
    // Of what is judged, the server's spans have only their kind different.
    let served = of_kind(&finished.spans(), KIND_SERVER).into_iter();
    judge(&served.map(|span| Span { kind: KIND_CLIENT, ..span }).collect::<Vec<_>>(), &sendings);
    let mut drops = finished.drops();
    // A connection of somebody else's, first met in the middle, may begin with a response.
    drops.remove("response_without_request");
    assert!(drops.is_empty(), "{drops:?}\n{}", finished.stderr);
}
