//! Where the values of a document are: found, and the whole document judged, without building any.
//!
//! ```text
//! for each 64 bytes: masks of quotes, escapes, structure, spaces
//!     inside a long string: nothing else to do
//!     for each bit that is structure, a quote or the start of a number or name:
//!         may it stand here? then note where it begins, and where it ends
//! ```
//!
//! A span wants a dozen values of a body of any size. A tape copies each string and reads each number
//! to get there; here a value costs eight bytes, and only those that are asked for are read. What is
//! accepted is RFC 8259 and what the writers of JSON let through, as it is for `simd-json` and the
//! replacements before it; the tests hold the two against each other.

use wide::u8x16;

use super::{
    blocks::{BLOCK_BYTES, Block, beyond_ascii, odd_so_far},
    scalar,
};
use crate::limits::JSON_STRUCTURALS_MAX;

/// A value, or an object's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    start: u32,
    /// Of a string its closing quote, and in the highest bit whether it may have escapes; of an object
    /// or array the entry behind its last one; of anything else the byte behind it.
    end: u32,
}

const ESCAPES: u32 = 1 << 31;

const _: () = assert!(crate::limits::BODY_BYTES_MAX < ESCAPES as usize);
const _: () = assert!(JSON_STRUCTURALS_MAX < ESCAPES as usize);

impl Entry {
    /// A value that is nowhere.
    pub const NULL: Self = Self { start: 0, end: 0 };

    /// Its first byte.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Where it ends.
    pub fn end(self) -> usize {
        (self.end & !ESCAPES) as usize
    }

    /// A string that may not be what it says.
    pub fn may_have_escapes(self) -> bool {
        self.end & ESCAPES != 0
    }
}

/// The values of a document in order, and what it takes to find them. Kept for the next document.
#[derive(Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    /// Objects and arrays under way.
    open: Vec<u32>,
}

/// What may come next; one bit each.
mod expect {
    pub const VALUE: u8 = 1;
    pub const KEY: u8 = 2;
    /// The end of the object or array under way.
    pub const END: u8 = 4;
    pub const COLON: u8 = 8;
    pub const COMMA: u8 = 16;
    pub const NOTHING: u8 = 0;
}

impl Index {
    /// The values of `text`, root first; `None` when it is no JSON, or has too many.
    pub fn fill(&mut self, text: &[u8]) -> Option<&[Entry]> {
        self.entries.clear();
        self.open.clear();
        if text.len() >= ESCAPES as usize {
            return None;
        }
        let seen = Pass::new(self, text).run()?;
        if beyond_ascii(seen) {
            simdutf8::basic::from_utf8(text).ok()?;
        }
        Some(&self.entries)
    }

    /// Memory that is held.
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.open.capacity() * size_of::<u32>()
    }
}

/// One pass over a document.
struct Pass<'i, 'd> {
    index: &'i mut Index,
    text: &'d [u8],
    expect: u8,
    /// The innermost object or array under way is an object.
    in_object: bool,
    /// All ones while the block before ended inside a string.
    inside: u64,
    /// The block before ended in a backslash that escapes the first byte of this one.
    escaped: u64,
    /// The block before ended in a number or name.
    in_scalar: u64,
    /// Behind the last backslash that escapes.
    backslash_end: usize,
}

impl<'i, 'd> Pass<'i, 'd> {
    fn new(index: &'i mut Index, text: &'d [u8]) -> Self {
        Self {
            index,
            text,
            expect: expect::VALUE,
            in_object: false,
            inside: 0,
            escaped: 0,
            in_scalar: 0,
            backslash_end: 0,
        }
    }

    /// All bytes or-ed together, if the document is sound but for its characters.
    fn run(mut self) -> Option<u8x16> {
        let mut seen = u8x16::default();
        let (blocks, rest) = self.text.as_chunks::<BLOCK_BYTES>();
        let mut base = 0;
        for bytes in blocks {
            self.block(bytes, base, &mut seen)?;
            base += BLOCK_BYTES;
        }
        let mut last = [b' '; BLOCK_BYTES];
        // A space more ends a number and shows a backslash that escapes nothing.
        last.get_mut(..rest.len())?.copy_from_slice(rest);
        self.block(&last, base, &mut seen)?;
        (self.expect == expect::NOTHING && self.inside == 0).then_some(seen)
    }

    #[inline(always)]
    fn block(&mut self, bytes: &[u8; BLOCK_BYTES], base: usize, seen: &mut u8x16) -> Option<()> {
        let block = Block::of(bytes);
        *seen = block.gather(*seen);
        if self.inside != 0 && self.escaped == 0 && block.is_plain() {
            return Some(());
        }
        let (quotes, backslashes, controls) = (block.are(b'"'), block.are(b'\\'), block.controls());
        let escaped = if backslashes | self.escaped == 0 { 0 } else { self.escapes(backslashes, base)? };
        let quotes = quotes & !escaped;
        if quotes == 0 && self.inside != 0 {
            // The middle of a string that has escapes.
            return (controls == 0).then_some(());
        }
        // An opening quote counts as inside, a closing one doesn't.
        let inside = odd_so_far(quotes) ^ self.inside;
        self.inside = 0_u64.wrapping_sub(inside >> 63);
        if controls & inside != 0 {
            return None;
        }
        let structurals = block.structurals();
        let scalars = !(inside | quotes | structurals | block.spaces());
        let starts = scalars & !(scalars << 1 | self.in_scalar);
        self.in_scalar = scalars >> 63;
        // Each value but the first follows a comma, a colon or an opening bracket.
        if self.index.entries.len() > JSON_STRUCTURALS_MAX {
            return None;
        }
        let tokens = structurals & !inside | quotes | starts;
        self.tokens(tokens, quotes & !inside, base)
    }

    /// Which bytes of a block are escaped, after all escapes that begin in it have been judged.
    #[inline]
    fn escapes(&mut self, backslashes: u64, base: usize) -> Option<u64> {
        let mut escaped = std::mem::take(&mut self.escaped);
        let mut escaping = backslashes & !escaped;
        while escaping != 0 {
            let place = escaping.trailing_zeros() as usize;
            let at = base + place;
            if !scalar::is_escape(self.text, at) {
                return None;
            }
            self.backslash_end = at + 1;
            if place == BLOCK_BYTES - 1 {
                self.escaped = 1;
            }
            escaped |= 2 << place;
            // Whatever is escaped, a backslash included, escapes nothing.
            escaping &= !(3 << place);
        }
        Some(escaped)
    }

    #[inline(always)]
    fn tokens(&mut self, mut tokens: u64, closing: u64, base: usize) -> Option<()> {
        while tokens != 0 {
            let place = tokens.trailing_zeros();
            tokens &= tokens - 1;
            let at = base + place as usize;
            match self.text.get(at)? {
                b'"' if closing >> place & 1 != 0 => self.close_string(at)?,
                b'"' => {
                    let expect = self.expect;
                    self.expect = match expect & (expect::VALUE | expect::KEY) {
                        expect::KEY => expect::COLON,
                        expect::VALUE => self.after_value(),
                        _ => return None,
                    };
                    self.push(at, 0);
                }
                b':' => self.turn(expect::COLON, expect::VALUE)?,
                b',' => self.turn(expect::COMMA, if self.in_object { expect::KEY } else { expect::VALUE })?,
                b'{' => self.open(at, true)?,
                b'[' => self.open(at, false)?,
                b'}' => self.close(true)?,
                b']' => self.close(false)?,
                _ => {
                    if self.expect & expect::VALUE == 0 {
                        return None;
                    }
                    let end = scalar::end(self.text, at)?;
                    self.expect = self.after_value();
                    self.push(at, end as u32);
                }
            }
        }
        Some(())
    }

    #[inline(always)]
    fn turn(&mut self, from: u8, to: u8) -> Option<()> {
        if self.expect & from == 0 {
            return None;
        }
        self.expect = to;
        Some(())
    }

    #[inline(always)]
    fn push(&mut self, start: usize, end: u32) {
        self.index.entries.push(Entry { start: start as u32, end });
    }

    #[inline(always)]
    fn after_value(&self) -> u8 {
        if self.index.open.is_empty() { expect::NOTHING } else { expect::COMMA | expect::END }
    }

    #[inline(always)]
    fn close_string(&mut self, at: usize) -> Option<()> {
        let entry = self.index.entries.last_mut()?;
        let escapes = if self.backslash_end > entry.start() { ESCAPES } else { 0 };
        entry.end = at as u32 | escapes;
        Some(())
    }

    #[inline(always)]
    fn open(&mut self, at: usize, object: bool) -> Option<()> {
        if self.expect & expect::VALUE == 0 {
            return None;
        }
        self.index.open.push(self.index.entries.len() as u32);
        self.push(at, 0);
        self.in_object = object;
        self.expect = expect::END | if object { expect::KEY } else { expect::VALUE };
        Some(())
    }

    #[inline(always)]
    fn close(&mut self, object: bool) -> Option<()> {
        if self.expect & expect::END == 0 || self.in_object != object {
            return None;
        }
        let opened = self.index.open.pop()?;
        let end = self.index.entries.len() as u32;
        self.index.entries.get_mut(opened as usize)?.end = end;
        self.expect = self.after_value();
        if let Some(outer) = self.index.open.last() {
            let outer = self.index.entries.get(*outer as usize)?;
            self.in_object = self.text.get(outer.start()) == Some(&b'{');
        }
        Some(())
    }
}
