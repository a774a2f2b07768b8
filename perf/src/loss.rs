//! What is lost, when: from a tenth of what the gateway can do to beyond it, from one connection to ten
//! thousand, from short streams to long ones, and with an engine that gets too little of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    attached::{self, Engine},
    facts,
    gateway::Gateway,
    load::{self, Load},
    overhead::certified_folder,
    page::Page,
    process,
    reply::Shape,
    rings::{Seen, Watcher},
    svg::{Chart, Series},
};

/// Flags of `loss`.
#[derive(Args)]
#[command(after_help = "\
Every row is a run of its own. `spans` should equal `calls`; `incomplete` are those spans that say that something of \
their exchange was lost. `ring` is the fullest that a ring was, `memory` the most that the engine had besides its \
rings.

In the rows `starved` the engine is stopped for most of the time (SIGSTOP) and has small rings, so that they fill: \
what it gives up then, in which order, and that it takes it up again, is in the notes below the table.

Needs root. Takes about two minutes.")]
pub struct Options {
    /// Seconds of load in each run
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// The most connections at once
    #[arg(long, default_value_t = 10_000)]
    pub connections_max: usize,
    /// Events of the longest stream
    #[arg(long, default_value_t = 100_000)]
    pub events_max: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub attached: attached::Options,
}

/// Shares of the gateway's own rate that are offered; the last is more than it can do.
const OFFERED: [f64; 6] = [0.1, 0.25, 0.5, 0.75, 0.9, 1.25];
/// Connections of the runs in which something else changes.
const CONNECTIONS: usize = 64;
/// A stream as most are.
const STREAM: Shape = Shape { events: 50, bytes: 60, hold_ms: 0 };
/// How long a starved engine runs and is stopped, in turn.
const STARVED: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(180));

/// One run.
pub struct Run {
    name: String,
    calls: u64,
    failed: u64,
    rate: f64,
    spans: u64,
    incomplete: u64,
    stats: Value,
    seen: Seen,
}

/// All runs.
pub struct Measured(Vec<Run>);

/// Measures, prints, and writes the page.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let measured = measure(options)?;
    if let Some(path) = &options.html {
        fs::write(path, measured.page().html())?;
    }
    if options.json {
        println!("{:#}", measured.json());
    } else {
        println!("{}", measured.table());
    }
    Ok(())
}

/// Goes through all runs.
pub fn measure(options: &Options) -> anyhow::Result<Measured> {
    process::allow_descriptors(32_768);
    let folder = certified_folder()?;
    let duration = Duration::from_secs_f64(options.seconds);
    let base = Load {
        port: 0,
        connections: CONNECTIONS,
        shape: STREAM,
        request_bytes: 2048,
        rate: None,
        duration,
        requests_max: u64::MAX,
        core: process::cores().checked_sub(1).filter(|core| *core > 0),
    };
    let one = |name: String, load: Load, flags: &[&str], starved: bool| -> anyhow::Result<Run> {
        eprintln!("perf: {name}");
        one(name, load, options, folder.path(), flags, starved)
    };
    let mut runs = vec![one("as many as go".into(), base, &[], false)?];
    let saturated = runs[0].rate;
    for share in OFFERED {
        runs.push(one(format!("offered {share} of that"), Load { rate: Some(share * saturated), ..base }, &[], false)?);
    }
    let mut connections = 1;
    while connections <= options.connections_max {
        let load = Load { connections, requests_max: (20_000 / connections as u64).max(2), ..base };
        runs.push(one(format!("{connections} connections"), load, &[], false)?);
        connections *= 10;
    }
    let mut events = 10;
    while events <= options.events_max {
        let load = Load { connections: 4, shape: Shape { events, ..STREAM }, ..base };
        runs.push(one(format!("streams of {events}"), load, &[], false)?);
        events *= 10;
    }
    let small = ["--ring-size", "512K"];
    runs.push(one("starved".into(), base, &small, true)?);
    runs.push(one("starved, with content".into(), base, &[&small[..], &["--otel-capture-content"]].concat(), true)?);
    runs.push(one("small rings, not starved".into(), base, &small, false)?);
    Ok(Measured(runs))
}

fn one(
    name: String,
    load: Load,
    options: &Options,
    folder: &Path,
    flags: &[&str],
    starved: bool,
) -> anyhow::Result<Run> {
    let gateway = Gateway::start(folder, (process::cores() > 1).then_some(0))?;
    let engine = Engine::start(&options.attached, folder, flags)?;
    let watcher = Watcher::start(engine.pid());
    let over = Arc::new(AtomicBool::new(false));
    let pid = engine.pid();
    let starving = starved.then(|| {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            while !over.load(Relaxed) {
                for (signal, pause) in [(libc::SIGSTOP, STARVED.1), (libc::SIGCONT, STARVED.0)] {
                    process::signal(pid, signal);
                    thread::sleep(pause);
                }
            }
        })
    });
    let outcome = load::run(Load { port: gateway.port, ..load }, folder, || {});
    over.store(true, Relaxed);
    let fed = starving.is_none_or(|thread| thread.join().is_ok());
    debug_assert!(fed);
    let outcome = outcome?;
    let calm = starved
        .then(|| {
            // What comes after the pressure has to be whole again.
            thread::sleep(Duration::from_millis(500));
            let load = Load { port: gateway.port, connections: 4, rate: Some(200.0), ..load };
            load::run(load, folder, || {}).map(|outcome| outcome.calls)
        })
        .transpose()?
        .unwrap_or(0);
    let seen = watcher.stop();
    drop(gateway);
    let sink = engine.sink.counter();
    let stats = engine.stop()?;
    Ok(Run {
        name,
        calls: outcome.calls + calm,
        failed: outcome.failed,
        rate: outcome.rate(),
        spans: sink.spans(),
        incomplete: sink.incomplete(),
        stats,
        seen,
    })
}

impl Run {
    fn drops(&self) -> String {
        let drops = self.stats["drops"].as_object();
        let drops: Vec<String> = drops.into_iter().flatten().map(|(cause, count)| format!("{cause} {count}")).collect();
        if drops.is_empty() { "-".to_owned() } else { drops.join(", ") }
    }

    fn notes(&self) -> impl Iterator<Item = &str> {
        let notes = self.stats["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        notes.filter(|note| note.contains("ring"))
    }
}

impl Measured {
    /// As JSON.
    pub fn json(&self) -> Value {
        let runs = self.0.iter().map(|run| {
            json!({
                "run": run.name, "calls": run.calls, "failed": run.failed, "calls_per_second": run.rate,
                "spans": run.spans, "incomplete": run.incomplete, "ring_fill_max": run.seen.fill_max,
                "memory_bytes_max": run.seen.memory_max, "engine": run.stats,
            })
        });
        json!({"machine": facts::json(), "runs": runs.collect::<Vec<_>>()})
    }

    /// As a table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:26} {:>9} {:>9} {:>9} {:>10} {:>6} {:>10}  dropped, by cause\n",
            "run", "calls/s", "calls", "spans", "incomplete", "ring", "memory"
        );
        for run in &self.0 {
            text.push_str(&format!(
                "{:26} {:>9.0} {:>9} {:>9} {:>10} {:>5.0}% {:>6.1} MiB  {}\n",
                run.name,
                run.rate,
                run.calls,
                run.spans,
                run.incomplete,
                run.seen.fill_max * 100.0,
                run.seen.memory_max as f64 / f64::from(1 << 20),
                run.drops()
            ));
            if run.failed > 0 {
                text.push_str(&format!("{:26} {} requests failed\n", "", run.failed));
            }
        }
        for run in self.0.iter().filter(|run| run.notes().next().is_some()) {
            text.push_str(&format!("\n{}:\n", run.name));
            let notes: Vec<&str> = run.notes().collect();
            for note in notes.iter().take(24) {
                text.push_str(&format!("  {note}\n"));
            }
            if notes.len() > 24 {
                text.push_str(&format!("  and {} more\n", notes.len() - 24));
            }
        }
        text
    }

    /// As a page with plots.
    pub fn page(&self) -> Page {
        let mut page = Page::new("What is lost, when");
        page.text(&facts::text());
        page.preformatted(&self.table());
        let rates = |of: fn(&Run) -> u64| {
            let runs = self.0.iter().filter(|run| run.name.contains("offered") || run.name.contains("as many"));
            runs.map(|run| (run.rate, of(run) as f64)).collect()
        };
        let series = [
            Series { name: "calls".into(), points: rates(|run| run.calls) },
            Series { name: "spans".into(), points: rates(|run| run.spans) },
        ];
        page.chart("offered", Chart::lines("Calls made and spans exported", "calls/s", "in a run", series));
        let starved = self.0.iter().filter(|run| run.name.contains("starved"));
        let fills = starved.map(|run| Series {
            name: run.name.clone(),
            points: run.seen.fills.iter().map(|&(at, fill)| (at, fill * 100.0)).collect(),
        });
        page.chart("starved", Chart::lines("How full the fullest ring was", "seconds", "%", fills));
        page
    }
}
