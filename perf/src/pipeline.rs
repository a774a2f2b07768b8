//! What the user-space side does in a second, each time beside its floor.
//!
//! Every figure is the median of rounds that take turns: one pass of what is measured, one of each of its
//! floors. Times are those that the thread had of its core, so that other programs count less.

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use agentsight_benches::{
    dialect::Dialect,
    through::{Through, To},
    workload::{Reads, Workload},
};
use anyhow::anyhow;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use simd_json::{Buffers, Tape};

const EXCHANGES: usize = 64;

/// Options of `perf pipeline`.
#[derive(clap::Args)]
pub struct Options {
    /// Rounds, of which the median counts
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A workload and what else is done with its bytes.
struct Case {
    name: &'static str,
    workload: Workload,
    /// Records to exchanges, records to OTLP bytes.
    through: [Through; 2],
    tape: (Buffers, Option<Tape<'static>>),
    copy: Vec<u8>,
}

/// What is timed, in this order.
const STEPS: [&str; 5] = ["to_exchanges", "to_otlp", "memcpy", "memchr", "simd_json_tape"];

impl Case {
    fn new(name: &'static str, workload: Workload) -> Self {
        let through = [Through::new(To::Exchange), Through::new(To::Otlp)];
        Self { name, workload, through, tape: (Buffers::default(), None), copy: vec![] }
    }

    fn step(&mut self, step: usize) {
        match step {
            0 | 1 => {
                black_box(self.through[step].run(black_box(&self.workload)));
            }
            2 => {
                for recorded in &self.workload.records {
                    self.copy.clear();
                    self.copy.extend_from_slice(black_box(&recorded.payload));
                    black_box(&self.copy);
                }
            }
            3 => {
                for recorded in &self.workload.records {
                    // A byte that text never has, so that all of it is looked at.
                    black_box(memchr::memchr(0xff, black_box(&recorded.payload)));
                }
            }
            _ => {
                for document in &self.workload.documents {
                    self.copy.clear();
                    self.copy.extend_from_slice(black_box(document));
                    let mut tape = self.tape.1.take().unwrap_or_else(|| Tape(Vec::new())).reset();
                    simd_json::fill_tape(&mut self.copy, &mut self.tape.0, &mut tape).expect("documents are JSON");
                    black_box(tape.0.len());
                    self.tape.1 = Some(tape.reset());
                }
            }
        }
    }
}

/// The time that this thread has had of its core.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures and prints.
///
/// # Errors
/// When a worker thread can't be started.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut figures = vec![];
    for mut case in [
        Case::new("1 KiB and 1 KiB", Workload::plain(Dialect::Chat, 700, 500, EXCHANGES)),
        Case::new("64 KiB and 64 KiB", Workload::plain(Dialect::Chat, 64 << 10, 64 << 10, EXCHANGES)),
        Case::new("streams of 200, a read each", Workload::streamed(Dialect::Chat, 200, EXCHANGES, Reads::Each)),
        Case::new("streams of 2,000, full reads", Workload::streamed(Dialect::Chat, 2_000, 16, Reads::Full)),
        Case::new("mix", Workload::mix(7, EXCHANGES)),
    ] {
        let mut seconds = vec![vec![]; STEPS.len()];
        for round in 0..options.rounds + 3 {
            for (step, seconds) in seconds.iter_mut().enumerate() {
                let before = cpu_time();
                case.step(step);
                let taken = (cpu_time() - before).as_secs_f64();
                // The first rounds are the warm-up.
                if round >= 3 {
                    seconds.push(taken);
                }
            }
        }
        // Pairs of one round, so that what disturbs both counts for neither.
        let ratio = |over: usize, under: usize| {
            median(seconds[over].iter().zip(&seconds[under]).map(|(over, under)| over / under).collect())
        };
        let has_documents = case.workload.documents.len() == 2 * case.workload.exchanges;
        let (bytes, count) = (case.workload.bytes as f64, case.workload.exchanges as f64);
        let to_exchanges = median(seconds[0].clone());
        let to_otlp = median(seconds[1].clone());
        figures.push(json!({
            "case": case.name,
            "bytes": case.workload.bytes,
            "exchanges": case.workload.exchanges,
            "records": case.workload.records.len(),
            "to_exchanges_gb_per_s": bytes / to_exchanges / 1e9,
            "to_otlp_gb_per_s": bytes / to_otlp / 1e9,
            "exchanges_per_s": count / to_exchanges,
            "spans_per_s": count / to_otlp,
            "ns_per_record": 1e9 * to_exchanges / case.workload.records.len() as f64,
            "of_memcpy": ratio(2, 0),
            "of_memchr": ratio(3, 0),
            "of_simd_json_tape": has_documents.then(|| ratio(4, 0)),
        }));
    }
    let workers = two_workers(options.rounds.min(15))?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&json!({ "cases": figures, "two_workers": workers }))?);
        return Ok(());
    }
    println!(
        "                                  exchanges          OTLP       spans   of memcpy   of memchr   of a tape"
    );
    for figure in &figures {
        let number = |name: &str| figure[name].as_f64().unwrap_or(f64::NAN);
        println!(
            "{:30} {:8.2} GB/s {:8.2} GB/s {:9.0}/s {:11.3} {:11.3} {:11.2}",
            figure["case"].as_str().unwrap_or_default(),
            number("to_exchanges_gb_per_s"),
            number("to_otlp_gb_per_s"),
            number("spans_per_s"),
            number("of_memcpy"),
            number("of_memchr"),
            number("of_simd_json_tape"),
        );
    }
    println!("two workers against one: {workers:.2} (needs two cores that nobody else uses)");
    Ok(())
}

/// How much more two workers do than one, in wall time: rounds of one and of two take turns.
fn two_workers(rounds: usize) -> anyhow::Result<f64> {
    let workload = Workload::mix(7, EXCHANGES);
    let time = |workers: usize| -> anyhow::Result<f64> {
        let start = Barrier::new(workers);
        let work = || {
            // A pipeline stays on its thread.
            let mut through = Through::new(To::Otlp);
            assert!(through.run(&workload) > 0);
            start.wait();
            let begun = Instant::now();
            (0..4).for_each(|_| assert!(through.run(&workload) > 0));
            begun.elapsed().as_secs_f64()
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let mut times = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a worker failed")));
            times.try_fold(0.0, |longest, time| Ok(f64::max(longest, time?)))
        })
    };
    let ratios: anyhow::Result<Vec<f64>> = (0..rounds).map(|_| Ok(2.0 * time(1)? / time(2)?)).collect();
    Ok(median(ratios?))
}
