//! The encoder thread: takes finished exchanges, writes lines, and keeps requests on their way.

use std::{
    fmt, io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use bumpalo::Bump;
use crossbeam_queue::ArrayQueue;
use thiserror::Error;
use tokio::{sync::oneshot, time::Instant};

use super::{
    batcher::Batcher,
    config::{MetricSettings, Settings},
    meter::Meter,
    otlp::Client,
    outlet::Outlet,
    tls::TlsError,
};
use crate::{
    exchange::Exchange,
    handoff::Handoff,
    limits,
    log::Log,
    metrics::{Cause, Gauge, Metrics, Total},
    output::Lines,
    spool,
};

/// Where exchanges come from and their arenas go back to.
pub struct Inlet {
    /// Finished exchanges of all workers.
    pub exchanges: Arc<Handoff>,
    /// For each worker, the arenas that it can use again.
    pub arenas: Vec<Arc<ArrayQueue<Box<Bump>>>>,
}

/// What is made of them. All may be wanted, or none.
#[derive(Default)]
pub struct Outputs {
    /// Spans to a collector.
    pub otlp: Option<Settings>,
    /// Where spans are kept that the collector doesn't take in time; without this they are lost then.
    pub spool: Option<spool::Settings>,
    /// Metrics to a collector.
    pub metrics: Option<MetricSettings>,
    /// The engine's own counters among those metrics.
    pub own_metrics: bool,
    /// Lines.
    pub lines: Option<Lines>,
}

/// The running encoder thread.
pub struct Exporter {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<Instant>,
    metrics: Arc<Metrics>,
}

/// Why the exporter can't start.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// There was no thread or no event loop to be had.
    #[error("can't start the export thread: {0}")]
    Thread(#[from] io::Error),
    /// Certificates or keys can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What was exported and what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Exchanges that reached the encoder.
    pub exchanges: u64,
    /// Spans that the collector accepted.
    pub exported: u64,
    /// Spans that are in the spool, those of earlier runs among them.
    pub kept: u64,
    /// What was lost, by cause.
    pub losses: Vec<(Cause, u64)>,
}

impl Exporter {
    /// Starts the thread.
    pub fn spawn(inlet: Inlet, outputs: Outputs, metrics: Arc<Metrics>, log: Log) -> Result<Self, SpawnError> {
        let delivery = match outputs.otlp {
            Some(settings) => {
                let (batcher, mut outlet) = Batcher::new(&settings, Arc::clone(&metrics));
                let mut client = Client::new(settings, Arc::clone(&metrics), log.clone())?;
                if let Some(settings) = outputs.spool {
                    outlet = outlet.with_spool(settings, log.clone())?;
                    client = client.for_kept_batches();
                }
                Some((batcher, outlet, client))
            }
            None => None,
        };
        let meter = outputs.metrics.map(|settings| Meter::new(settings, Arc::clone(&metrics), log.clone()));
        let meter = meter.transpose()?;
        let meter = meter.map(|meter| if outputs.own_metrics { meter.with_own() } else { meter });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let encoder = Encoder { inlet, lines: outputs.lines, meter, metrics: Arc::clone(&metrics) };
        let thread = thread::Builder::new().name("agentsight-export".to_owned()).spawn(move || {
            runtime.block_on(encoder.run(delivery, stopped));
            // A name look-up that hangs must not hold up the exit.
            runtime.shutdown_background();
        })?;
        Ok(Self { thread, stop, metrics })
    }

    /// Delivers what is there, for up to `limit`; what is left then stays in the spool, or is dropped
    /// and counted. The workers have to be done by now.
    pub fn shutdown(self, limit: Duration) -> Report {
        // An error of either means that the thread panicked; the counters still hold.
        let _ = self.stop.send(Instant::now() + limit.min(LIMIT_MAX));
        let _ = self.thread.join();
        Report::new(&self.metrics)
    }

    /// Whether the thread has ended, which it does by itself only when it panics.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Report {
    fn new(metrics: &Metrics) -> Self {
        Self {
            exchanges: metrics.total(Total::Exchanges),
            exported: metrics.total(Total::SpansExported),
            kept: metrics.gauge(Gauge::SpoolSpans),
            losses: metrics.all_losses().collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} exchanges, {} spans exported", self.exchanges, self.exported)?;
        if self.kept > 0 {
            write!(out, ", {} kept in the spool for the next run", self.kept)?;
        }
        for (cause, count) in &self.losses {
            write!(out, ", {count} lost ({})", cause.name())?;
        }
        Ok(())
    }
}

/// The longest that a shutdown can be asked to take, so that adding it to a time never overflows.
const LIMIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Exchanges that are handled before the sender gets a turn.
const TURN: usize = 256;

/// How long to wait for more when there was something.
const PAUSE_BUSY: Duration = Duration::from_millis(2);

/// After a pause of this length without anything, the next exchange is waited for.
const PAUSE_IDLE: Duration = Duration::from_millis(50);

/// How long at most, so that what is set at each turn stays true.
const SLEEP_MAX: Duration = Duration::from_secs(5);

struct Encoder {
    inlet: Inlet,
    lines: Option<Lines>,
    meter: Option<Meter>,
    metrics: Arc<Metrics>,
}

impl Encoder {
    async fn run(mut self, delivery: Option<(Batcher, Outlet, Client)>, mut stopped: oneshot::Receiver<Instant>) {
        let (mut batcher, delivery) = match delivery {
            Some((batcher, outlet, client)) => {
                let (last_call, called) = oneshot::channel();
                (Some(batcher), Some((tokio::spawn(outlet.deliver(client, called)), last_call)))
            }
            None => (None, None),
        };

        let mut pause = PAUSE_BUSY;
        let deadline = loop {
            let handled = self.take_turn(&mut batcher);
            if let Some(batcher) = &mut batcher {
                batcher.close_if_due();
            }
            if let Some(meter) = &mut self.meter {
                meter.export_if_due();
            }
            if handled == TURN {
                tokio::task::yield_now().await;
                continue;
            }
            if let Some(lines) = &mut self.lines {
                lines.flush();
            }
            pause = if handled > 0 { PAUSE_BUSY } else { PAUSE_IDLE.min(pause * 2) };
            let now = Instant::now();
            let until = if pause < PAUSE_IDLE {
                now + pause
            } else {
                let due =
                    batcher.as_ref().and_then(Batcher::due).into_iter().chain(self.meter.as_ref().map(Meter::due));
                // One that is overdue can't be done yet.
                due.fold(now + SLEEP_MAX, Instant::min).max(now + PAUSE_IDLE)
            };
            tokio::select! {
                biased;
                // The other end gone means that nobody waits for what is left.
                deadline = &mut stopped => break deadline.unwrap_or_else(|_| Instant::now()),
                () = self.inlet.exchanges.wait(), if pause >= PAUSE_IDLE => {}
                () = tokio::time::sleep_until(until) => {}
            }
        };
        self.finish(batcher, deadline).await;
        let delivery = delivery.map(|(delivery, last_call)| {
            // It has ended already if this is an error.
            let _ = last_call.send(deadline);
            delivery
        });
        if let Some(meter) = self.meter {
            // Spans are delivered in the same time, by a task of their own.
            meter.finish(deadline).await;
        }
        if let Some(delivery) = delivery {
            // It keeps to the deadline, and counts what is left then.
            let _ = delivery.await;
        }
        if let Some(lines) = self.lines {
            // They had the time of the delivery as well.
            lines.finish(deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// Handles what waits, up to a bound, and tells how many there were.
    fn take_turn(&mut self, batcher: &mut Option<Batcher>) -> usize {
        self.metrics.set(Gauge::ExchangesWaiting, self.inlet.exchanges.len() as u64);
        for handled in 0..TURN {
            let Some(exchange) = self.inlet.exchanges.pop() else { return handled };
            self.metrics.add(Total::Exchanges, 1);
            if let Some(lines) = &mut self.lines {
                lines.write(&exchange);
            }
            if let Some(batcher) = batcher {
                batcher.append(&exchange);
            }
            if let Some(meter) = &mut self.meter {
                meter.record(&exchange);
            }
            self.give_back(exchange);
        }
        TURN
    }

    /// Returns an exchange's arena to its worker, unless it has grown out of proportion.
    fn give_back(&self, exchange: Exchange) {
        let worker = exchange.worker;
        let arena = exchange.call.into_arena();
        if arena.allocated_bytes() <= limits::ARENA_KEPT_BYTES_MAX
            && let Some(pool) = self.inlet.arenas.get(worker)
        {
            // A full pool has enough; this one is freed.
            let _ = pool.push(arena);
        }
    }

    /// Handles everything that is left in the queue while there is time, and closes the last request.
    async fn finish(&mut self, mut batcher: Option<Batcher>, deadline: Instant) {
        loop {
            let handled = self.take_turn(&mut batcher);
            if handled < TURN {
                break;
            }
            if Instant::now() >= deadline {
                let mut left = 0;
                while let Some(exchange) = self.inlet.exchanges.pop() {
                    left += 1;
                    self.give_back(exchange);
                }
                self.metrics.add(Total::Exchanges, left);
                self.metrics.lost(Cause::ShutdownDeadline, left);
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Some(mut batcher) = batcher {
            batcher.close();
        }
        if let Some(lines) = &mut self.lines {
            lines.flush();
        }
    }
}
