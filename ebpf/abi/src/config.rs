//! What the engine tells the programs when it loads them.

/// Set once, before the programs are loaded, in their read-only data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The engine's own process, never captured.
    pub engine_tgid: u32,
    /// Some of [`filter`], or 0 for everything.
    pub filters: u32,
    /// Offset of `child_pid` in the `sched_process_fork` tracepoint, or 0 when it isn't attached.
    pub fork_child_pid_offset: u32,
    /// Some of [`unwanted`], or 0 when both sides of calls are wanted.
    pub unwanted: u32,
}

/// Bits of [`Config::unwanted`]: connections on which the observed process has this side cost a look-up for
/// each call and no more.
pub mod unwanted {
    /// It sends the requests.
    pub const CLIENTS: u32 = 1;
    /// It answers them.
    pub const SERVERS: u32 = 2;
}

/// Bits of [`Config::filters`]. A process is captured when its pid or its name is chosen (or
/// neither is filtered), and its user is, and its cgroup is.
pub mod filter {
    /// By `FILTER_TGIDS`.
    pub const TGID: u32 = 1;
    /// By `FILTER_COMMS`, the name of the calling thread.
    pub const COMM: u32 = 2;
    /// By `FILTER_UIDS`.
    pub const UID: u32 = 4;
    /// By `FILTER_CGROUPS`: the process's cgroup or one above it.
    pub const CGROUP: u32 = 8;
    /// Children of a chosen process are chosen too.
    pub const FOLLOW: u32 = 16;
}

const _: () = assert!(size_of::<Config>() == 16);
