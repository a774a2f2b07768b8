//! rustls as a server: the mock's, which is in this very process.

use std::{env, fs, process::Command};

use agentsight_tests::{
    live::{Live, conclude_both_sides, mixed},
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
    let finished = conclude_both_sides(engine, &sendings);
    let mut drops = finished.drops();
    // A connection of somebody else's, first met in the middle, may begin with a response.
    drops.remove("response_without_request");
    assert!(drops.is_empty(), "{drops:?}\n{}", finished.stderr);
}
