//! What of a document is wanted: the keys of its objects, and of the objects inside them.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Keys of one object at the most: a bit each.
pub(in crate::genai) const KEYS_MAX: usize = 64;

/// Places in [`Shape::first`].
const PLACES: usize = 64;

/// The keys of an object that somebody asks for. Members with other keys are passed over.
#[derive(Debug)]
pub(in crate::genai) struct Shape {
    /// Tells shapes apart; 0 is nobody's.
    id: u16,
    keys: Vec<Key>,
    /// By [`place`], one more than the first key that has it.
    first: [u8; PLACES],
    /// All of the object is wanted.
    open: bool,
}

#[derive(Debug)]
struct Key {
    name: &'static str,
    inside: Inside,
    /// One more than the next key with the same [`place`].
    next: u8,
}

/// What of a member's value is wanted.
#[derive(Clone, Copy, Debug)]
pub(in crate::genai) enum Inside {
    /// All of it.
    All,
    /// Of an object, or of those in an array, this.
    Shaped(&'static Shape),
}

impl Shape {
    /// The shape with these keys, which have to differ. With `open` everything else is wanted too.
    ///
    /// # Panics
    /// When there are more than [`KEYS_MAX`] keys.
    pub fn new(keys: impl Iterator<Item = (&'static str, Inside)>, open: bool) -> Self {
        static IDS: AtomicU16 = AtomicU16::new(1);
        let mut shape = Self { id: IDS.fetch_add(1, Relaxed), keys: Vec::new(), first: [0; PLACES], open };
        for (name, inside) in keys {
            assert!(shape.slot(name.as_bytes()).is_none() && shape.keys.len() < KEYS_MAX, "{name}");
            let first = &mut shape.first[place(name.as_bytes())];
            shape.keys.push(Key { name, inside, next: *first });
            *first = shape.keys.len() as u8;
        }
        shape
    }

    /// Tells it from other shapes.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The shape that a document is to be walked by: `None` when all of it is wanted.
    pub fn bounded(&'static self) -> Option<&'static Self> {
        (!self.open).then_some(self)
    }

    /// Which of the keys this is.
    #[inline]
    pub fn slot(&self, key: &[u8]) -> Option<usize> {
        let mut next = self.first[place(key)];
        while let Some(at) = usize::from(next).checked_sub(1) {
            let known = self.keys.get(at)?;
            if known.name.as_bytes() == key {
                return Some(at);
            }
            next = known.next;
        }
        None
    }

    /// What is wanted of the value of the key in this slot.
    pub fn inside(&self, slot: usize) -> Inside {
        self.keys.get(slot).map_or(Inside::All, |key| key.inside)
    }
}

/// Told from a key's length and its ends, which differ among the keys of one object.
#[inline]
fn place(key: &[u8]) -> usize {
    let (first, last) = match key {
        [] => (0, 0),
        [only] => (*only, *only),
        [first, .., last] => (*first, *last),
    };
    (key.len() * 7 + usize::from(first) * 5 + usize::from(last)) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_slots() {
        // More keys than places are kept apart by their chains, and `ab` and `ba` share a place or don't.
        let names = ["", "a", "b", "ab", "ba", "aXb", "aYb", "model", "max_tokens", "stop", "stream"];
        let shape = Shape::new(names.iter().map(|name| (*name, Inside::All)), false);
        for (slot, name) in names.iter().enumerate() {
            assert_eq!(shape.slot(name.as_bytes()), Some(slot));
        }
        for name in ["aZb", "mode1", "c", "modelmodel"] {
            assert_eq!(shape.slot(name.as_bytes()), None, "{name}");
        }
    }
}
