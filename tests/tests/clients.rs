//! The tests' own clients, without an engine: what they are said to do is what they do.

use agentsight_tests::{
    drive,
    live::{Live, large, mixed},
    retry,
};

fn check_drive(mode: &str) {
    let live = Live::unwatched();
    let sendings = live.sendings(mixed(mode, 20));
    drive::send(&live, mode, &sendings.chunks(5).collect::<Vec<_>>(), 3);
    let served = live.mock.served();
    assert_eq!(served.len(), sendings.len());
    for sending in &sendings {
        let found = served.iter().find(|served| served.id == sending.script.id).expect("it was served");
        assert!(found.intact, "{} arrived otherwise than it was sent", found.id);
        assert_eq!(found.traceparent, Some(sending.trace.header()));
    }
}

#[test]
fn every_way_to_drive_connections_reaches_the_mock() {
    for mode in ["threads", "hopping", "interleaved", "handed_on", "pipelined", "tasks"] {
        check_drive(mode);
    }
}

#[test]
fn every_way_to_use_libssl_reaches_the_mock() {
    let live = Live::unwatched();
    let Some(program) = retry::build(live.folder.path()) else { return };
    for mode in ["whole", "retry", "partial", "ex", "ex-partial", "clear", "free", "peek", "tiny"] {
        let sendings = live.sendings(mixed(mode, 6).into_iter().chain(large(&format!("{mode}-large"))));
        let outcomes = retry::send(&live, &program, mode, &sendings);
        let nonblocking = ["retry", "partial", "ex-partial"].contains(&mode);
        assert_eq!(outcomes.iter().any(|outcome| outcome.retries > 0), nonblocking, "{mode}: {outcomes:?}");
        let partial = outcomes.iter().any(|outcome| outcome.partial_writes > 0);
        assert_eq!(partial, mode.ends_with("partial"), "{mode}: {outcomes:?}");
    }
    assert!(live.mock.served().iter().all(|served| served.intact));
}
