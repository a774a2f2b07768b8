//! What is to be captured, and from whom.

use agentsight_tests::{
    drive::{self, Drive},
    live::{Live, judge, mixed, wait_for},
};

#[test]
fn by_pid() {
    let Some(live) = Live::begin() else { return };
    let wanted = live.sendings(mixed("wanted", 10));
    let unwanted = live.sendings(mixed("unwanted", 10));
    let mut drive = Drive::start(&live, "waiting", &[&wanted], 1);
    drive.wait_for("waiting");
    let engine = live.engine(&["--pid", &drive.pid().to_string()]);
    drive::send(&live, "threads", &[&unwanted], 1);
    drive.go_on();
    drive.finish();
    wait_for(&engine, &wanted[1..]);
    let spans = engine.stop().spans();
    judge(&spans, &wanted[1..]);
    assert_eq!(spans.len(), 9, "spans of others: {spans:#?}");
}

#[test]
fn by_command() {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&["--comm", "curl,nobody"]);
    let wanted = live.sendings(mixed("wanted", 6));
    let unwanted = live.sendings(mixed("unwanted", 6));
    drive::send(&live, "threads", &[&unwanted], 1);
    agentsight::demo::clients::send_all(
        agentsight::demo::clients::Program::Curl,
        &live.mock,
        &wanted,
        live.folder.path(),
    )
    .unwrap();
    wait_for(&engine, &wanted);
    let spans = engine.stop().spans();
    judge(&spans, &wanted);
    assert_eq!(spans.len(), 6, "spans of others: {spans:#?}");
}

#[test]
fn by_user() {
    let Some(live) = Live::begin() else { return };
    // Nobody has this id, so nobody is captured.
    let engine = live.engine(&["--uid", "4000000000"]);
    let unwanted = live.sendings(mixed("unwanted", 6));
    drive::send(&live, "threads", &[&unwanted], 1);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let finished = engine.stop();
    assert_eq!(finished.spans(), []);
    assert!(finished.drops().is_empty());
}
