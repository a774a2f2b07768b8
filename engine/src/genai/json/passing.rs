//! Where strings end, and values that nobody asks for.

use wide::u8x16;

use super::{
    blocks::{BLOCK_BYTES, Block, odd_so_far},
    index::Stop,
    scalar,
};
use crate::simd::{self, StringEnd};

/// A value that is passed over, in one piece or in several: all that counts are quotes and brackets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Passing {
    /// A number or a name.
    Bare,
    /// A string, an object or an array.
    Quoted {
        /// Brackets that are open.
        depth: usize,
        /// Inside a string, how many of the next bytes can't end it: none or one.
        string: Option<usize>,
    },
}

impl Passing {
    /// A value that begins with the byte `first`, which is still to come.
    pub fn new(first: u8) -> Result<Self, Stop> {
        match first {
            b'"' => Ok(Self::Quoted { depth: 0, string: Some(1) }),
            b'{' | b'[' => Ok(Self::Quoted { depth: 0, string: None }),
            byte if scalar::is_bare(byte) => Ok(Self::Bare),
            _ => Err(Stop::Malformed),
        }
    }

    /// Behind the value, of which `text` has a piece that begins at `from`; [`Stop::More`] when it goes on
    /// in the next piece.
    #[inline]
    pub fn end(&mut self, text: &[u8], mut from: usize) -> Result<usize, Stop> {
        let Self::Quoted { depth, string } = self else { return scalar::bare_end(text, from).ok_or(Stop::More) };
        loop {
            if let Some(escaped) = string {
                match string_end(text, from + *escaped) {
                    Ok((end, _)) => from = end + 1,
                    Err(escaped) => {
                        *string = Some(escaped);
                        return Err(Stop::More);
                    }
                }
                *string = None;
                if *depth == 0 {
                    return Ok(from);
                }
            }
            match brackets(text, from, depth)? {
                Found::End(end) => return Ok(end),
                Found::String(opened) => {
                    from = opened + 1;
                    *string = Some(0);
                }
            }
        }
    }
}

/// What is found outside of strings.
enum Found {
    /// Behind the bracket that closes the first one.
    End(usize),
    /// A string that goes on behind the block that it begins in.
    String(usize),
}

/// Counts brackets from `base` on, which is outside of any string.
#[inline(never)]
fn brackets(text: &[u8], mut base: usize, depth: &mut usize) -> Result<Found, Stop> {
    loop {
        let rest = text.get(base..).filter(|rest| !rest.is_empty()).ok_or(Stop::More)?;
        let mut padded = [b' '; BLOCK_BYTES];
        let bytes = match rest.first_chunk() {
            Some(bytes) => bytes,
            None => {
                padded.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                &padded
            }
        };
        let block = Block::of(bytes);
        // If the last byte escapes, it does so inside a string, which is gone through once more.
        let backslashes = block.are(b'\\');
        let quotes = unescaped(block.are(b'"'), backslashes);
        let inside = odd_so_far(quotes);
        if backslashes & !inside != 0 {
            // Nothing is escaped outside of a string.
            return Err(Stop::Malformed);
        }
        let (opening, closing) = block.brackets();
        let (opening, mut brackets) = (opening & !inside, (opening | closing) & !inside);
        while brackets != 0 {
            let place = brackets.trailing_zeros();
            brackets &= brackets - 1;
            if opening >> place & 1 != 0 {
                *depth += 1;
                continue;
            }
            *depth = depth.checked_sub(1).ok_or(Stop::Malformed)?;
            if *depth == 0 {
                return Ok(Found::End(base + place as usize + 1));
            }
        }
        if inside >> 63 != 0 {
            return Ok(Found::String(base + 63 - quotes.leading_zeros() as usize));
        }
        base += BLOCK_BYTES;
    }
}

/// The closing quote of the string whose content goes on at `from`, and whether there are escapes before
/// it; else how many bytes behind `text` are escaped.
#[inline(always)]
pub(super) fn string_end(text: &[u8], from: usize) -> Result<(usize, bool), usize> {
    // Keys, and most values that are no texts, are shorter than a vector.
    if let Some(bytes) = text.get(from..).and_then(|rest| rest.first_chunk()) {
        let bytes = u8x16::new(*bytes);
        let mask = (bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\'))).to_bitmask();
        let at = from + mask.trailing_zeros() as usize;
        if text.get(at) == Some(&b'"') && mask != 0 {
            return Ok((at, false));
        }
    }
    long_string_end(text, from)
}

#[inline(never)]
fn long_string_end(text: &[u8], from: usize) -> Result<(usize, bool), usize> {
    let (mut from, mut escapes) = match simd::string_end(text, from) {
        StringEnd::Quote { at, escapes } => return Ok((at, escapes)),
        StringEnd::Beyond { from, escapes } => (from, escapes),
    };
    while let Some(rest) = text.get(from..) {
        let at = from + memchr::memchr2(b'"', b'\\', rest).ok_or(0_usize)?;
        if text.get(at) == Some(&b'"') {
            return Ok((at, escapes));
        }
        escapes = true;
        // Whatever is escaped, a quote and a backslash included.
        from = at + 2;
    }
    Err(from - text.len())
}

/// Those of `quotes` that no backslash before them escapes.
#[inline(always)]
fn unescaped(quotes: u64, backslashes: u64) -> u64 {
    let (mut escaping, mut escaped) = (backslashes, 0);
    while escaping != 0 {
        let first = escaping & escaping.wrapping_neg();
        escaped |= first << 1;
        // Whatever is escaped, a backslash included, escapes nothing.
        escaping &= !(first | first << 1);
    }
    quotes & !escaped
}
