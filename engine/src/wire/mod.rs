//! Wire formats: pure bytes to messages. Nothing here knows a ring, a file descriptor or a clock.

pub mod coding;
pub mod eventstream;
#[cfg(any(test, feature = "fuzz"))]
pub mod exercise;
pub mod hpack;
pub mod http1;
pub mod http2;
pub mod json_array;
pub mod ndjson;
mod span;
pub mod sse;
pub mod websocket;

/// One field line of a head (RFC 9110 section 5), or one HPACK entry. Names keep the case that the
/// wire had and are compared without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field's name.
    pub name: &'a [u8],
    /// The field's value without the whitespace around it.
    pub value: &'a [u8],
}

/// The head of a request, whichever HTTP version carried it.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method, as sent.
    pub method: &'a [u8],
    /// The request target (HTTP/1) or `:path` (HTTP/2): usually path and query.
    pub target: &'a [u8],
    /// `:authority` of HTTP/2; HTTP/1 has its `Host` among the fields.
    pub authority: Option<&'a [u8]>,
    /// `:protocol` of HTTP/2: what a CONNECT opens a tunnel for (RFC 8441 section 4).
    pub protocol: Option<&'a [u8]>,
    /// All field lines in order.
    pub fields: &'a [Field<'a>],
}

/// The head of a response, whichever HTTP version carried it.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// The status code, 100 to 999, or [`STATUS_UNKNOWN`].
    pub status: u16,
    /// All field lines in order.
    pub fields: &'a [Field<'a>],
}

/// In place of an HTTP/2 status that was in a part of the HPACK table that was lost. No wire has it.
pub const STATUS_UNKNOWN: u16 = 0;

/// The values of the field `name` in order.
pub fn fields<'a>(fields: &'a [Field<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| is_in_any_case(field.name, name)).map(|field| field.value)
}

/// Whether `text` is `expect`, whatever the case of its letters. What is expected has no upper-case letters,
/// and of other characters only such as are below them in ASCII.
#[inline]
pub(crate) fn is_in_any_case(text: &[u8], expect: &str) -> bool {
    const CASE: u64 = u64::MAX / 0xff * 0x20;
    debug_assert!(expect.bytes().all(|byte| byte < b'A' || byte.is_ascii_lowercase()), "{expect}");
    let expect = expect.as_bytes();
    if text.len() != expect.len() {
        return false;
    }
    let ((words, _), (expected, _)) = (text.as_chunks::<8>(), expect.as_chunks::<8>());
    let (Some(last), Some(expected_last)) = (text.last_chunk(), expect.last_chunk()) else {
        return text.eq_ignore_ascii_case(expect);
    };
    let differ = |word: &[u8; 8], expected: &[u8; 8]| {
        let expected = u64::from_le_bytes(*expected);
        let bits = u64::from_le_bytes(*word) ^ expected;
        // Only the bit of the case may differ, and only in letters, which have the next bit set.
        bits & !CASE | bits << 1 & !expected & CASE << 1
    };
    let all = words.iter().zip(expected).fold(0, |all, (word, expected)| all | differ(word, expected));
    all | differ(last, expected_last) == 0
}

/// The first value of the field `name`.
pub fn field<'a>(list: &'a [Field<'a>], name: &'a str) -> Option<&'a [u8]> {
    fields(list, name).next()
}

/// A folder of the corpora for tests: in the folder that `AGENTSIGHT_CORPUS` names. Without it such a
/// test is skipped, except in CI.
#[cfg(test)]
pub(crate) fn corpus(folder: &str) -> Option<std::path::PathBuf> {
    match std::env::var_os("AGENTSIGHT_CORPUS") {
        Some(corpus) => Some(std::path::Path::new(&corpus).join(folder)),
        None => {
            assert!(std::env::var_os("CI").is_none(), "AGENTSIGHT_CORPUS has to be set in CI");
            println!("skipped: AGENTSIGHT_CORPUS isn't set");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_in_any_case;

    #[test]
    fn case_is_that_of_letters_alone() {
        for expect in ["host", "content-length", "x-0/9@", "application/json", "traceparent", "accept;q"] {
            for place in 0..expect.len() {
                for byte in 0..=255 {
                    let mut text = expect.as_bytes().to_vec();
                    text[place] = byte;
                    let same = text.eq_ignore_ascii_case(expect.as_bytes());
                    assert_eq!(is_in_any_case(&text, expect), same, "{}", text.escape_ascii());
                }
            }
            assert!(is_in_any_case(expect.to_uppercase().as_bytes(), expect));
            assert!(!is_in_any_case(&expect.as_bytes()[1..], expect));
        }
    }
}
