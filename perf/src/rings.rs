//! The rings of a running agentsight, looked at from outside.

use std::{
    ffi::{c_int, c_long},
    fs, io,
    os::fd::{AsFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use agentsight::ring::Ring;

use crate::process;

/// BPF_MAP_GET_FD_BY_ID of bpf(2), and the number of ring buffers in `enum bpf_map_type`.
const MAP_GET_FD_BY_ID: c_int = 14;
const RINGBUF: u32 = 27;

/// How often they are looked at.
const EVERY: Duration = Duration::from_millis(5);

/// What was seen of the engine while something went on.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The fullest ring at its fullest, as a share of its size.
    pub fill_max: f64,
    /// Seconds since the start and the fullest ring's fill then, a few hundred of them at the most.
    pub fills: Vec<(f64, f64)>,
    /// The most memory that the process had, without files and shared mappings (the rings are such).
    pub memory_max: u64,
}

/// Looks on until it is told to stop.
pub struct Watcher {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watcher {
    /// Begins to look at process `pid`.
    pub fn start(pid: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let over = Arc::clone(&over);
            move || watch(pid, &over)
        });
        Self { over, thread }
    }

    /// Ends; what was seen.
    pub fn stop(self) -> Seen {
        self.over.store(true, Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn watch(pid: u32, over: &AtomicBool) -> Seen {
    let rings = rings(pid);
    let began = Instant::now();
    let mut seen = Seen::default();
    let mut since = (Instant::now(), 0.0f64);
    while !over.load(Relaxed) {
        let fill = rings.iter().map(|ring| ring.filled() as f64 / ring.capacity() as f64).fold(0.0, f64::max);
        seen.fill_max = seen.fill_max.max(fill);
        since.1 = since.1.max(fill);
        if since.0.elapsed() >= 10 * EVERY && seen.fills.len() < 1_000 {
            seen.fills.push((began.elapsed().as_secs_f64(), since.1));
            since = (Instant::now(), 0.0);
            seen.memory_max = seen.memory_max.max(process::memory_bytes(pid).map_or(0, |(_, own)| own));
        }
        thread::sleep(EVERY);
    }
    seen
}

/// The ring buffers that a process holds, by the numbers that /proc tells of its descriptors.
fn rings(pid: u32) -> Vec<Ring> {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    infos
        .filter_map(|info| {
            let text = fs::read_to_string(info.path()).ok()?;
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u32>().ok();
            let (kind, bytes, id) = (field("map_type:")?, field("max_entries:")?, field("map_id:")?);
            if kind != RINGBUF {
                return None;
            }
            Ring::new(map(id).ok()?.as_fd(), bytes as usize).ok()
        })
        .collect()
}

#[expect(unsafe_code, reason = "bpf(2)")]
fn map(id: u32) -> io::Result<OwnedFd> {
    let attr = [id, 0, 0, 0];
    // SAFETY: the attributes live until the call is over.
    let fd: c_long = unsafe { libc::syscall(libc::SYS_bpf, MAP_GET_FD_BY_ID, attr.as_ptr(), size_of_val(&attr)) };
    match c_int::try_from(fd) {
        // SAFETY: just opened, nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
