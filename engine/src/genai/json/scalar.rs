//! What stands in a document outside of its structure: numbers, names and escapes.

use std::num::ParseIntError;

/// Digits that can't pass what a double holds, which has 309 before its point.
const DIGITS_SURELY_FINITE: usize = 300;

/// Digits that 64 bits always hold.
const DIGITS_SURELY_WHOLE: usize = 18;

/// Where the number or name that begins at `start` ends; `None` when it is neither, or goes on with
/// what can't follow it.
///
/// `NaN`, `Infinity` and `-Infinity` are no JSON, but Python writes them, which vLLM's log
/// probabilities show. They are let through, as values of no use.
pub(super) fn end(text: &[u8], start: usize) -> Option<usize> {
    let rest = text.get(start..)?;
    let bytes = match rest.first()? {
        b't' => name(rest, b"true")?,
        b'f' => name(rest, b"false")?,
        b'n' => name(rest, b"null")?,
        b'N' => name(rest, b"NaN")?,
        b'I' => name(rest, b"Infinity")?,
        b'-' if rest.get(1) == Some(&b'I') => name(rest, b"-Infinity")?,
        _ => number(rest)?,
    };
    match rest.get(bytes) {
        None | Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t' | b':') => Some(start + bytes),
        Some(_) => None,
    }
}

/// Whether numbers and names have this byte.
pub(super) fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// Behind a number or name that goes on at `from`, of which nothing is looked at but where it ends.
pub(super) fn bare_end(text: &[u8], from: usize) -> Option<usize> {
    Some(from + text.get(from..)?.iter().position(|byte| !is_bare(*byte))?)
}

fn name(rest: &[u8], name: &[u8]) -> Option<usize> {
    rest.starts_with(name).then_some(name.len())
}

/// RFC 8259 section 6. A number that no double holds is refused, as it is by most parsers.
fn number(rest: &[u8]) -> Option<usize> {
    let digits = |from: usize| rest.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(rest.first() == Some(&b'-'));
    at += match (rest.get(at)?, digits(at)) {
        (_, 0) => return None,
        (b'0', 2..) => return None,
        (_, count) => count,
    };
    if rest.get(at) == Some(&b'.') {
        let count = digits(at + 1);
        (count > 0).then_some(())?;
        at += 1 + count;
    }
    let has_exponent = matches!(rest.get(at), Some(b'e' | b'E'));
    if has_exponent {
        at += 1 + usize::from(matches!(rest.get(at + 1), Some(b'+' | b'-')));
        let count = digits(at);
        (count > 0).then_some(())?;
        at += count;
    }
    if has_exponent || at > DIGITS_SURELY_FINITE {
        float(rest.get(..at)?)?;
    }
    Some(at)
}

/// A number's value, when a double holds it.
pub(super) fn float(number: &[u8]) -> Option<f64> {
    let plain = matches!(number.first(), Some(b'0'..=b'9')) || matches!(number, [b'-', b'0'..=b'9', ..]);
    let text = std::str::from_utf8(number).ok().filter(|_| plain)?;
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A whole number's value, however it is spelled, when both a double and 64 bits hold it exactly.
pub(super) fn int(number: &[u8]) -> Option<i64> {
    let digit = |digit: &u8| digit.is_ascii_digit().then(|| i64::from(digit - b'0'));
    if number.len() < DIGITS_SURELY_WHOLE
        && let Some(whole) = number.iter().try_fold(0, |sum, byte| Some(sum * 10 + digit(byte)?))
    {
        return Some(whole);
    }
    let text = std::str::from_utf8(number).ok()?;
    let parsed: Result<i64, ParseIntError> = text.parse();
    if let Ok(number) = parsed {
        return Some(number);
    }
    let spelled_out = number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
    let number = float(number).filter(|_| !spelled_out)?;
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within what a double holds exactly")]
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

/// The UTF-16 code unit of a `\uXXXX` escape at `at`.
pub(super) fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(digit).ok()?)
    })
}

/// The first `to.len()` bytes of what the text between two quotes says, its escapes undone; of a
/// character that doesn't fit in whole, nothing. Half a surrogate pair, which several JSON writers let
/// through, becomes U+FFFD. `None` when there is an escape that RFC 8259 section 7 doesn't know.
pub(super) fn unescape<'a>(mut text: &[u8], to: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut len = 0;
    while !text.is_empty() {
        let plain = memchr::memchr(b'\\', text).unwrap_or(text.len());
        let (before, rest) = text.split_at(plain);
        let fits = before.len().min(to.len() - len);
        to[len..len + fits].copy_from_slice(&before[..fits]);
        len += fits;
        if fits < before.len() {
            break;
        }
        if rest.is_empty() {
            break;
        }
        let (character, bytes) = escaped(rest)?;
        if len + character.len_utf8() > to.len() {
            break;
        }
        len += character.encode_utf8(&mut to[len..]).len();
        text = rest.get(bytes..).unwrap_or_default();
    }
    to.get(..len)
}

/// Whether what is between two quotes may stand there: RFC 8259 section 7.
pub(super) fn is_sound_string(mut text: &[u8]) -> bool {
    if text.iter().any(|byte| *byte < b' ') {
        return false;
    }
    while let Some(at) = memchr::memchr(b'\\', text) {
        let Some((_, bytes)) = text.get(at..).and_then(escaped) else { return false };
        text = text.get(at + bytes..).unwrap_or_default();
    }
    true
}

/// The character that the escape at the front stands for, and how long the escape is.
fn escaped(rest: &[u8]) -> Option<(char, usize)> {
    Some(match rest.get(1)? {
        b'b' => ('\u{8}', 2),
        b'f' => ('\u{c}', 2),
        b'n' => ('\n', 2),
        b'r' => ('\r', 2),
        b't' => ('\t', 2),
        b'u' => match (unit(rest, 0)?, unit(rest, 6)) {
            (high @ 0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                let code = 0x1_0000 + (u32::from(high - 0xd800) << 10) + u32::from(low - 0xdc00);
                (char::from_u32(code)?, 12)
            }
            (unit, _) => (char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
        },
        byte @ (b'"' | b'\\' | b'/') => (char::from(*byte), 2),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_end() {
        for (text, expect) in [
            ("0", Some(1)),
            ("-0,", Some(2)),
            ("12.50]", Some(5)),
            ("1e5 ", Some(3)),
            ("-1.5E-10}", Some(8)),
            ("true", Some(4)),
            ("null\n", Some(4)),
            ("NaN,", Some(3)),
            ("-Infinity", Some(9)),
            ("01", None),
            ("-", None),
            ("-a", None),
            ("1.", None),
            (".5", None),
            ("1e", None),
            ("1e+", None),
            ("1e999", None),
            ("1a", None),
            ("1\"", None),
            ("nul", None),
            ("truee", None),
            ("-NaN", None),
            ("+1", None),
            ("\\", None),
        ] {
            assert_eq!(end(text.as_bytes(), 0), expect, "{text}");
        }
        assert_eq!(end("9".repeat(309).as_bytes(), 0), None, "beyond a double");
        assert_eq!(end("1".repeat(309).as_bytes(), 0), Some(309));
    }

    #[test]
    fn numbers_have_values() {
        for (text, whole, any) in [
            ("12", Some(12), Some(12.0)),
            ("1.0", Some(1), Some(1.0)),
            ("1e3", Some(1000), Some(1000.0)),
            ("1.5", None, Some(1.5)),
            ("-7", Some(-7), Some(-7.0)),
            ("9223372036854775807", Some(i64::MAX), Some(9.223_372_036_854_776e18)),
            ("9223372036854775808", None, Some(9.223_372_036_854_776e18)),
            ("true", None, None),
            ("NaN", None, None),
            ("Infinity", None, None),
            ("-Infinity", None, None),
        ] {
            assert_eq!((int(text.as_bytes()), float(text.as_bytes())), (whole, any), "{text}");
        }
    }

    #[test]
    fn escapes_are_undone() {
        let check = |text: &str, room: usize, expect: &str| {
            let mut room = vec![0; room];
            assert_eq!(unescape(text.as_bytes(), &mut room), Some(expect.as_bytes()), "{text}");
        };
        check(r#"a\"\\\/\b\f\n\r\t\u00e9z"#, 99, "a\"\\/\u{8}\u{c}\n\r\t\u{e9}z");
        check(r"\ud83d\ude00\ud83d-\ude00\ud83d", 99, "\u{1f600}\u{fffd}-\u{fffd}\u{fffd}");
        check(r"abc\u00e9", 5, "abc\u{e9}");
        check(r"abc\u00e9", 4, "abc");
        check(r"abc\u00e9", 2, "ab");
        for text in [r"\x", r"\u12", r"\u12g4", r"a\"] {
            assert_eq!(unescape(text.as_bytes(), &mut [0; 9]), None, "{text}");
        }
    }
}
