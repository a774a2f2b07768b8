//! What a call of SSL_write and one of SSL_read cost, by payload size.
//!
//! Both ends of a connection are in one process, joined by memory, so that there is nothing but the
//! library and the probes. Time is the thread's own CPU time: what else runs on the machine takes
//! caches, but isn't counted.

use std::{fmt::Write as _, path::Path};

use serde_json::{Value, json};

use crate::{
    attached::{self, Attached, Kind},
    numbers::median,
    openssl::{self, Tls},
    process::thread_time,
};

/// Payload sizes, in bytes.
const SIZES: [usize; 7] = [200, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Payload of one turn at each size.
const TURN_BYTES: usize = 8 << 20;
/// Calls of one turn at the most, and at the least.
const TURN_CALLS: (usize, usize) = (1_000, 8);
/// What may be written before it is read.
const BATCH_BYTES: usize = 2 << 20;

/// Nanoseconds of a write and of a read, by size, in one turn.
type Turn = [[f64; 2]; SIZES.len()];

/// Turns of each kind, in the order of `kinds`.
pub struct Measured {
    kinds: Vec<Kind>,
    turns: Vec<Vec<Turn>>,
    /// Kernel-side losses while agentsight was attached.
    drops: Vec<Value>,
}

/// Measures `rounds` turns of each kind, one kind after the other.
pub fn measure(rounds: usize, options: &attached::Options, folder: &Path) -> anyhow::Result<Measured> {
    let kinds = Kind::all(options.peer.is_some());
    let mut measured = Measured { turns: vec![vec![]; kinds.len()], kinds, drops: vec![] };
    for round in 0..rounds {
        eprintln!("perf: calls, round {} of {rounds}", round + 1);
        // In another order each time, so that no kind always follows the same one.
        for step in 0..measured.kinds.len() {
            let index = (step + round) % measured.kinds.len();
            let attached = Attached::start(measured.kinds[index], options, folder)?;
            let turn = turn(folder);
            if let Some(stats) = attached.stop()? {
                measured.drops.push(stats["drops"].clone());
            }
            measured.turns[index].push(turn?);
        }
    }
    Ok(measured)
}

fn turn(folder: &Path) -> anyhow::Result<Turn> {
    let mut turn = Turn::default();
    for (size, of_size) in SIZES.iter().zip(&mut turn) {
        *of_size = one_size(folder, *size)?;
    }
    Ok(turn)
}

/// One connection that begins like an HTTP request, so that it is captured, and goes on.
fn one_size(folder: &Path, size: usize) -> anyhow::Result<[f64; 2]> {
    let mut tls = Tls::connect(folder)?;
    let calls = (TURN_BYTES / size).clamp(TURN_CALLS.1, TURN_CALLS.0);
    let batch = (BATCH_BYTES / size).clamp(1, calls);
    let head = format!("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", calls * size);
    tls.write(head.as_bytes())?;
    tls.read(&mut vec![0; head.len()])?;
    let payload = vec![b'x'; size];
    let mut buffer = vec![0; size];
    let (mut write_ns, mut read_ns, mut writes, mut reads) = (0.0, 0.0, 0, 0);
    for _ in 0..calls.div_ceil(batch) {
        let began = thread_time();
        for _ in 0..batch {
            tls.write(&payload)?;
        }
        let between = thread_time();
        for _ in 0..batch {
            reads += tls.read(&mut buffer)?;
        }
        read_ns += (thread_time() - between).as_nanos() as f64;
        write_ns += (between - began).as_nanos() as f64;
        writes += batch;
    }
    Ok([write_ns / writes as f64, read_ns / f64::from(reads)])
}

impl Measured {
    /// The median cost of a write (0) or read (1) of size number `size` with this kind attached.
    fn cost(&self, kind: Kind, size: usize, way: usize) -> Option<f64> {
        let index = self.kinds.iter().position(|&known| known == kind)?;
        Some(median(self.turns[index].iter().map(|turn| turn[size][way])))
    }

    /// What a pair of probes adds with this kind, as a multiple of what empty ones add: the median of
    /// the ratios of each round.
    fn pair_ratio(&self, kind: Kind, size: usize, way: usize) -> Option<f64> {
        let turns = |kind| self.kinds.iter().position(|&known| known == kind).map(|index| &self.turns[index]);
        let (bare, empty, with) = (turns(Kind::Nothing)?, turns(Kind::Empty)?, turns(kind)?);
        let ratios =
            bare.iter().zip(empty).zip(with).map(|((bare, empty), with)| {
                (with[size][way] - bare[size][way]) / (empty[size][way] - bare[size][way])
            });
        Some(median(ratios))
    }

    /// As JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        let ways = |of: &dyn Fn(usize) -> Option<f64>| json!({"write": of(0), "read": of(1)});
        let sizes: Vec<Value> = (0..SIZES.len())
            .map(|size| {
                let mut row = json!({"bytes": SIZES[size]});
                for &kind in &self.kinds {
                    row[format!("{kind} ns")] = ways(&|way| self.cost(kind, size, way));
                    if !matches!(kind, Kind::Nothing | Kind::Empty) {
                        row[format!("{kind} pair / empty pair")] = ways(&|way| self.pair_ratio(kind, size, way));
                    }
                }
                row
            })
            .collect();
        Ok(json!({
            "openssl": openssl::version()?,
            "rounds": self.turns.first().map_or(0, Vec::len),
            "sizes": sizes,
            "drops": self.drops,
        }))
    }

    /// As a table for people.
    pub fn table(&self) -> anyhow::Result<String> {
        let mut text = format!(
            "CPU time of one call in ns, medians of {} rounds, {}\n\n{:>9}  {:5}",
            self.turns.first().map_or(0, Vec::len),
            openssl::version()?,
            "bytes",
            "call"
        );
        for kind in &self.kinds {
            write!(text, "  {kind:>12}")?;
        }
        text.push_str("  pair of agentsight / empty pair\n");
        for (size, bytes) in SIZES.iter().enumerate() {
            for (way, name) in ["write", "read"].iter().enumerate() {
                write!(text, "{bytes:>9}  {name:5}")?;
                for &kind in &self.kinds {
                    write!(text, "  {:>12.0}", self.cost(kind, size, way).unwrap_or(f64::NAN))?;
                }
                writeln!(text, "  {:>8.2}", self.pair_ratio(Kind::Agentsight, size, way).unwrap_or(f64::NAN))?;
            }
        }
        Ok(text)
    }
}

impl Measured {
    /// Sizes and costs, for a plot.
    pub fn points(&self, kind: Kind, way: usize) -> Vec<(f64, f64)> {
        (0..SIZES.len()).filter_map(|size| Some((SIZES[size] as f64, self.cost(kind, size, way)?))).collect()
    }
}
