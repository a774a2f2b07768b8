//! Everything, written down with the machine's facts.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::{attached, idle, loss, overhead};

/// Flags of `report`.
#[derive(Args)]
#[command(after_help = "\
Runs overhead, loss and idle with their defaults and writes, for each, its figures as JSON, its tables as Markdown, \
its plots as SVG and all of it as one HTML page. Takes about eight minutes; needs root.")]
pub struct Options {
    /// Where to write [default: perf/record/DATE]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Turns of each kind
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    #[command(flatten)]
    attached: attached::Options,
}

/// Measures and writes.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let folder = match &options.folder {
        Some(folder) => folder.clone(),
        None => PathBuf::from("perf/record").join(today()?),
    };
    fs::create_dir_all(&folder).with_context(|| format!("can't create {}", folder.display()))?;
    let rounds = options.rounds.to_string();
    let write = |name: &str, json: serde_json::Value, page: crate::page::Page| -> anyhow::Result<()> {
        fs::write(folder.join(format!("{name}.json")), format!("{json:#}\n"))?;
        fs::write(folder.join(format!("{name}.html")), page.html())?;
        Ok(page.write(&folder, name)?)
    };
    let mut settings = crate::defaults::<overhead::Options>(&["--rounds", &rounds])?;
    settings.attached = options.attached.clone();
    let measured = overhead::measure(&settings)?;
    write("overhead", measured.json()?, measured.page())?;
    let mut settings = crate::defaults::<loss::Options>(&[])?;
    settings.attached = options.attached.clone();
    let measured = loss::measure(&settings)?;
    write("loss", measured.json(), measured.page())?;
    let mut settings = crate::defaults::<idle::Options>(&["--rounds", &rounds])?;
    settings.attached = options.attached.clone();
    let measured = idle::measure(&settings)?;
    write("idle", measured.json(), measured.page())?;
    eprintln!("perf: written to {}", folder.display());
    Ok(())
}

fn today() -> anyhow::Result<String> {
    let output = Command::new("date").args(["-u", "+%F"]).output()?;
    ensure!(output.status.success(), "date(1) fails");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
