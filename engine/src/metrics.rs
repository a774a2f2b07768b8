//! What the engine counts about itself: totals, and every loss under its cause.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use agentsight_abi::{DropCause, Tally, Total as KernelTotal};

use crate::limits::PROVIDERS_MAX;

/// An enum, its names for people and machines, and what it counts, in the words of its documentation.
macro_rules! counters {
    ($(#[$doc:meta])* $enum:ident { $($(#[doc = $variant_doc:literal])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $enum { $($(#[doc = $variant_doc])* $variant,)* }

        impl $enum {
            /// Every one of them, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name that logs and metrics use.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it counts.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($variant_doc),*).trim_ascii(),)* }
            }
        }
    };
}

counters! {
    /// Why something was lost in user space. What the kernel side loses has an enum of its own.
    Cause {
        /// A record in a ring that contradicts itself.
        RecordMalformed = "record_malformed",
        /// Bytes between two records of a connection, whichever kernel-side cause they have.
        BytesMissing = "bytes_missing",
        /// A connection: too many are followed at once, and it was idle for longest.
        ConnectionEvicted = "connection_evicted",
        /// A connection of which requests were missed while others waited: which response answers which
        /// request can't be told any more.
        ConnectionGivenUp = "connection_given_up",
        /// A message that isn't HTTP, or whose framing can't be trusted.
        MessageMalformed = "message_malformed",
        /// A body: larger than a message may be, or too much is in reassembly.
        BodyTooLarge = "body_too_large",
        /// A body whose content coding is unknown.
        BodyCodingUnknown = "body_coding_unknown",
        /// A body whose content coding is damaged, or which expands beyond all bounds.
        BodyCodingMalformed = "body_coding_malformed",
        /// An event of a stream: larger than an event may be, or hit by a gap.
        EventLost = "event_lost",
        /// The content of an exchange, which was to be captured: a ring filled faster than it was drained.
        ContentWithheld = "content_withheld",
        /// A request that waited for its response: too many on one connection.
        PipelineFull = "pipeline_full",
        /// A response whose request was not seen.
        ResponseWithoutRequest = "response_without_request",
        /// A WebSocket: where its frames begin was lost, they make no sense, or too much is in
        /// reassembly.
        SocketGivenUp = "socket_given_up",
        /// An exchange: the queue to the encoder was full.
        ExchangeQueueFull = "exchange_queue_full",
        /// A span: too many encoded requests waited for the collector.
        ExportQueueFull = "export_queue_full",
        /// A span: larger than a request may be.
        ExportSpanTooLarge = "export_span_too_large",
        /// A span: the collector refused its request for good.
        ExportRefused = "export_refused",
        /// A span: the collector could not be reached, or put us off, for too long.
        ExportRetriesExhausted = "export_retries_exhausted",
        /// A span: the collector took its request but not this part of it.
        ExportPartialRejected = "export_partial_rejected",
        /// A span: the spool was full, and the oldest went first.
        SpoolFull = "spool_full",
        /// A span: too old when its turn in the spool came.
        SpoolExpired = "spool_expired",
        /// A span: its record in the spool was damaged, or torn by a crash.
        SpoolDamaged = "spool_damaged",
        /// A line: whoever reads the lines was too slow.
        OutputBehind = "output_behind",
        /// A span: not delivered when the time to shut down was over.
        ShutdownDeadline = "shutdown_deadline",
        /// A metric's point: the collector refused its request for good. Where values are
        /// cumulative, as they are by default, the next request makes up for it.
        MetricsRefused = "metrics_refused",
        /// A metric's point: the collector could not be reached, or put us off, for too long.
        MetricsRetriesExhausted = "metrics_retries_exhausted",
        /// A metric's point: the collector took its request but not this part of it.
        MetricsPartialRejected = "metrics_partial_rejected",
        /// A metric's point: not delivered when the time to shut down was over.
        MetricsShutdownDeadline = "metrics_shutdown_deadline",
    }
}

counters! {
    /// What is counted besides losses.
    Total {
        /// Records read from the rings.
        Records = "records",
        /// Payload bytes of those records.
        RecordBytes = "record_bytes",
        /// Connections followed.
        Connections = "connections",
        /// Connections whose bytes are neither requests nor responses.
        ConnectionsUnrecognised = "connections_unrecognised",
        /// Requests seen, LLM calls or not.
        Requests = "requests",
        /// Exchanges that reached the encoder.
        Exchanges = "exchanges",
        /// Spans made for export.
        Spans = "spans",
        /// Spans that the configured sampler left out.
        SpansNotSampled = "spans_not_sampled",
        /// Spans that the collector accepted.
        SpansExported = "spans_exported",
        /// Export requests sent, every attempt counted.
        ExportAttempts = "export_attempts",
        /// Attempts to export that failed in a way that another one may help.
        ExportRetries = "export_retries",
        /// Bytes of export requests accepted by the collector, before compression.
        ExportedBytes = "exported_bytes",
        /// Spans written to the spool.
        SpansSpooled = "spans_spooled",
        /// Spans of earlier runs that were in the spool.
        SpansFound = "spans_found",
        /// Bytes of damaged records in the spool.
        SpoolBytesDamaged = "spool_bytes_damaged",
        /// Points of metrics that the collector accepted, each time that they were sent.
        MetricPointsExported = "metric_points_exported",
        /// Steps that were taken to give something up because a ring filled, each in its turn.
        PressureSteps = "pressure_steps",
        /// Lines written to the terminal or a file.
        Lines = "lines",
        /// How long workers were busy, all of them together.
        WorkerBusySeconds = "worker_busy_seconds",
    }
}

counters! {
    /// What is so right now.
    Gauge {
        /// Threads that drain the rings.
        Workers = "workers",
        /// Bytes of each CPU's ring.
        RingBytes = "ring_bytes",
        /// The most that was in any ring within the last second or two.
        RingFillBytes = "ring_fill_bytes",
        /// Files with probes.
        FilesAttached = "files_attached",
        /// Processes that map such files; one that maps several counts for each.
        ProcessesAttached = "processes_attached",
        /// Exchanges that wait for the encoder.
        ExchangesWaiting = "exchanges_waiting",
        /// Spans in requests that wait in memory for the collector or the disk.
        ExportSpansWaiting = "export_spans_waiting",
        /// Bytes of those requests, before compression.
        ExportBytesWaiting = "export_bytes_waiting",
        /// Spans in the spool.
        SpoolSpans = "spool_spans",
        /// Bytes of the spool's files.
        SpoolBytes = "spool_bytes",
        /// Seconds since the oldest batch in the spool was written.
        SpoolAgeSeconds = "spool_age_seconds",
    }
}

/// Upper bounds of the buckets of [`Metrics::latency`] but for the last, in seconds.
pub const LATENCY_BOUNDS: [f64; 12] = [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24];

/// What stands for all providers that found no room.
const OTHER_PROVIDERS: &str = "_OTHER";

/// The counters, shared by every thread of the engine.
#[derive(Debug)]
pub struct Metrics {
    causes: [AtomicU64; Cause::ALL.len()],
    totals: [AtomicU64; Total::ALL.len()],
    gauges: [AtomicU64; Gauge::ALL.len()],
    /// Copies of what the kernel side counts: events, then bytes.
    kernel_drops: [[AtomicU64; 2]; DropCause::ALL.len()],
    kernel_totals: [AtomicU64; KernelTotal::ALL.len()],
    ring_peak_bytes: AtomicU64,
    latency: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    latency_sum_ns: AtomicU64,
    /// Spans by provider; only ever locked for a moment.
    providers: Mutex<Vec<(Box<str>, u64)>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            causes: [const { AtomicU64::new(0) }; _],
            totals: [const { AtomicU64::new(0) }; _],
            gauges: [const { AtomicU64::new(0) }; _],
            kernel_drops: [const { [const { AtomicU64::new(0) }; 2] }; _],
            kernel_totals: [const { AtomicU64::new(0) }; _],
            ring_peak_bytes: AtomicU64::new(0),
            latency: [const { AtomicU64::new(0) }; _],
            latency_sum_ns: AtomicU64::new(0),
            providers: Mutex::default(),
        }
    }
}

// Relaxed everywhere: a counter orders nothing, and readers only want a recent value.
impl Metrics {
    /// Counts `count` losses.
    pub fn lost(&self, cause: Cause, count: u64) {
        self.causes[cause as usize].fetch_add(count, Relaxed);
    }

    /// Losses of one cause so far.
    pub fn losses(&self, cause: Cause) -> u64 {
        self.causes[cause as usize].load(Relaxed)
    }

    /// Losses of every cause that had any.
    pub fn all_losses(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL.iter().map(|&cause| (cause, self.losses(cause))).filter(|(_, count)| *count > 0)
    }

    /// Adds to a total.
    pub fn add(&self, total: Total, count: u64) {
        self.totals[total as usize].fetch_add(count, Relaxed);
    }

    /// A total so far.
    pub fn total(&self, total: Total) -> u64 {
        self.totals[total as usize].load(Relaxed)
    }

    /// What is so from now on.
    pub fn set(&self, gauge: Gauge, value: u64) {
        self.gauges[gauge as usize].store(value, Relaxed);
    }

    /// What is so.
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.gauges[gauge as usize].load(Relaxed)
    }

    /// What the kernel side has counted.
    pub fn set_kernel(&self, drops: impl Fn(DropCause) -> Tally, totals: impl Fn(KernelTotal) -> Tally) {
        for (&cause, [events, bytes]) in DropCause::ALL.iter().zip(&self.kernel_drops) {
            let dropped = drops(cause);
            events.store(dropped.events, Relaxed);
            bytes.store(dropped.bytes, Relaxed);
        }
        for (&total, counter) in KernelTotal::ALL.iter().zip(&self.kernel_totals) {
            counter.store(totals(total).events, Relaxed);
        }
    }

    /// What the kernel side has dropped, as it was last looked at.
    pub fn kernel_drops(&self, cause: DropCause) -> Tally {
        let [events, bytes] = &self.kernel_drops[cause as usize];
        Tally { events: events.load(Relaxed), bytes: bytes.load(Relaxed) }
    }

    /// What the kernel side has done, as it was last looked at.
    pub fn kernel_total(&self, total: KernelTotal) -> u64 {
        self.kernel_totals[total as usize].load(Relaxed)
    }

    /// A ring was found with so much in it.
    pub fn ring_filled(&self, bytes: u64) {
        self.ring_peak_bytes.fetch_max(bytes, Relaxed);
    }

    /// Publishes the fullest that rings have been since this was last called.
    pub fn publish_ring_peak(&self) {
        self.set(Gauge::RingFillBytes, self.ring_peak_bytes.swap(0, Relaxed));
    }

    /// An attempt to export took so long.
    pub fn attempt_took(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = LATENCY_BOUNDS.partition_point(|&bound| bound < seconds);
        self.latency[bucket].fetch_add(1, Relaxed);
        self.latency_sum_ns.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How many attempts took how long: the buckets of [`LATENCY_BOUNDS`], and all together in seconds.
    pub fn latency(&self) -> ([u64; LATENCY_BOUNDS.len() + 1], f64) {
        let counts = std::array::from_fn(|bucket| self.latency[bucket].load(Relaxed));
        (counts, self.latency_sum_ns.load(Relaxed) as f64 / 1e9)
    }

    /// Counts spans of a provider.
    pub fn count_provider(&self, provider: &str, spans: u64) {
        let mut providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = providers.iter().position(|(known, _)| **known == *provider);
        let name = if known.is_none() && providers.len() >= PROVIDERS_MAX { OTHER_PROVIDERS } else { provider };
        match providers.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, counted)) => *counted += spans,
            None => providers.push((name.into(), spans)),
        }
    }

    /// Shows the spans of each provider.
    pub fn providers(&self, mut show: impl FnMut(&str, u64)) {
        let providers = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        providers.iter().for_each(|(provider, spans)| show(provider, *spans));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn providers_beyond_the_bound_are_counted_together() {
        let metrics = Metrics::default();
        for _ in 0..2 {
            (0..PROVIDERS_MAX + 5).for_each(|number| metrics.count_provider(&format!("host-{number}"), 1));
        }
        let mut counted = vec![];
        metrics.providers(|provider, spans| counted.push((provider.to_owned(), spans)));
        assert_eq!(counted.len(), PROVIDERS_MAX + 1);
        assert_eq!(counted.last(), Some(&(OTHER_PROVIDERS.to_owned(), 10)));
        assert_eq!(counted.iter().map(|(_, spans)| spans).sum::<u64>(), 2 * (PROVIDERS_MAX as u64 + 5));
    }

    #[test]
    fn each_cause_counts_on_its_own() {
        let metrics = Metrics::default();
        for (index, &cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(cause as usize, index);
            metrics.lost(cause, index as u64);
            metrics.lost(cause, 1);
        }
        for (index, &cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(metrics.losses(cause), index as u64 + 1);
        }
        assert_eq!(Cause::ALL.iter().map(|cause| cause.name()).collect::<HashSet<_>>().len(), Cause::ALL.len());
    }
}
