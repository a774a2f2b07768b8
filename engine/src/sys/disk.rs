//! Appending to files: through io_uring with registered buffers, a group of writes and the sync
//! after them with one system call, or with pwrite where io_uring is refused.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
};

use io_uring::{IoUring, opcode, squeue, types};

/// Bytes of one buffer, and so of one write.
const BUFFER_BYTES: usize = 128 * 1024;
/// Buffers that are written with one system call.
const BUFFERS: usize = 8;
/// What completions of a sync are told apart by.
const SYNC: u64 = u64::MAX;

/// Writes to files. Belongs to one thread.
pub struct Appender {
    backend: Backend,
    buffers: Vec<Box<[u8]>>,
}

enum Backend {
    Uring(Box<IoUring>),
    Plain,
}

impl Appender {
    /// Finds out what this kernel allows.
    pub fn new() -> Self {
        let mut buffers = buffers(BUFFERS);
        match uring(&mut buffers) {
            Some(ring) => Self { backend: Backend::Uring(Box::new(ring)), buffers },
            None => Self::plain(),
        }
    }

    /// One that uses pwrite, whatever the kernel allows.
    pub fn plain() -> Self {
        Self { backend: Backend::Plain, buffers: buffers(1) }
    }

    /// What does the writing, for people: `io_uring` or `pwrite`.
    pub fn backend(&self) -> &'static str {
        match self.backend {
            Backend::Uring(_) => "io_uring",
            Backend::Plain => "pwrite",
        }
    }

    /// Writes `parts`, one behind the other, to `file` from byte `offset` on, and returns when they
    /// are written; with `sync`, when they are on the disk (fdatasync).
    ///
    /// # Errors
    /// When not everything could be written. Some of it may have been.
    pub fn append(&mut self, file: &File, mut offset: u64, parts: &[&[u8]], sync: bool) -> io::Result<()> {
        let mut rest = Parts { parts, at: 0 };
        loop {
            let mut lens = [0; BUFFERS];
            let mut count = 0;
            for (buffer, len) in self.buffers.iter_mut().zip(&mut lens) {
                *len = rest.fill(buffer);
                count += usize::from(*len > 0);
            }
            let last = rest.is_empty();
            self.write(file, offset, &lens[..count], sync && last)?;
            offset += lens.iter().sum::<usize>() as u64;
            if last {
                return Ok(());
            }
        }
    }

    /// Writes the first `lens` bytes of the buffers.
    fn write(&mut self, file: &File, offset: u64, lens: &[usize], sync: bool) -> io::Result<()> {
        if let Backend::Uring(ring) = &mut self.backend {
            match write_uring(ring, file, offset, &self.buffers, lens, sync) {
                Ok(()) => return Ok(()),
                Err(Failure::Write(error)) => return Err(error),
                // It worked when it was tried; from now on without. The kernel may still read the
                // old buffers, which therefore are never used again.
                Err(Failure::Ring) => {
                    let fresh = self.buffers.clone();
                    std::mem::forget(std::mem::replace(&mut self.buffers, fresh));
                    self.backend = Backend::Plain;
                }
            }
        }
        let mut offset = offset;
        for (buffer, &len) in self.buffers.iter().zip(lens) {
            file.write_all_at(&buffer[..len], offset)?;
            offset += len as u64;
        }
        if sync { file.sync_data() } else { Ok(()) }
    }
}

impl Default for Appender {
    fn default() -> Self {
        Self::new()
    }
}

fn buffers(count: usize) -> Vec<Box<[u8]>> {
    (0..count).map(|_| vec![0; BUFFER_BYTES].into_boxed_slice()).collect()
}

/// Byte strings that are copied out piece by piece.
struct Parts<'a> {
    parts: &'a [&'a [u8]],
    /// What of the first one is copied already.
    at: usize,
}

impl Parts<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let mut len = 0;
        while let Some((part, others)) = self.parts.split_first() {
            let count = (part.len() - self.at).min(buffer.len() - len);
            buffer[len..len + count].copy_from_slice(&part[self.at..self.at + count]);
            (len, self.at) = (len + count, self.at + count);
            if self.at < part.len() {
                break;
            }
            (self.parts, self.at) = (others, 0);
        }
        len
    }

    fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

enum Failure {
    /// The file could not be written.
    Write(io::Error),
    /// The ring could not be used.
    Ring,
}

/// `None` when io_uring or the registration of buffers (which counts as locked memory) is refused.
#[expect(unsafe_code, reason = "the kernel remembers the buffers' addresses")]
fn uring(buffers: &mut [Box<[u8]>]) -> Option<IoUring> {
    let ring = IoUring::new((buffers.len() as u32 + 1).next_power_of_two()).ok()?;
    let vectors: Vec<_> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
        .collect();
    // SAFETY: the buffers' heap memory neither moves nor is freed as long as the ring is: both are
    // fields of one `Appender`, which never exchanges the buffers, and the ring is declared first.
    unsafe { ring.submitter().register_buffers(&vectors) }.ok()?;
    // The file's own writes are what counts; a ring that refuses them is found out here.
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe).ok()?;
    let known = [opcode::WriteFixed::CODE, opcode::Fsync::CODE].into_iter().all(|code| probe.is_supported(code));
    known.then_some(ring)
}

/// Submits all writes, and the sync behind them, and waits for all of them, whatever becomes of
/// each: when this returns the kernel has no business with the buffers any more.
fn write_uring(
    ring: &mut IoUring,
    file: &File,
    offset: u64,
    buffers: &[Box<[u8]>],
    lens: &[usize],
    sync: bool,
) -> Result<(), Failure> {
    let fd = types::Fd(file.as_raw_fd());
    let mut offsets = [0; BUFFERS];
    let mut at = offset;
    for (index, &len) in lens.iter().enumerate() {
        offsets[index] = at;
        at += len as u64;
        let write =
            opcode::WriteFixed::new(fd, buffers[index].as_ptr(), len as u32, index as u16).offset(offsets[index]);
        push(ring, write.build().user_data(index as u64))?;
    }
    if sync {
        let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
        // Only once everything before it is done.
        push(ring, sync.flags(squeue::Flags::IO_DRAIN).user_data(SYNC))?;
    }

    let mut waiting = lens.len() + usize::from(sync);
    let mut failed = None;
    let mut synced = sync;
    while waiting > 0 {
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            // Out of memory for the moment; what was submitted still completes.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {}
            Err(_) => return Err(Failure::Ring),
        }
        for event in ring.completion() {
            waiting -= 1;
            let (index, result) = (event.user_data(), event.result());
            if index == SYNC {
                failed = failed.or((result < 0).then(|| io::Error::from_raw_os_error(-result)));
            } else if result < 0 {
                failed = failed.or(Some(io::Error::from_raw_os_error(-result)));
            } else {
                let (index, done) = (index as usize, result as usize);
                // A short write, as at the end of a disk's space: the rest tells why.
                if done < lens[index] {
                    let rest = file.write_all_at(&buffers[index][done..lens[index]], offsets[index] + done as u64);
                    failed = failed.or(rest.err());
                    synced = false;
                }
            }
        }
    }
    if failed.is_none() && sync && !synced {
        failed = file.sync_data().err();
    }
    failed.map_or(Ok(()), |error| Err(Failure::Write(error)))
}

#[expect(unsafe_code, reason = "submission queue entries refer to memory and descriptors by number")]
fn push(ring: &mut IoUring, entry: squeue::Entry) -> Result<(), Failure> {
    // SAFETY: the entry refers to a registered buffer and an open file, both borrowed by the caller
    // until the entry has completed.
    unsafe { ring.submission().push(&entry) }.map_err(|_| Failure::Ring)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn check(mut appender: Appender) {
        let path = std::env::temp_dir().join(format!("agentsight-disk-{}-{}", std::process::id(), appender.backend()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let mut expected = vec![];
        let sizes: [&[usize]; 6] = [
            &[1],
            &[0, 7, 0],
            &[BUFFER_BYTES],
            &[BUFFER_BYTES - 1, 2],
            &[64, 3 * BUFFER_BYTES + 5, 64, 9],
            &[20 * BUFFER_BYTES],
        ];
        for (round, sizes) in sizes.into_iter().enumerate() {
            let parts: Vec<Vec<u8>> =
                sizes.iter().map(|&size| (0..size).map(|index| (index * 7 + round + size) as u8).collect()).collect();
            let borrowed: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            appender.append(&file, expected.len() as u64, &borrowed, round % 2 == 0).unwrap();
            expected.extend(parts.concat());
        }
        let mut written = vec![];
        File::open(&path).unwrap().read_to_end(&mut written).unwrap();
        assert!(written == expected, "{}", appender.backend());
        let read_only = File::open(&path).unwrap();
        let refused = appender.append(&read_only, 0, &[b"no"], true).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF), "{}", appender.backend());
        appender.append(&file, 0, &[b"still works"], true).unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_appended_is_in_the_file() {
        check(Appender::new());
    }

    #[test]
    fn pwrite_does_as_well() {
        check(Appender::plain());
    }

    /// /dev/full has no space, ever.
    #[test]
    fn a_full_disk_is_an_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        for mut appender in [Appender::new(), Appender::plain()] {
            let error = appender.append(&full, 0, &[&vec![7; 3 * BUFFER_BYTES]], false).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{}", appender.backend());
        }
    }
}
