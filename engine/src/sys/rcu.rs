//! Grace periods of RCU that end at once.
//!
//! The first registration of a uprobe after a while waits for one (`dup_mmap_sem` of kernel/events/uprobes.c is a
//! per-CPU semaphore, whose writers do), which takes the kernel up to some tens of milliseconds; what the process says
//! meanwhile is not seen. While `/sys/kernel/rcu_expedited` is not zero (kernel/rcu/update.c), CPUs that aren't idle are
//! interrupted instead, and it takes a tenth of a millisecond.

use std::{
    fs::{self, File},
    io::Write as _,
};

const SETTING: &str = "/sys/kernel/rcu_expedited";

/// Grace periods end at once as long as this lives.
#[derive(Debug)]
pub struct Expedited(Option<File>);

impl Expedited {
    /// Begins with it. A setting that is on already, or that this process may not change, is left as it is.
    pub fn begin() -> Self {
        let is_off = fs::read(SETTING).is_ok_and(|text| text.trim_ascii() == b"0");
        let setting = is_off.then(|| File::options().write(true).open(SETTING).ok()).flatten();
        Self(setting.and_then(|mut setting| setting.write_all(b"1").is_ok().then_some(setting)))
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        if let Some(setting) = &mut self.0 {
            // What could be switched on can be switched off.
            let _ = setting.write_all(b"0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_as_it_was_afterwards() {
        let now = || fs::read(SETTING).unwrap_or_default();
        let before = now();
        let outer = Expedited::begin();
        let during = now();
        // One within another changes nothing, and neither does its end.
        drop(Expedited::begin());
        assert_eq!(now(), during);
        assert!(outer.0.is_none() || during.trim_ascii() == b"1");
        drop(outer);
        assert_eq!(now(), before);
    }
}
