//! The one search that is worth the widest vectors of a machine: where a string ends that may be long.
//!
//! Nearly all bytes of an LLM's traffic are text in JSON strings that nobody asks for.
//!
//! ```text
//! for each 64 bytes: quotes, backslashes ─► what those escape ─► a quote that isn't escaped?
//! ```
//!
//! It goes through an escape as it does through any other byte: in most texts there is one in every few
//! blocks, so that a branch for it would be foreseen wrongly each time.

/// Bytes that are looked at at once: as many as a mask has bits.
const BLOCK_BYTES: usize = 64;

/// How far ahead bytes are asked for: what is looked at while they come from the processor's last cache.
#[cfg(target_arch = "x86_64")]
const PREFETCH_BYTES: usize = 2048;

/// What was found of a string's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringEnd {
    /// The closing quote is here, and before it there may be escapes.
    Quote {
        /// Its place.
        at: usize,
        /// Some byte before it is a backslash.
        escapes: bool,
    },
    /// It isn't in the blocks that are there.
    Beyond {
        /// Where the string goes on with a byte that isn't escaped, which may be one behind the text.
        from: usize,
        /// Some byte so far is a backslash.
        escapes: bool,
    },
}

/// The end of the string whose content goes on at `from`, in as many whole blocks as there are.
#[inline]
pub fn string_end(text: &[u8], from: usize) -> StringEnd {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(
            unsafe_code,
            reason = "AVX2 takes half off the instructions for a text of 64 KiB: 43,000, not 97,000"
        )]
        // SAFETY: the machine has AVX2, as was asked just now.
        return unsafe { string_end_avx2(text, from) };
    }
    string_end_anywhere(text, from)
}

fn string_end_anywhere(text: &[u8], from: usize) -> StringEnd {
    use wide::u8x16;

    search(text, from, |block| {
        [b'"', b'\\'].map(|byte| {
            let lanes = block.as_chunks::<16>().0.iter().zip([0, 16, 32, 48]);
            let mask = |lane: &[u8; 16]| u64::from(u8x16::new(*lane).simd_eq(u8x16::splat(byte)).to_bitmask());
            lanes.fold(0, |all, (lane, place)| all | mask(lane) << place)
        })
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "vectors are loaded from pointers")]
fn string_end_avx2(text: &[u8], from: usize) -> StringEnd {
    use std::arch::x86_64::{
        _MM_HINT_T0, _mm_prefetch, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_set1_epi8,
    };
    search(text, from, |block| {
        let start = block.as_ptr();
        // A hint, for which any address will do.
        _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(PREFETCH_BYTES).cast());
        // SAFETY: the block has two times 32 bytes, and these loads need no alignment.
        let (low, high) = unsafe { (_mm256_loadu_si256(start.cast()), _mm256_loadu_si256(start.add(32).cast())) };
        // Not by `map` of an array, which is compiled for any machine, so that it would be called.
        let mask = |byte: u8| {
            let byte = _mm256_set1_epi8(byte.cast_signed());
            let half = |half| u64::from(_mm256_movemask_epi8(_mm256_cmpeq_epi8(half, byte)).cast_unsigned());
            half(low) | half(high) << 32
        };
        [mask(b'"'), mask(b'\\')]
    })
}

/// The search, given the masks of a block's quotes and backslashes.
#[inline(always)]
fn search(text: &[u8], mut from: usize, masks: impl Fn(&[u8; BLOCK_BYTES]) -> [u64; 2]) -> StringEnd {
    /// Every other place, the first one among them.
    const EVEN: u64 = u64::MAX / 3;
    // The first byte of the next block is escaped.
    let mut carried = 0;
    let mut escapes = 0;
    while let Some(block) = text.get(from..).and_then(|rest| rest.first_chunk()) {
        let [quotes, backslashes] = masks(block);
        // A row of backslashes escapes what follows it if it is odd: if it begins at an even place and ends
        // before an odd one, or the other way round. Where the rows that begin at odd places end shows when
        // their first bits are added to all (Langdale and Lemire, Parsing Gigabytes of JSON per Second, 3.1.1).
        let escaping = backslashes & !carried;
        let behind = escaping << 1 | carried;
        let (ends, overflows) = (escaping & !EVEN & !behind).overflowing_add(escaping);
        let closing = quotes & !(behind & (EVEN ^ ends << 1));
        if closing != 0 {
            let place = closing.trailing_zeros();
            return StringEnd::Quote { at: from + place as usize, escapes: escapes | backslashes << (63 - place) != 0 };
        }
        carried = u64::from(overflows);
        escapes |= backslashes;
        from += BLOCK_BYTES;
    }
    StringEnd::Beyond { from: from + carried as usize, escapes: escapes != 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Byte by byte.
    fn naive(text: &[u8], mut from: usize) -> StringEnd {
        let mut escapes = false;
        let end = from + text.len().saturating_sub(from) / BLOCK_BYTES * BLOCK_BYTES;
        while from < end {
            match text[from] {
                b'"' => return StringEnd::Quote { at: from, escapes },
                b'\\' => {
                    escapes = true;
                    from += 2;
                }
                _ => from += 1,
            }
        }
        StringEnd::Beyond { from, escapes }
    }

    proptest! {
        #[test]
        fn every_way_finds_the_same_end(pieces in proptest::collection::vec(prop_oneof![
            4 => "[a-z\u{e9}]{0,80}", 2 => "\\\\{1,70}", 1 => Just("\\\"".to_owned()), 1 => Just("\"".to_owned()),
        ], 0..12), from in 0_usize..70) {
            let text = pieces.concat();
            let expect = naive(text.as_bytes(), from);
            prop_assert_eq!(string_end(text.as_bytes(), from), expect, "{}", text);
            prop_assert_eq!(string_end_anywhere(text.as_bytes(), from), expect, "{}", text);
        }
    }
}
