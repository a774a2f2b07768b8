//! Which events of a stream are worth reading.
//!
//! Most events carry a few characters of an answer and nothing that a span says. An event is read only
//! if one of its dialect's keys occurs with a value other than `null`. The search may find too much,
//! never too little: a key is always in double quotes before a colon, and the only other way to write
//! one is with `\u00xx` escapes, which are looked for as well.
//!
//! ```text
//! for each quote that a colon follows, or a space:
//!     the bytes before it end no key that is wanted   → nearly always
//!     they end one: is it that key, and is there a value?
//! ```
//!
//! A search for each key would go through the event as often as there are keys; this goes once.

use super::json::blocks::{BLOCK_BYTES, Block};
use crate::exchange::Call;

/// Whether a call knows a value already.
pub(super) type Known = fn(&Call<'_>) -> bool;

/// The keys that make an event worth reading.
pub(super) struct Wanted {
    /// Keys, in their quotes, whose latest value counts.
    latest: &'static [&'static str],
    /// Keys, in their quotes, and whether their value is known already.
    first: &'static [(&'static str, Known)],
}

/// What is wanted while a call knows what it knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Places in [`Wanted::first`] of what is not known, one bit each.
    unknown: u32,
    /// [`end_bit`] of every key.
    ends: u64,
}

impl Wanted {
    /// The keys of a dialect, with their quotes.
    pub const fn new(latest: &'static [&'static str], first: &'static [(&'static str, Known)]) -> Self {
        assert!(first.len() <= u32::BITS as usize);
        Self { latest, first }
    }

    /// What to look for, given what `call` knows.
    pub fn watch(&self, call: &Call<'_>) -> Watch {
        let mut unknown = 0;
        for ((_, known), place) in self.first.iter().zip(0..) {
            unknown |= u32::from(!known(call)) << place;
        }
        let ends =
            self.keys(unknown).fold(0, |ends, key| ends | end_bit(key.strip_suffix('"').unwrap_or(key).as_bytes()));
        Watch { unknown, ends }
    }

    /// The keys whose value counts, while those of `unknown` are not known.
    fn keys(&self, unknown: u32) -> impl Iterator<Item = &'static str> {
        let first = self.first.iter().zip(0..).filter(move |(_, place)| unknown >> place & 1 != 0);
        self.latest.iter().copied().chain(first.map(|((key, _), _)| *key))
    }

    /// Whether `event` may hold something that isn't known yet.
    pub fn is_in(&self, event: &[u8], watch: Watch) -> bool {
        let (blocks, rest) = event.as_chunks::<BLOCK_BYTES>();
        let mut base = 0;
        for bytes in blocks {
            if self.is_in_block(event, bytes, base, watch) {
                return true;
            }
            base += BLOCK_BYTES;
        }
        let mut last = [0; BLOCK_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        !rest.is_empty() && self.is_in_block(event, &last, base, watch)
    }

    #[inline(always)]
    fn is_in_block(&self, event: &[u8], bytes: &[u8; BLOCK_BYTES], base: usize, watch: Watch) -> bool {
        let block = Block::of(bytes);
        let (quotes, backslashes) = (block.are(b'"'), block.are(b'\\'));
        // What follows the last byte is in the next block.
        let followed = (block.are(b':') | block.up_to(b' ')) >> 1 | 1 << (BLOCK_BYTES - 1);
        let mut ends = quotes & followed;
        while ends != 0 {
            let at = base + ends.trailing_zeros() as usize;
            ends &= ends - 1;
            if end_bit(&event[..at]) & watch.ends != 0 && !says_null(event, at) && self.has_value(event, at, watch) {
                return true;
            }
        }
        backslashes != 0 && has_escaped_ascii(event, backslashes, base)
    }

    /// Whether the quote at `at` ends a wanted key that has a value other than `null`.
    #[inline(never)]
    fn has_value(&self, event: &[u8], at: usize, watch: Watch) -> bool {
        let (before, after) = event.split_at(at + 1);
        self.keys(watch.unknown).any(|key| before.ends_with(key.as_bytes()))
            && after
                .trim_ascii_start()
                .strip_prefix(b":")
                .is_some_and(|value| !value.trim_ascii_start().starts_with(b"null"))
    }
}

/// How the usual writers say after the quote at `at` that there is no value.
#[inline(always)]
fn says_null(event: &[u8], at: usize) -> bool {
    event.get(at + 1..at + 6) == Some(b":null")
}

/// Whether one of the backslashes in a block begins an escape of a character that a key may have.
#[inline(never)]
fn has_escaped_ascii(event: &[u8], mut backslashes: u64, base: usize) -> bool {
    while backslashes != 0 {
        let at = base + backslashes.trailing_zeros() as usize;
        backslashes &= backslashes - 1;
        if event.get(at + 1..at + 4) == Some(b"u00") {
            return true;
        }
    }
    false
}

/// A bit for the last two bytes of a key.
#[inline(always)]
fn end_bit(key: &[u8]) -> u64 {
    match key {
        [.., one, two] => 1 << ((one.wrapping_mul(5) ^ two.wrapping_mul(3)) % 64),
        // Shorter than any key, but a space may be all that is between it and its end.
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static WANTED: Wanted = Wanted::new(&["\"usage\""], &[("\"id\"", |call| call.response_id.is_some())]);

    #[test]
    fn only_events_with_a_wanted_value_are_parsed() {
        let known = Call { response_id: Some("x"), ..Call::default() };
        for (event, unknown, later) in [
            (r#"{"a":1}"#, false, false),
            (r#"{"id":"x","usage":null}"#, true, false),
            (
                r#"{"id":"x","usage" : 
 {"#,
                true,
                true,
            ),
            (r#"{"content":"usage"}"#, false, false),
            (r#"{"content":"\"usage\":1"}"#, false, false),
            (r#"{"usage":null,"x":{"usage":1}}"#, true, true),
            (r#"{"\u0075sage":1}"#, true, true),
            (r#"{"usage""#, false, false),
            ("", false, false),
        ] {
            // Wherever in a block.
            for before in 0..2 * BLOCK_BYTES {
                let event = " ".repeat(before) + event;
                assert_eq!(WANTED.is_in(event.as_bytes(), WANTED.watch(&Call::default())), unknown, "{event}");
                assert_eq!(WANTED.is_in(event.as_bytes(), WANTED.watch(&known)), later, "{event}");
            }
        }
    }

    /// One search for each key.
    fn searched(event: &[u8], keys: &[&str]) -> bool {
        let has_value = |key: &&str| {
            memchr::memmem::find_iter(event, key.as_bytes()).any(|at| {
                let after = event[at + key.len()..].trim_ascii_start();
                after.strip_prefix(b":").is_some_and(|value| !value.trim_ascii_start().starts_with(b"null"))
            })
        };
        keys.iter().any(has_value) || memchr::memmem::find(event, b"\\u00").is_some()
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_a_search_for_each_key_finds(pieces in proptest::collection::vec(prop_oneof![
            Just("\"usage\""), Just("\"id\""), Just("\"sage"), Just("\""), Just(":"), Just(" "), Just("\t"), Just("null"),
            Just("\\"), Just("\\u00"), Just("abcdefghijklmnopqrstuvwxyz"), Just("é"), Just("1"),
        ], 0..40)) {
            let event = pieces.concat();
            let known = Call { response_id: Some("x"), ..Call::default() };
            for (call, keys) in [(&Call::default(), &["\"usage\"", "\"id\""][..]), (&known, &["\"usage\""])] {
                let found = WANTED.is_in(event.as_bytes(), WANTED.watch(call));
                prop_assert_eq!(found, searched(event.as_bytes(), keys), "{}", event);
            }
        }
    }
}
