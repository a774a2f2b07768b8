//! Whether a text is JSON already, so that it can be copied as it is (RFC 8259).

/// Nesting beyond this is not copied.
const DEPTH_MAX: u32 = 64;

/// Whether `text` is exactly one JSON value.
pub(super) fn is_json(text: &str) -> bool {
    let mut rest = text.as_bytes();
    // One bit for each open bracket, the innermost lowest: 1 for an object.
    let (mut open, mut depth) = (0_u64, 0);
    loop {
        // A value begins here.
        rest = rest.trim_ascii_start();
        match rest.first() {
            Some(b @ (b'{' | b'[')) => {
                let object = *b == b'{';
                rest = tail(rest).trim_ascii_start();
                if rest.first() == Some(if object { &b'}' } else { &b']' }) {
                    rest = tail(rest);
                } else if depth == DEPTH_MAX {
                    return false;
                } else {
                    open = open << 1 | u64::from(object);
                    depth += 1;
                    if object {
                        let Some(value) = key(rest) else { return false };
                        rest = value;
                    }
                    continue;
                }
            }
            _ => match scalar(rest) {
                Some(after) => rest = after,
                None => return false,
            },
        }
        // A value ended here.
        loop {
            rest = rest.trim_ascii_start();
            if depth == 0 {
                return rest.is_empty();
            }
            let object = open & 1 == 1;
            match (rest.first(), object) {
                (Some(b','), true) => match key(tail(rest).trim_ascii_start()) {
                    Some(value) => rest = value,
                    None => return false,
                },
                (Some(b','), false) => rest = tail(rest),
                (Some(b'}'), true) | (Some(b']'), false) => {
                    rest = tail(rest);
                    open >>= 1;
                    depth -= 1;
                    continue;
                }
                _ => return false,
            }
            break;
        }
    }
}

fn tail(bytes: &[u8]) -> &[u8] {
    bytes.get(1..).unwrap_or(&[])
}

/// What follows a key and its colon.
fn key(bytes: &[u8]) -> Option<&[u8]> {
    string(bytes)?.trim_ascii_start().strip_prefix(b":")
}

fn scalar(bytes: &[u8]) -> Option<&[u8]> {
    let word = |word: &[u8]| bytes.strip_prefix(word);
    string(bytes)
        .or_else(|| word(b"true"))
        .or_else(|| word(b"false"))
        .or_else(|| word(b"null"))
        .or_else(|| number(bytes))
}

fn string(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\"")?;
    loop {
        match rest.first()? {
            b'"' => return Some(tail(rest)),
            b'\\' => {
                let length = match rest.get(1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                    b'u' if rest.get(2..6)?.iter().all(u8::is_ascii_hexdigit) => 6,
                    _ => return None,
                };
                rest = rest.get(length..)?;
            }
            0..0x20 => return None,
            _ => rest = tail(rest),
        }
    }
}

fn number(bytes: &[u8]) -> Option<&[u8]> {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.first() == Some(&b'0')) {
        return None;
    }
    rest = rest.get(whole..)?;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        rest = fraction.get(count..).filter(|_| count > 0)?;
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let count = digits(exponent);
        rest = exponent.get(count..).filter(|_| count > 0)?;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::is_json;

    fn check(text: &str) {
        // A lone surrogate or a huge exponent is JSON by the grammar, which is all that counts here.
        let parser = serde_json::from_str::<serde_json::Value>(text);
        let grammar_only = parser.as_ref().is_err_and(|error| {
            let error = error.to_string();
            error.contains("surrogate") || error.contains("out of range") || error.contains("hex escape")
        });
        assert!(grammar_only || is_json(text) == parser.is_ok(), "{text:?}: {parser:?}");
    }

    #[test]
    fn texts_are_judged_as_a_parser_does() {
        for text in [
            "{}",
            "[]",
            "",
            " ",
            "1",
            "01",
            "-",
            "-0.5e+3",
            "1.",
            "1e",
            "nul",
            "null",
            "\"a\\u00e9\"",
            "\"\\x\"",
            "\"\n\"",
            "{\"a\":1,\"b\":[1,2,{}]}",
            "{\"a\":1,}",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{a:1}",
            "[1}",
            "{\"a\":1]",
            "1 2",
            "[[[]]]",
            " { \"a\" : [ ] } ",
            "{\"a\":1",
            "[",
            "]",
            "{]",
            "\"",
            "tru",
        ] {
            check(text);
        }
        assert!(is_json(&format!("{}{}", "[".repeat(64), "]".repeat(64))));
        assert!(!is_json(&format!("{}{}", "[".repeat(66), "]".repeat(66))), "too deep to be copied");
    }

    proptest! {
        #[test]
        fn any_text_is_judged_as_a_parser_does(text in "[\\[\\]{},:\"\\\\ a1.e0-]{0,12}") {
            check(&text);
        }
    }
}
