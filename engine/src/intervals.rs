//! The pace of a stream: how long each chunk came after the one before it, counted by length.
//!
//! A stream may have any number of chunks, so only their distribution is kept, in the buckets that
//! the conventions give for durations; that takes the same few bytes whatever the stream's length.

/// The buckets' upper bounds in nanoseconds, inclusive: 10 ms, each twice the one before, and one
/// more bucket without a bound.
pub const BOUNDS_NANO: [u64; BUCKETS - 1] = {
    let mut bounds = [10_000_000; BUCKETS - 1];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = 2 * bounds[at - 1];
        at += 1;
    }
    bounds
};

/// How many buckets there are.
pub const BUCKETS: usize = 15;

/// A distribution of times between chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    /// How many each bucket has.
    pub counts: [u32; BUCKETS],
    /// All of them together.
    pub sum_nano: u64,
    /// The shortest; 0 when there is none.
    pub min_nano: u64,
    /// The longest; 0 when there is none.
    pub max_nano: u64,
}

impl Intervals {
    /// Counts `count` intervals of `nano` each.
    #[inline]
    pub fn add(&mut self, nano: u64, count: u64) {
        if count == 0 {
            return;
        }
        let none = self.max_nano == 0 && self.is_empty();
        // Chunks come fast, many of them together.
        let bucket = if nano <= BOUNDS_NANO[0] { 0 } else { BOUNDS_NANO.partition_point(|&bound| bound < nano) };
        let counted = &mut self.counts[bucket];
        *counted = counted.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.sum_nano = self.sum_nano.saturating_add(nano.saturating_mul(count));
        self.min_nano = if none { nano } else { self.min_nano.min(nano) };
        self.max_nano = self.max_nano.max(nano);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }

    /// There were none.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }
}

/// When the chunks of one response came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// The first chunk, unless it may have been one that was missed.
    first_ns: Option<u64>,
    /// The last chunk, unless others may have been missed since.
    last_ns: Option<u64>,
    /// Something was missed.
    broken: bool,
    intervals: Intervals,
}

impl Pace {
    /// `count` chunks ended at `now_ns`: bytes that come together end together.
    #[inline]
    pub fn chunks(&mut self, count: u64, now_ns: u64) {
        if count == 0 {
            return;
        }
        if self.last_ns == Some(now_ns) {
            return self.intervals.add(0, count);
        }
        if !self.broken {
            self.first_ns.get_or_insert(now_ns);
        }
        // Clocks may differ between CPUs, so that time could go back; it stands still then.
        let now_ns = now_ns.max(self.last_ns.unwrap_or(0));
        if let Some(last_ns) = self.last_ns {
            self.intervals.add(now_ns - last_ns, 1);
        }
        self.intervals.add(0, count - 1);
        self.last_ns = Some(now_ns);
    }

    /// Bytes were missed, which may have held chunks: what comes next is the end of no interval.
    pub fn gap(&mut self) {
        self.last_ns = None;
        self.broken = true;
    }

    /// When the first chunk came, if that was seen.
    pub fn first_ns(&self) -> Option<u64> {
        self.first_ns
    }

    /// The intervals that were seen from their beginning to their end.
    pub fn intervals(&self) -> Intervals {
        self.intervals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        let check = |nano, bucket: usize| {
            let mut intervals = Intervals::default();
            intervals.add(nano, 3);
            assert_eq!(intervals.counts[bucket], 3, "{nano}");
            assert_eq!((intervals.count(), intervals.sum_nano), (3, nano.saturating_mul(3)));
            assert_eq!((intervals.min_nano, intervals.max_nano), (nano, nano));
        };
        check(0, 0);
        check(10_000_000, 0);
        check(10_000_001, 1);
        check(20_000_000, 1);
        check(81_920_000_000, 13);
        check(81_920_000_001, 14);
        check(u64::MAX, 14);
    }

    /// Times of chunks, or `None` for a gap, against the times between neighbours.
    #[test]
    fn intervals_lie_between_neighbours_that_were_seen() {
        const MS: u64 = 1_000_000;
        let check = |events: &[Option<(u64, u64)>], first_ms: Option<u64>, intervals_ms: &[u64]| {
            let mut pace = Pace::default();
            for event in events {
                match event {
                    Some((at_ms, count)) => pace.chunks(*count, at_ms * MS),
                    None => pace.gap(),
                }
            }
            let mut expected = Intervals::default();
            intervals_ms.iter().for_each(|ms| expected.add(ms * MS, 1));
            assert_eq!((pace.first_ns(), pace.intervals()), (first_ms.map(|ms| ms * MS), expected), "{events:?}");
        };
        check(&[], None, &[]);
        check(&[Some((5, 1))], Some(5), &[]);
        check(&[Some((5, 0)), Some((7, 1))], Some(7), &[]);
        check(&[Some((5, 1)), Some((25, 1)), Some((26, 1))], Some(5), &[20, 1]);
        check(&[Some((5, 3)), Some((25, 2))], Some(5), &[0, 0, 20, 0]);
        check(&[Some((25, 1)), Some((5, 1)), Some((30, 1))], Some(25), &[0, 5]);
        check(&[None, Some((5, 1)), Some((7, 1))], None, &[2]);
        check(&[Some((5, 1)), None, Some((7, 1)), Some((8, 1))], Some(5), &[1]);
    }
}
