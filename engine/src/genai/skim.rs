//! The members of a JSON object without parsing it: enough to tell what an event of a socket is,
//! however long it is. What is not JSON gives members that mean nothing, which no one asks for.

use memchr::memchr2;

/// The members of an object's text, in order: the key and the value as they were sent, the key
/// without its quotes.
pub(super) struct Members<'d>(&'d [u8]);

/// The members of the object that `document` is; none when it is something else.
pub(super) fn members(document: &[u8]) -> Members<'_> {
    Members(document.trim_ascii_start().strip_prefix(b"{").unwrap_or_default())
}

/// A string's content, as it was sent.
pub(super) fn text(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// The string that is the value of `key` in the object `document`.
pub(super) fn text_of<'d>(document: &'d [u8], key: &str) -> Option<&'d [u8]> {
    members(document).find(|(name, _)| *name == key.as_bytes()).and_then(|(_, value)| text(value))
}

impl<'d> Iterator for Members<'d> {
    type Item = (&'d [u8], &'d [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_ascii_start();
        let rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
        let (key, rest) = rest.split_at_checked(string(rest)?)?;
        let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let (value, rest) = rest.split_at_checked(value(rest)?)?;
        self.0 = rest;
        Some((text(key)?, value))
    }
}

/// How long the string at the front is, with its quotes.
fn string(from: &[u8]) -> Option<usize> {
    from.strip_prefix(b"\"")?;
    let mut at = 1;
    loop {
        at += memchr2(b'"', b'\\', from.get(at..)?)?;
        match from.get(at) {
            Some(b'"') => return Some(at + 1),
            // Whatever is escaped, the quote among it.
            _ => at += 2,
        }
    }
}

/// How long the value at the front is.
fn value(from: &[u8]) -> Option<usize> {
    match from.first()? {
        b'"' => string(from),
        b'{' | b'[' => nested(from),
        _ => Some(from.iter().position(|byte| matches!(byte, b',' | b'}' | b']')).unwrap_or(from.len())),
    }
}

/// How long the object or array at the front is.
fn nested(from: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match from.get(at)? {
            b'"' => {
                at += string(from.get(at..)?)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(document: &str, expect: &[(&str, &str)]) {
        let found: Vec<_> = members(document.as_bytes())
            .map(|(key, value)| {
                (String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned())
            })
            .collect();
        let expect: Vec<_> = expect.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(found, expect, "{document}");
    }

    #[test]
    fn members_are_found_without_parsing() {
        check(
            r#" { "a" : "b\"c\\" , "d":{"a":["}",{}]},"e":-1.5e3 , "f":null}"#,
            &[("a", r#""b\"c\\""#), ("d", r#"{"a":["}",{}]}"#), ("e", "-1.5e3 "), ("f", "null")],
        );
        for nothing in ["", "{", "{}", "[1]", "\"a\"", "{\"a", "{\"a\":", "{\"a\":\"", "{\"a\":{", "{\"a\"}", "{\"\\"] {
            check(nothing, &[]);
        }
        assert_eq!(text_of(br#"{"x":1,"type":"a.b"}"#, "type"), Some(&b"a.b"[..]));
        assert_eq!(text_of(br#"{"type":1}"#, "type"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_loops(bytes in proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b'\\'), Just(b':'), Just(b','), Just(b'['), any::<u8>()],
            0..200,
        )) {
            prop_assert!(members(&bytes).count() <= bytes.len());
        }
    }
}
