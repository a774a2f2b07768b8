//! When to try again.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, SystemTime},
};

use super::config::Retry;

/// The longest that a collector may put us off.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Pauses that double, each between half of its length and all of it, so that agents which lost
/// the same collector do not come back together.
pub(super) struct Backoff {
    initial: Duration,
    next: Duration,
    max: Duration,
    jitter: RandomState,
    count: u64,
}

impl Backoff {
    pub(super) fn new(retry: &Retry) -> Self {
        Self {
            initial: retry.pause_initial,
            next: retry.pause_initial,
            max: retry.pause_max,
            jitter: RandomState::new(),
            count: 0,
        }
    }

    /// Begins anew: an attempt got through.
    pub(super) fn reset(&mut self) {
        self.next = self.initial;
    }

    pub(super) fn pause(&mut self) -> Duration {
        let whole = self.next.min(self.max);
        self.next = whole.saturating_mul(2);
        self.part_of(whole)
    }

    /// The pause that the collector asked for, and a little more, so that those whom it put off
    /// don't come back together, nor at once.
    pub(super) fn pause_after(&mut self, asked: Duration) -> Duration {
        asked + self.part_of(self.initial.min(self.max))
    }

    /// Between half of `whole` and all of it.
    fn part_of(&mut self, whole: Duration) -> Duration {
        self.count += 1;
        // `RandomState` is seeded by the system; the sixteen low bits of its hash are a fraction.
        let fraction = self.jitter.hash_one(self.count) as u16;
        whole.mul_f64(0.5 + f64::from(fraction) / f64::from(u16::MAX) / 2.0)
    }
}

/// RFC 9110 section 15 and the OTLP specification: what is worth another attempt.
pub(super) fn is_retryable(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// `Retry-After`, RFC 9110 section 10.2.3: seconds or a date.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let pause = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 has is still "much later".
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(pause.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 section 5.6.7.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |value, seconds: Option<u64>| {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value:?}");
        };
        check("0", Some(0));
        check(" 7 ", Some(7));
        check("99999999999999999999999999", Some(3600));
        check("18446744073709551615", Some(3600));
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10));
        check("Sunday, 06-Nov-94 08:49:47 GMT", Some(10));
        check("Sun Nov  6 08:49:47 1994", Some(10));
        check("Sun, 06 Nov 1994 08:49:00 GMT", Some(0));
        check("Fri, 06 Nov 2093 08:49:00 GMT", Some(3600));
        check("", None);
        check("-1", None);
        check("1.5", None);
        check("soon", None);
    }

    #[test]
    fn pauses_double_up_to_their_maximum_with_jitter() {
        let second = Duration::from_secs(1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..20 {
            let retry = Retry { pause_initial: second, pause_max: 5 * second, ..Retry::default() };
            let mut backoff = Backoff::new(&retry);
            for whole in [1, 2, 4, 5, 5] {
                let pause = backoff.pause();
                assert!(pause >= whole * second / 2 && pause <= whole * second, "{pause:?} of {whole} s");
                seen.insert(pause);
            }
        }
        assert!(seen.len() > 50, "they differ");
        let mut backoff = Backoff::new(&Retry { pause_initial: second, pause_max: 5 * second, ..Retry::default() });
        for _ in 0..20 {
            let pause = backoff.pause_after(7 * second);
            assert!(pause >= 15 * second / 2 && pause <= 8 * second, "{pause:?}");
        }
    }

    #[test]
    fn only_what_the_specification_lists_is_retried() {
        let retried: Vec<u16> = (100..600).filter(|status| is_retryable(*status)).collect();
        assert_eq!(retried, [429, 502, 503, 504]);
    }
}
