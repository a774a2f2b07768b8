//! The floor: programs that do nothing, attached as agentsight attaches its own.

use std::{
    ffi::{CString, c_int, c_long},
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use agentsight::kernel::{attach::system_libraries, image::examine};
use anyhow::{Context as _, ensure};

/// The functions whose calls agentsight sees; each gets an entry and a return probe.
const FUNCTIONS: [&str; 4] = ["SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex"];

/// `mov r0, 0; exit`, linux/bpf.h `struct bpf_insn`.
const NOTHING: [u64; 2] = [0xb7, 0x95];

/// BPF_PROG_LOAD of bpf(2), and what it takes as far as it is used.
const PROG_LOAD: c_int = 5;
/// BPF_PROG_TYPE_KPROBE, which uprobes are too.
const KPROBE: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    rest: [u64; 13],
}

/// The first 64 bytes of `struct perf_event_attr` (PERF_ATTR_SIZE_VER0) with what uprobes use of it,
/// perf_event_open(2).
#[repr(C)]
#[derive(Default)]
struct EventAttr {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    bp_type: u32,
    path: u64,
    offset: u64,
}

/// `_IOW('$', 8, __u32)` and `_IO('$', 0)`, linux/perf_event.h.
const IOC_SET_BPF: c_long = 0x4004_2408;
const IOC_ENABLE: c_long = 0x2400;
/// PERF_FLAG_FD_CLOEXEC.
const CLOEXEC: c_long = 8;

/// Probes that do nothing; they go when this is dropped.
pub struct Empty {
    _events: Vec<OwnedFd>,
}

impl Empty {
    /// Puts an empty program on entry and return of the functions of each system TLS library, at their
    /// first instructions.
    pub fn attach() -> anyhow::Result<Self> {
        let program = program().context("an empty BPF program is refused: measuring needs root")?;
        let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type").context("no uprobes")?;
        let kind = kind.trim().parse()?;
        let mut events = Vec::new();
        for path in system_libraries() {
            let offsets = examine(&File::open(&path)?, |image| image.functions(&FUNCTIONS))?;
            for offset in offsets.into_iter().flatten() {
                for is_return in [true, false] {
                    events.push(attach(kind, &program, &path, offset, is_return)?);
                }
            }
        }
        ensure!(!events.is_empty(), "this machine has no libssl that the dynamic linker knows");
        Ok(Self { _events: events })
    }
}

#[expect(unsafe_code, reason = "bpf(2)")]
fn program() -> io::Result<OwnedFd> {
    let license = c"GPL";
    let load = ProgLoad {
        prog_type: KPROBE,
        insn_cnt: NOTHING.len() as u32,
        insns: NOTHING.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..ProgLoad::default()
    };
    // SAFETY: the structure and what it points to live until the call is over.
    descriptor(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of_val(&load)) })
}

#[expect(unsafe_code, reason = "perf_event_open(2)")]
fn attach(kind: u32, program: &OwnedFd, path: &Path, offset: u64, is_return: bool) -> anyhow::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attr = EventAttr {
        kind,
        size: size_of::<EventAttr>() as u32,
        config: u64::from(is_return),
        path: name.as_ptr() as u64,
        offset,
        ..EventAttr::default()
    };
    let (any_process, first_cpu, no_group): (c_int, c_int, c_int) = (-1, 0, -1);
    // SAFETY: the structure and the path live until the call is over.
    let event =
        unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, any_process, first_cpu, no_group, CLOEXEC) };
    let event = descriptor(event).with_context(|| format!("a probe on {}", path.display()))?;
    for (request, argument) in [(IOC_SET_BPF, program.as_raw_fd()), (IOC_ENABLE, 0)] {
        // SAFETY: both requests take an integer.
        let done = unsafe { libc::syscall(libc::SYS_ioctl, event.as_raw_fd(), request, argument) };
        ensure!(done == 0, "an empty program on {}: {}", path.display(), io::Error::last_os_error());
    }
    Ok(event)
}

#[expect(unsafe_code, reason = "a descriptor that a system call returned")]
fn descriptor(returned: c_long) -> io::Result<OwnedFd> {
    match c_int::try_from(returned) {
        // SAFETY: just opened, nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
