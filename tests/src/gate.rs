//! Which tests can run here.

use std::{
    env, fs,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Held by a live test: each watches the whole machine, so they go one by one.
pub struct Permit {
    _turn: MutexGuard<'static, ()>,
}

/// Waits for the turn of a live test; none, with the reason printed, where none can run.
///
/// With `CI` set a reason to skip is a failure, so that a job which tests nothing is not green.
pub fn live_or_skip() -> Option<Permit> {
    static TURN: Mutex<()> = Mutex::new(());
    if let Some(reason) = reason_to_skip() {
        skip(&reason);
        return None;
    }
    // A test that failed while it had its turn leaves nothing behind that the next one sees.
    Some(Permit { _turn: TURN.lock().unwrap_or_else(PoisonError::into_inner) })
}

/// Reports that the running test is skipped, which is a failure where `CI` is set.
pub fn skip(reason: &str) {
    assert!(env::var_os("CI").is_none(), "this test must not be skipped in CI: {reason}");
    println!("skipped: {reason}");
}

fn reason_to_skip() -> Option<String> {
    /// Bits of `CapEff`, capabilities(7).
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_PERFMON: u32 = 38;
    const CAP_BPF: u32 = 39;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap_or(0);
    let has = |capability: u32| effective >> capability & 1 == 1;
    let may_trace = has(CAP_SYS_ADMIN) || has(CAP_BPF) && has(CAP_PERFMON);
    if !may_trace {
        return Some("neither root nor CAP_BPF and CAP_PERFMON".to_owned());
    }
    ["/sys/kernel/btf/vmlinux", "/sys/bus/event_source/devices/uprobe/type"]
        .into_iter()
        .find(|path| fs::metadata(path).is_err())
        .map(|path| format!("this kernel has no {path}"))
}
