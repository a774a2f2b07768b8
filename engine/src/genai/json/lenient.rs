//! What `simd-json` refuses and writers of JSON let through, replaced in place before it is parsed.

use crate::limits::JSON_STRUCTURALS_MAX;

use super::scalar::unit;

pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) fn without_byte_order_mark(document: &mut [u8]) -> &mut [u8] {
    let skip = if document.starts_with(BYTE_ORDER_MARK) { 3 } else { 0 };
    document.split_at_mut(skip).1
}

/// Commas, colons and opening brackets: an upper bound for the tape's nodes, since each value but
/// the first follows one of them. Small documents are not counted: they can't do harm.
pub(super) fn structurals(document: &[u8]) -> usize {
    if document.len() <= JSON_STRUCTURALS_MAX {
        return 0;
    }
    document.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count()
}

/// A surrogate escape without its other half is not a character, and simd-json refuses the whole
/// document for it; several JSON writers let it through. U+FFFD stands in for it.
pub(super) fn replace_lone_surrogates(document: &mut [u8]) {
    let mut at = 0;
    while let Some(found) = document.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        let escape = at + found;
        match unit(document, escape) {
            Some(0xd800..=0xdbff) if matches!(unit(document, escape + 6), Some(0xdc00..=0xdfff)) => at = escape + 12,
            Some(0xd800..=0xdfff) => {
                if let Some(digits) = document.get_mut(escape + 2..escape + 6) {
                    digits.copy_from_slice(b"fffd");
                }
                at = escape + 6;
            }
            // Whatever else is escaped, a backslash included, is one byte.
            _ => at = escape + 2,
        }
    }
}

/// `NaN` and `Infinity` are no JSON, but Python writes them, which vLLM's log probabilities show. An
/// empty string and spaces stand in for them, as a value of no use.
pub(super) fn replace_non_numbers(document: &mut [u8]) {
    const NAMES: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    if NAMES.iter().all(|name| memchr::memmem::find(document, name).is_none()) {
        return;
    }
    let mut at = 0;
    let mut quoted = false;
    while let Some(byte) = document.get(at) {
        let rest = document.get(at..).unwrap_or(&[]);
        match (quoted, byte) {
            (true, b'\\') => at += 1,
            (_, b'"') => quoted = !quoted,
            (false, _) => {
                if let Some(length) = NAMES.iter().find(|name| rest.starts_with(name)).map(|name| name.len())
                    && let Some(name) = document.get_mut(at..at + length)
                {
                    name.fill(b' ');
                    name.iter_mut().take(2).for_each(|quote| *quote = b'"');
                    at += length - 1;
                }
            }
            (true, _) => {}
        }
        at += 1;
    }
}
