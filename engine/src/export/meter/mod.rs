//! Metrics of the GenAI conventions: exchanges are added up, and from time to time the sums are sent.
//!
//! ```text
//! exchange ─► recorder: one look-up, histograms   ── every interval ──► collect: OTLP ─► otlp: POST
//! ```
//!
//! While one collection is on its way no other is made: values stay in the recorder, where they
//! cost nothing, until the collector has taken or refused what was there before.

mod collect;
mod histogram;
mod instrument;
mod labels;
mod own;
mod recorder;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use agentsight_otlp::{Envelope, Kind, metric::Temporality};
use hyper::body::Bytes;
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use self::collect::{Collected, Span, collect};
pub use self::recorder::Recorder;
use super::{
    batch::{EncodedBatch, Signal},
    config::MetricSettings,
    otlp::Client,
    tls::TlsError,
};
use crate::{
    exchange::Exchange,
    log::Log,
    metrics::{Cause, Metrics},
};

/// Adds up exchanges and exports the sums.
pub(super) struct Meter {
    recorder: Recorder,
    envelope: Envelope,
    settings: MetricSettings,
    /// Since when the values count.
    start_unix_nano: u64,
    due: Instant,
    /// Held by the collection that is on its way.
    client: Arc<Mutex<Client>>,
    sending: Option<Sending>,
    metrics: Arc<Metrics>,
    own: Option<Own>,
}

/// What is needed to export the engine's own counters.
struct Own {
    envelope: Envelope,
    /// When the engine was started.
    start_unix_nano: u64,
}

/// A collection on its way.
struct Sending {
    task: JoinHandle<()>,
    points: u64,
}

impl Meter {
    pub(super) fn new(settings: MetricSettings, metrics: Arc<Metrics>, log: Log) -> Result<Self, TlsError> {
        let envelope = Signal::Metrics.envelope(&settings.transport);
        let client = Client::new(settings.transport.clone(), Arc::clone(&metrics), log)?;
        Ok(Self {
            recorder: Recorder::default(),
            envelope,
            start_unix_nano: unix_nano(),
            due: Instant::now() + settings.interval,
            settings,
            client: Arc::new(Mutex::new(client)),
            sending: None,
            metrics,
            own: None,
        })
    }

    /// With the engine's own counters beside them.
    pub(super) fn with_own(mut self) -> Self {
        let transport = &self.settings.transport;
        let envelope =
            Envelope::encoded(transport.encoding, Kind::Metrics, transport.resource.as_slice(), own::SCOPE, "");
        self.own = Some(Own { envelope, start_unix_nano: self.start_unix_nano });
        self
    }

    pub(super) fn record(&mut self, exchange: &Exchange) {
        self.recorder.record(exchange);
    }

    /// When the interval is over.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Sends what there is when the interval is over, unless the last one is still on its way. Has
    /// to be called where tasks can be spawned.
    pub(super) fn export_if_due(&mut self) {
        let now = Instant::now();
        if now < self.due {
            return;
        }
        let Ok(client) = Arc::clone(&self.client).try_lock_owned() else { return };
        self.due = now + self.settings.interval;
        let collected = self.collect();
        let points = points(&collected);
        if points == 0 {
            return;
        }
        let metrics = Arc::clone(&self.metrics);
        let task = tokio::spawn(async move { deliver(client, collected, &metrics, &mut 0).await });
        self.sending = Some(Sending { task, points });
    }

    /// Sends what there is a last time, until `deadline`.
    pub(super) async fn finish(mut self, deadline: Instant) {
        // The one on its way has the client; what it does not deliver, the task accounts for.
        let client = timeout_at(deadline, Arc::clone(&self.client).lock_owned()).await;
        let collected = self.collect();
        let mut left = points(&collected);
        let in_time = match client {
            Ok(client) => timeout_at(deadline, deliver(client, collected, &self.metrics, &mut left)).await.is_ok(),
            Err(_elapsed) => {
                if let Some(Sending { task, points }) = self.sending {
                    task.abort();
                    left += points;
                }
                false
            }
        };
        if !in_time {
            self.metrics.lost(Cause::MetricsShutdownDeadline, left);
        }
    }

    fn collect(&mut self) -> Vec<Collected> {
        let temporality = self.settings.temporality;
        // The clock may have been set back.
        let end_unix_nano = unix_nano().max(self.start_unix_nano);
        let span = Span { temporality, start_unix_nano: self.start_unix_nano, end_unix_nano };
        let mut collected = collect(&self.recorder, &self.envelope, span);
        if let Some(Own { envelope, start_unix_nano }) = &self.own {
            let times = own::Times { start_unix_nano: *start_unix_nano, end_unix_nano };
            collected.push(own::collect(&self.metrics, envelope, times));
        }
        if temporality == Temporality::Delta {
            self.recorder.restart();
            self.start_unix_nano = end_unix_nano;
        }
        collected
    }
}

fn points(collected: &[Collected]) -> u64 {
    collected.iter().map(|collected| collected.points).sum()
}

/// Sends one request after the other; `left` is how many points have not met their end.
async fn deliver(mut client: OwnedMutexGuard<Client>, collected: Vec<Collected>, metrics: &Metrics, left: &mut u64) {
    for Collected { body, points } in collected {
        let encoding = body.encoding();
        let body = Bytes::from_owner(body);
        let batch = EncodedBatch { signal: Signal::Metrics, encoding, records: points, body };
        let outcome = client.send(&batch).await;
        // No await between the two: at the deadline both were done, or neither.
        outcome.account(&batch, metrics);
        *left = left.saturating_sub(points);
    }
}

fn unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
