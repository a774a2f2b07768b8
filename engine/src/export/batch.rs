//! An encoded batch, and what an attempt to deliver it comes to.
//!
//! This is all that those who fill batches, those who keep them and those who send them know of
//! each other. A batch is complete: it can be written down and sent by another process.

pub use agentsight_otlp::Encoding;
use agentsight_otlp::{Envelope, Kind, Scope};
use hyper::body::Bytes;

use super::config::Settings;
use crate::{
    metrics::{Cause, Metrics, Total},
    semconv,
};

/// What is exported. Each has a path of its own at the collector, and variables beside those for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Points of metrics.
    Metrics,
}

impl Signal {
    /// What is appended to the base URL of the collector.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// What its batches hold, in a word for a person.
    pub const fn records(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "metrics",
        }
    }

    /// What stands around the records of this signal's batches.
    pub(super) fn envelope(self, settings: &Settings) -> Envelope {
        let kind = match self {
            Self::Traces => Kind::Spans,
            Self::Metrics => Kind::Metrics,
        };
        let scope = Scope { name: "agentsight", version: env!("CARGO_PKG_VERSION") };
        Envelope::encoded(settings.encoding, kind, settings.resource.as_slice(), scope, semconv::SCHEMA_URL)
    }
}

/// One export request, encoded but not compressed.
#[derive(Clone, Debug)]
pub struct EncodedBatch {
    /// What it holds.
    pub signal: Signal,
    /// How it is written down.
    pub encoding: Encoding,
    /// How many spans, or points of metrics.
    pub records: u64,
    /// The request's bytes. Clones share them.
    pub body: Bytes,
}

/// What became of a batch, after one attempt or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The collector took it. It is not to be sent again.
    Delivered {
        /// How many records of it the collector says it rejected.
        rejected: u64,
        /// What the collector says about that, or warns of; mostly empty.
        message: String,
    },
    /// It is not known to have arrived: the collector could not be reached, did not answer in time
    /// or put us off. It may be sent again, and whoever has no place to keep it has lost it.
    Later {
        /// Why, for a person.
        why: String,
    },
    /// The collector does not want it, now or later. It is lost.
    Refused {
        /// Why, for a person.
        why: String,
    },
}

impl Outcome {
    /// Counts what became of the records of `batch`: those delivered, and the others under the cause
    /// of their loss. `Later` counts as lost: who keeps the batch must not call this.
    pub fn account(&self, batch: &EncodedBatch, metrics: &Metrics) {
        let traces = batch.signal == Signal::Traces;
        let (accepted, cause) = match self {
            Self::Delivered { rejected, .. } => (
                // A collector can't reject more than it got.
                batch.records.saturating_sub(*rejected),
                if traces { Cause::ExportPartialRejected } else { Cause::MetricsPartialRejected },
            ),
            Self::Refused { .. } => (0, if traces { Cause::ExportRefused } else { Cause::MetricsRefused }),
            Self::Later { .. } => {
                (0, if traces { Cause::ExportRetriesExhausted } else { Cause::MetricsRetriesExhausted })
            }
        };
        metrics.add(if traces { Total::SpansExported } else { Total::MetricPointsExported }, accepted);
        metrics.lost(cause, batch.records - accepted);
        if traces && accepted > 0 {
            metrics.add(Total::ExportedBytes, batch.body.len() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_counted_once() {
        let check = |signal, outcome: Outcome, total, accepted, losses: &[(Cause, u64)]| {
            let metrics = Metrics::default();
            let batch = EncodedBatch { signal, encoding: Encoding::Protobuf, records: 7, body: Bytes::new() };
            outcome.account(&batch, &metrics);
            assert_eq!(metrics.total(total), accepted, "{signal:?} {outcome:?}");
            assert_eq!(metrics.all_losses().collect::<Vec<_>>(), losses, "{signal:?} {outcome:?}");
        };
        let delivered = |rejected| Outcome::Delivered { rejected, message: String::new() };
        let later = || Outcome::Later { why: String::new() };
        let refused = || Outcome::Refused { why: String::new() };
        let (spans, points) = (Total::SpansExported, Total::MetricPointsExported);
        check(Signal::Traces, delivered(0), spans, 7, &[]);
        check(Signal::Traces, delivered(3), spans, 4, &[(Cause::ExportPartialRejected, 3)]);
        check(Signal::Traces, delivered(9), spans, 0, &[(Cause::ExportPartialRejected, 7)]);
        check(Signal::Traces, later(), spans, 0, &[(Cause::ExportRetriesExhausted, 7)]);
        check(Signal::Traces, refused(), spans, 0, &[(Cause::ExportRefused, 7)]);
        check(Signal::Metrics, delivered(2), points, 5, &[(Cause::MetricsPartialRejected, 2)]);
        check(Signal::Metrics, later(), points, 0, &[(Cause::MetricsRetriesExhausted, 7)]);
        check(Signal::Metrics, refused(), points, 0, &[(Cause::MetricsRefused, 7)]);
    }
}
