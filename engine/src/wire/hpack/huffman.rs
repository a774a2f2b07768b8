//! The Huffman code (RFC 7541 appendix B).
//!
//! The code is canonical: codes of one length are consecutive in the order of their symbols, and
//! shorter codes come before longer ones. So the lengths alone define it.
//!
//! ```text
//! look at the next 8 bits: a symbol of at most 8 bits comes from a table    (all usual characters)
//!                          else for each longer length: is it within that length's codes?
//! ```

use super::Error;

const SYMBOLS: usize = 257;
/// Ends no string: it only pads the last byte.
const END: u16 = 256;
const LENGTH_MAX: usize = 30;

/// The length of each symbol's code in bits.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

struct Code {
    /// By the next 8 bits: a symbol and its length, which is 0 when it is longer.
    short: [(u8, u8); 256],
    /// By length: the first code of that length.
    first: [u32; LENGTH_MAX + 1],
    /// By length: where its symbols begin in `symbols`; the next one's end them.
    offset: [u16; LENGTH_MAX + 2],
    /// By length, then value.
    symbols: [u16; SYMBOLS],
}

static CODE: Code = build();

const fn build() -> Code {
    let mut code =
        Code { short: [(0, 0); 256], first: [0; LENGTH_MAX + 1], offset: [0; LENGTH_MAX + 2], symbols: [0; SYMBOLS] };
    let (mut next, mut count, mut length) = (0u32, 0usize, 1usize);
    while length <= LENGTH_MAX {
        code.first[length] = next;
        code.offset[length] = count as u16;
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] as usize == length {
                if length <= 8 {
                    let mut at = (next << (8 - length)) as usize;
                    let end = at + (1 << (8 - length));
                    while at < end {
                        code.short[at] = (symbol as u8, length as u8);
                        at += 1;
                    }
                }
                code.symbols[count] = symbol as u16;
                count += 1;
                next += 1;
            }
            symbol += 1;
        }
        next <<= 1;
        length += 1;
    }
    code.offset[LENGTH_MAX + 1] = count as u16;
    // The code is complete: no bits are left that mean nothing.
    assert!(count == SYMBOLS && next == 1 << (LENGTH_MAX + 1));
    code
}

/// Decodes `input` and appends it to `out`.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    // The bits to come are at the top; below them are ones, as in the padding (section 5.2).
    let (mut bits, mut count) = (u64::MAX, 0u32);
    let mut bytes = input.iter();
    loop {
        while count <= 56
            && let Some(&byte) = bytes.next()
        {
            bits ^= u64::from(!byte) << (56 - count);
            count += 8;
        }
        let (mut symbol, mut length) = CODE.short[(bits >> 56) as usize];
        if length == 0 && count > 8 {
            (symbol, length) = long(bits)?;
        }
        if length == 0 || u32::from(length) > count {
            // Nothing but padding is left, and less than a byte of it.
            let padding = count < 8 && bits == u64::MAX;
            return if padding { Ok(()) } else { Err(Error::Huffman) };
        }
        out.push(symbol);
        bits = !(!bits << length);
        count -= u32::from(length);
    }
}

fn long(bits: u64) -> Result<(u8, u8), Error> {
    for length in 9..=LENGTH_MAX {
        let within = ((bits >> (64 - length)) as u32).wrapping_sub(CODE.first[length]);
        let symbols = &CODE.symbols[CODE.offset[length].into()..CODE.offset[length + 1].into()];
        if let Some(&symbol) = symbols.get(within as usize) {
            return if symbol == END { Err(Error::Huffman) } else { Ok((symbol as u8, length as u8)) };
        }
    }
    Err(Error::Huffman)
}

/// The naive encoder, for tests.
#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let mut bits = String::new();
    for &byte in text {
        let length = usize::from(LENGTHS[usize::from(byte)]);
        let before = (0..SYMBOLS).filter(|&other| usize::from(LENGTHS[other]) == length && other < usize::from(byte));
        let code = CODE.first[length] as usize + before.count();
        bits += &format!("{code:0length$b}");
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    bits.as_bytes().chunks(8).map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap()).collect()
}
