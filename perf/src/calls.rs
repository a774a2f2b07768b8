//! What a call costs, by payload size: without probes, and with agentsight running.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

use agentsight::demo::Folder;
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use crate::openssl::{self, Tls};

const SIZES: [usize; 6] = [200, 1 << 10, 4 << 10, 16 << 10, 128 << 10, 1 << 20];

/// Flags of `calls`.
#[derive(Args)]
pub struct Options {
    /// Turns of each kind, one after the other
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Calls in each turn, fewer for large payloads
    #[arg(long, default_value_t = 2000)]
    calls: usize,
    /// The agentsight to measure [default: the one beside this program]
    #[arg(long)]
    agentsight: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Nanoseconds a write and a read took, of one turn.
#[derive(Clone, Copy)]
struct Turn {
    write_ns: f64,
    read_ns: f64,
}

/// Measures and prints.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let folder = Folder::create()?;
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    fs::write(folder.path().join("cert.pem"), certificate.cert.pem())?;
    fs::write(folder.path().join("key.pem"), certificate.signing_key.serialize_pem())?;
    let mut bare: Vec<Vec<Turn>> = vec![vec![]; SIZES.len()];
    let mut captured = bare.clone();
    for round in 0..options.rounds {
        eprintln!("perf: round {} of {}", round + 1, options.rounds);
        all_sizes(options, &folder, &mut bare)?;
        let engine = Engine::start(options)?;
        let measured = all_sizes(options, &folder, &mut captured);
        engine.stop()?;
        measured?;
    }
    report(options, &bare, &captured)
}

fn all_sizes(options: &Options, folder: &Folder, turns: &mut [Vec<Turn>]) -> anyhow::Result<()> {
    for (&size, turns) in SIZES.iter().zip(turns) {
        turns.push(turn(options, folder, size)?);
    }
    Ok(())
}

/// One connection that begins like an HTTP request, so that it is captured, and goes on for `calls`.
fn turn(options: &Options, folder: &Folder, size: usize) -> anyhow::Result<Turn> {
    let mut tls = Tls::connect(folder.path())?;
    let calls = options.calls.min((256 << 20) / size).max(16);
    let head = format!("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", calls * size);
    tls.write(head.as_bytes())?;
    tls.read(&mut vec![0; head.len()])?;
    let payload = vec![b'x'; size];
    let mut buffer = vec![0; size];
    let (mut write_ns, mut read_ns, mut reads) = (0.0, 0.0, 0);
    for _ in 0..calls {
        let began = Instant::now();
        tls.write(&payload)?;
        let between = Instant::now();
        reads += tls.read(&mut buffer)?;
        read_ns += between.elapsed().as_nanos() as f64;
        write_ns += (between - began).as_nanos() as f64;
    }
    Ok(Turn { write_ns: write_ns / calls as f64, read_ns: read_ns / f64::from(reads) })
}

/// A running capture of everything.
struct Engine(Child);

impl Engine {
    fn start(options: &Options) -> anyhow::Result<Self> {
        let beside = || std::env::current_exe().map(|path| path.with_file_name("agentsight"));
        let program = options.agentsight.clone().map_or_else(beside, Ok)?;
        let mut child = Command::new(&program)
            .args(["trace", "--role", "both", "--json"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("can't start {}: build it with cargo build --release", program.display()))?;
        let stderr = child.stderr.take().context("no stderr")?;
        let mut said = String::new();
        for line in BufReader::new(stderr).lines() {
            let line = line?;
            if line.starts_with("agentsight: ready") {
                return Ok(Self(child));
            }
            said.push_str(&line);
            said.push('\n');
        }
        child.wait()?;
        bail!("agentsight doesn't capture here:\n{said}")
    }

    fn stop(mut self) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "can't stop agentsight");
        self.0.wait()?;
        Ok(())
    }
}

fn median(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<f64> = turns.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(options: &Options, bare: &[Vec<Turn>], captured: &[Vec<Turn>]) -> anyhow::Result<()> {
    let rows = SIZES.iter().zip(bare.iter().zip(captured)).map(|(&size, (bare, captured))| {
        let of = |turns: &[Turn]| [median(turns, |turn| turn.write_ns), median(turns, |turn| turn.read_ns)];
        (size, of(bare), of(captured))
    });
    if options.json {
        let rows: Vec<_> = rows
            .map(|(size, bare, captured)| {
                json!({"bytes": size, "bare_write_ns": bare[0], "bare_read_ns": bare[1],
                       "captured_write_ns": captured[0], "captured_read_ns": captured[1]})
            })
            .collect();
        println!("{:#}", json!({"openssl": openssl::version()?, "rounds": options.rounds, "sizes": rows}));
        return Ok(());
    }
    println!("{}, medians of {} rounds, ns per call", openssl::version()?, options.rounds);
    println!(
        "{:>9}  {:>11} {:>11} {:>9}  {:>11} {:>11} {:>9}",
        "bytes", "write", "captured", "added", "read", "captured", "added"
    );
    for (size, bare, captured) in rows {
        println!(
            "{size:>9}  {:>11.0} {:>11.0} {:>9.0}  {:>11.0} {:>11.0} {:>9.0}",
            bare[0],
            captured[0],
            captured[0] - bare[0],
            bare[1],
            captured[1],
            captured[1] - bare[1]
        );
    }
    Ok(())
}
