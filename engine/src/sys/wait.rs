//! Waiting for one of some descriptors, or for a while: io_uring with multishot polls, or epoll
//! where the kernel or a seccomp profile refuses io_uring.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use io_uring::{IoUring, cqueue, opcode, types};

/// Something that ends a wait from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

#[expect(unsafe_code, reason = "eventfd")]
impl Waker {
    /// A waker that has not been used.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, nobody else has it.
        Ok(Self(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Ends the wait of whoever watches this, now or next time.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes of a live array, which is what an eventfd takes.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes it as if it had not been used.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes of a live array, which is what an eventfd gives.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// The descriptor to wait for.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for descriptors to become readable. Each must stay open as long as this lives.
pub struct Waiter {
    backend: Backend,
    fds: Vec<i32>,
}

enum Backend {
    Uring(Box<IoUring>),
    Epoll(OwnedFd),
}

impl Waiter {
    /// Watches `fds`.
    ///
    /// # Errors
    /// When neither io_uring nor epoll can watch them.
    pub fn new(fds: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let raw: Vec<i32> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        if let Some(ring) = uring(&raw) {
            return Ok(Self { backend: Backend::Uring(Box::new(ring)), fds: raw });
        }
        Ok(Self { backend: Backend::Epoll(epoll(&raw)?), fds: raw })
    }

    /// What does the waiting, for the start-up message.
    pub fn backend(&self) -> &'static str {
        match self.backend {
            Backend::Uring(_) => "io_uring",
            Backend::Epoll(_) => "epoll",
        }
    }

    /// Returns when a descriptor became readable, when a signal came, or after `timeout`.
    pub fn wait(&mut self, timeout: Duration) {
        match &mut self.backend {
            Backend::Uring(ring) => {
                let time = types::Timespec::from(timeout);
                let args = types::SubmitArgs::new().timespec(&time);
                // ETIME and EINTR are what a wait is for; anything else is felt as a short wait.
                let _ = ring.submitter().submit_with_args(1, &args);
                let fds = &self.fds;
                let mut rearm = [usize::MAX; 8];
                let mut count = 0;
                for event in ring.completion() {
                    // A multishot poll ends by itself on overflow and on errors.
                    if !cqueue::more(event.flags()) && event.result() >= 0 && count < rearm.len() {
                        rearm[count] = event.user_data() as usize;
                        count += 1;
                    }
                }
                for &index in &rearm[..count] {
                    if let Some(&fd) = fds.get(index) {
                        let _ = arm(ring, fd, index);
                    }
                }
            }
            Backend::Epoll(epoll) => wait_epoll(epoll, timeout),
        }
    }
}

#[expect(unsafe_code, reason = "submission queue entries refer to descriptors by number")]
fn arm(ring: &mut IoUring, fd: i32, index: usize) -> io::Result<()> {
    let poll = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).multi(true).build().user_data(index as u64);
    // SAFETY: the entry holds no pointers, and its descriptor outlives the waiter (see `Waiter`).
    unsafe { ring.submission().push(&poll) }.map_err(|_| io::ErrorKind::OutOfMemory)?;
    ring.submit()?;
    Ok(())
}

/// `None` when io_uring, its timeouts (5.11) or multishot polls (5.13) are not to be had.
fn uring(fds: &[i32]) -> Option<IoUring> {
    let entries = u32::try_from(fds.len() + 1).ok()?.next_power_of_two();
    let mut ring = IoUring::builder().build(entries).ok()?;
    if !ring.params().is_feature_ext_arg() {
        return None;
    }
    for (index, &fd) in fds.iter().enumerate() {
        arm(&mut ring, fd, index).ok()?;
    }
    // A refused poll completes at once with an error.
    if ring.completion().any(|event| event.result() < 0) {
        return None;
    }
    Some(ring)
}

#[expect(unsafe_code, reason = "epoll")]
fn epoll(fds: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if epoll < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, nobody else has it.
    let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
    for (index, &fd) in fds.iter().enumerate() {
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: index as u64 };
        // SAFETY: both descriptors are open and the event is valid for the call.
        if unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(epoll)
}

#[expect(unsafe_code, reason = "epoll")]
fn wait_epoll(epoll: &OwnedFd, timeout: Duration) {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
    // Rounded up: a timeout of 0 would spin.
    let millis = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
    // SAFETY: the array is valid for its length.
    unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, millis) };
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn check(make: impl FnOnce(&Waker) -> Waiter) {
        let waker = Waker::new().unwrap();
        let mut waiter = make(&waker);
        let start = Instant::now();
        waiter.wait(Duration::from_millis(5));
        assert!(start.elapsed() >= Duration::from_millis(4), "{} came back early", waiter.backend());
        for _ in 0..3 {
            let other = waker.clone();
            let thread = std::thread::spawn(move || other.wake());
            let start = Instant::now();
            waiter.wait(Duration::from_secs(20));
            assert!(start.elapsed() < Duration::from_secs(10), "{} was not woken", waiter.backend());
            thread.join().unwrap();
            waker.clear();
        }
    }

    #[test]
    fn a_wait_ends_by_time_and_by_waker() {
        check(|waker| Waiter::new(&[waker.fd()]).unwrap());
    }

    // On a thread of its own: the end of a ring interrupts system calls of the thread that had it.
    #[test]
    fn epoll_does_as_well() {
        check(|waker| {
            let fds = vec![waker.fd().as_raw_fd()];
            Waiter { backend: Backend::Epoll(epoll(&fds).unwrap()), fds }
        });
    }
}
