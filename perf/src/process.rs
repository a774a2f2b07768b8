//! Processes, as /proc has them.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;

/// Seconds of CPU that all threads of a process have used; those of threads that ended count by
/// clock ticks only.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    // sched-stats in Documentation/scheduler: the first number is nanoseconds on the CPU.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    Some(nanoseconds.sum::<f64>() / 1e9)
}

/// Bytes of memory that a process has in use: all, and those of its own (no file or shared mapping).
pub fn memory_bytes(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((field("VmRSS:")?, field("RssAnon:")?))
}

/// Asks a process to end, as Ctrl-C does.
pub fn interrupt(pid: u32) {
    signal(pid, libc::SIGINT);
}

/// Sends a signal to a process of our own.
#[expect(unsafe_code, reason = "kill(2)")]
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: no pointers; the process is a child that has not been waited for.
    unsafe { libc::kill(pid as i32, signal) };
}

/// Waits for a child, and kills it when it takes too long.
pub fn wait_for_end(child: &mut Child, limit: Duration) -> anyhow::Result<ExitStatus> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    bail!("process {} didn't end within {limit:?}", child.id())
}

/// This thread and those that it starts run on one core from now on. False where that is refused.
pub fn pin(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

/// How many cores there are.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// CPU time of this thread, which another process that takes the core doesn't add to.
#[expect(unsafe_code, reason = "clock_gettime(2)")]
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Lets this process have as many descriptors as it may.
#[expect(unsafe_code, reason = "setrlimit(2)")]
pub fn allow_descriptors(wanted: u64) {
    let limit = libc::rlimit { rlim_cur: wanted, rlim_max: wanted };
    // SAFETY: a valid structure.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0 {
        return;
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: valid structures; what is refused leaves the limit as it was.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

/// This program again, with other arguments; it ends when this process does, however that ends.
#[expect(unsafe_code, reason = "prctl(2) between fork and exec")]
pub fn again(arguments: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    // SAFETY: prctl is safe to call after fork (signal-safety(7)), and takes integers.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    Ok(command)
}
