//! One run of the `agentsight` program from its start to its end.

use std::{
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::program::agentsight;

/// A run that takes longer has hung.
const RUN_DURATION_MAX: Duration = Duration::from_secs(120);

/// Runs `agentsight` with `arguments` and waits for its end; `change` sets up the process.
pub fn run(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(agentsight());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    change(&mut command);
    let began = Instant::now();
    let output = command.spawn().expect("agentsight starts").wait_with_output().expect("agentsight ends");
    assert!(began.elapsed() < RUN_DURATION_MAX, "{arguments:?} took {:?}", began.elapsed());
    output
}

/// What a run said on stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a run said on stdout.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
