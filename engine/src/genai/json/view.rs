//! The values of a document that is indexed, read where they lie.

use bumpalo::Bump;
use memchr::memchr;

use super::{index::Entry, key_bit, scalar};
use crate::limits::TEXT_BYTES_MAX;

/// What is undone of a string with escapes. Nothing that a span says is longer.
pub(super) const ESCAPED_BYTES_MAX: usize = 4 * TEXT_BYTES_MAX;

/// A document whose values are known by place.
#[derive(Clone, Copy)]
struct Document<'t> {
    text: &'t [u8],
    entries: &'t [Entry],
    /// For strings that can't be read where they lie.
    arena: &'t Bump,
}

/// One value of a document, or a key.
#[derive(Clone, Copy)]
pub(in crate::genai) struct View<'t> {
    document: Document<'t>,
    at: usize,
    entry: Entry,
    first: u8,
}

impl<'t> View<'t> {
    /// The root of the document with this `text`, whose values are `entries`; there has to be one.
    pub(super) fn new(text: &'t [u8], entries: &'t [Entry], arena: &'t Bump) -> Self {
        let document = Document { text, entries, arena };
        document.view(0).unwrap_or(Self { document, at: 0, entry: Entry::NULL, first: b'n' })
    }

    /// The byte that tells what it is.
    pub fn first_byte(self) -> u8 {
        self.first
    }

    /// The members of an object in order, keys as strings.
    pub fn members(self) -> impl Iterator<Item = (View<'t>, View<'t>)> {
        let mut inside = self.inside(b'{');
        std::iter::from_fn(move || Some((inside.next()?, inside.next()?)))
    }

    /// The elements of an array in order.
    pub fn items(self) -> impl Iterator<Item = View<'t>> {
        self.inside(b'[')
    }

    fn inside(self, kind: u8) -> Inside<'t> {
        let end = if self.first == kind { self.entry.end() } else { 0 };
        Inside { document: self.document, next: self.at + 1, end }
    }

    /// The last member that has this key.
    pub fn get(self, key: &str) -> Option<View<'t>> {
        self.members().filter(|(name, _)| name.is(key)).last().map(|(_, value)| value)
    }

    /// [`key_bit`] of all keys.
    pub fn key_bits(self) -> u64 {
        self.members().fold(0, |bits, (key, _)| {
            // What a key with escapes says isn't known yet.
            bits | if key.entry.may_have_escapes() { u64::MAX } else { key_bit(key.raw()) }
        })
    }

    fn is(self, key: &str) -> bool {
        if self.entry.may_have_escapes() { self.string() == Some(key) } else { self.raw() == key.as_bytes() }
    }

    /// What is between the quotes.
    fn raw(self) -> &'t [u8] {
        self.document.text.get(self.entry.start() + 1..self.entry.end()).unwrap_or_default()
    }

    /// The value, when it is a string.
    pub fn string(self) -> Option<&'t str> {
        if self.first != b'"' {
            return None;
        }
        let raw = self.raw();
        let plain = !self.entry.may_have_escapes() || memchr(b'\\', raw).is_none();
        let said = if plain {
            raw
        } else {
            let room = self.document.arena.alloc_slice_fill_copy(raw.len().min(ESCAPED_BYTES_MAX), 0);
            scalar::unescape(raw, room)
        };
        // It was looked at as a whole, but cutting may have halved a character.
        let whole = match std::str::from_utf8(said) {
            Err(error) => said.get(..error.valid_up_to()).unwrap_or_default(),
            Ok(text) => return Some(text),
        };
        std::str::from_utf8(whole).ok()
    }

    /// The value's text, when it is a number or a name.
    pub fn bare(self) -> Option<&'t [u8]> {
        match self.first {
            b'"' | b'{' | b'[' => None,
            _ => self.document.text.get(self.entry.start()..self.entry.end()),
        }
    }
}

impl<'t> Document<'t> {
    fn view(self, at: usize) -> Option<View<'t>> {
        let entry = *self.entries.get(at)?;
        let first = *self.text.get(entry.start())?;
        Some(View { document: self, at, entry, first })
    }
}

/// What is inside an object or array, keys and values alike.
struct Inside<'t> {
    document: Document<'t>,
    next: usize,
    end: usize,
}

impl<'t> Iterator for Inside<'t> {
    type Item = View<'t>;

    #[inline]
    fn next(&mut self) -> Option<View<'t>> {
        if self.next >= self.end {
            return None;
        }
        let view = self.document.view(self.next)?;
        self.next = if matches!(view.first, b'{' | b'[') { view.entry.end() } else { self.next + 1 };
        Some(view)
    }
}
