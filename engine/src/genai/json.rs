//! JSON read from simd-json's tape: in place, with buffers that are reused, and forgiving about
//! types, because a field of the wrong type is an absent field.

use simd_json::{Buffers, Node, StaticNode, Tape};

use crate::limits::{JSON_KEPT_BYTES_MAX, JSON_STRUCTURALS_MAX};

/// What a worker keeps between two documents, so that parsing allocates nothing after warm-up.
#[derive(Default)]
pub struct Scratch {
    buffers: Buffers,
    /// Empty between two documents. It is there except while a document is read.
    tape: Option<Tape<'static>>,
    /// Copies of what is in read-only memory.
    copy: Vec<u8>,
    /// What a base64 payload decoded to.
    pub(super) decoded: Vec<u8>,
}

impl Scratch {
    /// Parses `document` in place and hands its root to `read`. `None` when it is no JSON, or is
    /// built to take far more memory than its size.
    pub(super) fn parse<R>(&mut self, document: &mut [u8], read: impl for<'t> FnOnce(Json<'t>) -> R) -> Option<R> {
        let document = without_byte_order_mark(document);
        if structurals(document) > JSON_STRUCTURALS_MAX {
            return None;
        }
        replace_lone_surrogates(document);
        replace_non_numbers(document);
        let large = document.len() > JSON_KEPT_BYTES_MAX;
        let mut tape = self.tape.take().unwrap_or_else(|| Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape(document, &mut self.buffers, &mut tape).is_ok();
        let result = (parsed && !tape.0.is_empty()).then(|| read(Json(&tape.0)));
        if large {
            self.buffers = Buffers::default();
        } else {
            self.tape = Some(tape.reset());
        }
        result
    }

    /// The same for a document in memory that must not be written to.
    pub(super) fn parse_copy<R>(&mut self, document: &[u8], read: impl for<'t> FnOnce(Json<'t>) -> R) -> Option<R> {
        let mut copy = std::mem::take(&mut self.copy);
        copy.clear();
        copy.extend_from_slice(document);
        let result = self.parse(&mut copy, read);
        if copy.capacity() <= JSON_KEPT_BYTES_MAX {
            self.copy = copy;
        }
        result
    }
}

fn without_byte_order_mark(document: &mut [u8]) -> &mut [u8] {
    let skip = if document.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    document.split_at_mut(skip).1
}

/// Commas, colons and opening brackets: an upper bound for the tape's nodes, since each value but
/// the first follows one of them. Small documents are not counted: they can't do harm.
fn structurals(document: &[u8]) -> usize {
    if document.len() <= JSON_STRUCTURALS_MAX {
        return 0;
    }
    document.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count()
}

/// A surrogate escape without its other half is not a character, and simd-json refuses the whole
/// document for it; several JSON writers let it through. U+FFFD stands in for it.
fn replace_lone_surrogates(document: &mut [u8]) {
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
fn replace_non_numbers(document: &mut [u8]) {
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

/// The UTF-16 code unit of a `\uXXXX` escape at `at`.
fn unit(document: &[u8], at: usize) -> Option<u16> {
    let digits = document.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

/// One value of a parsed document: its node on the tape and those inside it.
#[derive(Clone, Copy)]
pub(super) struct Json<'t>(&'t [Node<'t>]);

impl<'t> Json<'t> {
    /// The value of `key`, when this is an object. Of duplicates the last counts, as it does for
    /// the parsers that servers and clients use.
    pub fn get(self, key: &str) -> Option<Json<'t>> {
        self.entries().filter(|(name, _)| *name == key).last().map(|(_, value)| value)
    }

    /// The value at the end of `path`.
    pub fn at(self, path: &[&str]) -> Option<Json<'t>> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The members of an object in order; nothing for any other value.
    pub fn entries(self) -> Entries<'t> {
        match self.0.first() {
            Some(Node::Object { .. }) => Entries(self.inside()),
            _ => Entries(&[]),
        }
    }

    /// The elements of an array in order; nothing for any other value.
    pub fn items(self) -> Items<'t> {
        match self.0.first() {
            Some(Node::Array { .. }) => Items(self.inside()),
            _ => Items(&[]),
        }
    }

    fn inside(self) -> &'t [Node<'t>] {
        self.0.get(1..width(self.0)).unwrap_or(&[])
    }

    /// A string that says something: the empty one is how several servers spell "not yet known".
    pub fn text(self) -> Option<&'t str> {
        self.string().filter(|text| !text.is_empty())
    }

    /// Any string.
    pub fn string(self) -> Option<&'t str> {
        match self.0.first()? {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number, however it is spelled.
    pub fn int(self) -> Option<i64> {
        match *self.0.first()? {
            Node::Static(StaticNode::I64(number)) => Some(number),
            Node::Static(StaticNode::U64(number)) => number.try_into().ok(),
            #[expect(clippy::cast_possible_truncation, reason = "whole, and within what a double holds exactly")]
            Node::Static(StaticNode::F64(number))
                if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 =>
            {
                Some(number as i64)
            }
            _ => None,
        }
    }

    /// A count: a whole number that is not negative.
    pub fn count(self) -> Option<i64> {
        self.int().filter(|count| *count >= 0)
    }

    /// Any finite number.
    pub fn float(self) -> Option<f64> {
        match *self.0.first()? {
            #[expect(clippy::cast_precision_loss, reason = "the attribute is a double")]
            Node::Static(StaticNode::I64(number)) => Some(number as f64),
            #[expect(clippy::cast_precision_loss, reason = "the attribute is a double")]
            Node::Static(StaticNode::U64(number)) => Some(number as f64),
            Node::Static(StaticNode::F64(number)) => number.is_finite().then_some(number),
            _ => None,
        }
    }

    /// `true` or `false`.
    pub fn bool(self) -> Option<bool> {
        match *self.0.first()? {
            Node::Static(StaticNode::Bool(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether this is `null`.
    pub fn is_null(self) -> bool {
        matches!(self.0.first(), Some(Node::Static(StaticNode::Null)) | None)
    }

    /// Whether this is an object.
    pub fn is_object(self) -> bool {
        matches!(self.0.first(), Some(Node::Object { .. }))
    }

    /// Whether this is an array.
    pub fn is_array(self) -> bool {
        matches!(self.0.first(), Some(Node::Array { .. }))
    }

    /// The value's node, for whoever writes it out again.
    pub fn node(self) -> Option<&'t Node<'t>> {
        self.0.first()
    }
}

/// Nodes that the value at the front takes.
fn width(nodes: &[Node<'_>]) -> usize {
    match nodes.first() {
        Some(Node::Object { count, .. } | Node::Array { count, .. }) => count.saturating_add(1),
        Some(_) => 1,
        None => 0,
    }
}

fn split<'t>(nodes: &'t [Node<'t>]) -> Option<(Json<'t>, &'t [Node<'t>])> {
    let (value, rest) = nodes.split_at_checked(width(nodes)).filter(|(value, _)| !value.is_empty())?;
    Some((Json(value), rest))
}

/// The members of an object.
pub(super) struct Entries<'t>(&'t [Node<'t>]);

impl<'t> Iterator for Entries<'t> {
    type Item = (&'t str, Json<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = split(self.0)?;
        let (value, rest) = split(rest)?;
        self.0 = rest;
        Some((key.string()?, value))
    }
}

/// The elements of an array.
pub(super) struct Items<'t>(&'t [Node<'t>]);

impl<'t> Iterator for Items<'t> {
    type Item = Json<'t>;

    fn next(&mut self) -> Option<Self::Item> {
        let (value, rest) = split(self.0)?;
        self.0 = rest;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<R: PartialEq + std::fmt::Debug>(text: &str, read: impl for<'t> FnOnce(Json<'t>) -> R, expect: Option<R>) {
        assert_eq!(Scratch::default().parse(&mut text.as_bytes().to_vec(), read), expect, "{text}");
    }

    #[test]
    fn values_are_read_by_type() {
        check(r#"{"a":{"b":[1,2]}}"#, |j| j.at(&["a", "b"]).map(|b| b.items().count()), Some(Some(2)));
        check(r#"{"a":1,"a":2}"#, |j| j.get("a").and_then(Json::int), Some(Some(2)));
        check(
            "[1.0, 1.5, -1, 9223372036854775808, \"1\"]",
            |j| j.items().map(Json::int).collect::<Vec<_>>(),
            Some(vec![Some(1), None, Some(-1), None, None]),
        );
        check("123456789012345678901234567890", |j| j.int(), Some(None));
        check(
            "[0.5, 3, null]",
            |j| j.items().map(Json::float).collect::<Vec<_>>(),
            Some(vec![Some(0.5), Some(3.0), None]),
        );
        check("\"\"", |j| (j.text().is_some(), j.string().is_some()), Some((false, true)));
        check("\u{feff}{}", |j| j.is_object(), Some(true));
    }

    #[test]
    fn what_is_no_json_is_none() {
        for text in ["", " ", "{", "{}x", "nul", "[1,]", "\"\u{1}\"", "{\"a\":1e999}", "[[[[[["] {
            check(text, |_| (), None);
        }
        assert!(Scratch::default().parse(&mut b"\"\xff\"".to_vec(), |_| ()).is_none(), "not UTF-8");
    }

    #[test]
    fn half_a_surrogate_pair_does_not_spoil_the_document() {
        let read = |j: Json<'_>| j.string().map(str::to_owned);
        check(r#""\ud83d\ude00""#, read, Some(Some("\u{1f600}".into())));
        check(r#""a\ud83d""#, read, Some(Some("a\u{fffd}".into())));
        check(r#""\uDE00b""#, read, Some(Some("\u{fffd}b".into())));
        check(r#""\\ud83d\n""#, read, Some(Some("\\ud83d\n".into())));
    }

    #[test]
    fn numbers_that_are_none_do_not_spoil_the_document() {
        let read =
            |j: Json<'_>| (j.get("a").and_then(Json::string).map(str::to_owned), j.get("b").and_then(Json::float));
        check(r#"{"a":"NaN \" NaN","b":NaN,"c":[-Infinity,Infinity]}"#, read, Some((Some("NaN \" NaN".into()), None)));
        check(r#"{"a":"Infinity","b":1}"#, read, Some((Some("Infinity".into()), Some(1.0))));
        check(r#"{"b":NaNNaN}"#, |_| (), None);
    }

    #[test]
    fn a_document_of_nothing_but_structure_is_refused() {
        let mut bomb = vec![b'['; JSON_STRUCTURALS_MAX + 1];
        assert!(Scratch::default().parse(&mut bomb, |_| ()).is_none());
    }
}
