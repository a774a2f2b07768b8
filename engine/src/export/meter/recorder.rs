//! Values of exchanges, added up in histograms.
//!
//! ```text
//! exchange ─► labels ─ one look-up ─► set ─► its point in each metric ─► histogram
//! ```
//!
//! Metrics differ in which labels they have, so several sets may share a point. Which point that is
//! is found out when a set has its first value for a metric, and remembered in the set: after that
//! an exchange costs one look-up, and no allocation.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use super::{
    histogram::Histogram,
    instrument::{SLOTS, Slot},
    labels::Labels,
};
use crate::{
    exchange::{Call, Exchange, Role},
    limits::METRIC_SETS_MAX,
};

/// Everything that metrics know.
pub struct Recorder {
    hasher: RandomState,
    /// Where a set with this hash of its labels is; a place taken by another goes to the next one.
    index: HashMap<u64, usize>,
    sets: Vec<Set>,
    points: [Vec<Point>; SLOTS],
}

/// Labels that came together in an exchange, and where its values go.
struct Set {
    /// `None` of the one set for all that find no room.
    labels: Option<Labels<Box<str>>>,
    points: [Option<usize>; SLOTS],
}

/// The values of one kind whose labels are the same as far as that kind has them.
#[derive(Clone)]
pub(super) struct Point {
    /// A set with those labels.
    set: usize,
    pub histogram: Histogram,
}

/// The set for all that find no room.
const OVERFLOW: usize = 0;

impl Default for Recorder {
    fn default() -> Self {
        let mut recorder =
            Self { hasher: RandomState::new(), index: HashMap::new(), sets: Vec::new(), points: Default::default() };
        recorder.forget();
        recorder
    }
}

impl Recorder {
    /// Adds the values of an exchange.
    pub fn record(&mut self, exchange: &Exchange) {
        exchange.call.with(|call| {
            let set = self.set(Labels::new(exchange.role, call));
            match exchange.role {
                Role::Client => self.record_client(set, exchange, call),
                Role::Server => self.record_server(set, exchange, call),
            }
        });
    }

    fn record_client(&mut self, set: usize, exchange: &Exchange, call: &Call<'_>) {
        // A count below nothing is no count, whatever the span says of what was on the wire.
        if let Some(tokens) = call.input_tokens.filter(|tokens| *tokens >= 0) {
            self.add(set, Slot::InputTokens, tokens as f64);
        }
        if let Some(tokens) = call.output_tokens.filter(|tokens| *tokens >= 0) {
            self.add(set, Slot::OutputTokens, tokens as f64);
        }
        if !exchange.end_unseen {
            self.add(set, Slot::Duration, seconds(exchange.duration_nano()));
        }
        if let Some(nano) = exchange.first_chunk_nano {
            self.add(set, Slot::FirstChunk, seconds(nano));
        }
        if !exchange.chunk_intervals.is_empty() {
            self.histogram(set, Slot::PerChunk).add_intervals(&exchange.chunk_intervals);
        }
    }

    fn record_server(&mut self, set: usize, exchange: &Exchange, call: &Call<'_>) {
        if !exchange.end_unseen {
            self.add(set, Slot::ServerDuration, seconds(exchange.duration_nano()));
        }
        if call.error_type.is_some() {
            return;
        }
        if let Some(nano) = exchange.first_chunk_nano {
            self.add(set, Slot::ServerFirstToken, seconds(nano));
        }
        let intervals = &exchange.chunk_intervals;
        let tokens = call.output_tokens.filter(|tokens| *tokens > 1);
        // From the first chunk to the last is from the first token to the last, if none was missed.
        if let Some(tokens) = tokens
            && !intervals.is_empty()
            && !exchange.incomplete
            && exchange.lost_bytes == 0
        {
            self.add(set, Slot::ServerPerToken, seconds(intervals.sum_nano) / (tokens - 1) as f64);
        }
    }

    /// The set with these labels, which is made if there is room.
    fn set(&mut self, labels: Labels<&str>) -> usize {
        let mut hash = self.hasher.hash_one(labels);
        while let Some(&set) = self.index.get(&hash) {
            if self.labels(set) == Some(labels) {
                return set;
            }
            hash = hash.wrapping_add(1);
        }
        if self.sets.len() >= METRIC_SETS_MAX {
            return OVERFLOW;
        }
        let set = self.sets.len();
        self.sets.push(Set { labels: Some(labels.to_owned()), points: [None; SLOTS] });
        self.index.insert(hash, set);
        set
    }

    fn labels(&self, set: usize) -> Option<Labels<&str>> {
        self.sets[set].labels.as_ref().map(Labels::borrowed)
    }

    fn add(&mut self, set: usize, slot: Slot, value: f64) {
        self.histogram(set, slot).add(value, slot.bounds());
    }

    fn histogram(&mut self, set: usize, slot: Slot) -> &mut Histogram {
        // What found no room has no token type either, so that both are one point.
        let slot = if set == OVERFLOW && slot == Slot::OutputTokens { Slot::InputTokens } else { slot };
        let point = match self.sets[set].points[slot as usize] {
            Some(point) => point,
            None => self.place(set, slot),
        };
        &mut self.points[slot as usize][point].histogram
    }

    /// Finds or makes the point of a set.
    fn place(&mut self, set: usize, slot: Slot) -> usize {
        let of_slot = |set| self.labels(set).map(|labels| labels.of(slot));
        let labels = of_slot(set);
        let found = self.points[slot as usize].iter().position(|point| of_slot(point.set) == labels);
        let points = &mut self.points[slot as usize];
        let point = found.unwrap_or_else(|| {
            points.push(Point { set, histogram: Histogram::default() });
            points.len() - 1
        });
        self.sets[set].points[slot as usize] = Some(point);
        point
    }

    /// The points of a kind that have values, each with its labels; those without are the one for
    /// all that found no room.
    pub(super) fn points(&self, slot: Slot) -> impl Iterator<Item = (Option<Labels<&str>>, &Point)> {
        let points = self.points[slot as usize].iter().filter(|point| point.histogram.count > 0);
        points.map(move |point| (self.labels(point.set).map(|labels| labels.of(slot)), point))
    }

    /// Begins anew, for values since the last time. Sets are kept for the next values, unless there
    /// is no room for others.
    pub(super) fn restart(&mut self) {
        if self.sets.len() >= METRIC_SETS_MAX {
            self.forget();
        } else {
            let points = self.points.iter_mut().flatten();
            points.for_each(|point| point.histogram = Histogram::default());
        }
    }

    fn forget(&mut self) {
        self.index.clear();
        self.sets.clear();
        self.points.iter_mut().for_each(Vec::clear);
        self.sets.push(Set { labels: None, points: [None; SLOTS] });
    }
}

fn seconds(nano: u64) -> f64 {
    nano as f64 / 1e9
}
