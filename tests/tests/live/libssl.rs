//! The system's libssl, used in every way that its interface allows.

use agentsight::demo::{clients::Sending, script::Script};
use agentsight_tests::{
    live::{Live, large, mixed},
    retry::{self, Outcome},
};

/// Large and small exchanges through the C client in `mode`; `verify` looks at what the client tells.
fn check(mode: &str, scripts: Vec<Script>, verify: impl FnOnce(&[Outcome])) {
    let Some(live) = Live::begin() else { return };
    let Some(program) = retry::build(live.folder.path()) else { return };
    let engine = live.engine(&[]);
    let sendings: Vec<Sending> = live.sendings(scripts);
    let outcomes = retry::send(&live, &program, mode, &sendings);
    verify(&outcomes);
    live.conclude(engine, &sendings);
}

fn was_retried(outcomes: &[Outcome]) {
    let retries: u64 = outcomes.iter().map(|outcome| outcome.retries).sum();
    assert!(retries > 0, "the client never had to retry: {outcomes:?}");
}

fn was_partial(outcomes: &[Outcome]) {
    assert!(outcomes.iter().all(|outcome| outcome.partial_writes > 0), "a write was never partial: {outcomes:?}");
}

fn same_object(outcomes: &[Outcome]) {
    let again = outcomes.windows(2).any(|pair| pair[0].ssl == pair[1].ssl);
    assert!(again, "no connection had the same SSL object as the one before: {outcomes:?}");
}

#[test]
fn a_write_that_is_retried() {
    check("retry", large("retry"), was_retried);
}

#[test]
fn a_write_that_is_partial() {
    check("partial", large("partial"), |outcomes| {
        was_retried(outcomes);
        was_partial(outcomes);
    });
}

#[test]
fn the_ex_calls() {
    check("ex", mixed("ex", 10), |_| {});
}

#[test]
fn the_ex_calls_retried_and_partial() {
    check("ex-partial", large("ex-partial"), |outcomes| {
        was_retried(outcomes);
        was_partial(outcomes);
    });
}

#[test]
fn an_object_that_is_cleared_for_the_next_connection() {
    check("clear", mixed("clear", 12), same_object);
}

#[test]
fn an_object_at_the_address_of_one_that_was_freed() {
    check("free", mixed("free", 12), same_object);
}

#[test]
fn bytes_that_are_peeked_at_before_they_are_read() {
    check("peek", mixed("peek", 8), |_| {});
}

#[test]
fn reads_of_three_bytes() {
    check("tiny", mixed("tiny", 5), |_| {});
}

#[test]
fn writes_straight_from_a_file_that_is_mapped() {
    check("mapped", [large("mapped"), mixed("mapped-small", 6)].concat(), |_| {});
}
