//! `agentsight replay`: the pipeline on a recording.

use std::{path::PathBuf, process::ExitCode, sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use clap::Args;

use super::{
    options::OutputOptions,
    run::{SHUTDOWN_MAX, log, outputs, tell_end},
    stats,
};
use crate::{
    export::exporter::{Exporter, Inlet},
    flow::{self, IdSource, Pipeline},
    limits::EXCHANGE_QUEUE_MAX,
    metrics::{Metrics, Total},
    recording::{Error, Recording},
    worker::{QueueOutlet, Queues},
};

/// Flags of `replay`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// A file that `agentsight record` wrote
    file: PathBuf,
    #[command(flatten)]
    output: OutputOptions,
    /// Go through the recording so many times; each time gives spans of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Write counters as JSON to this file at the end
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Say nothing but errors on stderr, whatever OTEL_LOG_LEVEL is, and show no calls
    #[arg(short, long)]
    quiet: bool,
}

/// Replays, as fast as it goes without losing anything.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let export = options.output.export()?;
    let log = log(options.quiet);
    for warning in &export.warnings {
        log.warn(warning);
    }
    let reading = || format!("can't replay {}", options.file.display());
    // Before anything is started: a file that is no recording is the likeliest mistake.
    Recording::open(&options.file).with_context(reading)?;
    let metrics = Arc::new(Metrics::default());
    let _server = options.output.serve(&metrics)?;
    let queues = Queues::new(1, EXCHANGE_QUEUE_MAX);
    let inlet = Inlet { exchanges: Arc::clone(&queues.exchanges), arenas: queues.arenas.clone() };
    let exporter = Exporter::spawn(
        inlet,
        // A recording can be replayed again, so nothing is kept unless that is asked for.
        outputs(
            export.spans,
            options.output.spool(None)?,
            export.metrics,
            options.output.style(options.quiet),
            &metrics,
        )?,
        Arc::clone(&metrics),
        log.clone(),
    )?;
    let mut outcome = Ok(());
    for turn in 0..options.repeat {
        outcome = replay_once(options, turn, &queues, &metrics).with_context(reading);
        if outcome.is_err() {
            break;
        }
    }
    let report = exporter.shutdown(SHUTDOWN_MAX);
    let text =
        format!("{} records with {} bytes: {report}", metrics.total(Total::Records), metrics.total(Total::RecordBytes));
    tell_end(&log, metrics.all_losses().next().is_some(), &text);
    if let Some(path) = &options.stats {
        stats::write(path, &stats::of_metrics(&metrics))?;
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

fn replay_once(options: &Options, turn: u32, queues: &Queues, metrics: &Arc<Metrics>) -> Result<(), Error> {
    let mut recording = Recording::open(&options.file)?;
    let settings = flow::Settings {
        roles: options.output.role,
        call: options.output.call(),
        idle_ns: u64::try_from(options.output.idle_timeout.as_nanos()).unwrap_or(u64::MAX),
        clock: recording.clock(),
        ids: IdSource::fixed(u64::from(turn)),
        describe: flow::describe_by_comm,
        worker: 0,
    };
    let mut pipeline = Pipeline::new(settings, Arc::clone(metrics));
    let mut outlet = QueueOutlet::new(queues.clone(), 0, None, Arc::clone(metrics));
    let mut looked_ns = 0;
    let result = loop {
        // Nothing is in a hurry here, so nothing has to be dropped.
        while queues.exchanges.len() > EXCHANGE_QUEUE_MAX / 2 {
            thread::sleep(Duration::from_millis(1));
        }
        match recording.next_record() {
            Ok(Some(record)) => {
                metrics.add(Total::Records, 1);
                metrics.add(Total::RecordBytes, record.payload.len() as u64);
                let now_ns = record.header.ktime_ns;
                pipeline.record(&record, &mut outlet);
                // The recording's clock stands in for the machine's.
                if now_ns.saturating_sub(looked_ns) >= 1_000_000_000 {
                    looked_ns = now_ns;
                    pipeline.idle(now_ns, &mut outlet);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    pipeline.finish(&mut outlet);
    result
}
