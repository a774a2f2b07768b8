//! Instructions that one exchange takes, for fixed inputs, as callgrind counts them.
//!
//! Wall time on a shared machine says little about a change of a few percent; instructions are the same
//! each time. A case is counted twice, for a few passes and for a few more: what the additional passes
//! took is what a pass takes after warm-up, without start-up and the making of the input.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf, process::Command};

use agentsight_benches::{
    dialect::Dialect,
    through::{Through, To},
    workload::{Reads, Workload},
};
use anyhow::{Context, bail, ensure};

/// Passes that are left out.
const WARM_UP: u64 = 3;
/// Passes that count.
const COUNTED: u64 = 4;
const EXCHANGES: usize = 8;
/// Compilers differ by a little from one release to the next; what a change of the code costs is more.
const TOLERANCE: f64 = 0.05;

/// Options of `perf icount`.
#[derive(clap::Args)]
pub struct Options {
    /// Write what was counted as the new budget
    #[arg(long)]
    update: bool,
    /// The budget's file
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/budget.toml"))]
    budget: PathBuf,
    /// Run a case, to be counted
    #[arg(long, hide = true, value_name = "CASE", requires = "passes")]
    run: Option<String>,
    #[arg(long, hide = true)]
    passes: Option<u64>,
}

/// All cases by name, with how to make their records.
fn cases() -> BTreeMap<String, Box<dyn Fn() -> Workload>> {
    let mut cases: BTreeMap<String, Box<dyn Fn() -> Workload>> = BTreeMap::new();
    for dialect in Dialect::ALL {
        let name = dialect.name().to_lowercase().replace(' ', "-");
        cases.insert(format!("{name}-plain"), Box::new(move || Workload::plain(dialect, 700, 500, EXCHANGES)));
        cases.insert(
            format!("{name}-stream"),
            Box::new(move || Workload::streamed(dialect, 200, EXCHANGES, Reads::Each)),
        );
    }
    cases.insert("large-bodies".into(), Box::new(|| Workload::plain(Dialect::Chat, 64 << 10, 64 << 10, EXCHANGES)));
    cases.insert(
        "stream-full-reads".into(),
        Box::new(|| Workload::streamed(Dialect::Chat, 200, EXCHANGES, Reads::Full)),
    );
    cases
}

/// Counts all cases and holds them against the budget.
///
/// # Errors
/// When valgrind can't be run, the budget can't be read, or a case is beyond it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let cases = cases();
    if let Some(name) = &options.run {
        let workload = cases.get(name).with_context(|| format!("there is no case {name}"))?();
        let mut through = Through::new(To::Otlp);
        (0..options.passes.unwrap_or(0)).for_each(|_| assert!(through.run(&workload) > 0));
        return Ok(());
    }
    let budget = if options.update { BTreeMap::new() } else { read(&fs::read_to_string(&options.budget)?)? };
    let mut beyond = vec![];
    let mut counted = String::from(
        "# Instructions of one exchange, from records to OTLP bytes, in a release build on x86_64.\n\
         # `cargo run --release -p perf -- icount` fails beyond 5 percent more; `--update` writes this file.\n\n",
    );
    for name in cases.keys() {
        let passes = instructions(name, WARM_UP + COUNTED)?.saturating_sub(instructions(name, WARM_UP)?);
        let each = passes / (COUNTED * EXCHANGES as u64);
        writeln!(counted, "{name} = {each}")?;
        let Some(most) = budget.get(name) else {
            println!("{name:26} {each:>10}");
            if !options.update {
                beyond.push(format!("{name} has no budget"));
            }
            continue;
        };
        let share = each as f64 / *most as f64;
        println!("{name:26} {each:>10}  {:+6.1}% of the budget", 100.0 * (share - 1.0));
        if share > 1.0 + TOLERANCE {
            beyond.push(format!("{name} takes {each} instructions, its budget is {most}"));
        }
    }
    if options.update {
        fs::write(&options.budget, counted).with_context(|| format!("writing {}", options.budget.display()))?;
    }
    ensure!(beyond.is_empty(), "{}; if this is meant to be, `--update` the budget", beyond.join("; "));
    Ok(())
}

/// The lines `name = number` of a budget.
fn read(text: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, number) = line.split_once('=').with_context(|| format!("{line:?} in the budget"))?;
            Ok((name.trim().to_owned(), number.trim().parse().with_context(|| format!("{line:?} in the budget"))?))
        })
        .collect()
}

/// Instructions of a whole process that makes so many passes.
fn instructions(case: &str, passes: u64) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["icount", "--run", case, "--passes", &passes.to_string()])
        .output()
        .context("valgrind counts the instructions; install it by the package of that name")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{case} under valgrind: {}\n{said}", output.status);
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected :")).context("callgrind says no count")?;
    collected.1.trim().parse().with_context(|| format!("callgrind says {:?}", collected.1))
}
