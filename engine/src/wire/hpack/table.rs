//! The dynamic table (RFC 7541 section 2.3.2).

use std::collections::VecDeque;

use super::Error;
use crate::limits::HPACK_TABLE_BYTES_MAX;

/// Counted for each entry on top of its text (section 4.1).
const ENTRY_OVERHEAD_BYTES: usize = 32;

/// The size before any update (RFC 9113 section 6.5.2).
const INITIAL_BYTES: usize = 4096;

/// The entries that are known, newest first by index. Texts lie behind one another in the order of
/// insertion, so that those of evicted entries are always at the front.
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Entry>,
    text: Vec<u8>,
    /// Where in `text` the oldest entry begins.
    evicted_bytes: usize,
    /// The size by section 4.1.
    bytes: usize,
    bytes_max: usize,
    /// There may be older entries that were not seen.
    unknown: bool,
    /// The encoder's table is larger than this one may be.
    capped: bool,
}

/// The texts of an entry.
pub(super) struct Texts<'a> {
    /// `None` when the name itself was taken from an unknown entry.
    pub name: Option<&'a [u8]>,
    pub value: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Offset in `text`.
    start: usize,
    /// As in [`Texts`].
    name_bytes: Option<usize>,
    value_bytes: usize,
}

impl Entry {
    fn text_bytes(&self) -> usize {
        self.name_bytes.unwrap_or(0) + self.value_bytes
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            text: Vec::new(),
            evicted_bytes: 0,
            bytes: 0,
            bytes_max: INITIAL_BYTES,
            unknown: false,
            capped: false,
        }
    }
}

impl Table {
    pub fn has_unknown(&self) -> bool {
        self.unknown
    }

    /// Forgets all: any number of entries may have been inserted, and the size changed.
    pub fn lose(&mut self) {
        self.evict_to(0);
        self.unknown = true;
        self.bytes_max = HPACK_TABLE_BYTES_MAX;
    }

    /// The entry at `index`, counted from 1; `None` if it is unknown.
    pub fn entry(&self, index: usize) -> Result<Option<Texts<'_>>, Error> {
        let index = index.checked_sub(1).ok_or(Error::Index)?;
        // The newest is at the back.
        let Some(entry) = self.entries.len().checked_sub(index + 1).and_then(|at| self.entries.get(at)) else {
            let possible = self.unknown && index < HPACK_TABLE_BYTES_MAX / ENTRY_OVERHEAD_BYTES;
            return if possible { Ok(None) } else { Err(Error::Index) };
        };
        let text = self.text.get(entry.start..entry.start + entry.text_bytes()).unwrap_or_default();
        let (name, value) = text.split_at_checked(entry.name_bytes.unwrap_or(0)).unwrap_or_default();
        Ok(Some(Texts { name: entry.name_bytes.map(|_| name), value }))
    }

    pub fn insert(&mut self, name: Option<&[u8]>, value: &[u8]) {
        let text_bytes = name.map_or(0, <[u8]>::len) + value.len();
        let bytes = text_bytes + ENTRY_OVERHEAD_BYTES;
        let Some(room) = self.bytes_max.checked_sub(bytes) else {
            // Section 4.4: an entry that doesn't fit empties the table, which is not an error.
            self.evict_to(0);
            self.forget_unknown();
            return;
        };
        if self.evict_to(room) {
            self.forget_unknown();
        }
        self.compact();
        let start = self.text.len();
        self.text.extend_from_slice(name.unwrap_or_default());
        self.text.extend_from_slice(value);
        self.bytes += bytes;
        self.entries.push_back(Entry { start, name_bytes: name.map(<[u8]>::len), value_bytes: value.len() });
    }

    /// A size update.
    pub fn resize(&mut self, bytes_max: usize) {
        self.capped = bytes_max > HPACK_TABLE_BYTES_MAX;
        self.unknown |= self.capped;
        self.bytes_max = bytes_max.min(HPACK_TABLE_BYTES_MAX);
        if self.evict_to(self.bytes_max) || bytes_max == 0 {
            self.forget_unknown();
        }
    }

    /// Unknown entries are older than known ones, so they went before any of these did. That holds
    /// only while this table is not smaller than the encoder's.
    fn forget_unknown(&mut self) {
        self.unknown = self.capped;
    }

    /// Drops the oldest until `bytes` are left; true if any was dropped.
    fn evict_to(&mut self, bytes: usize) -> bool {
        let before = self.entries.len();
        while self.bytes > bytes
            && let Some(entry) = self.entries.pop_front()
        {
            self.bytes -= entry.text_bytes() + ENTRY_OVERHEAD_BYTES;
            self.evicted_bytes = entry.start + entry.text_bytes();
        }
        self.entries.len() < before
    }

    /// Moves the texts to the front when half of the buffer is dead; amortised, a copy per byte.
    fn compact(&mut self) {
        if self.evicted_bytes <= self.bytes_max.max(INITIAL_BYTES) {
            return;
        }
        self.text.drain(..self.evicted_bytes);
        for entry in &mut self.entries {
            entry.start -= self.evicted_bytes;
        }
        self.evicted_bytes = 0;
    }
}
