//! Is this process to be captured?

use agentsight_abi::{CGROUP_DEPTH_MAX, config::filter};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_uid_gid, generated::bpf_get_current_ancestor_cgroup_id};

use crate::{
    maps::{FILTER_CGROUPS, FILTER_COMMS, FILTER_TGIDS, FILTER_UIDS, config},
    pid,
};

/// True when the calling process passes every filter. Without filters this costs two comparisons.
#[inline(always)]
pub fn selected() -> bool {
    let config = config();
    let tgid = pid::tgid();
    if tgid == config.engine_tgid {
        return false;
    }
    if config.filters == 0 {
        return true;
    }
    filtered(config.filters, tgid)
}

#[inline(never)]
fn filtered(filters: u32, tgid: u32) -> bool {
    if filters & (filter::TGID | filter::COMM) != 0 {
        let by_tgid = filters & filter::TGID != 0 && FILTER_TGIDS.get_ptr(&tgid).is_some();
        if !by_tgid && !(filters & filter::COMM != 0 && comm_is_chosen()) {
            return false;
        }
    }
    if filters & filter::UID != 0 && FILTER_UIDS.get_ptr(&(bpf_get_current_uid_gid() as u32)).is_none() {
        return false;
    }
    filters & filter::CGROUP == 0 || cgroup_is_chosen()
}

#[inline(always)]
fn comm_is_chosen() -> bool {
    bpf_get_current_comm().is_ok_and(|comm| FILTER_COMMS.get_ptr(&comm).is_some())
}

/// The root is level 0; a process sits in the deepest cgroup for which there is an id.
#[inline(always)]
fn cgroup_is_chosen() -> bool {
    for level in 0..CGROUP_DEPTH_MAX {
        // SAFETY: a helper without pointer arguments.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 {
            return false;
        }
        if FILTER_CGROUPS.get_ptr(&id).is_some() {
            return true;
        }
    }
    false
}
