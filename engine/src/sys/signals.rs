//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::wait::Waker;

static STOP: OnceLock<Waker> = OnceLock::new();
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// Makes the first SIGINT or SIGTERM use `stop`, and the second end the process with the status
/// that shells give a process that a signal ended.
///
/// # Errors
/// When called twice, or when the kernel refuses the handler.
#[expect(unsafe_code, reason = "sigaction")]
pub fn stop_on_signal(stop: Waker) -> io::Result<()> {
    STOP.set(stop).map_err(|_| io::ErrorKind::AlreadyExists)?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: an all-zero sigaction is valid, and the handler calls only what signal-safety(7)
        // allows: atomics, write(2) and _exit(2).
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            if libc::sigaction(signal, &action, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// How many signals came.
pub fn count() -> usize {
    SIGNALS.load(Ordering::Relaxed)
}

#[expect(unsafe_code, reason = "_exit")]
extern "C" fn on_signal(signal: libc::c_int) {
    if SIGNALS.fetch_add(1, Ordering::Relaxed) > 0 {
        // SAFETY: ends the process.
        unsafe { libc::_exit(128 + signal) };
    }
    if let Some(stop) = STOP.get() {
        stop.wake();
    }
}
