//! Following the children of a chosen process from their first byte on.

use agentsight_abi::{DropCause, config::filter};
use aya_ebpf::{
    bindings::BPF_ANY,
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};

use crate::{
    maps::{FILTER_TGIDS, config, count_drop},
    pid,
};

/// `sched:sched_process_fork` runs in the parent, before the child does. Threads fire it too; a
/// thread's id in the filter does no harm, because only process ids are looked up there.
#[tracepoint]
pub fn process_fork(ctx: TracePointContext) -> u32 {
    // SAFETY: the helper checks the address; the offset is from the tracepoint's own description.
    if parent_is_chosen()
        && let Ok(child) = unsafe { ctx.read_at::<u32>(config().fork_child_pid_offset as usize) }
    {
        choose(child);
    }
    0
}

/// The same with the child itself, whose number in a pid namespace the description doesn't have.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork_inside(ctx: RawTracePointContext) {
    if parent_is_chosen() {
        let child = pid::of_task(ctx.arg(1));
        if child != 0 {
            choose(child);
        }
    }
}

#[inline(always)]
fn parent_is_chosen() -> bool {
    config().filters & filter::FOLLOW != 0 && FILTER_TGIDS.get_ptr(&pid::tgid()).is_some()
}

#[inline(always)]
fn choose(child: u32) {
    if FILTER_TGIDS.insert(&child, &1, BPF_ANY as u64).is_err() {
        count_drop(DropCause::FilterFull, 0);
    }
}
