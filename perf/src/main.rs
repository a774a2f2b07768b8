//! Measures what capturing costs the observed process.
//!
//! Wall-clock figures of one machine mean little on another, so everything is measured beside its
//! own floor in the same run, turn by turn, and told as medians and ratios.

mod calls;
mod icount;
mod openssl;
mod pipeline;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures agentsight.
#[derive(Parser)]
#[command(name = "perf", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Cost of one SSL_write and one SSL_read by payload size, with and without capture (needs root)
    Calls(calls::Options),
    /// Instructions of one exchange for fixed inputs, against perf/budget.toml (needs valgrind)
    Icount(icount::Options),
    /// Bytes and exchanges a second of the user-space side, beside its floors
    Pipeline(pipeline::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Calls(options) => calls::run(&options),
        Command::Icount(options) => icount::run(&options),
        Command::Pipeline(options) => pipeline::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}
