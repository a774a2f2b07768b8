//! From the kernel's monotonic clock to the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

/// What has to be added to CLOCK_MONOTONIC to get nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixOffset(pub i64);

impl UnixOffset {
    /// Reads both clocks, the monotonic one before and after, and takes the closest of a few tries.
    pub fn measure() -> Self {
        let mut best = (u64::MAX, 0);
        for _ in 0..5 {
            let before = monotonic_ns();
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
            let after = monotonic_ns();
            let width = after.saturating_sub(before);
            if width < best.0 {
                best = (width, unix - (before + width / 2) as i64);
            }
        }
        Self(best.1)
    }

    /// The time of day of a CLOCK_MONOTONIC reading, in nanoseconds since the Unix epoch.
    pub fn unix_nano(self, ktime_ns: u64) -> u64 {
        ktime_ns.saturating_add_signed(self.0)
    }
}

/// CLOCK_MONOTONIC, which `bpf_ktime_get_ns` reads too.
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// CLOCK_BOOTTIME: nanoseconds since the machine was started, those in which it was suspended
/// included. Nobody can set it.
pub fn since_boot_ns() -> u64 {
    read(libc::CLOCK_BOOTTIME)
}

/// The time of day in nanoseconds since the Unix epoch, as it is set right now.
pub fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[expect(unsafe_code, reason = "clock_gettime has no safe wrapper for these clocks")]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call; the clocks always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_leads_to_now() {
        let now = UnixOffset::measure().unix_nano(monotonic_ns());
        let expected = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        assert!(expected.abs_diff(now) < 1_000_000_000, "{now} is not {expected}");
    }
}
