//! The threads that drain the rings. Each owns its rings and every connection in them.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use agentsight_abi::{flags, pressure};
use bumpalo::Bump;
use crossbeam_queue::ArrayQueue;

use crate::{
    exchange::Exchange,
    flow::{Outlet, Pipeline, Settings},
    handoff::Handoff,
    kernel::Verdicts,
    log::Log,
    metrics::{Cause, Metrics, Total},
    recording::Recorder,
    ring::{Record, Ring},
    sys::{
        clock::{UnixOffset, monotonic_ns},
        wait::{Waiter, Waker},
    },
};

/// Bytes of one ring that are drained before the next ring has its turn.
const TURN_BYTES: u64 = 4 * 1024 * 1024;
/// How soon a worker looks again after there was something.
const PAUSE_MIN: Duration = Duration::from_micros(250);
/// How long a worker sleeps at most; it wakes sooner when a ring fills.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// The same when nothing was in the rings for [`QUIET_NS`] and no process has begun.
const PAUSE_QUIET: Duration = Duration::from_millis(250);
/// After so long without a record all is quiet.
const QUIET_NS: u64 = 5_000_000_000;
/// How often idle exchanges and the clock are looked at.
const CHORES_NS: u64 = 1_000_000_000;

/// Where finished exchanges go, and where their arenas come back.
#[derive(Clone)]
pub struct Queues {
    /// To the encoder.
    pub exchanges: Arc<Handoff>,
    /// Back from it, by worker.
    pub arenas: Vec<Arc<ArrayQueue<Box<Bump>>>>,
}

impl Queues {
    /// Queues of `capacity` for `workers`.
    pub fn new(workers: usize, capacity: usize) -> Self {
        Self {
            exchanges: Arc::new(Handoff::new(capacity)),
            arenas: (0..workers).map(|_| Arc::new(ArrayQueue::new(capacity))).collect(),
        }
    }
}

/// What a worker does with records.
pub enum Duty {
    /// Make exchanges of them.
    Follow {
        /// The pipeline's settings.
        settings: Settings,
        /// Where exchanges go.
        queues: Queues,
        /// Where useless connections are told, if anywhere.
        verdicts: Option<Arc<Mutex<Verdicts>>>,
    },
    /// Write them to a file.
    Record(Arc<Mutex<Recorder>>),
}

/// Hands exchanges to the encoder without ever waiting for it.
pub struct QueueOutlet {
    queues: Queues,
    worker: usize,
    verdicts: Option<Arc<Mutex<Verdicts>>>,
    metrics: Arc<Metrics>,
}

impl QueueOutlet {
    /// The outlet of worker `worker`.
    pub fn new(queues: Queues, worker: usize, verdicts: Option<Arc<Mutex<Verdicts>>>, metrics: Arc<Metrics>) -> Self {
        Self { queues, worker, verdicts, metrics }
    }
}

impl Outlet for QueueOutlet {
    fn finished(&mut self, exchange: Exchange) {
        if self.queues.exchanges.push(exchange).is_err() {
            self.metrics.lost(Cause::ExchangeQueueFull, 1);
        }
    }

    fn ignore(&mut self, conn: u64) {
        if let Some(verdicts) = &self.verdicts {
            verdicts.lock().unwrap_or_else(PoisonError::into_inner).ignore(conn);
        }
    }

    fn arena(&mut self) -> Option<Box<Bump>> {
        self.queues.arenas.get(self.worker)?.pop()
    }
}

/// A duty that has been taken up.
enum Work {
    Follow { pipeline: Box<Pipeline>, outlet: QueueOutlet },
    Record(Arc<Mutex<Recorder>>),
}

impl Work {
    fn new(duty: Duty, metrics: &Arc<Metrics>) -> Self {
        match duty {
            Duty::Follow { settings, queues, verdicts } => {
                let outlet = QueueOutlet::new(queues, settings.worker, verdicts, Arc::clone(metrics));
                Self::Follow { pipeline: Box::new(Pipeline::new(settings, Arc::clone(metrics))), outlet }
            }
            Duty::Record(recorder) => Self::Record(recorder),
        }
    }

    fn record(&mut self, record: &Record<'_>) {
        match self {
            Self::Follow { pipeline, outlet } => pipeline.record(record, outlet),
            Self::Record(recorder) => lock(recorder).record(record),
        }
    }

    fn processes_ended(&mut self, pids: &[u32], lost_ns: u64) {
        match self {
            Self::Follow { pipeline, outlet } => pipeline.processes_ended(pids, (monotonic_ns(), lost_ns), outlet),
            Self::Record(recorder) => lock(recorder).processes_ended(pids, monotonic_ns()),
        }
    }

    fn chores(&mut self, now_ns: u64, clock: UnixOffset) {
        if let Self::Follow { pipeline, outlet } = self {
            pipeline.set_clock(clock);
            pipeline.idle(now_ns, outlet);
        }
    }

    fn finish(&mut self) {
        if let Self::Follow { pipeline, outlet } = self {
            pipeline.finish(outlet);
        }
    }
}

fn lock(recorder: &Mutex<Recorder>) -> std::sync::MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all workers share with whoever started them.
pub struct Control {
    stop: AtomicBool,
    clock: AtomicI64,
    /// When records were last seen to have been lost (CLOCK_MONOTONIC), or 0.
    lost_ns: AtomicU64,
    /// When a process was last seen to begin (CLOCK_MONOTONIC), or 0.
    begun_ns: AtomicU64,
}

impl Control {
    /// Workers may run, with this offset to the time of day.
    pub fn new(clock: UnixOffset) -> Self {
        Self {
            stop: AtomicBool::new(false),
            clock: AtomicI64::new(clock.0),
            lost_ns: AtomicU64::new(0),
            begun_ns: AtomicU64::new(0),
        }
    }

    /// The clock was set.
    pub fn set_clock(&self, clock: UnixOffset) {
        // Relaxed: a single value that nothing else depends on.
        self.clock.store(clock.0, Ordering::Relaxed);
    }

    /// The kernel side has lost records since it was last looked at.
    pub fn records_lost(&self) {
        // Relaxed: whoever is told of a process's end after this is told through a channel.
        self.lost_ns.store(monotonic_ns(), Ordering::Relaxed);
    }

    /// A process has begun. What it is has to be looked up while it lives, which may not be for long, so the workers
    /// come by more often for a while. True when they have to be woken for that.
    pub fn process_began(&self) -> bool {
        let now_ns = monotonic_ns();
        // Relaxed: a single value, and who is woken because of it has made a system call since.
        let before_ns = self.begun_ns.swap(now_ns, Ordering::Relaxed);
        now_ns.saturating_sub(before_ns) >= QUIET_NS / 2
    }
}

/// A running worker.
pub struct Worker {
    thread: JoinHandle<()>,
    ended: Sender<Vec<u32>>,
    waker: Waker,
    control: Arc<Control>,
}

impl Worker {
    /// Starts a worker on `rings`, pinned to `core` if there is one. `ring_fds` are watched for the
    /// kernel's wake-ups and have to stay open until the worker is done.
    ///
    /// # Errors
    /// When the thread or its descriptors can't be had.
    pub fn spawn(
        rings: Vec<Ring>,
        ring_fds: &[std::os::fd::BorrowedFd<'_>],
        core: Option<core_affinity::CoreId>,
        duty: Duty,
        control: Arc<Control>,
        metrics: Arc<Metrics>,
        log: Log,
    ) -> io::Result<Self> {
        let waker = Waker::new()?;
        let fds: Vec<_> = ring_fds.iter().copied().chain([waker.fd()]).collect();
        let fds: Vec<_> = fds.iter().map(|fd| fd.try_clone_to_owned()).collect::<io::Result<_>>()?;
        let (ended, inbox) = channel();
        let thread = thread::Builder::new().name("agentsight-work".to_owned()).spawn({
            let (waker, control) = (waker.clone(), Arc::clone(&control));
            move || {
                if let Some(core) = core {
                    // A cpuset may forbid it; then the scheduler chooses.
                    core_affinity::set_for_current(core);
                }
                let borrowed: Vec<_> = fds.iter().map(std::os::fd::AsFd::as_fd).collect();
                // io_uring belongs to the thread that uses it.
                let Ok(waiter) = Waiter::new(&borrowed) else { return };
                let work = Work::new(duty, &metrics);
                let rings = rings.into_iter().map(|ring| (ring, Pressure::default())).collect();
                Drain { rings, work, inbox, waiter, waker, control, metrics, log }.run();
            }
        })?;
        Ok(Self { thread, ended, waker, control })
    }

    /// Makes it come by now.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Tells of processes that have ended: what they left in the rings comes first.
    pub fn processes_ended(&self, pids: Vec<u32>) {
        // A worker that is gone has no connections either.
        let _ = self.ended.send(pids);
        self.waker.wake();
    }

    /// It has ended, which it doesn't do before it is told to.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Lets the worker drain what is there and end.
    pub fn stop(self) {
        // Release pairs with the acquire in `Drain::run`: whatever was done before stopping is seen.
        self.control.stop.store(true, Ordering::Release);
        self.waker.wake();
        let _ = self.thread.join();
    }
}

/// What is told of a ring that fills faster than it is drained. The programs decide what is given up,
/// and say so in each record.
#[derive(Default)]
struct Pressure {
    /// The furthest step that was told, until it was told that all is undone.
    told: u32,
    last_ns: u64,
}

impl Pressure {
    /// Records were made at this step.
    fn seen(&mut self, step: u32, metrics: &Metrics, log: &Log) {
        self.last_ns = monotonic_ns();
        for step in self.told + 1..=step {
            metrics.add(Total::PressureSteps, 1);
            log.warn(match step {
                pressure::WITHOUT_CONTENT => "a ring is half full: content is not captured of exchanges that begin now",
                pressure::HEAD_AND_TAIL => {
                    "a ring is three quarters full: of large calls only head and tail are captured"
                }
                _ => "a ring is nearly full: only one connection in four is captured",
            });
        }
        self.told = self.told.max(step);
    }

    /// Tells that everything is captured again, once that has been so for a while.
    fn calm(&mut self, ring: &Ring, now_ns: u64, log: &Log) {
        if self.told != pressure::NONE
            && now_ns.saturating_sub(self.last_ns) >= CHORES_NS
            && ring.filled() < ring.capacity() / 4
        {
            self.told = pressure::NONE;
            log.warn("the ring has room again: everything is captured");
        }
    }
}

/// The inside of a worker.
struct Drain {
    rings: Vec<(Ring, Pressure)>,
    work: Work,
    inbox: Receiver<Vec<u32>>,
    waiter: Waiter,
    waker: Waker,
    control: Arc<Control>,
    metrics: Arc<Metrics>,
    log: Log,
}

impl Drain {
    fn run(mut self) {
        let mut pause = PAUSE_MIN;
        let mut chores_done_ns = monotonic_ns();
        let mut stirred_ns = chores_done_ns;
        loop {
            let woke_ns = monotonic_ns();
            // Read before the rings are: what these say has happened, the rings have told by now.
            let stop = self.control.stop.load(Ordering::Acquire);
            let ended: Vec<u32> = self.inbox.try_iter().flatten().collect();
            let drained = self.drain_all();
            if !ended.is_empty() {
                self.work.processes_ended(&ended, self.control.lost_ns.load(Ordering::Relaxed));
            }
            if stop {
                self.work.finish();
                return;
            }
            let now_ns = monotonic_ns();
            self.metrics.add(Total::WorkerBusySeconds, now_ns.saturating_sub(woke_ns));
            if now_ns.saturating_sub(chores_done_ns) >= CHORES_NS {
                self.work.chores(now_ns, UnixOffset(self.control.clock.load(Ordering::Relaxed)));
                for (ring, pressure) in &mut self.rings {
                    pressure.calm(ring, now_ns, &self.log);
                }
                chores_done_ns = now_ns;
            }
            stirred_ns = if drained { now_ns } else { stirred_ns.max(self.control.begun_ns.load(Ordering::Relaxed)) };
            let pause_max = if now_ns.saturating_sub(stirred_ns) < QUIET_NS { PAUSE_MAX } else { PAUSE_QUIET };
            pause = if drained { PAUSE_MIN } else { (pause * 2).min(pause_max) };
            self.waiter.wait(pause);
            self.waker.clear();
        }
    }

    /// Drains every ring once; true when there was something.
    fn drain_all(&mut self) -> bool {
        let mut any = false;
        for (ring, pressure) in &mut self.rings {
            self.metrics.ring_filled(ring.filled());
            let work = &mut self.work;
            let mut step = pressure::NONE;
            let drained = ring.drain(TURN_BYTES, |record| {
                step = step.max(flags::pressure(record.header.flags));
                work.record(&record);
            });
            if step != pressure::NONE {
                pressure.seen(step, &self.metrics, &self.log);
            }
            if drained.records > 0 {
                any = true;
                self.metrics.add(Total::Records, drained.records);
                self.metrics.add(Total::RecordBytes, drained.bytes);
            }
            if drained.malformed > 0 {
                self.metrics.lost(Cause::RecordMalformed, drained.malformed);
            }
        }
        any
    }
}
