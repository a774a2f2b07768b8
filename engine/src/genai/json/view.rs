//! The values of a document that is indexed, read where they lie.

use bumpalo::Bump;

use super::{index::Entry, scalar};
use crate::limits::TEXT_BYTES_MAX;

/// What is undone of a string with escapes. Nothing that a span says is longer.
pub(super) const ESCAPED_BYTES_MAX: usize = 4 * TEXT_BYTES_MAX;

/// A document whose values are known by place.
pub(super) struct Document<'t> {
    text: &'t [u8],
    entries: &'t [Entry],
    /// For strings that can't be read where they lie.
    arena: &'t Bump,
}

/// One value of a document, or a key.
#[derive(Clone, Copy)]
pub(in crate::genai) struct View<'t> {
    document: &'t Document<'t>,
    at: u32,
}

impl<'t> Document<'t> {
    /// The document with this `text`, whose values are `entries`.
    pub fn new(text: &'t [u8], entries: &'t [Entry], arena: &'t Bump) -> Self {
        Self { text, entries, arena }
    }

    /// The value that all others are in.
    pub fn root(&self) -> View<'_> {
        View { document: self, at: 0 }
    }
}

impl<'t> View<'t> {
    fn entry(self) -> Entry {
        self.document.entries.get(self.at as usize).copied().unwrap_or_default()
    }

    /// The byte that tells what it is.
    pub fn first_byte(self) -> u8 {
        self.entry().first()
    }

    /// The id of the shape that the document was walked by here, if only a part of this is there.
    pub fn shape(self) -> u16 {
        self.entry().tag()
    }

    /// Its place among all values.
    pub fn place(self) -> u32 {
        self.at
    }

    /// The value at another place.
    pub fn of_place(self, at: u32) -> Self {
        Self { at, ..self }
    }

    /// The slot of a key.
    pub fn slot(self) -> usize {
        self.entry().tag().into()
    }

    /// The members of an object in order, keys as strings.
    #[inline]
    pub fn members(self) -> impl Iterator<Item = (View<'t>, View<'t>)> {
        let mut inside = self.inside(b'{');
        std::iter::from_fn(move || Some((inside.next()?, inside.next()?)))
    }

    /// The elements of an array in order.
    #[inline]
    pub fn items(self) -> impl Iterator<Item = View<'t>> {
        self.inside(b'[')
    }

    /// The last member that has this key.
    pub fn get(self, key: &str) -> Option<View<'t>> {
        self.members().filter(|(name, _)| name.is(key)).last().map(|(_, value)| value)
    }

    #[inline]
    fn inside(self, kind: u8) -> Elements<'t> {
        let entry = self.entry();
        let end = if entry.first() == kind { entry.end() as u32 } else { 0 };
        Elements { document: self.document, next: self.at + 1, end }
    }

    /// Whether this is the key `key`.
    #[inline]
    pub fn is(self, key: &str) -> bool {
        if self.entry().has_escapes() { self.string() == Some(key) } else { self.raw() == key.as_bytes() }
    }

    /// What is between the quotes, if that is what the string says.
    pub fn plain(self) -> Option<&'t [u8]> {
        (!self.entry().has_escapes()).then(|| self.raw())
    }

    #[inline]
    fn raw(self) -> &'t [u8] {
        let entry = self.entry();
        self.document.text.get(entry.start() + 1..entry.end()).unwrap_or_default()
    }

    /// The value, when it is a string as RFC 8259 section 7 has them.
    pub fn string(self) -> Option<&'t str> {
        let entry = self.entry();
        if entry.first() != b'"' {
            return None;
        }
        let raw = self.raw();
        // The walk didn't look inside.
        if has_controls(raw) {
            return None;
        }
        if !entry.has_escapes() {
            return std::str::from_utf8(raw).ok();
        }
        let room = self.document.arena.alloc_slice_fill_copy(raw.len().min(ESCAPED_BYTES_MAX), 0);
        let said = scalar::unescape(raw, room)?;
        match std::str::from_utf8(said) {
            Ok(text) => Some(text),
            // Cutting may have halved a character.
            Err(error) if error.error_len().is_none() && said.len() + 4 > ESCAPED_BYTES_MAX => {
                std::str::from_utf8(said.get(..error.valid_up_to())?).ok()
            }
            Err(_) => None,
        }
    }

    /// The value's text, when it is a number or a name.
    pub fn bare(self) -> Option<&'t [u8]> {
        let entry = self.entry();
        match entry.first() {
            b'"' | b'{' | b'[' => None,
            _ => self.document.text.get(entry.start()..entry.end()),
        }
    }
}

/// Whether there is a byte below the space, looked for in eight bytes at a time.
#[inline]
fn has_controls(text: &[u8]) -> bool {
    const EACH: u64 = u64::MAX / 0xff;
    let (words, rest) = text.as_chunks::<8>();
    // A byte whose upper three bits are zero: adding to its other bits what fills them up can't carry into
    // the highest one unless one of the three is set.
    let low = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        !(((word & (EACH * 0x7f)) + EACH * 0x60) | word) & (EACH * 0x80)
    };
    words.iter().fold(0, |found, word| found | low(word)) != 0 || rest.iter().any(|byte| *byte < b' ')
}

/// What is inside an object or array, keys and values alike.
struct Elements<'t> {
    document: &'t Document<'t>,
    next: u32,
    end: u32,
}

impl<'t> Iterator for Elements<'t> {
    type Item = View<'t>;

    #[inline]
    fn next(&mut self) -> Option<View<'t>> {
        if self.next >= self.end {
            return None;
        }
        let at = self.next;
        let entry = self.document.entries.get(at as usize)?;
        self.next = if matches!(entry.first(), b'{' | b'[') { entry.end() as u32 } else { at + 1 };
        Some(View { document: self.document, at })
    }
}

#[cfg(test)]
mod tests {
    use super::has_controls;

    #[test]
    fn controls_are_found_beside_any_byte() {
        for byte in 0..=255_u8 {
            for beside in [b' ', b'a', 0x7f, 0x80, 0xff] {
                for place in 0..19 {
                    let mut text = [beside; 19];
                    text[place] = byte;
                    assert_eq!(has_controls(&text), byte < b' ', "{byte} at {place} beside {beside}");
                }
            }
        }
    }
}
