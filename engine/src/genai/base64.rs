//! Base64 (RFC 4648 section 4), for JSON inside event payloads.

/// Appends what `text` stands for to `to`; `None` when it is no base64.
pub(super) fn decode(text: &[u8], to: &mut impl Extend<u8>) -> Option<()> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for character in group {
            bits = bits << 6 | u32::from(sextet(*character)?);
        }
        let bytes = bits << (6 * (4 - group.len()));
        let [_, first, second, third] = bytes.to_be_bytes();
        match group.len() {
            4 => to.extend([first, second, third]),
            3 => to.extend([first, second]),
            2 => to.extend([first]),
            _ => return None,
        }
    }
    Some(())
}

fn sextet(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_are_decoded() {
        for (text, expect) in [
            ("", Some("")),
            ("Zg==", Some("f")),
            ("Zm8=", Some("fo")),
            ("Zm9v", Some("foo")),
            ("Zm9vYg", Some("foob")),
            ("Z", None),
            ("Zm9v!", None),
            ("Zg===", None),
            ("Z=9v", None),
        ] {
            let mut decoded = Vec::new();
            let done = super::decode(text.as_bytes(), &mut decoded);
            assert_eq!(done.map(|()| decoded.as_slice()), expect.map(str::as_bytes), "{text}");
        }
    }
}
