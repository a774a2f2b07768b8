//! Measures what capturing costs the observed process.
//!
//! Wall-clock figures of one machine mean little on another, so everything is measured beside its
//! own floor in the same run, turn by turn, and told as medians and ratios.

mod calls;
mod discovery;
mod openssl;

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
    /// How soon after its first mapping a library has its probes (needs root)
    Discovery(discovery::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Calls(options) => calls::run(&options),
        Command::Discovery(options) => discovery::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}
