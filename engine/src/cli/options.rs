//! Flags that several subcommands share, each declared once.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;

use crate::{
    capture::{self, RING_BYTES_DEFAULT},
    export::config,
    flow::Roles,
    genai,
    kernel::{
        select::{Selection, cgroup_id},
        wanted::{Binary, Wanted},
    },
    limits::{CONTENT_BYTES_DEFAULT, SPOOL_BYTES_DEFAULT, SPOOL_BYTES_MIN},
    metrics::Metrics,
    output::Style,
    spool,
    sys::folder,
    telemetry,
};

/// What is exported, and what the user should know about it.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// Where spans go.
    pub spans: Option<config::Settings>,
    /// Where metrics go.
    pub metrics: Option<config::MetricSettings>,
    /// What was ignored of the configuration.
    pub warnings: Vec<String>,
}

/// Wrong usage that only shows once the flags are put together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Which processes are captured, and with how much memory.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "What to capture")]
pub struct CaptureOptions {
    /// Only these processes (ids as the host numbers them; repeatable, or with commas)
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,
    /// Only processes with this name, as in /proc/PID/comm (repeatable, or with commas)
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub comm: Vec<String>,
    /// Only processes of these users (real user ids; repeatable, or with commas)
    #[arg(long, value_name = "UID", value_delimiter = ',')]
    pub uid: Vec<u32>,
    /// Only processes in these cgroups or below them (path below /sys/fs/cgroup, or id)
    #[arg(long, value_name = "CGROUP", value_delimiter = ',')]
    pub cgroup: Vec<String>,
    /// Only processes in these containers of Docker, containerd, CRI-O or Podman, by name or by at least 12 digits
    /// of the id, whenever they start (repeatable, or with commas)
    #[arg(long, value_name = "ID|NAME", value_delimiter = ',')]
    pub container: Vec<String>,
    /// Only processes in these Kubernetes pods, whenever they start (repeatable, or with commas)
    #[arg(long, value_name = "NAMESPACE/NAME", value_delimiter = ',')]
    pub pod: Vec<String>,
    /// Attach to this library or executable too, even before anything maps it (repeatable). docker://NAME and
    /// k8s://NAMESPACE/POD/CONTAINER mean the programs that run in a container now, or with :/PATH a file in it
    #[arg(long, value_name = "FILE")]
    pub binary_path: Vec<String>,
    /// Leave out plain HTTP on TCP and UNIX sockets, and with it the addresses of connections
    #[arg(long)]
    pub no_plain: bool,
    /// Leave /sys/kernel/rcu_expedited alone. It is switched on for less than a millisecond while a file gets its
    /// probes, which otherwise come up to some tens of milliseconds later
    #[arg(long)]
    pub no_expedite: bool,
    /// Threads that drain and parse, each pinned to a core [default: one for every eight CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Memory of each CPU's ring, a power of two from 64 KiB on; K, M and G are understood
    #[arg(long, value_name = "BYTES", value_parser = ring_bytes, default_value = "8M")]
    pub ring_size: usize,
    /// Stop after so many seconds [default: run until SIGINT or SIGTERM]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// Write counters as JSON to this file at the end
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
    /// Say nothing but errors on stderr, whatever OTEL_LOG_LEVEL is, and show no calls
    #[arg(short, long)]
    pub quiet: bool,
}

/// What is made of the calls.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What to do with calls")]
pub struct OutputOptions {
    /// Export spans over OTLP/HTTP
    #[arg(long)]
    pub otel: bool,
    /// Base URL of the collector; /v1/traces and /v1/metrics are appended
    /// [default: $OTEL_EXPORTER_OTLP_ENDPOINT or http://localhost:4318]
    #[arg(long, value_name = "URL")]
    pub otel_endpoint: Option<String>,
    /// Export the GenAI metrics over OTLP/HTTP too, or alone without --otel: tokens, durations, times to the first
    /// and between chunks. Off by default; with --otel, OTEL_METRICS_EXPORTER=otlp turns them on as well
    #[arg(long)]
    pub otel_metrics: bool,
    /// Keep spans that the collector doesn't take in time in this folder, and send them in order when it is back, also
    /// in the next run; `off` keeps them in memory only, for a while. [default: /var/lib/agentsight/spool, without
    /// root $XDG_STATE_HOME/agentsight/spool; of replay: off]
    #[arg(long, value_name = "FOLDER|off")]
    pub spool: Option<PathBuf>,
    /// What the spool may take of the disk; when it is full the oldest spans go first
    #[arg(long, value_name = "BYTES", value_parser = spool_bytes, default_value = "512M")]
    pub spool_max_bytes: u64,
    /// Drop spans that have been in the spool for so long; s, m, h and d are understood
    #[arg(long, value_name = "TIME", value_parser = age, default_value = "3d")]
    pub spool_max_age: Duration,
    /// When what is spooled must be on the disk, to outlive a crash of the machine: before it counts as kept, within
    /// a second, or when the system sees fit. A crash of agentsight alone loses nothing that is in the spool
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub spool_fsync: spool::Sync,
    /// Serve counters of the engine itself as Prometheus text at this address and port, under /metrics, with a
    /// /healthz beside them; a port alone is one of loopback. docs/metrics.md lists them
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<telemetry::Listen>,
    /// Put prompts and completions on the spans (gen_ai.input.messages, gen_ai.output.messages and so on)
    #[arg(long)]
    pub otel_capture_content: bool,
    /// Bytes of JSON that one content attribute may have; longer content is cut and stays valid JSON
    #[arg(long, value_name = "BYTES", value_parser = bytes, default_value_t = CONTENT_BYTES_DEFAULT)]
    pub content_max: usize,
    /// Put images, audio and files on the spans too, not only their kind and size, and tools with their
    /// descriptions and schemas; with --otel-capture-content
    #[arg(long, requires = "otel_capture_content")]
    pub content_full: bool,
    /// Which side's spans: of calls that processes make (client), that they answer (server), or both
    #[arg(long, value_enum, default_value_t)]
    pub role: Roles,
    /// Print each span as a JSON object on a line of its own
    #[arg(long)]
    pub json: bool,
    /// End an exchange in which nothing has moved for so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "600")]
    pub idle_timeout: Duration,
}

impl CaptureOptions {
    /// The engine's settings. `by_command`: only what is added while running is captured.
    pub fn settings(&self, by_command: bool, roles: Roles) -> anyhow::Result<capture::Settings> {
        let cgroups = self
            .cgroup
            .iter()
            .map(|text| cgroup_id(text).map_err(|error| UsageError(format!("--cgroup: {error}"))))
            .collect::<Result<_, _>>()?;
        for &pid in &self.pid {
            if !crate::sys::process::is_alive(pid) {
                return Err(UsageError(format!("--pid {pid}: there is no such process")).into());
            }
        }
        let binary_paths = self.binary_paths()?;
        let pods = self.pod.iter().map(|text| Wanted::pod(text).map_err(|error| UsageError(format!("--pod: {error}"))));
        let mut containers: Vec<Wanted> = pods.collect::<Result<_, _>>()?;
        containers.extend(self.container.iter().cloned().map(Wanted::Container));
        Ok(capture::Settings {
            selection: Selection {
                pids: self.pid.clone(),
                comms: self.comm.clone(),
                uids: self.uid.clone(),
                cgroups,
                containers,
                by_command,
                unwanted_sides: roles.unwanted(),
            },
            follow_children: by_command,
            binary_paths,
            plain: !self.no_plain,
            expedites: !self.no_expedite,
            cache: folder::by_convention(folder::Kind::Cache),
            ring_bytes: self.ring_size,
            workers: self.workers.map_or_else(workers_default, usize::from),
        })
    }
}

impl CaptureOptions {
    /// The files that `--binary-path` names.
    fn binary_paths(&self) -> Result<Vec<PathBuf>, UsageError> {
        let mut paths = Vec::new();
        for text in &self.binary_path {
            let usage = |error: String| UsageError(format!("--binary-path {text}: {error}"));
            for path in text.parse::<Binary>().and_then(|binary| binary.paths()).map_err(usage)? {
                std::fs::File::open(&path).map_err(|error| usage(error.to_string()))?;
                paths.push(path);
            }
        }
        Ok(paths)
    }
}

impl OutputOptions {
    /// Settings of the export, when it is asked for, with warnings for the user.
    pub fn export(&self) -> anyhow::Result<Export> {
        self.export_by(&|name| std::env::var(name).ok())
    }

    /// The same, with variables that `env` looks up.
    fn export_by(&self, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Export> {
        let mut export = Export::default();
        if !self.otel && !self.otel_metrics {
            // A flag that has no effect is a mistake that is better told.
            if let Some(endpoint) = &self.otel_endpoint {
                return Err(UsageError(format!("--otel-endpoint {endpoint} needs --otel")).into());
            }
            return Ok(export);
        }
        let flags = config::Flags { endpoint: self.otel_endpoint.clone() };
        let usage = |error| UsageError(format!("{error}{}", self.endpoint_text()));
        if self.otel {
            let configured = config::settings(&flags, env).map_err(usage)?;
            (export.spans, export.warnings) = (configured.settings, configured.warnings);
        }
        let configured = config::metrics(self.otel_metrics, &flags, env).map_err(usage)?;
        export.metrics = configured.settings;
        // What is wrong with a variable for both is said once.
        let new = configured.warnings.into_iter().filter(|warning| !export.warnings.contains(warning));
        let new: Vec<_> = new.collect();
        export.warnings.extend(new);
        if let (Some(spans), Some(metrics)) = (&export.spans, &mut export.metrics) {
            // One and the same instance exports both.
            metrics.transport.resource.clone_from(&spans.resource);
        }
        Ok(export)
    }

    /// Where spans are kept that the collector doesn't take in time: where the flag says, else in
    /// `default`.
    pub fn spool(&self, default: Option<PathBuf>) -> anyhow::Result<Option<spool::Settings>> {
        if let Some(folder) = &self.spool
            && !self.otel
        {
            return Err(UsageError(format!("--spool {} needs --otel", folder.display())).into());
        }
        let folder = self.spool.clone().or(default).filter(|folder| folder.as_os_str() != "off");
        Ok(folder.map(|folder| spool::Settings {
            folder,
            bounds: spool::Bounds { bytes_max: self.spool_max_bytes, age_max: self.spool_max_age },
            sync: self.spool_fsync,
        }))
    }

    /// Serves own telemetry for as long as what this returns lives, when that is asked for.
    pub fn serve(&self, metrics: &Arc<Metrics>) -> anyhow::Result<Option<telemetry::Server>> {
        let Some(listen) = self.metrics_listen else { return Ok(None) };
        let server = telemetry::Server::start(listen, Arc::clone(metrics));
        server.map(Some).with_context(|| format!("can't serve metrics on {} (--metrics-listen)", listen.0))
    }

    fn endpoint_text(&self) -> String {
        self.otel_endpoint.as_deref().map(|endpoint| format!(" (it is {endpoint})")).unwrap_or_default()
    }

    /// How calls are shown: as JSON when asked for; otherwise for people, unless they go elsewhere.
    pub fn style(&self, quiet: bool) -> Option<Style> {
        match self {
            Self { json: true, .. } => Some(Style::Json),
            Self { otel: true, .. } => None,
            _ => (!quiet).then(|| Style::readable(&|name| std::env::var(name).ok())),
        }
    }

    /// What is kept of a call.
    pub fn call(&self) -> genai::Options {
        genai::Options {
            capture_content: self.otel_capture_content,
            content_bytes_max: self.content_max,
            content_full: self.content_full,
            withholding: false,
        }
    }
}

/// One worker drains several gigabytes a second, so most machines need one.
fn workers_default() -> usize {
    (crate::kernel::cpu_count() as usize).div_ceil(8)
}

fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']);
    let unit = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return Err("a number of bytes, such as 65536, 64K or 8M".into()),
    };
    let number: usize = digits.parse().map_err(|_| "a number of bytes, such as 65536, 64K or 8M".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "too large".to_owned())
}

/// From the largest record on, up to what the kernel allows (linux/kernel/bpf/ringbuf.c).
fn ring_bytes(text: &str) -> Result<usize, String> {
    const MIN: usize = 64 << 10;
    const MAX: usize = 1 << 30;
    let bytes = bytes(text)?;
    match bytes {
        MIN..=MAX if bytes.is_power_of_two() => Ok(bytes),
        _ => Err("a power of two from 64K to 1G".into()),
    }
}

fn spool_bytes(text: &str) -> Result<u64, String> {
    let bytes = bytes(text)? as u64;
    if bytes < SPOOL_BYTES_MIN { Err("at least 1M".into()) } else { Ok(bytes) }
}

/// A number of seconds, or of what the letter behind it says.
fn age(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err("a time such as 90s, 30m, 12h or 3d".into()),
    };
    let number: u32 = digits.parse().map_err(|_| "a time such as 90s, 30m, 12h or 3d".to_owned())?;
    if number == 0 { Err("more than no time".into()) } else { Ok(Duration::from_secs(u64::from(number) * unit)) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 30 or 0.5".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("a positive number of seconds".into()),
    }
}

impl Default for OutputOptions {
    fn default() -> Self {
        Self {
            otel: false,
            otel_endpoint: None,
            otel_metrics: false,
            metrics_listen: None,
            spool: None,
            spool_max_bytes: SPOOL_BYTES_DEFAULT,
            spool_max_age: spool::Bounds::default().age_max,
            spool_fsync: spool::Sync::default(),
            otel_capture_content: false,
            content_max: CONTENT_BYTES_DEFAULT,
            content_full: false,
            role: Roles::default(),
            json: false,
            idle_timeout: Duration::from_secs(600),
        }
    }
}

const _: () = assert!(RING_BYTES_DEFAULT == 8 << 20, "the default of --ring-size says 8M");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_metrics_are_exported_as_asked() {
        let check = |otel, otel_metrics, exporter: Option<&str>, spans: bool, metrics: bool| {
            let options = OutputOptions { otel, otel_metrics, ..OutputOptions::default() };
            let env = |name: &str| (name == "OTEL_METRICS_EXPORTER").then(|| exporter.map(str::to_owned)).flatten();
            let export = options.export_by(&env).unwrap();
            assert_eq!(
                (export.spans.is_some(), export.metrics.is_some()),
                (spans, metrics),
                "{options:?} {exporter:?}"
            );
            if let (Some(spans), Some(metrics)) = (&export.spans, &export.metrics) {
                assert_eq!(spans.resource, metrics.transport.resource, "one instance");
            }
        };
        check(false, false, Some("otlp"), false, false);
        check(true, false, None, true, false);
        check(true, false, Some("none"), true, false);
        check(true, false, Some("otlp"), true, true);
        check(true, true, None, true, true);
        check(false, true, None, false, true);

        // What is wrong with a variable for both is said once.
        let options = OutputOptions { otel: true, otel_metrics: true, ..OutputOptions::default() };
        let env = |name: &str| (name == "OTEL_EXPORTER_OTLP_PROTOCOL").then(|| "grpc".to_owned());
        assert_eq!(options.export_by(&env).unwrap().warnings.len(), 1);
    }

    #[test]
    fn sizes_and_durations_are_read() {
        assert_eq!(bytes("64K"), Ok(65_536));
        assert_eq!(ring_bytes("8M"), Ok(RING_BYTES_DEFAULT));
        for wrong in ["", "K", "8T", "-4", "3M", "4K", "2G", "99999999999999999999"] {
            assert!(ring_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!((spool_bytes("1M"), spool_bytes("512M")), (Ok(1 << 20), Ok(SPOOL_BYTES_DEFAULT)));
        assert!(spool_bytes("1023K").is_err());
        for (text, seconds) in [("90", 90), ("90s", 90), ("2m", 120), ("12h", 43_200), ("3d", 259_200)] {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "d", "0", "0h", "-1", "1.5h", "3w", "1hh", "99999999999"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
        assert_eq!(spool::Bounds::default().age_max, age("3d").unwrap());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["soon", "-1", "0", "1e99", "NaN"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
