//! Shared memory with the kernel.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
};

/// A mapping of a file descriptor, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

/// What may be done with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
}

#[expect(unsafe_code, reason = "mmap")]
impl Mapping {
    /// Maps `len` bytes of `fd` from `offset` on, shared.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn new(fd: BorrowedFd<'_>, offset: usize, len: usize, access: Access) -> io::Result<Self> {
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        // SAFETY: the kernel chooses the address, so no existing memory is replaced.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd.as_raw_fd(), offset as libc::off_t)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?, len })
    }

    /// First byte. Others may change what is there, so reads have to be as the protocol with them
    /// demands.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for an empty mapping, which `new` doesn't make.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Gives memory that is free back to the system, as far as the allocator would keep it: what is freed below something
/// that is in use stays with glibc otherwise. For after work that took much and is done once.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "malloc_trim")]
pub fn give_back() {
    // SAFETY: no pointers; it is safe at any time in any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give it back themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

#[expect(unsafe_code, reason = "munmap")]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; whoever borrowed from it is gone.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[expect(unsafe_code, reason = "a pointer to memory that this owns")]
// SAFETY: the mapping belongs to the value and to no thread.
unsafe impl Send for Mapping {}

/// Bytes of a memory page.
#[expect(unsafe_code, reason = "sysconf")]
pub fn page_bytes() -> usize {
    // SAFETY: a plain query.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}
