//! What is found in files, and how long looking for it takes.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Instant,
};

use agentsight::kernel::{
    families::{self, Effort, Finding, Placement},
    image::{self, examine},
    study,
};
use anyhow::ensure;
use clap::Args;

use crate::numbers::median;

/// Flags of `study`.
#[derive(Args)]
pub struct Options {
    /// Times that each file is looked into, of which the median is told
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Executables and libraries
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Measures and prints.
pub fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.turns > 0, "a file has to be looked into at least once");
    println!("{:>9} {:>9} {:>9}  file", "MiB", "glance ms", "study ms");
    for path in &options.files {
        if let Err(error) = one(path, options.turns) {
            println!("{:>29}  {}: {error}", "", path.display());
        }
    }
    Ok(())
}

fn one(path: &Path, turns: usize) -> anyhow::Result<()> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let (glance, glanced) = look(turns, || examine(&file, |image| families::find(image, Effort::Glance)))?;
    let (study, studied) = look(turns, || Ok(study::study(&file)?.finding))?;
    let mib = bytes as f64 / f64::from(1 << 20);
    println!("{mib:>9.1} {glance:>9.2} {study:>9.2}  {}", path.display());
    for finding in [glanced, studied] {
        if finding.functions > 0 {
            let place = |placement: &Placement| format!("{}@{:#x}", placement.program, placement.offset);
            let places: Vec<String> = finding.placements.iter().map(place).collect();
            println!("{:>29}  {} functions: {}", "", finding.functions, places.join(" "));
        }
        if let Some(remark) = finding.remark {
            println!("{:>29}  {remark}", "");
        }
    }
    Ok(())
}

/// Milliseconds that it takes, and what is found.
fn look(turns: usize, find: impl Fn() -> Result<Finding, image::Error>) -> Result<(f64, Finding), image::Error> {
    let mut durations = Vec::with_capacity(turns);
    let mut found = Finding::default();
    for _ in 0..turns {
        let began = Instant::now();
        found = find()?;
        durations.push(began.elapsed());
    }
    Ok((median(durations.iter().map(|duration| duration.as_secs_f64() * 1e3)), found))
}
