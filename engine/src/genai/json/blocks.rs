//! Sixty-four bytes of a document at a time, as masks with a bit for each byte.
//!
//! The vectors are those that every machine of an architecture has (SSE2, NEON), so nothing has to be
//! looked up at run time and nothing is unsafe.

use wide::u8x16;

/// Bytes in a block: as many as a mask has bits.
pub(in crate::genai) const BLOCK_BYTES: usize = 64;

const LANES: usize = BLOCK_BYTES / 16;

/// A block in vectors.
pub(in crate::genai) struct Block([u8x16; LANES]);

impl Block {
    /// The block of these bytes.
    #[inline(always)]
    pub fn of(bytes: &[u8; BLOCK_BYTES]) -> Self {
        let mut lanes = [u8x16::default(); LANES];
        let (parts, _) = bytes.as_chunks::<16>();
        for (lane, part) in lanes.iter_mut().zip(parts) {
            *lane = u8x16::new(*part);
        }
        Self(lanes)
    }

    /// Where the bytes are equal to `byte`.
    #[inline(always)]
    pub fn are(&self, byte: u8) -> u64 {
        let byte = u8x16::splat(byte);
        self.mask(|lane| lane.simd_eq(byte))
    }

    /// Where the bytes are no larger than `last`.
    #[inline(always)]
    pub fn up_to(&self, last: u8) -> u64 {
        let last = u8x16::splat(last);
        self.mask(|lane| lane.min(last).simd_eq(lane))
    }

    /// Where objects and arrays begin, and where they end: RFC 8259 section 2.
    #[inline(always)]
    pub fn brackets(&self) -> (u64, u64) {
        // Brackets and braces differ in one bit.
        let [bit, opening, closing] = [0x20, b'{', b'}'].map(u8x16::splat);
        (self.mask(|lane| (lane | bit).simd_eq(opening)), self.mask(|lane| (lane | bit).simd_eq(closing)))
    }

    #[inline(always)]
    fn mask(&self, test: impl Fn(u8x16) -> u8x16) -> u64 {
        let mut mask = 0;
        for (place, lane) in self.0.iter().enumerate() {
            mask |= u64::from(test(*lane).to_bitmask()) << (16 * place);
        }
        mask
    }
}

/// Each bit becomes whether the number of bits up to and with it is odd: between an opening quote and
/// its closing one.
#[inline(always)]
pub(super) fn odd_so_far(mut mask: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        mask ^= mask << shift;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_those_of_each_byte() {
        // Every byte at every place.
        for first in 0..=255_u8 {
            let mut bytes = [0; BLOCK_BYTES];
            for (byte, place) in bytes.iter_mut().zip(0..) {
                *byte = first.wrapping_add(place);
            }
            let block = Block::of(&bytes);
            let expect = |test: fn(u8) -> bool| {
                bytes.iter().zip(0..).fold(0_u64, |mask, (byte, place)| mask | u64::from(test(*byte)) << place)
            };
            assert_eq!(block.are(b'"'), expect(|byte| byte == b'"'));
            assert_eq!(block.up_to(b' '), expect(|byte| byte <= b' '));
            assert_eq!(block.brackets(), (expect(|byte| b"{[".contains(&byte)), expect(|byte| b"}]".contains(&byte))));
        }
    }

    #[test]
    fn quotes_have_an_inside() {
        assert_eq!(odd_so_far(0), 0);
        assert_eq!(odd_so_far(0b0001_0010), 0b0000_1110);
        assert_eq!(odd_so_far(1 << 63), 1 << 63);
        assert_eq!(odd_so_far(1), u64::MAX);
    }
}
