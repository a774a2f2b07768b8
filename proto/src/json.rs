//! The JSON mapping of OTLP, which is protobuf's but for some points: ids are in hexadecimal, and
//! enums are numbers (OTLP specification, "JSON Protobuf Encoding"). 64-bit integers are strings,
//! doubles that JSON has no number for are too, and what is empty is left out.

use std::io::Write;

/// An object: `content` puts its members.
pub(crate) fn put_object(out: &mut Vec<u8>, content: impl FnOnce(&mut Members<'_>)) {
    out.push(b'{');
    content(&mut Members { out, first: true });
    out.push(b'}');
}

/// An array: `content` puts its elements, each by a call of [`Elements::next`].
pub(crate) fn put_array(out: &mut Vec<u8>, content: impl FnOnce(&mut Elements<'_>)) {
    out.push(b'[');
    content(&mut Elements { out, first: true });
    out.push(b']');
}

/// An object that is open.
pub(crate) struct Members<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

/// An array that is open.
pub(crate) struct Elements<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Elements<'_> {
    /// Where the next element is to be put.
    pub(crate) fn next(&mut self) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out
    }
}

impl Members<'_> {
    /// Where the value of the member `name` is to be put. The name needs no escapes.
    pub(crate) fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    pub(crate) fn string(&mut self, name: &str, text: &str) {
        put_string(text, self.member(name));
    }

    pub(crate) fn string_unless_empty(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.string(name, text);
        }
    }

    pub(crate) fn hex(&mut self, name: &str, bytes: &[u8]) {
        put_hex(bytes, self.member(name));
    }

    /// A 32-bit integer or an enum.
    pub(crate) fn number_unless_zero(&mut self, name: &str, value: u32) {
        if value != 0 {
            put_display(value, self.member(name));
        }
    }

    /// A 64-bit integer.
    pub(crate) fn long_unless_zero(&mut self, name: &str, value: u64) {
        if value != 0 {
            put_long(value, self.member(name));
        }
    }

    pub(crate) fn bool(&mut self, name: &str, value: bool) {
        put_display(value, self.member(name));
    }

    pub(crate) fn double(&mut self, name: &str, value: f64) {
        put_double(value, self.member(name));
    }

    pub(crate) fn object(&mut self, name: &str, content: impl FnOnce(&mut Members<'_>)) {
        put_object(self.member(name), content);
    }

    pub(crate) fn array(&mut self, name: &str, content: impl FnOnce(&mut Elements<'_>)) {
        put_array(self.member(name), content);
    }
}

/// Text between quotes (RFC 8259 section 7).
pub(crate) fn put_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..index]);
        copied = index + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&hex(control));
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// A 64-bit integer, which JSON numbers can't hold everywhere.
pub(crate) fn put_long(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    out.push(b'"');
    put_display(value, out);
    out.push(b'"');
}

pub(crate) fn put_double(value: f64, out: &mut Vec<u8>) {
    match value {
        _ if value.is_nan() => out.extend_from_slice(b"\"NaN\""),
        f64::INFINITY => out.extend_from_slice(b"\"Infinity\""),
        f64::NEG_INFINITY => out.extend_from_slice(b"\"-Infinity\""),
        // The shortest form that reads back as the same value, with an exponent where it is long.
        _ => put_display(format_args!("{value:?}"), out),
    }
}

fn put_hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    bytes.iter().for_each(|&byte| out.extend_from_slice(&hex(byte)));
    out.push(b'"');
}

/// Bytes other than ids (RFC 4648 section 4).
pub(crate) fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push(b'"');
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_usize, |group, &byte| group << 8 | usize::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[group >> (18 - 6 * place) & 0x3f];
            out.push(if place <= chunk.len() { digit } else { b'=' });
        }
    }
    out.push(b'"');
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]
}

fn put_display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    // Writing to a vector doesn't fail.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_json_has_them() {
        let check = |put: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut out = vec![];
            put(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(&|out| put_string("", out), r#""""#);
        check(
            &|out| put_string("a\"b\\c\n\r\t\u{0}\u{1f}\u{7f}ä😀", out),
            "\"a\\\"b\\\\c\\n\\r\\t\\u0000\\u001f\u{7f}ä😀\"",
        );
        check(&|out| put_long(u64::MAX, out), "\"18446744073709551615\"");
        check(&|out| put_long(i64::MIN, out), "\"-9223372036854775808\"");
        check(&|out| put_double(0.7, out), "0.7");
        check(&|out| put_double(-0.0, out), "-0.0");
        check(&|out| put_double(1e300, out), "1e300");
        check(&|out| put_double(f64::NAN, out), "\"NaN\"");
        check(&|out| put_double(f64::NEG_INFINITY, out), "\"-Infinity\"");
        check(&|out| put_hex(&[0, 0xab, 0xff], out), "\"00abff\"");
        // The examples of RFC 4648 section 10.
        for (text, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            check(&|out| put_base64(text.as_bytes(), out), &format!("\"{expected}\""));
        }
        check(
            &|out| {
                put_object(out, |object| {
                    object.bool("a", true);
                    object.array("b", |list| (1..3).for_each(|value| put_double(f64::from(value), list.next())));
                    object.long_unless_zero("c", 0);
                    object.object("d", |_| {});
                });
            },
            r#"{"a":true,"b":[1.0,2.0],"d":{}}"#,
        );
    }
}
