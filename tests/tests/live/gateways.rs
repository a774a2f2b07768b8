//! Gateways, which are servers and clients at once.

use std::{fs, path::Path, process::Command};

use agentsight_tests::{
    envoy::{self, Gateway},
    gate::skip,
    live::{Live, conclude_both_sides},
    matrix::{calls, plan, python, run},
};
use serde_json::json;

/// Envoy has BoringSSL inside, without symbols. What it was asked, over HTTP/1.1 or HTTP/2, and what it asked
/// in turn are a span each.
fn envoy(client: &str) {
    let Some(live) = Live::begin() else { return };
    let Some(program) = envoy::program() else {
        skip("there is no Envoy here");
        return;
    };
    let sendings = live.sendings(calls(client));
    let gateway = Gateway::start(&program, live.folder.path(), live.mock.address());
    let mut plan = plan(&live, &sendings);
    plan["port"] = json!(gateway.address.port());
    let engine = live.engine(&["--role", "both", "--pid", &gateway.pid().to_string()]);
    let file = fs::canonicalize(&program).expect("a path");
    engine.start_until_attached(&file, Command::new(&program).arg("--version"));
    run(&live, python(Path::new("python3"), client), &plan, &sendings);
    let finished = conclude_both_sides(engine, &sendings);
    let drops = finished.drops();
    assert!(drops.is_empty(), "{drops:?}\n{}", finished.stderr);
}

#[test]
fn envoy_over_http1() {
    envoy("curl-http1.1");
}

#[test]
fn envoy_over_http2() {
    envoy("curl-http2");
}
