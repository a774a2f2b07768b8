//! Spans gather in one open request; closed requests wait, bounded, for their turn to be sent.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use agentsight_otlp::{Appended, Body, Envelope, Request, request::SizeLimits};
use crossbeam_queue::ArrayQueue;
use hyper::body::Bytes;
use tokio::{sync::mpsc, time::Instant};

use super::{
    batch::{EncodedBatch, Signal},
    config::{Batch, Settings},
    limit::AttributeLimits,
    outlet::Outlet,
    sampler::Sampler,
    span,
};
use crate::{
    exchange::Exchange,
    limits,
    metrics::{Cause, Gauge, Metrics, Total},
};

const SIZE_LIMITS: SizeLimits =
    SizeLimits { target_bytes: limits::EXPORT_REQUEST_BYTES_TARGET, bytes_max: limits::EXPORT_REQUEST_BYTES_MAX };

/// Fills requests.
pub(super) struct Batcher {
    limits: Batch,
    attributes: AttributeLimits,
    sampler: Sampler,
    envelope: Envelope,
    open: Request,
    /// When the open request got its first span.
    opened: Instant,
    closed: mpsc::UnboundedSender<EncodedBatch>,
    waiting: Arc<Waiting>,
    buffers: Arc<ArrayQueue<Vec<u8>>>,
    name: String,
    metrics: Arc<Metrics>,
}

/// What is closed and has not yet met its end. The batcher alone adds, so what it reads can only
/// be too much by the time it decides, never too little; nothing else is ordered by these.
#[derive(Debug)]
pub(super) struct Waiting {
    spans_max: usize,
    spans: AtomicUsize,
    bytes: AtomicUsize,
}

impl Waiting {
    /// Nothing waits, and no more spans than these may.
    pub(super) fn new(spans_max: usize) -> Self {
        Self { spans_max, spans: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    /// It is time to find another place for what waits.
    pub(super) fn is_half_full(&self) -> bool {
        self.spans.load(Relaxed) > self.spans_max / 2 || self.bytes.load(Relaxed) > limits::EXPORT_WAITING_BYTES_MAX / 2
    }

    fn fits(&self, batch: &EncodedBatch) -> bool {
        self.spans.load(Relaxed) + batch.records as usize <= self.spans_max
            && self.bytes.load(Relaxed) + batch.body.len() <= limits::EXPORT_WAITING_BYTES_MAX
    }

    fn add(&self, batch: &EncodedBatch) {
        self.spans.fetch_add(batch.records as usize, Relaxed);
        self.bytes.fetch_add(batch.body.len(), Relaxed);
    }

    /// Takes a batch that has met its end off the count.
    pub(super) fn remove(&self, batch: &EncodedBatch) {
        self.spans.fetch_sub(batch.records as usize, Relaxed);
        self.bytes.fetch_sub(batch.body.len(), Relaxed);
    }
}

/// A request's bytes, whose buffer goes back to the pool when the last attempt is over.
struct Pooled {
    body: Option<Body>,
    buffers: Arc<ArrayQueue<Vec<u8>>>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        self.body.as_ref().map(AsRef::as_ref).unwrap_or_default()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            keep(body.into_buffer(), &self.buffers);
        }
    }
}

/// Puts a buffer into the pool unless it is large or the pool is full.
fn keep(buffer: Vec<u8>, buffers: &ArrayQueue<Vec<u8>>) {
    if buffer.capacity() <= limits::EXPORT_BUFFER_KEPT_BYTES_MAX {
        let _ = buffers.push(buffer);
    }
}

impl Batcher {
    /// The two ends of the queue of requests.
    pub(super) fn new(settings: &Settings, metrics: Arc<Metrics>) -> (Self, Outlet) {
        let envelope = Signal::Traces.envelope(settings);
        let (closed, queue) = mpsc::unbounded_channel();
        let waiting = Arc::new(Waiting::new(settings.batch.waiting_spans_max));
        let batcher = Self {
            limits: settings.batch,
            attributes: settings.attributes,
            sampler: settings.sampler,
            open: Request::new(&envelope, SIZE_LIMITS, Vec::new()),
            envelope,
            opened: Instant::now(),
            closed,
            waiting: Arc::clone(&waiting),
            buffers: Arc::new(ArrayQueue::new(limits::EXPORT_BUFFERS_KEPT_MAX)),
            name: String::new(),
            metrics: Arc::clone(&metrics),
        };
        (batcher, Outlet::new(queue, waiting, metrics))
    }

    /// Encodes the span of `exchange` into the open request, if it is one to export.
    pub(super) fn append(&mut self, exchange: &Exchange) {
        if !self.sampler.samples(&exchange.trace) {
            self.metrics.add(Total::SpansNotSampled, 1);
            return;
        }
        self.metrics.add(Total::Spans, 1);
        exchange.call.with(|call| self.metrics.count_provider(call.provider, 1));
        let mut appended = span::append(exchange, &self.attributes, &mut self.name, &mut self.open);
        if appended == Appended::Full {
            self.close();
            appended = span::append(exchange, &self.attributes, &mut self.name, &mut self.open);
        }
        if appended != Appended::Yes {
            self.metrics.lost(Cause::ExportSpanTooLarge, 1);
            return;
        }
        if self.open.records() == 1 {
            self.opened = Instant::now();
        }
        if self.open.records() >= self.limits.spans_max {
            self.close();
        }
    }

    /// When the open request has to be closed, if anything is in it.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.open.records() > 0).then(|| self.opened + self.limits.delay)
    }

    /// Closes the open request when its first span has waited long enough.
    pub(super) fn close_if_due(&mut self) {
        self.metrics.set(Gauge::ExportSpansWaiting, self.waiting.spans.load(Relaxed) as u64);
        self.metrics.set(Gauge::ExportBytesWaiting, self.waiting.bytes.load(Relaxed) as u64);
        if self.open.records() > 0 && self.opened.elapsed() >= self.limits.delay {
            self.close();
        }
    }

    /// Closes the open request, if anything is in it. When too much waits already it is dropped:
    /// the newest goes, since what waits longest is about to be sent.
    pub(super) fn close(&mut self) {
        if self.open.records() == 0 {
            return;
        }
        let buffer = self.buffers.pop().unwrap_or_default();
        let full = std::mem::replace(&mut self.open, Request::new(&self.envelope, SIZE_LIMITS, buffer));
        let body = full.finish(&self.envelope);
        let records = body.records() as u64;
        let body = Bytes::from_owner(Pooled { body: Some(body), buffers: Arc::clone(&self.buffers) });
        let batch = EncodedBatch { signal: Signal::Traces, encoding: self.envelope.encoding(), records, body };
        if !self.waiting.fits(&batch) {
            self.metrics.lost(Cause::ExportQueueFull, records);
            return;
        }
        self.waiting.add(&batch);
        if let Err(mpsc::error::SendError(batch)) = self.closed.send(batch) {
            // The outlet outlives the batcher, unless it panicked.
            self.metrics.lost(Cause::ShutdownDeadline, batch.records);
        }
    }
}
