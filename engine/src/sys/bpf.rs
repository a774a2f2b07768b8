//! bpf(2) for what aya has no call for: links that put a program on many places of a file at once
//! (`uprobe_multi`, Linux 6.6), and programs that are made for them.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_insn;

use super::owned;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_KPROBE: u32 = 2;
const BPF_TRACE_UPROBE_MULTI: u32 = 48;
const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;

/// Bytes of the verifier's log that are asked for, and lines that are kept; its end says what was refused.
const LOG_BYTES: usize = 64 * 1024;
const LOG_LINES: usize = 20;

/// How often a program is handed in again when a signal has interrupted the verifier.
const LOADS_MAX: usize = 5;

/// What `BPF_PROG_LOAD` takes of `union bpf_attr`, linux/bpf.h; what is left out is zero.
#[repr(C)]
#[derive(Default)]
struct ProgramAttr {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_len: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

const _: () = assert!(size_of::<ProgramAttr>() == 72);

/// What `BPF_LINK_CREATE` takes of it for `uprobe_multi`.
#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    path: u64,
    offsets: u64,
    reference_counters: u64,
    cookies: u64,
    count: u32,
    uprobe_flags: u32,
    pid: u32,
    pad: u32,
}

const _: () = assert!(size_of::<LinkAttr>() == 64);

/// What a program is made of.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Its name, of which the kernel keeps 15 bytes.
    pub name: &'a str,
    /// Its instructions, which refer to maps by their descriptors.
    pub instructions: &'a [bpf_insn],
    /// Its license, by which the kernel allows helpers.
    pub license: &'a CStr,
}

/// Loads a program that [`link`] can put on functions.
///
/// # Errors
/// What bpf(2) says, and the end of the verifier's log.
pub fn load(source: Source<'_>) -> Result<OwnedFd, (io::Error, String)> {
    verify(source, &mut []).or_else(|error| {
        // The log slows the verifier down, so it is asked for only when there is something to tell.
        let mut log = vec![0; LOG_BYTES];
        verify(source, &mut log).map_err(|_| {
            let text = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
            let last = text.lines().count().saturating_sub(LOG_LINES);
            (error, text.lines().skip(last).collect::<Vec<_>>().join("\n"))
        })
    })
}

#[expect(unsafe_code, reason = "bpf")]
fn verify(source: Source<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attr = ProgramAttr {
        kind: BPF_PROG_TYPE_KPROBE,
        instruction_count: source.instructions.len() as u32,
        instructions: source.instructions.as_ptr() as u64,
        license: source.license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_len: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        expected_attach_type: BPF_TRACE_UPROBE_MULTI,
        ..ProgramAttr::default()
    };
    // The name ends in a NUL.
    let kept = source.name.len().min(attr.name.len() - 1);
    attr.name[..kept].copy_from_slice(&source.name.as_bytes()[..kept]);
    let mut loads = 1..LOADS_MAX;
    loop {
        // SAFETY: instructions and license outlive the call, and the log is ours alone.
        match unsafe { bpf(BPF_PROG_LOAD, &attr) } {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && loads.next().is_some() => {}
            done => return done,
        }
    }
}

/// Puts a program on every one of `offsets` in the file at `path`, until the result is closed: where the
/// instructions there are carried out, or if `on_return` where a function that begins there returns.
/// When it fails it is on none of them.
///
/// # Errors
/// What bpf(2) says.
#[expect(unsafe_code, reason = "bpf")]
pub fn link(program: BorrowedFd<'_>, path: &CStr, offsets: &[u64], on_return: bool) -> io::Result<OwnedFd> {
    let attr = LinkAttr {
        program: program.as_raw_fd() as u32,
        attach_type: BPF_TRACE_UPROBE_MULTI,
        path: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        count: offsets.len() as u32,
        uprobe_flags: if on_return { BPF_F_UPROBE_MULTI_RETURN } else { 0 },
        ..LinkAttr::default()
    };
    // SAFETY: path and offsets outlive the call, and there are as many as it says.
    unsafe { bpf(BPF_LINK_CREATE, &attr) }
}

/// A program for such links that does nothing.
///
/// # Errors
/// What bpf(2) says.
pub fn nothing() -> io::Result<OwnedFd> {
    // r0 = 0; exit
    const NOTHING: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let instructions = aya_obj::copy_instructions(&NOTHING).map_err(io::Error::other)?;
    verify(Source { name: "agentsight", instructions: &instructions, license: c"GPL" }, &mut [])
}

/// Whether the kernel knows such links, and lets this process make them.
pub fn can_link() -> bool {
    let Ok(program) = nothing() else { return false };
    // A folder is refused as such only by a kernel that has understood the rest; others don't look.
    link(program.as_fd(), c"/", &[0], false).is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

/// The system call, for commands that make a descriptor.
///
/// # Safety
/// `Attr` is what `command` takes, and the memory that its pointers name is valid for it.
#[expect(unsafe_code, reason = "bpf has no wrapper")]
unsafe fn bpf<Attr>(command: libc::c_int, attr: &Attr) -> io::Result<OwnedFd> {
    // SAFETY: as the caller promises; the size says how much of the attributes there is, and what is
    // returned is a descriptor of the caller's own.
    unsafe { owned(libc::syscall(libc::SYS_bpf, command, attr, size_of::<Attr>())) }
}
