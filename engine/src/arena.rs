//! Arenas that travel with the values which borrow from them.
//!
//! An exchange is built up piece by piece on a worker, crosses a queue to the encoder, and is
//! encoded there straight from the strings it borrowed. [`Travelling`] keeps such a value and its
//! [`Bump`] together; the arena goes back to its worker's pool when the value is done with.

use std::{mem::ManuallyDrop, ptr::NonNull};

use bumpalo::Bump;

/// A type that borrows from an arena, as a function of the borrow's lifetime.
pub trait Family {
    /// The borrowing type. It must not implement a `Drop` that reads from the arena's strings
    /// after they are gone; [`Travelling`] drops it before the arena.
    type In<'a>;
}

/// A value of `F` together with the arena that it borrows from.
pub struct Travelling<F: Family> {
    /// Borrows from `arena`; `'static` stands for "as long as `arena` lives".
    value: ManuallyDrop<F::In<'static>>,
    /// From `Box::into_raw`. A pointer, not the box, because moving a box asserts that nothing
    /// else refers to what it holds.
    arena: NonNull<Bump>,
}

#[expect(unsafe_code, reason = "one value and its arena move together, which a lifetime can't say")]
impl<F: Family> Travelling<F> {
    /// Builds a value inside `arena`.
    pub fn new(arena: Box<Bump>, build: impl for<'a> FnOnce(&'a Bump) -> F::In<'a>) -> Self {
        let arena = NonNull::from(Box::leak(arena));
        // SAFETY: the `Bump` stays where it is until `Drop` or `into_arena`, and both drop `value`
        // first. Every access to `value` goes through a closure that is generic over the lifetime,
        // so nothing with the pretended `'static` lifetime can leave.
        let value = build(unsafe { arena.as_ref() });
        Self { value: ManuallyDrop::new(value), arena }
    }

    /// Reads the value.
    pub fn with<R>(&self, read: impl for<'a> FnOnce(&F::In<'a>) -> R) -> R {
        read(&self.value)
    }

    /// Changes the value; what it borrows comes from the arena that is handed along.
    pub fn with_mut<R>(&mut self, change: impl for<'a> FnOnce(&'a Bump, &mut F::In<'a>) -> R) -> R {
        // SAFETY: as in `new`; the closure is generic over `'a`, so it can't assume `'static`.
        change(unsafe { self.arena.as_ref() }, &mut self.value)
    }

    /// Turns the value into another one that borrows from the same arena.
    pub fn map<G: Family>(self, turn: impl for<'a> FnOnce(&'a Bump, F::In<'a>) -> G::In<'a>) -> Travelling<G> {
        let (value, arena) = self.into_parts();
        // SAFETY: as in `new`. Should `turn` unwind, the arena leaks, which is safe.
        let value = turn(unsafe { arena.as_ref() }, value);
        Travelling { value: ManuallyDrop::new(value), arena }
    }

    /// Drops the value and gives its arena back, emptied, with its largest chunk kept for reuse.
    pub fn into_arena(self) -> Box<Bump> {
        let (value, arena) = self.into_parts();
        drop(value);
        // SAFETY: the pointer came from a box, and the value that borrowed from it is gone.
        let mut arena = unsafe { Box::from_raw(arena.as_ptr()) };
        arena.reset();
        arena
    }

    fn into_parts(self) -> (F::In<'static>, NonNull<Bump>) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so the value is taken exactly once.
        (unsafe { ManuallyDrop::take(&mut this.value) }, this.arena)
    }
}

#[expect(unsafe_code, reason = "the value has to go before the arena that it borrows from")]
impl<F: Family> Drop for Travelling<F> {
    fn drop(&mut self) {
        // SAFETY: both are live until here and not used afterwards; the value goes first, and the
        // pointer came from a box.
        unsafe {
            ManuallyDrop::drop(&mut self.value);
            drop(Box::from_raw(self.arena.as_ptr()));
        }
    }
}

#[expect(unsafe_code, reason = "an owned arena behind a pointer")]
// SAFETY: `Bump` is `Send`, it is owned here alone, and the value that borrows from it is required
// to be `Send` itself, so no `&Bump` stays behind on another thread.
unsafe impl<F: Family> Send for Travelling<F> where F::In<'static>: Send {}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words;
    impl Family for Words {
        type In<'a> = bumpalo::collections::Vec<'a, &'a str>;
    }
    struct Joined;
    impl Family for Joined {
        type In<'a> = &'a str;
    }

    #[test]
    fn a_value_is_built_changed_and_turned_inside_its_arena() {
        let mut words = Travelling::<Words>::new(Box::default(), |arena| bumpalo::collections::Vec::new_in(arena));
        for word in ["a", "bc", "def"] {
            words.with_mut(|arena, words| words.push(arena.alloc_str(word)));
        }
        assert_eq!(words.with(|words| words.len()), 3);
        let joined = words.map::<Joined>(|arena, words| arena.alloc_str(&words.join("-")));
        let joined = std::thread::spawn(move || {
            assert_eq!(joined.with(|text| text.len()), 8);
            joined
        })
        .join()
        .unwrap();
        let arena = joined.into_arena();
        assert!(arena.allocated_bytes() > 0, "the chunk is kept");
    }
}
