//! JSON texts of content, never longer than asked for and valid wherever they are cut.
//!
//! A string is shortened to what is left, a part that can't be shortened is dropped, and so is a
//! message without parts. What would come after a cut is dropped too, so that no text seems to
//! follow on another that it did not follow.

use bumpalo::Bump;
use simd_json::{Node, StaticNode};

use super::{
    super::{json::Json, text::Text},
    part::Part,
};

/// What closes a part, a message and the array.
const CLOSING_BYTES: usize = 8;

/// Values deeper than this inside tool arguments and results become `null`.
const DEPTH_MAX: usize = 64;

/// A JSON array that is being written into an arena.
pub(in crate::genai) struct Writer<'a> {
    arena: &'a Bump,
    text: Text<'a>,
    bytes_max: usize,
    /// Data is written as it is, and not told by its size.
    with_data: bool,
    /// Something was cut.
    full: bool,
}

impl<'a> Writer<'a> {
    /// An array of at most `bytes_max`.
    pub fn new(arena: &'a Bump, bytes_max: usize, with_data: bool) -> Self {
        Self { arena, text: Text::default(), bytes_max, with_data, full: false }
    }

    /// Whether what may be long is asked for.
    pub fn is_full(&self) -> bool {
        self.with_data
    }

    /// The array; `None` when there is nothing in it.
    pub fn finish(mut self) -> Option<&'a str> {
        if self.text.is_empty() {
            return None;
        }
        self.put("]");
        Some(self.text.into_str())
    }

    /// A message: its role, its parts, and why it ended if it is an answer.
    pub fn message(&mut self, role: &str, finish_reason: Option<&str>, parts: impl FnOnce(&mut Self)) {
        let (before, bytes_max) = (self.text.len(), self.bytes_max);
        // An escape takes up to six bytes.
        let tail = finish_reason.map_or(0, |reason| reason.len().saturating_mul(6).saturating_add(20));
        self.bytes_max = bytes_max.saturating_sub(tail);
        let open = self.element(|writer| {
            writer.put("{\"role\":");
            writer.string(role);
            writer.put(",\"parts\":[");
        });
        let empty = self.text.len();
        if open {
            parts(self);
        }
        self.bytes_max = bytes_max;
        if self.full && self.text.len() == empty {
            self.text.truncate(before);
        } else if open {
            self.put("]");
            if let Some(reason) = finish_reason {
                self.put(",\"finish_reason\":");
                self.string(reason);
            }
            self.put("}");
        }
    }

    /// A part of a message or of the instructions.
    pub fn part(&mut self, part: &Part<'_>) {
        let whole = self.element(|writer| part.write(writer, true));
        if !whole && part.can_be_shortened() {
            self.full = false;
            let _short = self.element(|writer| part.write(writer, false));
            self.full = true;
        }
    }

    /// An element that there may be no room for, after which a shorter one may follow.
    pub fn tries(&mut self, write: impl FnOnce(&mut Self)) -> bool {
        let was_full = self.full;
        let fits = self.element(write);
        self.full = was_full;
        fits
    }

    /// A part that was written before.
    pub fn written(&mut self, part: &str) {
        self.element(|writer| writer.put(part));
    }

    /// An element of the array that is open; whether there was room for it.
    pub fn element(&mut self, write: impl FnOnce(&mut Self)) -> bool {
        if self.full {
            return false;
        }
        let before = self.text.len();
        match self.text.as_str().as_bytes().last() {
            None => self.put("["),
            Some(b'[') => {}
            Some(_) => self.put(","),
        }
        write(self);
        if self.left() == 0 {
            self.text.truncate(before);
            self.full = true;
        }
        !self.full
    }

    /// Bytes that may still be written.
    fn left(&self) -> usize {
        self.bytes_max.saturating_sub(self.text.len() + CLOSING_BYTES)
    }

    /// JSON as it is.
    pub fn put(&mut self, json: &str) {
        self.text.push(self.arena, json);
    }

    /// A JSON text that may be too long.
    pub fn json(&mut self, json: &str) {
        // One byte too many, if it comes to that, so that the element is dropped.
        let end = json.ceil_char_boundary(self.left().saturating_add(1));
        self.put(json.get(..end).unwrap_or(json));
    }

    /// A member of the object that is open, after others.
    pub fn member(&mut self, key: &str, value: &str) {
        self.put(",\"");
        self.put(key);
        self.put("\":");
        self.string(value);
    }

    /// A whole string. A little more than is left is enough to tell that the element does not fit.
    pub fn string(&mut self, text: &str) {
        self.quoted(text, self.left().saturating_add(2 * CLOSING_BYTES));
    }

    /// As much of a string as fits.
    pub fn shortened(&mut self, text: &str) {
        self.quoted(text, self.left().saturating_sub(CLOSING_BYTES));
    }

    fn quoted(&mut self, text: &str, bytes_max: usize) {
        self.put("\"");
        let end = self.text.len().saturating_add(bytes_max);
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
            let (plain, escaped) = rest.split_at(at);
            if self.plain(plain, end) && self.text.len() + 6 <= end {
                self.escape(escaped.bytes().next().unwrap_or(0));
                rest = escaped.get(1..).unwrap_or("");
            } else {
                rest = "";
            }
        }
        self.plain(rest, end);
        self.put("\"");
    }

    /// Text that needs no escapes; whether all of it fits.
    fn plain(&mut self, text: &str, end: usize) -> bool {
        let left = end.saturating_sub(self.text.len());
        let fitting = text.get(..text.floor_char_boundary(left)).unwrap_or("");
        self.put(fitting);
        fitting.len() == text.len()
    }

    fn escape(&mut self, byte: u8) {
        match byte {
            b'"' => self.put("\\\""),
            b'\\' => self.put("\\\\"),
            b'\n' => self.put("\\n"),
            b'\r' => self.put("\\r"),
            b'\t' => self.put("\\t"),
            _ => {
                let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
                let mut utf8 = [0; 4];
                self.put("\\u00");
                self.put(digit(byte >> 4).encode_utf8(&mut utf8));
                self.put(digit(byte & 15).encode_utf8(&mut utf8));
            }
        }
    }

    /// A number.
    pub fn number(&mut self, number: impl std::fmt::Display) {
        // Writing to memory does not fail.
        let _written = std::fmt::Write::write_fmt(self, format_args!("{number}"));
    }

    /// Any value.
    pub fn value(&mut self, value: Json<'_>) {
        self.nested(value, 0);
    }

    fn nested(&mut self, value: Json<'_>, depth: usize) {
        match value.node() {
            Some(Node::String(text)) => self.string(text),
            Some(Node::Static(StaticNode::Bool(value))) => self.put(if *value { "true" } else { "false" }),
            Some(Node::Static(StaticNode::I64(number))) => self.number(number),
            Some(Node::Static(StaticNode::U64(number))) => self.number(number),
            Some(Node::Static(StaticNode::F64(number))) if number.is_finite() => self.number(number),
            Some(Node::Object { .. }) if depth < DEPTH_MAX => {
                self.put("{");
                for (place, (key, value)) in value.entries().enumerate() {
                    if self.left() == 0 {
                        break;
                    }
                    self.put(if place == 0 { "" } else { "," });
                    self.string(key);
                    self.put(":");
                    self.nested(value, depth + 1);
                }
                self.put("}");
            }
            Some(Node::Array { .. }) if depth < DEPTH_MAX => {
                self.put("[");
                for (place, value) in value.items().enumerate() {
                    if self.left() == 0 {
                        break;
                    }
                    self.put(if place == 0 { "" } else { "," });
                    self.nested(value, depth + 1);
                }
                self.put("]");
            }
            _ => self.put("null"),
        }
    }
}

impl std::fmt::Write for Writer<'_> {
    fn write_str(&mut self, digits: &str) -> std::fmt::Result {
        self.put(digits);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(bytes_max: usize, texts: &[&str]) -> Option<String> {
        let arena = Bump::new();
        let mut writer = Writer::new(&arena, bytes_max, false);
        for text in texts {
            writer.message("user", Some("stop"), |writer| {
                writer.part(&Part::Text(text));
                writer.part(&Part::File { modality: "document", id: text });
            });
        }
        writer.finish().map(str::to_owned)
    }

    #[test]
    fn what_fits_is_written_whole() {
        let whole = messages(1000, &["a\"\\\n\u{1}é"]).unwrap();
        let read: serde_json::Value = serde_json::from_str(&whole).unwrap();
        assert_eq!(read[0]["parts"][0]["content"], "a\"\\\n\u{1}é");
        assert_eq!(read[0]["finish_reason"], "stop");
        assert_eq!(messages(1000, &[]), None);
    }

    #[test]
    fn every_cut_is_valid_and_within_its_bound() {
        let texts = ["hello \"world\"", "é\u{1}\u{1f600}\\\\", "", &"x".repeat(100)];
        let whole = messages(usize::MAX, &texts).unwrap();
        let mut texts_seen = 0;
        for bytes_max in 0..=whole.len() + 20 {
            let Some(cut) = messages(bytes_max, &texts) else { continue };
            assert!(cut.len() <= bytes_max, "{} of {bytes_max}: {cut}", cut.len());
            let read: serde_json::Value = serde_json::from_str(&cut).expect(&cut);
            for (message, text) in read.as_array().unwrap().iter().zip(texts) {
                let content = message["parts"][0]["content"].as_str().unwrap();
                assert!(text.starts_with(content), "{content} is no beginning of {text}");
                texts_seen += 1;
            }
        }
        assert!(texts_seen > 500, "{texts_seen}");
        assert_eq!(messages(whole.len() + 60, &texts), Some(whole));
    }

    #[test]
    fn values_are_written_as_they_were() {
        let document = r#"{"a":[1,-2.5,true,null,"x\ny",{}],"b":1e300,"c":18446744073709551615}"#;
        let arena = Bump::new();
        let written = super::super::super::json::Scratch::default().parse(&mut document.as_bytes().to_vec(), |json| {
            let mut writer = Writer::new(&arena, 10_000, false);
            writer.element(|writer| writer.value(json));
            writer.finish().map(str::to_owned)
        });
        let written: serde_json::Value = serde_json::from_str(&written.flatten().unwrap()).unwrap();
        assert_eq!(written[0], serde_json::from_str::<serde_json::Value>(document).unwrap());
    }
}
