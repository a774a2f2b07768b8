//! How the programs number processes: as the engine does, which may be in a pid namespace of its own.

/// Offsets in bytes of kernel structures' fields, read from the kernel's BTF when loading.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidLayout {
    /// The engine's pid namespace, by the number that its inode in /proc/PID/ns has; 0 when it is the
    /// first, whose numbers the kernel's own are, and everything else is zero then.
    pub namespace: u32,
    /// `task_struct.group_leader`.
    pub leader: u32,
    /// `task_struct.thread_pid`.
    pub pid: u32,
    /// `pid.level`, u32: how deep the innermost namespace is in which it has a number.
    pub level: u32,
    /// `pid.numbers`, a `upid` for each level.
    pub numbers: u32,
    /// `upid.nr`, u32.
    pub number: u32,
    /// `upid.ns`.
    pub number_namespace: u32,
    /// `pid_namespace.ns.inum`, u32.
    pub inode: u32,
}

/// Words of a [`PidLayout`].
pub const PID_LAYOUT_WORDS: usize = size_of::<PidLayout>() / 4;

/// Bytes of a `upid`: an int and a pointer.
pub const UPID_BYTES: u64 = 16;

/// Pid namespaces inside of each other that are looked at.
pub const LEVELS_MAX: u32 = 8;

/// Set in the number of a process that has none in the engine's namespace; the rest is the kernel's own.
/// Numbers have 22 bits, PID_MAX_LIMIT in linux/threads.h.
pub const OUTSIDE: u32 = 1 << 31;
