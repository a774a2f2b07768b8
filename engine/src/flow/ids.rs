//! Span and trace ids.

use std::hash::{BuildHasher as _, Hasher, RandomState};

/// Makes ids from a seed, a connection and the exchange's place in it: a random seed makes them as
/// good as random, a fixed one makes a replay repeatable.
#[derive(Clone, Copy, Debug)]
pub struct IdSource {
    seed: u64,
}

impl IdSource {
    /// Ids that nobody can foresee.
    pub fn random() -> Self {
        // The standard library's hasher keys come from the system's random numbers.
        Self { seed: RandomState::new().hash_one(std::process::id()) }
    }

    /// The same ids for the same `seed` and the same bytes.
    pub fn fixed(seed: u64) -> Self {
        Self { seed }
    }

    /// The `index`th number of an exchange, never 0.
    fn number(self, conn: u64, sequence: u64, index: u64) -> u64 {
        let mixed = mix(mix(mix(self.seed ^ conn).wrapping_add(sequence)).wrapping_add(index));
        if mixed == 0 { 1 } else { mixed }
    }

    /// A span id.
    pub fn span_id(self, conn: u64, sequence: u64) -> [u8; 8] {
        self.number(conn, sequence, 0).to_be_bytes()
    }

    /// A trace id, for a request without a valid `traceparent`.
    pub fn trace_id(self, conn: u64, sequence: u64) -> [u8; 16] {
        let high = u128::from(self.number(conn, sequence, 1));
        let low = u128::from(self.number(conn, sequence, 2));
        (high << 64 | low).to_be_bytes()
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that changes half of the bits.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// Connection ids are counters that the kernel side makes, so one multiplication spreads them.
#[derive(Default)]
pub(crate) struct ConnIdHasher(u64);

impl Hasher for ConnIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0 ^ value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_repeat() {
        let ids = IdSource::fixed(1);
        let spans: HashSet<_> =
            (0..100).flat_map(|conn| (0..100).map(move |sequence| ids.span_id(conn, sequence))).collect();
        assert_eq!(spans.len(), 10_000);
        assert_eq!(ids.trace_id(3, 4), IdSource::fixed(1).trace_id(3, 4));
        assert_ne!(ids.trace_id(3, 4), IdSource::fixed(2).trace_id(3, 4));
    }
}
