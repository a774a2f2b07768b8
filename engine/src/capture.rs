//! A running capture: the kernel side, the workers, and the thread that minds processes and probes.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use agentsight_abi::{DropCause, Total as KernelTotal, config::filter, pid::PidLayout};

use crate::{
    kernel::{
        Error, Kernel, Tallies,
        attach::{Attached, Attacher, system_libraries},
        findings::Findings,
        pids,
        select::Selection,
        sockets,
        wanted::Search,
        watch::{Happening, Watch},
    },
    log::Log,
    metrics::{Gauge, Metrics},
    ring::Ring,
    sys::{
        clock::UnixOffset,
        memory,
        process::{self, MappedFile},
        spawn,
        wait::{Waiter, Waker},
    },
    worker::{Control, Duty, Worker},
};

/// Bytes of each ring by default.
pub const RING_BYTES_DEFAULT: usize = 8 * 1024 * 1024;

/// How often detaching and the clock are looked at.
const CHORES: Duration = Duration::from_secs(1);
/// How soon a process that may have ended is looked at again.
const ENDING_LOOK: Duration = Duration::from_millis(5);
/// What is mapped at the start may take so long to be looked into; the rest comes later.
const SETTLING_MAX: Duration = Duration::from_secs(2);

/// A program that ran for so long before its probes were there may have made calls, so it is told.
const UNSEEN_TOLD: Duration = Duration::from_millis(50);
/// A process that still lives so long after one of its threads ended is not ending.
const ENDING_MAX: Duration = Duration::from_millis(500);

/// What gives names to all processes.
const SHARE_PIDS: &str = "share the host's (docker run --pid=host, or hostPID: true)";

/// What to capture.
pub struct Settings {
    /// Which processes.
    pub selection: Selection,
    /// Children of chosen processes too.
    pub follow_children: bool,
    /// Files to probe whether or not something maps them.
    pub binary_paths: Vec<PathBuf>,
    /// Plain HTTP on sockets too.
    pub plain: bool,
    /// Grace periods of RCU end at once while a file gets its probes.
    pub expedites: bool,
    /// Where what is found in files is kept for the next run, if anywhere.
    pub cache: Option<PathBuf>,
    /// Bytes of each ring.
    pub ring_bytes: usize,
    /// Threads that drain.
    pub workers: usize,
}

/// What the kernel side did, when it ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Its counters.
    pub tallies: Tallies,
    /// Connections that the kernel forgot because there were too many.
    pub connections_evicted: u64,
}

impl Outcome {
    /// Every loss by its name.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let evicted = ("kernel.connections_evicted", self.connections_evicted);
        DropCause::ALL.iter().map(|&cause| (cause.name(), self.tallies.dropped(cause).events)).chain([evicted])
    }
}

enum Order {
    Choose(u32, SyncSender<Result<(), Error>>),
    Stop,
}

/// A running capture.
pub struct Capture {
    orders: Sender<Order>,
    waker: Waker,
    thread: JoinHandle<Outcome>,
}

/// What was attached at the start, for people.
#[derive(Clone, Debug, Default)]
pub struct Started {
    /// Path, functions found and processes that map it, of each file.
    pub targets: Vec<(PathBuf, usize, usize)>,
}

impl Capture {
    /// Loads and attaches everything, then begins to drain. `duty` makes each worker's duty, given
    /// the map by which workers ignore connections.
    ///
    /// # Errors
    /// What is missing or refused.
    pub fn start(
        settings: &Settings,
        metrics: &Arc<Metrics>,
        log: &Log,
        mut duty: impl FnMut(usize, Arc<Mutex<crate::kernel::Verdicts>>) -> Duty,
    ) -> Result<(Self, Started), Error> {
        let pids = pids::layout().unwrap_or_else(|error| {
            log.warn(&format!(
                "this is a pid namespace of its own, and processes can't be translated to it: {error}; processes \
                 have no names, --pid and a command after -- choose nothing, and this program's own export is \
                 captured too; {SHARE_PIDS}"
            ));
            PidLayout::default()
        });
        if pids.namespace != 0 {
            log.warn(&format!("processes outside of this pid namespace have no names; {SHARE_PIDS}"));
        }
        spawn::raise_open_files();
        let layout = settings.plain.then(sockets::layout).and_then(|layout| {
            layout.inspect_err(|error| log.warn(&format!("plain HTTP is not captured: {error}"))).ok()
        });
        let mut kernel = Kernel::load(
            &settings.selection,
            settings.ring_bytes,
            settings.follow_children,
            &layout.unwrap_or_default(),
            &pids,
            settings.expedites,
        )?;
        let verdicts = Arc::new(Mutex::new(kernel.take_verdicts()?));
        // From here on no mapping is missed; those before are found by looking.
        let watch = Watch::start()?;
        let thread_error = |source| Error::Watch(source);
        let waker = Waker::new().map_err(thread_error)?;
        let (findings, remark) = Findings::open(settings.cache.clone());
        if let Some(remark) = remark {
            log.warn(&remark);
        }
        let mut minder = Minder {
            attacher: Attacher::new(waker.clone(), findings)?,
            comms: settings.selection.comms.clone(),
            filters_by_pid: settings.selection.filters() & filter::TGID != 0,
            ending: HashMap::new(),
            log: log.clone(),
            announces: false,
            forgotten: 0,
            records_lost: 0,
            metrics: Arc::clone(metrics),
            sees_sockets: false,
            search: Search::new(settings.selection.containers.clone()),
            kernel,
        };
        if layout.is_some() {
            minder.attach_sockets();
        }
        for path in &settings.binary_paths {
            minder.pin(path, true);
        }
        for path in system_libraries() {
            minder.pin(&path, false);
        }
        minder.look_at_all();
        minder.settle();
        let started = minder.started();
        minder.announces = true;

        metrics.set(Gauge::Workers, settings.workers as u64);
        metrics.set(Gauge::RingBytes, settings.ring_bytes as u64);
        let control = Arc::new(Control::new(UnixOffset::measure()));
        let workers = spawn_workers(&minder.kernel, settings.workers, metrics, &control, log, |index| {
            duty(index, Arc::clone(&verdicts))
        })?;
        let (orders, inbox) = channel();
        let thread = thread::Builder::new()
            .name("agentsight-mind".to_owned())
            .spawn({
                let waker = waker.clone();
                move || minder.run(watch, inbox, &waker, workers, &control)
            })
            .map_err(thread_error)?;
        // The kernel's types and the symbols of libraries were read, and are not needed any more.
        memory::give_back();
        Ok((Self { orders, waker, thread }, started))
    }

    /// Chooses a process, whose children are followed when the settings say so.
    ///
    /// # Errors
    /// When the filter is full or the capture has ended.
    pub fn choose_process(&self, pid: u32) -> Result<(), Error> {
        let (reply, answer) = sync_channel(1);
        let gone = || Error::Watch(io::ErrorKind::BrokenPipe.into());
        self.orders.send(Order::Choose(pid, reply)).map_err(|_| gone())?;
        self.waker.wake();
        answer.recv().map_err(|_| gone())?
    }

    /// The capture has ended by itself, because something in it failed.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Detaches, drains what is in the rings and ends.
    pub fn stop(self) -> Outcome {
        let _ = self.orders.send(Order::Stop);
        self.waker.wake();
        self.thread.join().unwrap_or_default()
    }
}

/// Gives each worker every n-th ring.
fn spawn_workers(
    kernel: &Kernel,
    count: usize,
    metrics: &Arc<Metrics>,
    control: &Arc<Control>,
    log: &Log,
    mut duty: impl FnMut(usize) -> Duty,
) -> Result<Vec<Worker>, Error> {
    let rings = kernel.rings()?;
    let fds: Vec<_> = kernel.ring_fds().collect();
    let count = count.clamp(1, rings.len().max(1));
    let mut shares: Vec<(Vec<Ring>, Vec<_>)> = (0..count).map(|_| Default::default()).collect();
    for (index, (ring, fd)) in rings.into_iter().zip(fds).enumerate() {
        let share = &mut shares[index % count];
        share.0.push(ring);
        share.1.push(fd);
    }
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    shares
        .into_iter()
        .enumerate()
        .map(|(index, (rings, fds))| {
            // From the last core down: the first is where interrupts tend to be.
            let core = (!cores.is_empty()).then(|| cores[cores.len() - 1 - index % cores.len()]);
            Worker::spawn(rings, &fds, core, duty(index), Arc::clone(control), Arc::clone(metrics), log.clone())
                .map_err(Error::Watch)
        })
        .collect()
}

/// The state of the minding thread.
struct Minder {
    kernel: Kernel,
    attacher: Attacher,
    comms: Vec<String>,
    /// Processes are chosen by pid, and those that ended have to be taken off again.
    filters_by_pid: bool,
    /// Processes of which a thread ended, and when that was.
    ending: HashMap<u32, Instant>,
    log: Log,
    /// New files are told as they come; those of the start are told together.
    announces: bool,
    /// Connections that were removed from the kernel's map because their process ended.
    forgotten: u64,
    /// Records that the kernel side had lost when it was last looked at.
    records_lost: u64,
    metrics: Arc<Metrics>,
    /// Plain sockets are looked at.
    sees_sockets: bool,
    /// Containers that were chosen and their cgroups.
    search: Search,
}

impl Minder {
    fn run(
        mut self,
        mut watch: Watch,
        inbox: Receiver<Order>,
        waker: &Waker,
        workers: Vec<Worker>,
        control: &Control,
    ) -> Outcome {
        let fds: Vec<_> = watch.fds().chain([waker.fd()]).map(|fd| fd.try_clone_to_owned()).collect();
        let fds: Vec<_> = fds.into_iter().flatten().collect();
        let borrowed: Vec<_> = fds.iter().map(std::os::fd::AsFd::as_fd).collect();
        let waiter = Waiter::new(&borrowed);
        let mut chores_done = Instant::now();
        if let Ok(mut waiter) = waiter {
            // Mappings that were made while the probes were put on.
            self.happenings(&mut watch);
            loop {
                waiter.wait(if self.ending.is_empty() { CHORES } else { ENDING_LOOK });
                waker.clear();
                if self.happenings(&mut watch) && control.process_began() {
                    workers.iter().for_each(Worker::wake);
                }
                self.studied();
                self.endings(&workers, control);
                if !self.orders(&inbox) {
                    break;
                }
                if workers.iter().any(Worker::is_finished) {
                    self.log.error("a worker has ended by itself, which is a bug: the capture ends");
                    break;
                }
                if chores_done.elapsed() >= CHORES {
                    chores_done = Instant::now();
                    control.set_clock(UnixOffset::measure());
                    self.publish(&self.kernel.tallies().unwrap_or_default());
                    for path in self.attacher.detach_unused(chores_done) {
                        self.log.info(&format!("detached from {}: nothing maps it any more", path.display()));
                    }
                }
            }
        }
        // Processes that ended just now are told to the workers before they stop.
        let began = Instant::now();
        self.happenings(&mut watch);
        while !self.ending.is_empty() && began.elapsed() < 4 * ENDING_LOOK {
            self.endings(&workers, control);
            thread::sleep(ENDING_LOOK / 5);
        }
        self.finish(workers)
    }

    /// Takes the probes off, then lets the workers drain, so that they come to an end.
    fn finish(mut self, workers: Vec<Worker>) -> Outcome {
        self.attacher.detach_all();
        self.kernel.detach_sockets();
        for worker in workers {
            worker.stop();
        }
        let tallies = self.kernel.tallies().unwrap_or_default();
        self.publish(&tallies);
        let opened = tallies.total(KernelTotal::ConnsOpened).events;
        let closed = tallies.total(KernelTotal::ConnsClosed).events + self.forgotten;
        let left = self.kernel.connections().unwrap_or_default();
        Outcome { connections_evicted: opened.saturating_sub(closed + left), tallies }
    }

    /// Brings own telemetry up to date.
    fn publish(&self, tallies: &Tallies) {
        self.metrics.set_kernel(|cause| tallies.dropped(cause), |total| tallies.total(total));
        self.metrics.publish_ring_peak();
        let (mut files, mut processes) = (0, 0);
        for (_, _, users) in self.attacher.targets() {
            (files, processes) = (files + 1, processes + users as u64);
        }
        self.metrics.set(Gauge::FilesAttached, files);
        self.metrics.set(Gauge::ProcessesAttached, processes);
    }

    /// False when it is time to stop.
    fn orders(&mut self, inbox: &Receiver<Order>) -> bool {
        loop {
            match inbox.try_recv() {
                Ok(Order::Choose(pid, reply)) => {
                    let _ = reply.send(self.kernel.choose_process(pid));
                }
                Ok(Order::Stop) => return false,
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Deals with what has happened; true when a process may have begun.
    fn happenings(&mut self, watch: &mut Watch) -> bool {
        let (mut lost, mut began) = (false, false);
        watch.drain(|happening| match happening {
            Happening::Mapped(pid, file) => {
                began = true;
                self.mapped(pid, &file);
            }
            Happening::Exec(pid, comm) => {
                began = true;
                self.attacher.unmapped(pid, Instant::now());
                self.choose_by_name(pid, &comm);
                self.choose_by_container(pid);
            }
            Happening::Exit { pid, tid } => {
                // The filter follows forks of processes and can't tell those of threads.
                if self.filters_by_pid && tid != pid {
                    self.kernel.unchoose(tid);
                }
                if pid != std::process::id() {
                    self.ending.entry(pid).or_insert_with(Instant::now);
                }
            }
            Happening::Lost => lost = true,
        });
        if lost {
            self.look_at_all();
        }
        began || lost
    }

    /// Finds out which processes have ended, and tells the workers.
    fn endings(&mut self, workers: &[Worker], control: &Control) {
        let now = Instant::now();
        let mut ended = Vec::new();
        self.ending.retain(|&pid, since| {
            if process::is_alive(pid) {
                return now.duration_since(*since) < ENDING_MAX;
            }
            ended.push(pid);
            false
        });
        if self.filters_by_pid {
            ended.iter().for_each(|&pid| self.kernel.unchoose(pid));
        }
        // Without sockets only a process that had a probed file mapped can have connections.
        let (with_probes, others): (Vec<u32>, Vec<u32>) =
            ended.iter().partition(|&&pid| self.attacher.unmapped(pid, now));
        let mut ended = with_probes;
        if !ended.is_empty() {
            self.forgotten += self.kernel.forget_processes(&ended).unwrap_or_default();
        }
        if self.sees_sockets {
            ended.extend(others);
        }
        if ended.is_empty() {
            return;
        }
        self.losses(control);
        for worker in workers {
            worker.processes_ended(ended.clone());
        }
    }

    /// Tells the workers when records were lost: what ends without its end having been seen may be
    /// among them.
    fn losses(&mut self, control: &Control) {
        let tallies = self.kernel.tallies().unwrap_or_default();
        let causes = [DropCause::RingFull, DropCause::RingMissing, DropCause::PressureConnection];
        let lost = causes.iter().map(|&cause| tallies.dropped(cause).events).sum();
        if lost > self.records_lost {
            self.records_lost = lost;
            control.records_lost();
        }
    }

    fn attach_sockets(&mut self) {
        match self.kernel.attach_sockets() {
            Ok(()) => self.sees_sockets = true,
            Err(error) => {
                self.kernel.detach_sockets();
                self.log.warn(&format!(
                    "plain HTTP is not captured: {error} (it needs Linux 6.3 or newer, with the tracepoints \
                     sock_send_length and sock_recv_length)"
                ));
            }
        }
    }

    /// Programs in a container begin with an exec, after they were put into its cgroup.
    fn choose_by_container(&mut self, pid: u32) {
        if !self.search.is_on() {
            return;
        }
        let Some(path) = self.search.look(pid, Instant::now()) else { return };
        match self.kernel.choose_cgroup(&path) {
            Ok(()) => self.log.info(&format!("capturing the container of process {pid} ({path})")),
            Err(error) => self.log.warn(&format!("the container of process {pid} is not captured: {error}")),
        }
    }

    fn choose_by_name(&mut self, pid: u32, comm: &str) {
        if self
            .comms
            .iter()
            .any(|chosen| crate::kernel::select::comm_key(chosen) == crate::kernel::select::comm_key(comm))
            && let Err(error) = self.kernel.choose_process(pid)
        {
            self.log.warn(&format!("process {pid} ({comm}) is not captured: {error}"));
        }
    }

    /// Looks at every process, as at the start.
    fn look_at_all(&mut self) {
        for pid in process::all().unwrap_or_default() {
            self.choose_by_container(pid);
            if let Some(comm) = process::comm(pid).filter(|_| !self.comms.is_empty()) {
                self.choose_by_name(pid, &comm);
            }
            for file in process::executable_mappings(pid) {
                self.mapped(pid, &file);
            }
        }
    }

    fn mapped(&mut self, pid: u32, file: &MappedFile) {
        if pid == std::process::id() {
            return;
        }
        match self.attacher.mapped(&mut self.kernel, pid, file) {
            // A process that is gone before it was looked at has said nothing.
            Attached::Failed { .. } if !process::is_alive(pid) => {}
            attached => self.tell(attached),
        }
    }

    /// Sees to files that took time to look into.
    fn studied(&mut self) {
        for attached in self.attacher.studied(&mut self.kernel) {
            self.tell(attached);
        }
    }

    /// Gives what was mapped before the start a while to be looked into.
    fn settle(&mut self) {
        let began = Instant::now();
        while self.attacher.is_studying() && began.elapsed() < SETTLING_MAX {
            thread::sleep(SETTLING_MAX / 1_000);
            self.studied();
        }
    }

    fn tell(&self, attached: Attached) {
        match attached {
            Attached::New { path, functions, unseen, remark } => {
                if self.announces && unseen >= UNSEEN_TOLD {
                    let when = format!("{} ms after it was mapped; calls before that are not seen", unseen.as_millis());
                    self.log.info(&format!("attached to {} ({functions} functions) {when}", path.display()));
                } else if self.announces {
                    self.log.info(&format!("attached to {} ({functions} functions)", path.display()));
                }
                if let Some(remark) = remark {
                    self.log.warn(&format!("{}: {remark}", path.display()));
                }
            }
            Attached::Unclear { path, why } | Attached::Failed { path, why } => {
                self.log.warn(&format!("not attached to {}: {why}", path.display()));
            }
            Attached::TooMany { path } => self.log.warn(&format!("not attached to {}: too many files", path.display())),
            Attached::Already | Attached::Later | Attached::Useless => {}
        }
    }

    /// `asked`: the user named this file, so finding nothing in it is worth saying.
    fn pin(&mut self, path: &std::path::Path, asked: bool) {
        match self.attacher.pin(&mut self.kernel, path) {
            Attached::Useless if asked => {
                self.log.warn(&format!("no TLS functions were found in {}: nothing attached to it", path.display()));
            }
            attached => self.tell(attached),
        }
    }

    fn started(&self) -> Started {
        let mut targets: Vec<_> =
            self.attacher.targets().map(|(path, functions, users)| (path.to_owned(), functions, users)).collect();
        targets.sort();
        Started { targets }
    }
}
