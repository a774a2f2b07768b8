//! The system calls that the engine needs and no library wraps: one file each, all `unsafe` inside.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

pub mod bpf;
pub mod clock;
pub mod container;
pub mod disk;
pub mod folder;
pub mod memory;
pub mod perf_event;
pub mod process;
pub mod rcu;
pub mod signals;
pub mod spawn;
pub mod tracefs;
pub mod wait;

/// The descriptor that a system call returned, or its error.
///
/// # Safety
/// The call makes a descriptor that nobody else has.
#[expect(unsafe_code, reason = "a descriptor that a system call returned")]
unsafe fn owned(returned: libc::c_long) -> io::Result<OwnedFd> {
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as the caller promises.
    Ok(unsafe { OwnedFd::from_raw_fd(returned as i32) })
}
