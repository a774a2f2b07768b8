//! How old a batch is, whatever happened to the clock.

use std::{fs, sync::OnceLock, time::Duration};

use crate::sys::clock;

/// A moment, by the time of day and by the time since the machine was started. While it runs the
/// latter can't be set, so a clock that jumps makes nothing look old; only over a restart of the
/// machine the time of day has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Since the Unix epoch.
    pub unix_ns: u64,
    /// Since the machine was started.
    pub since_boot_ns: u64,
    /// Which start of the machine that was.
    pub boot: u32,
}

impl Stamp {
    /// This moment.
    pub fn now() -> Self {
        static BOOT: OnceLock<u32> = OnceLock::new();
        // The same for as long as the machine runs; empty where /proc is not to be had, which makes
        // two starts of the machine look like one, and the time since then tells nothing of age.
        let boot =
            || crc32c::crc32c(fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().as_bytes());
        Self { unix_ns: clock::unix_ns(), since_boot_ns: clock::since_boot_ns(), boot: *BOOT.get_or_init(boot) }
    }

    /// How much later this is than `earlier`; nothing if that is in the future.
    pub fn since(self, earlier: Self) -> Duration {
        let ns = if self.boot == earlier.boot {
            self.since_boot_ns.saturating_sub(earlier.since_boot_ns)
        } else {
            self.unix_ns.saturating_sub(earlier.unix_ns)
        };
        Duration::from_nanos(ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restart_of_the_machine_makes_the_time_of_day_count() {
        let check = |now: (u64, u64, u32), then: (u64, u64, u32), age: u64| {
            let stamp = |(unix_ns, since_boot_ns, boot)| Stamp { unix_ns, since_boot_ns, boot };
            assert_eq!(stamp(now).since(stamp(then)), Duration::from_nanos(age), "{now:?} {then:?}");
        };
        check((1_000, 50, 1), (900, 20, 1), 30);
        // Set forward and back, by years.
        check((u64::MAX, 50, 1), (900, 20, 1), 30);
        check((0, 50, 1), (900, 20, 1), 30);
        check((1_000, 5, 2), (900, 2_000, 1), 100);
        // The machine came up without knowing the time.
        check((0, 5, 2), (900, 2_000, 1), 0);
    }
}
