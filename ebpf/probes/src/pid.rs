//! Processes by the numbers that the engine knows them by.

use core::mem::offset_of;

use agentsight_abi::pid::{LEVELS_MAX, OUTSIDE, PidLayout, UPID_BYTES};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, generated::bpf_get_current_task};

#[unsafe(no_mangle)]
static PIDS: PidLayout =
    PidLayout { namespace: 0, leader: 0, pid: 0, level: 0, numbers: 0, number: 0, number_namespace: 0, inode: 0 };

/// What the engine set before loading in the field at `field`.
#[inline(always)]
fn word(field: usize) -> u32 {
    // SAFETY: a plain read of one field; volatile, because the loader replaces what the compiler sees.
    unsafe { core::ptr::read_volatile((&raw const PIDS).byte_add(field).cast::<u32>()) }
}

/// The engine is in a pid namespace of its own.
#[inline(always)]
pub fn is_translated() -> bool {
    word(offset_of!(PidLayout, namespace)) != 0
}

/// The calling process.
#[inline(always)]
pub fn tgid() -> u32 {
    let own = (bpf_get_current_pid_tgid() >> 32) as u32;
    if !is_translated() {
        return own;
    }
    // SAFETY: a helper without arguments.
    match of_task(unsafe { bpf_get_current_task() }) {
        0 => own | OUTSIDE,
        number => number,
    }
}

/// The process of a `struct task_struct`, or 0 when the engine's namespace has no number for it.
#[inline(never)]
pub fn of_task(task: u64) -> u32 {
    find(task).unwrap_or(0)
}

#[inline(always)]
fn find(task: u64) -> Option<u32> {
    macro_rules! at {
        ($field:ident) => {
            word(offset_of!(PidLayout, $field)) as u64
        };
    }
    let leader: u64 = read(task + at!(leader))?;
    let pid: u64 = read(leader + at!(pid))?;
    let level: u32 = read(pid + at!(level))?;
    for depth in 0..LEVELS_MAX {
        if depth > level {
            break;
        }
        let entry = pid + at!(numbers) + depth as u64 * UPID_BYTES;
        let namespace: u64 = read(entry + at!(number_namespace))?;
        if read::<u32>(namespace + at!(inode))? == word(offset_of!(PidLayout, namespace)) {
            return read(entry + at!(number));
        }
    }
    None
}

#[inline(always)]
fn read<T>(address: u64) -> Option<T> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}
