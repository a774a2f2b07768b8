//! `agentsight trace`: capture, and show or export.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitCode, ExitStatus},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;

use super::{
    options::{CaptureOptions, OutputOptions},
    run::{Ended, Plan, Running, SHUTDOWN_MAX, log, summary, tell_end},
    stats,
};
use crate::{
    log::Log,
    metrics::Metrics,
    spool,
    sys::{
        signals, spawn,
        wait::{Waiter, Waker},
    },
};

/// How often it is looked whether the command has ended.
const LOOK: Duration = Duration::from_millis(20);
/// How often an end other than a signal is looked for when there is no command.
const LOOK_ALONE: Duration = Duration::from_millis(500);

/// Flags of `trace`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
With a command after `--`, only it and its children are captured, from their first byte on; it runs as the \
user who called sudo, and its exit code is passed on.

Exit codes: 0 after an orderly end, 1 when capturing is not possible, 2 for wrong usage, otherwise that of the \
command.")]
pub struct Options {
    #[command(flatten)]
    output: OutputOptions,
    #[command(flatten)]
    capture: CaptureOptions,
    /// Run this command and capture it and its children only
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs until a signal, the duration's end, the command's end, or nobody reads any more.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let by_command = !options.command.is_empty();
    let export = options.output.export()?;
    let exports = export.spans.is_some();
    let settings = options.capture.settings(by_command, options.output.role)?;
    let log = log(options.capture.quiet);
    for warning in &export.warnings {
        log.warn(warning);
    }
    let stop = Waker::new()?;
    signals::stop_on_signal(stop.clone())?;
    let counters = Arc::new(Metrics::default());
    let server = options.output.serve(&counters)?;
    if let Some(server) = &server {
        log.info(&format!("metrics are at http://{}/metrics", server.address()));
    }
    let running = Running::start(Plan {
        capture: settings,
        roles: options.output.role,
        call: options.output.call(),
        idle: options.output.idle_timeout,
        spool: options.output.spool(spool::default_folder())?.filter(|_| exports),
        otlp: export.spans,
        metrics: export.metrics,
        lines: options.output.style(options.capture.quiet),
        counters,
        log: log.clone(),
    })?;
    for (path, functions, users) in &running.started.targets {
        log.info(&format!("attached to {} ({functions} functions, {users} processes)", path.display()));
    }
    if running.started.targets.is_empty() {
        log.info("no TLS library is mapped yet; it is attached to as soon as a process maps one");
    }
    let child = by_command.then(|| start_command(&running, options)).transpose()?;
    log.info("ready");
    let status = wait(&running, child, options.capture.duration, &stop)?;
    let failed = running.has_failed();
    let ended = running.stop(SHUTDOWN_MAX);
    conclude(options, &log, &ended, exports)?;
    anyhow::ensure!(!failed, "the capture failed while it ran");
    Ok(status.map_or(ExitCode::SUCCESS, exit_code))
}

fn start_command(running: &Running, options: &Options) -> anyhow::Result<Child> {
    // The command is a child of this process, and children of chosen processes are chosen before
    // they run; this process itself is never captured.
    running.choose_process(std::process::id())?;
    let (program, arguments) = options.command.split_first().expect("there is a command");
    let mut command = Command::new(program);
    command.args(arguments);
    spawn::with_open_files_as_before(&mut command);
    spawn::as_invoking_user(&mut command);
    command.spawn().with_context(|| format!("can't run {}", program.to_string_lossy()))
}

/// Waits for whatever ends the run; of a command, its exit status.
fn wait(
    running: &Running,
    mut child: Option<Child>,
    duration: Option<Duration>,
    stop: &Waker,
) -> anyhow::Result<Option<ExitStatus>> {
    let mut waiter = Waiter::new(&[stop.fd()])?;
    let began = Instant::now();
    let mut signals_passed = 0;
    loop {
        let look = if child.is_some() { LOOK } else { LOOK_ALONE };
        let left = duration.map_or(look, |duration| duration.saturating_sub(began.elapsed()).min(look));
        waiter.wait(left);
        stop.clear();
        if let Some(running_child) = &mut child {
            if let Some(status) = running_child.try_wait()? {
                return Ok(Some(status));
            }
            // The command ends first, so that its last calls are seen. A terminal has sent it SIGINT
            // already; SIGTERM came here alone.
            if signals::count() > signals_passed {
                signals_passed = signals::count();
                spawn::terminate(running_child.id());
            }
        } else if signals::count() > 0 {
            return Ok(None);
        }
        if duration.is_some_and(|duration| began.elapsed() >= duration) || running.is_pointless() {
            if let Some(running_child) = &mut child {
                spawn::terminate(running_child.id());
                return Ok(Some(running_child.wait()?));
            }
            return Ok(None);
        }
    }
}

fn conclude(options: &Options, log: &Log, ended: &Ended, exports: bool) -> anyhow::Result<()> {
    tell_end(log, ended.drops().next().is_some(), &summary(ended, exports));
    match &options.capture.stats {
        Some(path) => stats::write(path, &stats::of_capture(ended)),
        None => Ok(()),
    }
}

/// As shells do it: a signal's number plus 128.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
