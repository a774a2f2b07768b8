//! Measures what capturing costs the observed process, what is lost when, and what the engine takes.
//!
//! Wall-clock figures of one machine mean little on another, so everything is measured beside its
//! own floor in the same run, turn by turn, and told as medians and ratios. docs/benchmarking.md says
//! how to measure a gateway of one's own, and what the figures mean.

mod attached;
mod calls;
mod discovery;
mod facts;
mod gateway;
mod icount;
mod idle;
mod load;
mod loss;
mod numbers;
mod openssl;
mod overhead;
mod page;
mod pipeline;
mod probes;
mod process;
mod reply;
mod report;
mod rings;
mod sink;
mod study;
mod svg;

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
    /// How soon after its first mapping a library has its probes (needs root)
    Discovery(discovery::Options),
    /// Instructions of one exchange for fixed inputs, against perf/budget.toml (needs valgrind)
    Icount(icount::Options),
    /// Bytes and exchanges a second of the user-space side, beside its floors
    Pipeline(pipeline::Options),
    /// What a saturated gateway and single calls cost: nothing attached, empty probes, agentsight, a peer
    Overhead(overhead::Options),
    /// Spans exported against calls made, from a tenth of the load to beyond it
    Loss(loss::Options),
    /// What the engine takes when little goes on, and what a second worker is good for
    Idle(idle::Options),
    /// What is found in files, and how long looking for it takes
    Study(study::Options),
    /// All of it, written to a folder with the machine's facts
    Report(report::Options),
    /// The observed server, for the other commands
    #[command(hide = true)]
    Gateway(gateway::Options),
    /// Processes that do nothing, for `idle`
    #[command(hide = true)]
    Sleepers { count: usize },
}

/// The flags of a command as they are when only `flags` are given.
fn defaults<T: clap::Args>(flags: &[&str]) -> anyhow::Result<T> {
    let command = T::augment_args(clap::Command::new("perf"));
    let matches = command.try_get_matches_from(std::iter::once("perf").chain(flags.iter().copied()))?;
    Ok(T::from_arg_matches(&matches)?)
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Icount(options) => icount::run(&options),
        Command::Pipeline(options) => pipeline::run(&options),
        Command::Overhead(options) => overhead::run(&options),
        Command::Loss(options) => loss::run(&options),
        Command::Idle(options) => idle::run(&options),
        Command::Study(options) => study::run(&options),
        Command::Report(options) => report::run(&options),
        Command::Gateway(options) => gateway::run(&options),
        Command::Sleepers { count } => idle::sleep(count),
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
