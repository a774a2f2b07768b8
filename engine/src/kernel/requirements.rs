//! What capturing needs of the machine and the user, checked once, told by name.

use std::{fs, path::Path};

/// Something that is missing, and what to do about it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No right to load or attach programs.
    #[error(
        "capturing needs the capabilities {names}: run it as root (sudo agentsight …), or give them to the binary: \
         sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_sys_admin+ep $(command -v agentsight)"
    )]
    Capabilities {
        /// Names, with commas.
        names: String,
    },
    /// The kernel is older than what the programs use.
    #[error("the kernel is {found}, capturing needs 5.8 or newer (BPF ring buffers)")]
    KernelVersion {
        /// What the kernel says it is.
        found: String,
    },
    /// The kernel has no uprobes.
    #[error("the kernel has no uprobes: it needs CONFIG_UPROBE_EVENTS=y (no /sys/bus/event_source/devices/uprobe)")]
    Uprobes,
    /// /proc isn't there.
    #[error("/proc is not mounted: processes can't be found without it (mount -t proc proc /proc)")]
    Proc,
}

const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Finds the first thing that is missing.
///
/// # Errors
/// That thing.
pub fn check() -> Result<(), Missing> {
    let status = fs::read_to_string("/proc/self/status").map_err(|_| Missing::Proc)?;
    let missing = missing_capabilities(effective(&status));
    if !missing.is_empty() {
        return Err(Missing::Capabilities { names: missing.join(", ") });
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if version(&release).is_some_and(|version| version < (5, 8)) {
        return Err(Missing::KernelVersion { found: release.trim().to_owned() });
    }
    // Where sysfs isn't mounted the kernel's own answer has to do.
    if Path::new("/sys/bus/event_source").exists() && !Path::new("/sys/bus/event_source/devices/uprobe").exists() {
        return Err(Missing::Uprobes);
    }
    Ok(())
}

fn effective(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, capabilities(7).
fn missing_capabilities(mask: u64) -> Vec<&'static str> {
    let has = |bit: u32| mask >> bit & 1 == 1;
    let mut missing = Vec::new();
    if !has(CAP_SYS_ADMIN) {
        for (bit, name) in [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")] {
            if !has(bit) {
                missing.push(name);
            }
        }
    }
    // /proc/PID/maps and /proc/PID/root of other users' processes, proc(5).
    if !has(CAP_SYS_PTRACE) {
        missing.push("CAP_SYS_PTRACE");
    }
    missing
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_named() {
        assert_eq!(missing_capabilities(0), ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]);
        assert_eq!(missing_capabilities(1 << CAP_SYS_ADMIN | 1 << CAP_SYS_PTRACE), [""; 0]);
        assert_eq!(missing_capabilities(1 << CAP_BPF | 1 << CAP_SYS_PTRACE), ["CAP_PERFMON"]);
        assert_eq!(effective("Name:\tx\nCapEff:\t0000000000200000\n"), 1 << CAP_SYS_ADMIN);
    }

    #[test]
    fn versions_are_read() {
        for (text, expected) in [("6.18.44-fc", Some((6, 18))), ("5.4.0-1-amd64\n", Some((5, 4))), ("strange", None)] {
            assert_eq!(version(text), expected, "{text}");
        }
    }
}
