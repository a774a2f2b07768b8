//! Strings and lists that grow inside an exchange's arena, without pointing at the arena, so that
//! what holds them can move to another thread.

use bumpalo::Bump;

/// A growing string. What it outgrew stays in the arena until the arena is emptied: at the most as
/// much again as the string is long.
#[derive(Debug, Default)]
pub(super) struct Text<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Text<'a> {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `more`.
    pub fn push(&mut self, arena: &'a Bump, more: &str) {
        let end = self.len + more.len();
        if end > self.bytes.len() {
            let grown = arena.alloc_slice_fill_copy(end.max(self.bytes.len() * 2).max(64), 0);
            if let (Some(to), Some(from)) = (grown.get_mut(..self.len), self.bytes.get(..self.len)) {
                to.copy_from_slice(from);
            }
            self.bytes = grown;
        }
        if let Some(free) = self.bytes.get_mut(self.len..end) {
            free.copy_from_slice(more.as_bytes());
            self.len = end;
        }
    }

    /// Drops what is beyond `len`, which has to be where something was appended.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// What there is.
    pub fn as_str(&self) -> &str {
        // Only whole strings are appended.
        self.bytes.get(..self.len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("")
    }

    /// What there is, for as long as the arena lives.
    pub fn into_str(self) -> &'a str {
        let Self { bytes, len } = self;
        let bytes: &'a [u8] = bytes;
        bytes.get(..len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("")
    }
}

/// A growing list.
#[derive(Debug)]
pub(super) struct List<'a, T> {
    items: &'a mut [T],
    len: usize,
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self { items: &mut [], len: 0 }
    }
}

impl<'a, T: Default> List<'a, T> {
    /// Appends `item`.
    pub fn push(&mut self, arena: &'a Bump, item: T) {
        if self.len == self.items.len() {
            let grown = arena.alloc_slice_fill_default(self.len.max(2) * 2);
            for (to, from) in grown.iter_mut().zip(self.items.iter_mut()) {
                *to = std::mem::take(from);
            }
            self.items = grown;
        }
        if let Some(free) = self.items.get_mut(self.len) {
            *free = item;
            self.len += 1;
        }
    }

    /// What there is.
    pub fn as_slice(&self) -> &[T] {
        self.items.get(..self.len).unwrap_or(&[])
    }

    /// What there is, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self.items.get_mut(..self.len).unwrap_or(&mut [])
    }

    /// What there is, for as long as the arena lives.
    pub fn into_slice(self) -> &'a [T] {
        let Self { items, len } = self;
        let items: &'a [T] = items;
        items.get(..len).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_lists_grow() {
        let arena = Bump::new();
        let (mut text, mut list, mut expect) = (Text::default(), List::default(), String::new());
        for number in 0..500_usize {
            let piece = format!("é{number}");
            text.push(&arena, &piece);
            list.push(&arena, number);
            expect.push_str(&piece);
        }
        assert_eq!((text.len(), text.as_str()), (expect.len(), expect.as_str()));
        assert_eq!(text.into_str(), expect);
        assert!(list.into_slice().iter().copied().eq(0..500));
    }
}
