//! Takes closed batches one after the other and brings each to its end.
//!
//! ```text
//! batcher ──► memory ──► client ──► collector
//!                │          ▲
//!                └► spool ──┘     while the collector is away or slow
//! ```
//!
//! What is in the spool is older than what is in memory, and is sent first. A batch leaves memory
//! when it met its end or when the disk has it, so where there is no spool, or no room in it, the
//! bounds of memory and of the time for a batch hold.

use std::{collections::VecDeque, future::Future, pin::Pin, sync::Arc, time::Duration};

use hyper::body::Bytes;
use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    batch::{EncodedBatch, Encoding, Outcome, Signal},
    batcher::Waiting,
    otlp::Client,
};
use crate::{
    metrics::{Cause, Metrics},
    spool::{self, Event, Front, Spool},
};

/// How soon a disk that failed is tried again.
const DISK_PAUSE: Duration = Duration::from_secs(5);
/// For how long the disk is waited for in the end, beyond the deadline.
const DISK_END_MAX: Duration = Duration::from_secs(2);
/// What is kept of the time to shut down, to write what is not delivered to disk.
const SPOOLING_MAX: Duration = Duration::from_secs(1);

/// The other end of the batcher's queue.
pub(super) struct Outlet {
    queue: mpsc::UnboundedReceiver<EncodedBatch>,
    /// The batcher is gone.
    closed: bool,
    waiting: Arc<Waiting>,
    metrics: Arc<Metrics>,
    /// Batches that are not on disk, the one on its way included, in the order of their ids.
    memory: VecDeque<(u64, EncodedBatch)>,
    next_id: u64,
    disk: Option<Disk>,
}

/// The spool, and what is known of it.
struct Disk {
    spool: Spool<Bytes>,
    events: mpsc::UnboundedReceiver<Event>,
    /// It has said that it is open.
    open: bool,
    /// It may have batches.
    holds: bool,
    /// It was asked for one.
    asked: bool,
    /// A group of batches is on its way to it.
    writing: bool,
    /// It failed, and is not used before this.
    not_before: Option<Instant>,
}

/// A batch on its way to the collector.
struct Job {
    id: u64,
    batch: EncodedBatch,
    /// It was read from the spool.
    from_disk: bool,
}

/// The client, and what it is sending.
struct Wire {
    /// Not there while it is sending.
    client: Option<Client>,
    job: Option<Job>,
    sending: Option<Sending>,
}

/// The client comes back with the outcome.
type Sending = Pin<Box<dyn Future<Output = (Client, Outcome)> + Send>>;

impl Wire {
    /// Begins to send; false when something else is being sent.
    fn send(&mut self, job: Job) -> bool {
        let Some(mut client) = self.client.take() else { return false };
        let batch = job.batch.clone();
        self.job = Some(job);
        self.sending = Some(Box::pin(async move {
            let outcome = client.send(&batch).await;
            (client, outcome)
        }));
        true
    }

    /// What became of what is being sent; nothing ever, if nothing is.
    async fn outcome(&mut self) -> (Job, Outcome) {
        let (Some(sending), true) = (&mut self.sending, self.job.is_some()) else {
            return std::future::pending().await;
        };
        let (client, outcome) = sending.await;
        (self.client, self.sending) = (Some(client), None);
        let job = self.job.take().expect("looked at above");
        (job, outcome)
    }

    /// Stops, and sends nothing ever after; true when something was being sent.
    fn abort(&mut self) -> bool {
        (self.client, self.sending) = (None, None);
        self.job.take().is_some()
    }
}

/// What of the time to shut down is for what.
#[derive(Clone, Copy)]
struct Ending {
    /// Until then batches are sent.
    sending: Instant,
    /// Until then they are written to disk.
    writing: Instant,
}

impl Outlet {
    pub(super) fn new(
        queue: mpsc::UnboundedReceiver<EncodedBatch>,
        waiting: Arc<Waiting>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { queue, closed: false, waiting, metrics, memory: VecDeque::new(), next_id: 0, disk: None }
    }

    /// With a place for batches that the collector doesn't take in time.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn with_spool(mut self, settings: spool::Settings, log: crate::log::Log) -> std::io::Result<Self> {
        let (tell, events) = mpsc::unbounded_channel();
        let tell = move |event| {
            // Nobody listens any more once the time to shut down is over.
            let _ = tell.send(event);
        };
        let spool = Spool::start(settings, Arc::clone(&self.metrics), log, tell)?;
        self.disk =
            Some(Disk { spool, events, open: false, holds: false, asked: false, writing: false, not_before: None });
        Ok(self)
    }

    /// Sends until the batcher is gone and nothing is left, or until the deadline that `last_call`
    /// brings; what has not met its end then stays in the spool, or is lost and counted.
    pub(super) async fn deliver(mut self, client: Client, mut last_call: oneshot::Receiver<Instant>) {
        let mut failing = client.failing();
        let mut wire = Wire { client: Some(client), job: None, sending: None };
        let mut ending: Option<Ending> = None;
        loop {
            let now = Instant::now();
            let over = ending.is_some_and(|ending| now >= ending.sending);
            if over && wire.abort() {
                self.take_back();
            }
            if !over
                && wire.job.is_none()
                && let Some(job) = self.next()
            {
                wire.send(job);
            }
            let away = *failing.borrow_and_update() || over;
            self.write(away, now, wire.job.as_ref());
            if self.is_done(wire.job.is_some(), over) || ending.is_some_and(|ending| now >= ending.writing) {
                break;
            }
            let next_phase = ending.map(|ending| if over { ending.writing } else { ending.sending });
            let wake = [next_phase, self.disk_retry()].into_iter().flatten().min();
            select! {
                batch = self.queue.recv(), if !self.closed => match batch {
                    Some(batch) => self.push(batch),
                    None => self.closed = true,
                },
                event = next_event(&mut self.disk) => {
                    if let Some(front) = self.on_event(event)
                        && (over || !wire.send(front))
                    {
                        self.take_back();
                    }
                },
                (job, outcome) = wire.outcome() => self.settle(&job, &outcome),
                // It has nothing more to say once the client is gone.
                Ok(()) = failing.changed() => {},
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {},
                // Without a word, the encoder has panicked, and nobody waits.
                deadline = &mut last_call, if ending.is_none() => {
                    ending = Some(self.ending(deadline.unwrap_or(now)));
                },
            }
        }
        self.finish().await;
    }

    fn push(&mut self, batch: EncodedBatch) {
        self.memory.push_back((self.next_id, batch));
        self.next_id += 1;
    }

    /// Where there is a spool, the last of the time is for it.
    fn ending(&self, deadline: Instant) -> Ending {
        let left = deadline - Instant::now();
        let spooling = if self.disk.is_some() { SPOOLING_MAX.min(left / 4) } else { Duration::ZERO };
        Ending { sending: deadline - spooling, writing: deadline }
    }

    /// Nothing is left to do. `over`: nothing is sent any more.
    fn is_done(&self, sending: bool, over: bool) -> bool {
        let disk_is_done = self.disk.as_ref().is_none_or(|disk| !disk.writing && (over || disk.open && !disk.holds));
        self.closed && !sending && self.memory.is_empty() && disk_is_done
    }

    /// The batch whose turn it is, if it is in memory; if it is on disk it is asked for.
    fn next(&mut self) -> Option<Job> {
        if let Some(disk) = &mut self.disk {
            if disk.open && disk.holds && !disk.asked {
                disk.asked = true;
                disk.spool.front();
            }
            if !disk.open || disk.holds || disk.writing {
                return None;
            }
        }
        self.memory.front().map(|(id, batch)| Job { id: *id, batch: batch.clone(), from_disk: false })
    }

    /// Hands everything in memory to the spool, when that is where it belongs.
    fn write(&mut self, away: bool, now: Instant, job: Option<&Job>) {
        let Some(disk) = &mut self.disk else { return };
        let may = disk.open && !disk.writing && disk.not_before.is_none_or(|not_before| now >= not_before);
        let has_to = away || disk.holds || self.waiting.is_half_full();
        if !may || !has_to || self.memory.is_empty() {
            return;
        }
        let group = self.memory.iter().map(|(id, batch)| spool::Batch {
            id: *id,
            spans: u32::try_from(batch.records).unwrap_or(u32::MAX),
            encoding: on_disk(batch.encoding),
            body: batch.body.clone(),
        });
        disk.writing = true;
        disk.spool.append(group.collect(), job.filter(|job| !job.from_disk).map(|job| job.id));
    }

    fn disk_retry(&self) -> Option<Instant> {
        let disk = self.disk.as_ref().filter(|disk| !disk.writing && !self.memory.is_empty())?;
        disk.not_before.filter(|not_before| *not_before > Instant::now())
    }

    /// Gives the batch that the spool was asked for.
    fn on_event(&mut self, event: Option<Event>) -> Option<Job> {
        let disk = self.disk.as_mut()?;
        match event {
            Some(Event::Opened { holds }) => (disk.open, disk.holds) = (true, holds),
            Some(Event::Written { through, all }) => {
                disk.writing = false;
                disk.not_before = (!all).then(|| Instant::now() + DISK_PAUSE);
                if let Some(through) = through {
                    disk.holds = true;
                    while let Some((_, batch)) = self.memory.pop_front_if(|(id, _)| *id <= through) {
                        self.waiting.remove(&batch);
                    }
                }
            }
            Some(Event::Front(front)) => {
                disk.asked = false;
                disk.holds = front.is_some();
                return front.map(Job::read);
            }
            // The thread has panicked: what it had stays on disk for the next run.
            Some(Event::Ended(_)) | None => self.disk = None,
        }
        None
    }

    /// An attempt, or several, at a batch came to this.
    fn settle(&mut self, job: &Job, outcome: &Outcome) {
        let in_memory = self.memory.front().is_some_and(|(id, _)| !job.from_disk && *id == job.id);
        let writing = self.disk.as_ref().is_some_and(|disk| disk.writing);
        let disk_works = self.disk.as_ref().is_some_and(|disk| disk.not_before.is_none());
        if let Outcome::Later { .. } = outcome
            && (!in_memory || writing || disk_works)
        {
            // It is on disk, or will be in a moment: its turn comes again.
            return self.take_back();
        }
        outcome.account(&job.batch, &self.metrics);
        if in_memory && let Some((_, batch)) = self.memory.pop_front() {
            self.waiting.remove(&batch);
        }
        if let Some(disk) = &self.disk
            && (!in_memory || writing)
        {
            disk.spool.done(job.id);
        }
    }

    /// A batch was not delivered. What is in memory is there still.
    fn take_back(&self) {
        if let Some(disk) = &self.disk {
            disk.spool.release();
        }
    }

    /// What is not on disk is lost.
    async fn finish(mut self) {
        if let Some(disk) = &mut self.disk {
            disk.spool.end();
            let limit = Instant::now() + DISK_END_MAX;
            while self.disk.is_some()
                && let Ok(event) = timeout_at(limit, next_event(&mut self.disk)).await
            {
                self.on_event(event);
            }
        }
        self.queue.close();
        while let Ok(batch) = self.queue.try_recv() {
            self.push(batch);
        }
        for (_, batch) in self.memory.drain(..) {
            self.metrics.lost(Cause::ShutdownDeadline, batch.records);
            self.waiting.remove(&batch);
        }
    }
}

impl Job {
    fn read(front: Front) -> Self {
        let encoding = match front.encoding {
            spool::Encoding::Protobuf => Encoding::Protobuf,
            spool::Encoding::Json => Encoding::Json,
        };
        let batch =
            EncodedBatch { signal: Signal::Traces, encoding, records: front.spans.into(), body: front.body.into() };
        Self { id: front.id, batch, from_disk: true }
    }
}

fn on_disk(encoding: Encoding) -> spool::Encoding {
    match encoding {
        Encoding::Protobuf => spool::Encoding::Protobuf,
        Encoding::Json => spool::Encoding::Json,
    }
}

/// The spool's next event; never, if there is no spool.
async fn next_event(disk: &mut Option<Disk>) -> Option<Event> {
    match disk {
        Some(disk) => disk.events.recv().await,
        None => std::future::pending().await,
    }
}
