//! Which spans are exported (`OTEL_TRACES_SAMPLER`).

use crate::exchange::TraceContext;

/// W3C Trace Context section 3.2.2.5: the caller may have recorded its span.
const SAMPLED: u8 = 1;

/// A choice among spans that every exporter of the same trace makes alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// The parent's choice counts, where there is a parent.
    by_parent: bool,
    /// Spans with less than this in the last 63 bits of their trace id are exported.
    bound: u64,
}

impl Default for Sampler {
    /// All spans are exported.
    fn default() -> Self {
        Self::new(false, 1.0)
    }
}

impl Sampler {
    /// Exports the part `ratio` of the traces, from 0 to 1; with `by_parent` only of those that
    /// begin here, while others are exported when their caller's span is sampled.
    pub fn new(by_parent: bool, ratio: f64) -> Self {
        const ALL: u64 = 1 << 63;
        let bound = if ratio >= 1.0 { ALL } else { (ratio.max(0.0) * ALL as f64) as u64 };
        Self { by_parent, bound }
    }

    /// Whether the span with this context is exported.
    pub fn samples(&self, trace: &TraceContext) -> bool {
        if self.by_parent && trace.parent_span_id.is_some() {
            return trace.flags & SAMPLED != 0;
        }
        (u128::from_be_bytes(trace.trace_id) as u64) >> 1 < self.bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_and_ratios_decide() {
        let check = |by_parent, ratio, parent: Option<u8>, low_bits: u64, expected| {
            let trace = TraceContext {
                trace_id: (1 << 64 | u128::from(low_bits)).to_be_bytes(),
                span_id: [1; 8],
                parent_span_id: parent.map(|_| [2; 8]),
                flags: parent.unwrap_or(SAMPLED),
            };
            let found = Sampler::new(by_parent, ratio).samples(&trace);
            assert_eq!(found, expected, "{by_parent} {ratio} {parent:?} {low_bits:x}");
        };
        let (low, high) = (1 << 62, u64::MAX);
        for by_parent in [false, true] {
            check(by_parent, 1.0, None, high, true);
            check(by_parent, 0.0, None, 0, false);
            check(by_parent, 0.5, None, low, true);
            check(by_parent, 0.5, None, high, false);
        }
        check(false, 1.0, Some(0), high, true);
        check(false, 0.0, Some(SAMPLED), 0, false);
        check(true, 0.0, Some(SAMPLED), high, true);
        // Other flags beside it don't matter.
        check(true, 0.0, Some(0b11), high, true);
        check(true, 1.0, Some(0b10), 0, false);
    }

    #[test]
    fn a_ratio_is_met() {
        let sampler = Sampler::new(false, 0.25);
        let sampled = (0..10_000_u128).filter(|index| {
            // Spread over all bits, as random ids are.
            let trace_id = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes();
            sampler.samples(&TraceContext { trace_id, span_id: [1; 8], parent_span_id: None, flags: 1 })
        });
        let sampled = sampled.count();
        assert!((2_300..2_700).contains(&sampled), "{sampled}");
    }
}
