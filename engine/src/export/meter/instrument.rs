//! The metrics of the conventions: names, units, buckets, and which of them each value belongs to.

use crate::semconv::metric as name;

/// Buckets of nearly all durations.
pub(super) const DURATION_BOUNDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];

const TOKEN_BOUNDS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

const FIRST_TOKEN_BOUNDS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

const PER_TOKEN_BOUNDS: [f64; 13] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];

/// The most buckets that a metric has.
pub(super) const BUCKETS_MAX: usize = FIRST_TOKEN_BOUNDS.len() + 1;

/// A kind of value. Each has points of its own; input and output tokens are one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    InputTokens,
    OutputTokens,
    Duration,
    FirstChunk,
    PerChunk,
    ServerDuration,
    ServerFirstToken,
    ServerPerToken,
}

/// How many kinds there are.
pub(super) const SLOTS: usize = 8;

/// A metric and the values that make it.
pub(super) struct Instrument {
    pub name: &'static str,
    pub description: &'static str,
    pub unit: &'static str,
    pub bounds: &'static [f64],
    pub slots: &'static [Slot],
}

/// All metrics.
pub(super) const INSTRUMENTS: [Instrument; 7] = [
    Instrument {
        name: name::GEN_AI_CLIENT_TOKEN_USAGE,
        description: "Tokens that calls took in and put out.",
        unit: "{token}",
        bounds: &TOKEN_BOUNDS,
        slots: &[Slot::InputTokens, Slot::OutputTokens],
    },
    seconds(name::GEN_AI_CLIENT_OPERATION_DURATION, "How long calls took.", &DURATION_BOUNDS, &[Slot::Duration]),
    seconds(
        name::GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK,
        "From the end of a request to the first chunk of its streamed response.",
        &DURATION_BOUNDS,
        &[Slot::FirstChunk],
    ),
    seconds(
        name::GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK,
        "From the end of one chunk of a streamed response to the end of the next.",
        &DURATION_BOUNDS,
        &[Slot::PerChunk],
    ),
    seconds(
        name::GEN_AI_SERVER_REQUEST_DURATION,
        "How long it took to answer calls.",
        &DURATION_BOUNDS,
        &[Slot::ServerDuration],
    ),
    seconds(
        name::GEN_AI_SERVER_TIME_TO_FIRST_TOKEN,
        "From the end of a request to the first token of a successful streamed response.",
        &FIRST_TOKEN_BOUNDS,
        &[Slot::ServerFirstToken],
    ),
    seconds(
        name::GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN,
        "Time for each token after the first of a successful streamed response.",
        &PER_TOKEN_BOUNDS,
        &[Slot::ServerPerToken],
    ),
];

const fn seconds(
    name: &'static str,
    description: &'static str,
    bounds: &'static [f64],
    slots: &'static [Slot],
) -> Instrument {
    Instrument { name, description, unit: "s", bounds, slots }
}

impl Slot {
    /// The upper bounds of its buckets.
    pub fn bounds(self) -> &'static [f64] {
        match self {
            Self::InputTokens | Self::OutputTokens => &TOKEN_BOUNDS,
            Self::Duration | Self::FirstChunk | Self::PerChunk | Self::ServerDuration => &DURATION_BOUNDS,
            Self::ServerFirstToken => &FIRST_TOKEN_BOUNDS,
            Self::ServerPerToken => &PER_TOKEN_BOUNDS,
        }
    }

    /// `gen_ai.token.type`.
    pub fn token_type(self) -> Option<&'static str> {
        match self {
            Self::InputTokens => Some("input"),
            Self::OutputTokens => Some("output"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::intervals::{BOUNDS_NANO, BUCKETS};

    #[test]
    fn every_slot_is_in_one_metric_that_has_its_bounds() {
        let mut seen = HashSet::new();
        for instrument in &INSTRUMENTS {
            assert!(instrument.bounds.is_sorted() && instrument.bounds.len() < BUCKETS_MAX, "{}", instrument.name);
            for &slot in instrument.slots {
                assert_eq!(slot.bounds(), instrument.bounds, "{slot:?}");
                assert!((slot as usize) < SLOTS && seen.insert(slot as usize), "{slot:?}");
            }
        }
        assert_eq!(seen.len(), SLOTS);
        let names: HashSet<_> = INSTRUMENTS.iter().map(|instrument| instrument.name).collect();
        assert_eq!(names.len(), INSTRUMENTS.len());
    }

    #[test]
    fn intervals_come_in_the_buckets_of_durations() {
        assert_eq!(DURATION_BOUNDS.len() + 1, BUCKETS);
        for (seconds, nano) in DURATION_BOUNDS.iter().zip(BOUNDS_NANO) {
            assert_eq!(*seconds, nano as f64 / 1e9);
        }
    }
}
