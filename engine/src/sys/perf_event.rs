//! perf_event_open(2): the stream of executable mappings, execs, forks and exits of one CPU.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    memory::{Access, Mapping, page_bytes},
    owned,
};

/// `struct perf_event_attr` up to PERF_ATTR_SIZE_VER5, linux/perf_event.h.
#[repr(C)]
#[derive(Default)]
struct Attr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}

const _: () = assert!(size_of::<Attr>() == 112);

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_COUNT_SW_DUMMY: u64 = 9;
const FLAG_MMAP: u64 = 1 << 8;
const FLAG_COMM: u64 = 1 << 9;
const FLAG_TASK: u64 = 1 << 13;
const FLAG_WATERMARK: u64 = 1 << 14;
const FLAG_MMAP2: u64 = 1 << 23;
const FLAG_COMM_EXEC: u64 = 1 << 24;

const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_COMM: u32 = 3;
const PERF_RECORD_EXIT: u32 = 4;
const PERF_RECORD_MMAP2: u32 = 10;
const PERF_RECORD_MISC_COMM_EXEC: u16 = 1 << 13;

/// Pages of one CPU's buffer, a power of two.
const BUFFER_PAGES: usize = 64;

/// What happened to a process.
#[derive(Debug, PartialEq, Eq)]
pub enum ProcessEvent<'a> {
    /// It mapped a file executable.
    Mapped {
        /// Process.
        pid: u32,
        /// First address.
        start: u64,
        /// Bytes.
        len: u64,
        /// Major and minor number of the file's device.
        device: (u32, u32),
        /// Inode number.
        inode: u64,
        /// Path as the process sees it.
        path: &'a [u8],
    },
    /// It became another program.
    Exec {
        /// Process.
        pid: u32,
        /// New name.
        comm: &'a [u8],
    },
    /// One of its threads ended; the process too when that was the last.
    Exit {
        /// Process.
        pid: u32,
        /// Thread.
        tid: u32,
    },
    /// Events were lost.
    Lost,
}

/// The events of one CPU.
pub struct ProcessEvents {
    fd: OwnedFd,
    buffer: Mapping,
    scratch: Vec<u8>,
}

#[expect(unsafe_code, reason = "perf_event_open")]
fn open(attr: &Attr, cpu: i32) -> io::Result<OwnedFd> {
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
    // SAFETY: `attr` is valid and says its own size, and the call makes a descriptor.
    unsafe { owned(libc::syscall(libc::SYS_perf_event_open, attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC)) }
}

/// Runs `program` (a loaded tracepoint program) whenever tracepoint `id` fires, until the result is
/// dropped.
///
/// # Errors
/// What perf_event_open(2) says.
#[expect(unsafe_code, reason = "an ioctl on the perf event")]
pub fn attach_tracepoint(id: u64, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    let attr = Attr {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<Attr>() as u32,
        config: id,
        sample_period: 1,
        ..Attr::default()
    };
    // A program on a tracepoint runs on every CPU, whichever CPU its event was opened on.
    let event = open(&attr, 0)?;
    // SAFETY: both descriptors are open; neither request takes a pointer.
    let done = unsafe {
        libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) == 0
            && libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) == 0
    };
    if done { Ok(event) } else { Err(io::Error::last_os_error()) }
}

impl ProcessEvents {
    /// Opens the events of `cpu`.
    ///
    /// # Errors
    /// What perf_event_open(2) or mmap(2) says.
    pub fn open(cpu: u32) -> io::Result<Self> {
        let attr = Attr {
            kind: PERF_TYPE_SOFTWARE,
            size: size_of::<Attr>() as u32,
            config: PERF_COUNT_SW_DUMMY,
            flags: FLAG_MMAP | FLAG_MMAP2 | FLAG_COMM | FLAG_COMM_EXEC | FLAG_TASK | FLAG_WATERMARK,
            wakeup_watermark: 1,
            ..Attr::default()
        };
        let fd = open(&attr, i32::try_from(cpu).map_err(|_| io::ErrorKind::InvalidInput)?)?;
        let buffer = Mapping::new(fd.as_fd(), 0, (BUFFER_PAGES + 1) * page_bytes(), Access::ReadWrite)?;
        Ok(Self { fd, buffer, scratch: Vec::new() })
    }

    /// The descriptor to wait for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Hands over what has happened since the last call.
    #[expect(unsafe_code, reason = "a buffer that the kernel writes")]
    pub fn drain(&mut self, mut each: impl FnMut(ProcessEvent<'_>)) {
        // `data_head` and `data_tail` of `struct perf_event_mmap_page`, linux/perf_event.h.
        const DATA_HEAD: usize = 1024;
        const DATA_TAIL: usize = 1032;
        let start = self.buffer.start();
        let data_bytes = BUFFER_PAGES * page_bytes();
        // SAFETY: both words lie in the first page, are aligned, and are shared with the kernel,
        // which uses them as atomics too.
        let (head, tail) = unsafe {
            (
                AtomicU64::from_ptr(start.add(DATA_HEAD).cast().as_ptr()),
                AtomicU64::from_ptr(start.add(DATA_TAIL).cast().as_ptr()),
            )
        };
        // Pairs with the kernel's barrier before it publishes `data_head`.
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        let len = (end.wrapping_sub(at) as usize).min(data_bytes);
        self.scratch.clear();
        self.scratch.reserve(len);
        let from = at as usize & (data_bytes - 1);
        let first = len.min(data_bytes - from);
        // SAFETY: both pieces lie in the data pages, and the kernel doesn't write between the tail
        // and the head.
        unsafe {
            let data = start.add(page_bytes());
            self.scratch.extend_from_slice(std::slice::from_raw_parts(data.add(from).as_ptr(), first));
            self.scratch.extend_from_slice(std::slice::from_raw_parts(data.as_ptr(), len - first));
        }
        at = at.wrapping_add(len as u64);
        // Pairs with the kernel's read of `data_tail` before it writes over what was read.
        tail.store(at, Ordering::Release);
        parse(&self.scratch, &mut each);
    }
}

fn parse(mut bytes: &[u8], each: &mut impl FnMut(ProcessEvent<'_>)) {
    while let Some((header, _)) = bytes.split_at_checked(8) {
        let kind = u32_at(header, 0);
        let misc = (u32_at(header, 4) & 0xffff) as u16;
        let size = (u32_at(header, 4) >> 16) as usize;
        let Some((record, rest)) = bytes.split_at_checked(size.max(8)) else { return };
        if let Some(event) = event(kind, misc, &record[8..]) {
            each(event);
        }
        bytes = rest;
    }
}

fn event(kind: u32, misc: u16, body: &[u8]) -> Option<ProcessEvent<'_>> {
    match kind {
        PERF_RECORD_MMAP2 if body.len() > 64 => Some(ProcessEvent::Mapped {
            pid: u32_at(body, 0),
            start: u64_at(body, 8),
            len: u64_at(body, 16),
            device: (u32_at(body, 32), u32_at(body, 36)),
            inode: u64_at(body, 40),
            path: until_nul(&body[64..]),
        }),
        PERF_RECORD_COMM if misc & PERF_RECORD_MISC_COMM_EXEC != 0 && body.len() > 8 => {
            Some(ProcessEvent::Exec { pid: u32_at(body, 0), comm: until_nul(&body[8..]) })
        }
        PERF_RECORD_EXIT if body.len() >= 16 => Some(ProcessEvent::Exit { pid: u32_at(body, 0), tid: u32_at(body, 8) }),
        PERF_RECORD_LOST => Some(ProcessEvent::Lost),
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
}
