//! The command line: what it says, and what is run for it.

mod options;
mod record;
mod replay;
mod run;
mod stats;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use self::options::{CaptureOptions, OutputOptions};

/// Watches what processes say to LLM APIs, inside TLS and without changing them, and exports each call
/// as an OpenTelemetry GenAI span.
#[derive(Debug, Parser)]
#[command(name = "agentsight", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  agentsight demo                             real clients, a mock of LLM APIs, and their spans
  sudo agentsight trace                       show every LLM call on this machine
  sudo agentsight trace --otel                export them to http://localhost:4318
  sudo agentsight trace -- python3 agent.py   only those of one command and its children
  sudo agentsight record calls.rec            keep the raw bytes …
  agentsight replay calls.rec --json          … and look at them later, without privileges

OTEL_EXPORTER_OTLP_*, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*, OTEL_METRIC_EXPORT_*, \
OTEL_TRACES_SAMPLER, OTEL_ATTRIBUTE_*, OTEL_SPAN_ATTRIBUTE_* and the proxies of HTTPS_PROXY, HTTP_PROXY, \
ALL_PROXY and NO_PROXY are honoured; NO_COLOR turns colours off.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Capture LLM calls as they are made, and show or export them.
    Trace(trace::Options),
    /// Commands for looking closer; `debug trace` is `trace`.
    #[command(subcommand)]
    Debug(Debug),
    /// Write the raw captured bytes to a file, for `replay`.
    Record(record::Options),
    /// Make the spans of a recording, without privileges.
    Replay(replay::Options),
    /// Run real clients against a mock of LLM APIs, capture them, and check their spans.
    Demo,
}

/// Subcommands of `debug`.
#[derive(Debug, Subcommand)]
pub enum Debug {
    /// Capture LLM calls as they are made, and show or export them.
    Trace(trace::Options),
}

/// Runs the program; the exit code is 0 for success, 1 for a failure, 2 for wrong usage, or that of the
/// command that was run.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Trace(options) | Command::Debug(Debug::Trace(options)) => trace::run(options),
        Command::Record(options) => record::run(options),
        Command::Replay(options) => replay::run(options),
        Command::Demo => demo(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("agentsight: {error:#}");
            ExitCode::from(if error.is::<options::UsageError>() { 2 } else { 1 })
        }
    }
}

fn demo() -> anyhow::Result<ExitCode> {
    let right = crate::demo::run(|endpoint| {
        let running = run::Running::start(run::Plan::exporting_to(endpoint)?)?;
        Ok(move || {
            let outcome = running.stop(run::SHUTDOWN_MAX);
            Ok(crate::demo::Summary { drops: outcome.drops().map(|(name, count)| (name.to_owned(), count)).collect() })
        })
    })?;
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
