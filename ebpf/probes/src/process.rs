//! Following the children of a chosen process from their first byte on.

use agentsight_abi::{DropCause, config::filter};
use aya_ebpf::{
    bindings::BPF_ANY, helpers::bpf_get_current_pid_tgid, macros::tracepoint, programs::TracePointContext,
};

use crate::maps::{FILTER_TGIDS, config, count_drop};

/// `sched:sched_process_fork` runs in the parent, before the child does. Threads fire it too; a
/// thread's id in the filter does no harm, because only process ids are looked up there.
#[tracepoint]
pub fn process_fork(ctx: TracePointContext) -> u32 {
    let config = config();
    if config.filters & filter::FOLLOW == 0 {
        return 0;
    }
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    if FILTER_TGIDS.get_ptr(&parent).is_none() {
        return 0;
    }
    // SAFETY: the helper checks the address; the offset is from the tracepoint's own description.
    if let Ok(child) = unsafe { ctx.read_at::<u32>(config.fork_child_pid_offset as usize) }
        && FILTER_TGIDS.insert(&child, &1, BPF_ANY as u64).is_err()
    {
        count_drop(DropCause::FilterFull, 0);
    }
    0
}
