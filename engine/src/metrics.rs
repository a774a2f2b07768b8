//! What the engine counts about itself: totals, and every loss under its cause.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// An enum, its names for people and machines, and one atomic counter for each.
macro_rules! counters {
    ($(#[$doc:meta])* $enum:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $enum { $($(#[$variant_doc])* $variant,)* }

        impl $enum {
            /// Every one of them, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name that logs and metrics use.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
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
        /// Lines written to the terminal or a file.
        Lines = "lines",
    }
}

counters! {
    /// What is so right now.
    Gauge {
        /// Spans in the spool.
        SpoolSpans = "spool_spans",
        /// Bytes of the spool's files.
        SpoolBytes = "spool_bytes",
        /// Seconds since the oldest batch in the spool was written.
        SpoolAgeSeconds = "spool_age_seconds",
    }
}

/// The counters, shared by every thread of the engine.
#[derive(Debug, Default)]
pub struct Metrics {
    causes: [AtomicU64; Cause::ALL.len()],
    totals: [AtomicU64; Total::ALL.len()],
    gauges: [AtomicU64; Gauge::ALL.len()],
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
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

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
