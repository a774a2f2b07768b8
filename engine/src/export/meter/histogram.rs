//! A histogram with explicit buckets.

use super::instrument::BUCKETS_MAX;
use crate::intervals::Intervals;

/// Values counted in buckets. Which bounds the buckets have, who adds and who reads have to agree on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    pub counts: [u64; BUCKETS_MAX],
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
}

impl Histogram {
    /// Counts a value. A bucket takes what is up to its bound, the bound included.
    pub fn add(&mut self, value: f64, bounds: &[f64]) {
        let bucket = bounds.partition_point(|&bound| bound < value);
        if let Some(counted) = self.counts.get_mut(bucket) {
            *counted += 1;
        }
        self.widen(value, value);
        self.count += 1;
        self.sum += value;
    }

    /// Counts many intervals, which have been put into buckets of the same bounds before.
    pub fn add_intervals(&mut self, intervals: &Intervals) {
        let count = intervals.count();
        if count == 0 {
            return;
        }
        for (counted, more) in self.counts.iter_mut().zip(intervals.counts) {
            *counted += u64::from(more);
        }
        self.widen(intervals.min_nano as f64 / 1e9, intervals.max_nano as f64 / 1e9);
        self.count += count;
        self.sum += intervals.sum_nano as f64 / 1e9;
    }

    fn widen(&mut self, min: f64, max: f64) {
        let none = self.count == 0;
        self.min = if none { min } else { self.min.min(min) };
        self.max = if none { max } else { self.max.max(max) };
    }
}
