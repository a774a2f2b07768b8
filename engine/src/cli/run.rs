//! A capture with its exporter: started, run until something ends it, stopped within a bound.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    capture::{self, Capture, Outcome, Started},
    export::{
        config,
        exporter::{Exporter, Inlet, Outputs, Report},
    },
    flow::{self, IdSource, Roles},
    genai,
    limits::EXCHANGE_QUEUE_MAX,
    log::{Level, Log},
    metrics::{Metrics, Total},
    output::{Lines, Style},
    spool,
    sys::{clock::UnixOffset, process},
    worker::{Duty, Queues},
};

use super::options::{CaptureOptions, OutputOptions};

/// How long draining and flushing may take at the end.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// Everything that a capture with its exporter needs.
pub struct Plan {
    /// What to capture.
    pub capture: capture::Settings,
    /// Which spans.
    pub roles: Roles,
    /// What of a call.
    pub call: genai::Options,
    /// When an exchange is given up.
    pub idle: Duration,
    /// Where spans are exported to.
    pub otlp: Option<config::Settings>,
    /// Where spans are kept that the collector doesn't take in time.
    pub spool: Option<spool::Settings>,
    /// Where metrics are exported to.
    pub metrics: Option<config::MetricSettings>,
    /// How calls are shown on standard output.
    pub lines: Option<Style>,
    /// The counters, which may be served already.
    pub counters: Arc<Metrics>,
    /// Where lines about the run go.
    pub log: Log,
}

impl Plan {
    /// Everything, exported to the collector at this base URL, without a note.
    pub fn exporting_to(endpoint: &str) -> anyhow::Result<Self> {
        let output = OutputOptions { otel: true, otel_endpoint: Some(endpoint.to_owned()), ..OutputOptions::default() };
        let capture =
            CaptureOptions { ring_size: capture::RING_BYTES_DEFAULT, quiet: true, ..CaptureOptions::default() };
        // The demo's own endpoint is meant, whatever the environment says.
        let flags = config::Flags { endpoint: output.otel_endpoint.clone() };
        let mut settings = config::settings(&flags, &|_| None)?.settings;
        if let Some(settings) = &mut settings {
            settings.batch.delay = Duration::from_millis(200);
        }
        Ok(Self {
            capture: capture.settings(false, output.role)?,
            roles: output.role,
            call: output.call(),
            idle: output.idle_timeout,
            otlp: settings,
            spool: None,
            metrics: None,
            lines: None,
            counters: Arc::default(),
            log: Log::none(),
        })
    }
}

/// The exporter's outputs, lines on standard output among them.
pub fn outputs(
    otlp: Option<config::Settings>,
    spool: Option<spool::Settings>,
    otlp_metrics: Option<config::MetricSettings>,
    lines: Option<Style>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Outputs> {
    let lines = lines.map(|style| Lines::new(style, Box::new(io::stdout()), Arc::clone(metrics))).transpose()?;
    Ok(Outputs { otlp, spool, own_metrics: otlp_metrics.is_some(), metrics: otlp_metrics, lines })
}

/// Lines on stderr, up to the level of `OTEL_LOG_LEVEL`; after `--quiet` errors at most.
pub fn log(quiet: bool) -> Log {
    let (level, warnings) = config::log_level(&|name| std::env::var(name).ok());
    let log = Log::stderr(if quiet { level.min(Some(Level::Error)) } else { level });
    warnings.iter().for_each(|warning| log.warn(warning));
    log
}

/// Says how it went, as a warning if something was lost.
pub fn tell_end(log: &Log, lost: bool, text: &str) {
    log.say(if lost { Level::Warn } else { Level::Info }, text);
}

/// A capture that runs.
pub struct Running {
    capture: Capture,
    exporter: Exporter,
    metrics: Arc<Metrics>,
    broken: Option<Arc<AtomicBool>>,
    /// What was attached.
    pub started: Started,
}

/// Everything that is known at the end.
pub struct Ended {
    /// The kernel side.
    pub kernel: Outcome,
    /// The export.
    pub report: Report,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

impl Ended {
    /// Every loss of which there was any, by its name.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let user = self.metrics.all_losses().map(|(cause, count)| (cause.name(), count));
        self.kernel.drops().filter(|(_, count)| *count > 0).chain(user)
    }
}

impl Running {
    /// Starts everything.
    pub fn start(plan: Plan) -> anyhow::Result<Self> {
        let metrics = plan.counters;
        let workers = plan.capture.workers;
        let queues = Queues::new(workers, EXCHANGE_QUEUE_MAX);
        let inlet = Inlet { exchanges: Arc::clone(&queues.exchanges), arenas: queues.arenas.clone() };
        let outputs = outputs(plan.otlp, plan.spool, plan.metrics, plan.lines, &metrics)?;
        let broken = outputs.lines.as_ref().map(Lines::broken);
        let ids = IdSource::random();
        let clock = UnixOffset::measure();
        let (roles, call) = (plan.roles, plan.call);
        let idle_ns = u64::try_from(plan.idle.as_nanos()).unwrap_or(u64::MAX);
        let (capture, started) = Capture::start(&plan.capture, &metrics, &plan.log, |worker, verdicts| Duty::Follow {
            settings: flow::Settings {
                roles,
                call,
                idle_ns,
                clock,
                ids,
                describe: |pid, info| match process::describe(pid) {
                    // It ended before it could be looked at.
                    described if described.executable.is_none() => flow::describe_by_comm(pid, info),
                    described => described,
                },
                worker,
            },
            queues: queues.clone(),
            verdicts: Some(verdicts),
        })?;
        let exporter = Exporter::spawn(inlet, outputs, Arc::clone(&metrics), plan.log)?;
        Ok(Self { capture, exporter, metrics, broken, started })
    }

    /// Chooses a process while running.
    pub fn choose_process(&self, pid: u32) -> anyhow::Result<()> {
        Ok(self.capture.choose_process(pid)?)
    }

    /// True when a part of it has failed, which is said where it happened.
    pub fn has_failed(&self) -> bool {
        self.exporter.is_finished() || self.capture.is_finished()
    }

    /// True when going on is of no use: nobody reads the lines, or a part has failed.
    pub fn is_pointless(&self) -> bool {
        self.has_failed() || self.broken.as_ref().is_some_and(|broken| broken.load(Ordering::Relaxed))
    }

    /// Detaches, drains, flushes.
    pub fn stop(self, limit: Duration) -> Ended {
        let kernel = self.capture.stop();
        let report = self.exporter.shutdown(limit);
        Ended { kernel, report, metrics: self.metrics }
    }
}

/// One line at the end for people.
pub fn summary(ended: &Ended, exports: bool) -> String {
    let total = |total| ended.metrics.total(total);
    let mut text = format!(
        "{} calls from {} requests on {} connections, {} records with {} bytes",
        ended.report.exchanges,
        total(Total::Requests),
        total(Total::Connections),
        total(Total::Records),
        total(Total::RecordBytes)
    );
    if exports {
        text.push_str(&format!(", {} spans exported", ended.report.exported));
    }
    if ended.report.kept > 0 {
        text.push_str(&format!(", {} kept in the spool for the next run", ended.report.kept));
    }
    let points = total(Total::MetricPointsExported);
    if points > 0 {
        text.push_str(&format!(", {points} metric points exported"));
    }
    let drops: Vec<String> = ended.drops().map(|(name, count)| format!("{name} {count}")).collect();
    if drops.is_empty() {
        text.push_str("; nothing was dropped");
    } else {
        text.push_str(&format!("; DROPPED: {}", drops.join(", ")));
    }
    text
}
