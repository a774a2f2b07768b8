//! `agentsight record`: the raw records to a file.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;

use super::{
    options::CaptureOptions,
    run::{log, tell_end},
};
use crate::{
    capture::Capture,
    flow::Roles,
    metrics::{Metrics, Total},
    recording::Recorder,
    sys::{
        clock::UnixOffset,
        signals,
        wait::{Waiter, Waker},
    },
    worker::Duty,
};

const LOOK: Duration = Duration::from_millis(100);

/// Flags of `record`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The file to write; it holds everything that was said, secrets included, readable by its owner only
    file: PathBuf,
    #[command(flatten)]
    capture: CaptureOptions,
}

/// Records until a signal, the duration's end, or a full disk.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let settings = options.capture.settings(false, Roles::Both)?;
    let log = log(options.capture.quiet);
    let stop = Waker::new()?;
    signals::stop_on_signal(stop.clone())?;
    let metrics = Arc::new(Metrics::default());
    let writing = || format!("can't write {}", options.file.display());
    let recorder = Recorder::create(&options.file, UnixOffset::measure()).with_context(writing)?;
    let recorder = Arc::new(Mutex::new(recorder));
    let (capture, started) = Capture::start(&settings, &metrics, &log, |_, _| Duty::Record(Arc::clone(&recorder)))?;
    for (path, functions, users) in &started.targets {
        log.info(&format!("attached to {} ({functions} functions, {users} processes)", path.display()));
    }
    log.info("ready");
    let mut waiter = Waiter::new(&[stop.fd()])?;
    let began = Instant::now();
    let lock = || recorder.lock().unwrap_or_else(PoisonError::into_inner);
    while signals::count() == 0
        && options.capture.duration.is_none_or(|duration| began.elapsed() < duration)
        && !lock().has_failed()
    {
        waiter.wait(LOOK);
        stop.clear();
    }
    let kernel = capture.stop();
    let records = lock().finish().with_context(writing)?;
    let drops: Vec<String> =
        kernel.drops().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    let lost = if drops.is_empty() { "nothing was dropped".into() } else { format!("DROPPED: {}", drops.join(", ")) };
    let text = format!(
        "{records} records with {} bytes in {}; {lost}",
        metrics.total(Total::RecordBytes),
        options.file.display()
    );
    tell_end(&log, !drops.is_empty(), &text);
    if let Some(path) = &options.capture.stats {
        let mut stats = super::stats::of_metrics(&metrics);
        stats["drops"] = kernel
            .drops()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        super::stats::write(path, &stats)?;
    }
    Ok(ExitCode::SUCCESS)
}
