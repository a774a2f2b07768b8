//! Connections, threads and CPUs in every relation to each other.

use agentsight_tests::{
    drive,
    live::{Live, mixed},
};

/// `connections` connections with `requests` requests each, in the given mode.
fn check(mode: &str, connections: i64, requests: usize, pieces: usize) {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&[]);
    let count = connections * i64::try_from(requests).unwrap();
    let sendings = live.sendings(mixed(mode, count));
    drive::send(&live, mode, &sendings.chunks(requests).collect::<Vec<_>>(), pieces);
    live.conclude(engine, &sendings);
}

#[test]
fn sixty_four_connections_at_once() {
    check("threads", 64, 8, 2);
}

#[test]
fn threads_that_move_between_cpus() {
    check("hopping", 8, 12, 6);
}

#[test]
fn many_connections_on_one_thread() {
    check("interleaved", 16, 6, 5);
}

#[test]
fn one_connection_over_many_threads() {
    check("handed_on", 2, 20, 4);
}

#[test]
fn requests_that_do_not_wait_for_replies() {
    check("pipelined", 4, 10, 3);
}
