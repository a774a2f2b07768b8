//! What capturing costs: a saturated gateway, and single calls by payload size.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use agentsight::demo::Folder;
use clap::Args;
use serde_json::{Value, json};

use crate::{
    attached::{self, Attached, Kind},
    calls, facts,
    gateway::Gateway,
    load::{self, Load},
    numbers::median,
    page::Page,
    process,
    reply::Shape,
    svg::{Chart, Series},
};

/// Flags of `overhead`.
#[derive(Args)]
#[command(after_help = "\
Each round measures every kind once, in a changing order: nothing attached, empty probes (a uprobe and a uretprobe \
with programs that do nothing, on the same functions), agentsight, and the peer if there is one. All figures are \
medians over the rounds, and the ratios are medians of the ratios of each round, so that a machine that does other \
things as well, or changes its clock, does not decide.

Needs root. Ten rounds take about three minutes.

Examples:
  perf overhead                           tables
  perf overhead --json --html out.html    figures for machines, and a page with plots
  perf overhead --rounds 3 --seconds 1    a quick look
  perf overhead --peer 'bpftrace probes.bt'   another tracer beside")]
pub struct Options {
    /// Turns of each kind
    #[arg(long, default_value_t = 10)]
    pub rounds: usize,
    /// Seconds of load in each turn of the gateway
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Connections of the load
    #[arg(long, default_value_t = 32)]
    pub connections: usize,
    /// Events of each answer; 0 for a document
    #[arg(long, default_value_t = 50)]
    pub events: usize,
    /// Bytes of content of each event, or of the document
    #[arg(long, default_value_t = 60)]
    pub bytes: usize,
    /// Bytes of each request's body
    #[arg(long, default_value_t = 2048)]
    pub request_bytes: usize,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub attached: attached::Options,
}

/// One turn of the gateway.
struct Turn {
    calls_per_second: f64,
    quantiles_us: [f64; 3],
    gateway_cpu_us: f64,
    gateway_busy: f64,
    engine_cpu_us: Option<f64>,
    lost: Option<Value>,
    calls: u64,
    spans: Option<u64>,
}

/// Measures, prints, and writes the page.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let measured = measure(options)?;
    if let Some(path) = &options.html {
        fs::write(path, measured.page().html())?;
    }
    if options.json {
        println!("{:#}", measured.json()?);
    } else {
        println!("{}\n{}", measured.table(), measured.calls.table()?);
    }
    Ok(())
}

/// Everything that was measured.
pub struct Measured {
    kinds: Vec<Kind>,
    turns: Vec<Vec<Turn>>,
    wrk: Vec<(Kind, f64)>,
    /// Single calls.
    pub calls: calls::Measured,
}

/// Measures the gateway, then single calls.
pub fn measure(options: &Options) -> anyhow::Result<Measured> {
    let folder = certified_folder()?;
    let kinds = Kind::all(options.attached.peer.is_some());
    let mut turns: Vec<Vec<Turn>> = kinds.iter().map(|_| vec![]).collect();
    for round in 0..options.rounds {
        eprintln!("perf: gateway, round {} of {}", round + 1, options.rounds);
        for step in 0..kinds.len() {
            let index = (step + round) % kinds.len();
            turns[index].push(turn(kinds[index], options, folder.path())?);
        }
    }
    let wrk = kinds.iter().filter_map(|&kind| Some((kind, wrk(kind, options, folder.path())?))).collect();
    let calls = calls::measure(options.rounds, &options.attached, folder.path())?;
    Ok(Measured { kinds, turns, wrk, calls })
}

/// A folder with a new certificate for localhost.
pub fn certified_folder() -> anyhow::Result<Folder> {
    let folder = Folder::create()?;
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(folder.path().join("cert.pem"), certificate.cert.pem())?;
    fs::write(folder.path().join("key.pem"), certificate.signing_key.serialize_pem())?;
    Ok(folder)
}

fn turn(kind: Kind, options: &Options, folder: &Path) -> anyhow::Result<Turn> {
    // The gateway has a core to itself where there are several, and is what the load waits for.
    let cores = process::cores();
    let gateway = Gateway::start(folder, (cores > 1).then_some(0))?;
    let attached = Attached::start(kind, &options.attached, folder)?;
    let shape = Shape { events: options.events, bytes: options.bytes, hold_ms: 0 };
    let load = Load {
        port: gateway.port,
        connections: options.connections,
        shape,
        request_bytes: options.request_bytes,
        rate: None,
        duration: Duration::from_secs_f64(options.seconds),
        requests_max: u64::MAX,
        core: (cores > 1).then_some(cores - 1),
    };
    let pid = gateway.pid();
    let (sender, begun) = std::sync::mpsc::channel();
    let outcome = load::run(load, folder, move || {
        let _ = sender.send(process::cpu_seconds(pid).unwrap_or_default());
    })?;
    let cpu = process::cpu_seconds(pid).unwrap_or_default() - begun.recv().unwrap_or_default();
    let calls = outcome.calls.max(1) as f64;
    drop(gateway);
    let engine = attached.cpu_seconds();
    let stats = attached.stop()?;
    Ok(Turn {
        calls_per_second: outcome.rate(),
        quantiles_us: [0.5, 0.99, 0.999].map(|share| outcome.quantile_us(share)),
        gateway_cpu_us: cpu / calls * 1e6,
        gateway_busy: cpu / outcome.elapsed.as_secs_f64(),
        engine_cpu_us: engine.map(|seconds| seconds / calls * 1e6),
        lost: stats.as_ref().map(|stats| stats["drops"].clone()),
        calls: outcome.calls,
        spans: stats.and_then(|stats| stats["spans_received"].as_u64()),
    })
}

/// The same gateway under wrk where it is installed. Its TLS is the library that the probes are on, so
/// it pays as well.
fn wrk(kind: Kind, options: &Options, folder: &Path) -> Option<f64> {
    let gateway = Gateway::start(folder, None).ok()?;
    let attached = Attached::start(kind, &options.attached, folder).ok()?;
    let connections = options.connections.to_string();
    let duration = format!("{}s", options.seconds.ceil());
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", &connections, "-d", &duration, &format!("https://127.0.0.1:{}/", gateway.port)])
        .output();
    attached.stop().ok()?;
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Requests/sec:"))?.trim().parse().ok()
}

impl Measured {
    fn of(&self, kind: Kind, figure: impl Fn(&Turn) -> f64) -> f64 {
        let index = self.kinds.iter().position(|&known| known == kind);
        index.map_or(f64::NAN, |index| median(self.turns[index].iter().map(figure)))
    }

    /// Calls a second with `kind` as a share of those with `floor`, the median of the rounds' shares.
    fn ratio(&self, kind: Kind, floor: Kind) -> f64 {
        let turns = |kind| self.kinds.iter().position(|&known| known == kind).map(|index| &self.turns[index]);
        let (Some(with), Some(without)) = (turns(kind), turns(floor)) else { return f64::NAN };
        median(with.iter().zip(without).map(|(with, without)| with.calls_per_second / without.calls_per_second))
    }

    fn agentsight(&self) -> impl Iterator<Item = &Turn> {
        let index = self.kinds.iter().position(|&kind| kind == Kind::Agentsight);
        index.map(|index| &self.turns[index]).into_iter().flatten()
    }

    /// As JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        let kinds: Vec<Value> = self
            .kinds
            .iter()
            .map(|&kind| {
                json!({
                    "attached": kind.to_string(),
                    "calls_per_second": self.of(kind, |turn| turn.calls_per_second),
                    "ratio_to_nothing": self.ratio(kind, Kind::Nothing),
                    "ratio_to_empty_probes": self.ratio(kind, Kind::Empty),
                    "p50_us": self.of(kind, |turn| turn.quantiles_us[0]),
                    "p99_us": self.of(kind, |turn| turn.quantiles_us[1]),
                    "p999_us": self.of(kind, |turn| turn.quantiles_us[2]),
                    "gateway_cpu_us_per_call": self.of(kind, |turn| turn.gateway_cpu_us),
                    "gateway_busy": self.of(kind, |turn| turn.gateway_busy),
                    "engine_cpu_us_per_call": self.of(kind, |turn| turn.engine_cpu_us.unwrap_or(f64::NAN)),
                })
            })
            .collect();
        let wrk: Vec<Value> = self
            .wrk
            .iter()
            .map(|(kind, rate)| json!({"attached": kind.to_string(), "calls_per_second": rate}))
            .collect();
        Ok(json!({
            "machine": facts::json(),
            "gateway": kinds,
            "calls_made": self.agentsight().map(|turn| turn.calls).sum::<u64>(),
            "spans_exported": self.agentsight().filter_map(|turn| turn.spans).sum::<u64>(),
            "drops": self.agentsight().filter_map(|turn| turn.lost.clone()).collect::<Vec<_>>(),
            "wrk": wrk,
            "calls": self.calls.json()?,
        }))
    }

    /// As a table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "A saturated gateway, medians of {} rounds\n\n{:12}  {:>9} {:>9} {:>9}  {:>9} {:>9} {:>9}  {:>11} {:>6}  {:>10}\n",
            self.turns.first().map_or(0, Vec::len),
            "attached",
            "calls/s",
            "/nothing",
            "/empty",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "gateway us",
            "busy",
            "engine us"
        );
        for &kind in &self.kinds {
            text.push_str(&format!(
                "{kind:12}  {:>9.0} {:>9.3} {:>9.3}  {:>9.0} {:>9.0} {:>9.0}  {:>11.1} {:>6.2}  {:>10.1}\n",
                self.of(kind, |turn| turn.calls_per_second),
                self.ratio(kind, Kind::Nothing),
                self.ratio(kind, Kind::Empty),
                self.of(kind, |turn| turn.quantiles_us[0]),
                self.of(kind, |turn| turn.quantiles_us[1]),
                self.of(kind, |turn| turn.quantiles_us[2]),
                self.of(kind, |turn| turn.gateway_cpu_us),
                self.of(kind, |turn| turn.gateway_busy),
                self.of(kind, |turn| turn.engine_cpu_us.unwrap_or(f64::NAN)),
            ));
        }
        let calls: u64 = self.agentsight().map(|turn| turn.calls).sum();
        let spans: u64 = self.agentsight().filter_map(|turn| turn.spans).sum();
        text.push_str(&format!("\n{calls} calls made while agentsight was attached, {spans} spans received"));
        for turn in self.agentsight() {
            if let Some(Value::Object(lost)) = &turn.lost
                && !lost.is_empty()
            {
                text.push_str(&format!("\ndropped in a round: {}", turn.lost.as_ref().unwrap_or(&Value::Null)));
            }
        }
        text.push('\n');
        for (kind, rate) in &self.wrk {
            text.push_str(&format!("wrk, which pays as well, {kind}: {rate:.0} calls/s\n"));
        }
        text
    }

    /// As a page with plots.
    pub fn page(&self) -> Page {
        let mut page = Page::new("What capturing costs");
        page.text(&facts::text());
        page.preformatted(&self.table());
        let bars = |title: &str, unit: &str, figure: &dyn Fn(Kind) -> f64| {
            Chart::bars(title, unit, self.kinds.iter().map(|&kind| (kind.to_string(), figure(kind))))
        };
        page.chart(
            "gateway-rate",
            bars("Calls a second", "calls/s", &|kind| self.of(kind, |turn| turn.calls_per_second)),
        );
        page.chart(
            "gateway-p99",
            bars("99% of calls end within", "us", &|kind| self.of(kind, |turn| turn.quantiles_us[1])),
        );
        if let Ok(table) = self.calls.table() {
            page.preformatted(&table);
        }
        for (way, name) in ["SSL_write", "SSL_read"].iter().enumerate() {
            let series =
                self.kinds.iter().map(|&kind| Series { name: kind.to_string(), points: self.calls.points(kind, way) });
            page.chart(name, Chart::lines(&format!("CPU time of one {name}"), "bytes", "ns", series));
        }
        page
    }
}
