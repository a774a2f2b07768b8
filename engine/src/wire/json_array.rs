//! A JSON array that is sent element by element, as Gemini's `streamGenerateContent` does.
//!
//! Only what tells where an element ends is looked at: strings, escapes and brackets. Whether an
//! element is JSON is for its parser to say. A body that is no array but one object, as errors are, is
//! handed on as the one element.

use memchr::memchr2;

use crate::limits::{STREAM_BUFFER_KEPT_BYTES, STREAM_EVENT_BYTES_MAX};

/// Cuts an array into elements.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// The element so far, when it comes in pieces.
    buffer: Vec<u8>,
    /// The element under way is too long: its bytes are dropped.
    dropping: bool,
    skipped: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first element, or between two.
    #[default]
    Between,
    /// In an element, below so many open brackets.
    Element { depth: u32 },
    /// In a string of an element.
    String { depth: u32 },
    /// Behind a backslash in a string.
    Escape { depth: u32 },
    /// Behind a loss: so many bytes of [`SEPARATOR`] matched.
    Lost { matched: usize },
}

/// What stands between two elements where they are written one below the other. Inside an element a
/// comma never has a line of its own, and inside a string no line can end. CR is passed over.
const SEPARATOR: &[u8] = b"\n,\n{";

impl Decoder {
    /// Bytes held back.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Losses since the last call: elements longer than [`STREAM_EVENT_BYTES_MAX`] or cut off, and
    /// gaps after which others had to be passed over to find the next.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// Takes the next bytes. An element that lies whole in them is handed on as it lies there.
    pub fn feed(&mut self, input: &[u8], on_element: &mut impl FnMut(&[u8])) {
        let (mut at, mut start) = (0, 0);
        while let Some(&byte) = input.get(at) {
            match self.state {
                State::Between => {
                    if let Some(state) = begin(byte) {
                        (start, self.state) = (at, state);
                    }
                    at += 1;
                }
                State::Element { depth } => {
                    let (state, inside) = step(byte, depth);
                    at += usize::from(inside);
                    self.state = state;
                    if state == State::Between {
                        self.take(&input[start..at], on_element);
                        at += usize::from(!inside);
                    }
                }
                State::String { depth } => match memchr2(b'"', b'\\', &input[at..]) {
                    Some(found) => {
                        at += found + 1;
                        let escape = input[at - 1] == b'\\';
                        self.state = if escape { State::Escape { depth } } else { State::Element { depth } };
                    }
                    None => at = input.len(),
                },
                State::Escape { depth } => {
                    at += 1;
                    self.state = State::String { depth };
                }
                State::Lost { matched } => {
                    self.state = match (SEPARATOR.get(matched), byte) {
                        (Some(b'{'), b'{') => State::Element { depth: 1 },
                        (Some(&expected), byte) if expected == byte => State::Lost { matched: matched + 1 },
                        (_, b'\r') => self.state,
                        (_, byte) => State::Lost { matched: usize::from(byte == b'\n') },
                    };
                    start = at;
                    at += 1;
                }
            }
        }
        if matches!(self.state, State::Element { .. } | State::String { .. } | State::Escape { .. }) {
            self.push(&input[start..]);
        }
    }

    /// Bytes are missing here.
    pub fn gap(&mut self) {
        self.skipped += 1;
        self.clear();
        self.state = State::Lost { matched: 0 };
    }

    /// The body ended. An element that is cut off can't be used, except for a number or the like at
    /// the top, which has no end of its own. The decoder is new again.
    pub fn finish(&mut self, on_element: &mut impl FnMut(&[u8])) {
        match self.state {
            State::Element { depth: 0 } => self.take(&[], on_element),
            State::Between | State::Lost { .. } => {}
            _ => self.skipped += u64::from(!self.dropping),
        }
        self.clear();
        self.state = State::Between;
    }

    /// The end of an element, whose beginning may be in the buffer.
    fn take(&mut self, bytes: &[u8], on_element: &mut impl FnMut(&[u8])) {
        if self.buffer.is_empty() && !self.dropping {
            return on_element(bytes);
        }
        self.push(bytes);
        if !self.dropping {
            on_element(&self.buffer);
        }
        self.clear();
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.dropping {
            return;
        }
        if self.buffer.len() + bytes.len() > STREAM_EVENT_BYTES_MAX {
            self.skipped += 1;
            self.clear();
            self.dropping = true;
            return;
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn clear(&mut self) {
        self.dropping = false;
        self.buffer.clear();
        self.buffer.shrink_to(STREAM_BUFFER_KEPT_BYTES);
    }
}

/// What begins with `byte`, if an element does. The array's own brackets are only separators; an array
/// as an element would be taken apart, but no API has one there.
fn begin(byte: u8) -> Option<State> {
    match byte {
        b' ' | b'\t' | b'\r' | b'\n' | b',' | b'[' | b']' => None,
        b'"' => Some(State::String { depth: 0 }),
        b'{' => Some(State::Element { depth: 1 }),
        _ => Some(State::Element { depth: 0 }),
    }
}

/// The state behind `byte`, and whether `byte` still belongs to the element.
fn step(byte: u8, depth: u32) -> (State, bool) {
    match (byte, depth) {
        (b'"', _) => (State::String { depth }, true),
        (b'{' | b'[', _) => (State::Element { depth: depth.saturating_add(1) }, true),
        (b'}' | b']', 1) => (State::Between, true),
        (b'}' | b']' | b',' | b' ' | b'\t' | b'\r' | b'\n', 0) => (State::Between, false),
        (b'}' | b']', _) => (State::Element { depth: depth - 1 }, true),
        _ => (State::Element { depth }, true),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> (Vec<String>, u64) {
        let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
        let mut on_element = |element: &[u8]| seen.push(String::from_utf8(element.to_vec()).unwrap());
        for piece in pieces {
            decoder.feed(piece, &mut on_element);
        }
        decoder.finish(&mut on_element);
        assert_eq!(decoder.buffered(), 0);
        (seen, decoder.take_skipped())
    }

    fn check(input: &str, expect: &[&str], skipped: u64) {
        let expect = (expect.iter().map(|text| (*text).to_owned()).collect(), skipped);
        for at in 0..=input.len() {
            let (a, b) = input.as_bytes().split_at(at);
            assert_eq!(decode(&[a, b]), expect, "cut at {at}");
        }
        assert_eq!(decode(&input.as_bytes().chunks(1).collect::<Vec<_>>()), expect);
    }

    #[test]
    fn elements_as_gemini_sends_them() {
        check(
            "[{\"a\": [1, {}]}\n,\r\n{\"b\": \"]},{\\\"\\\\\"}\n]\n",
            &["{\"a\": [1, {}]}", "{\"b\": \"]},{\\\"\\\\\"}"],
            0,
        );
        check("[]", &[], 0);
        check("{\"error\": {\"code\": 400}}\n", &["{\"error\": {\"code\": 400}}"], 0);
        check("[1,\"a,b\" ,null]", &["1", "\"a,b\"", "null"], 0);
        check(" 12", &["12"], 0);
    }

    #[test]
    fn what_is_cut_off_is_told() {
        check("[{\"a\": 1}\n,\n{\"b\": \"x", &["{\"a\": 1}"], 1);
        check("[{\"a\": 1}\n,\n", &["{\"a\": 1}"], 0);
    }

    #[test]
    fn after_a_gap_the_next_element_on_a_line_of_its_own_is_found() {
        let rest = "b\",\n {\"x\": [\n,{1}]}}\n,\r\n{\"c\": 1}\n,\n{\"d\": 2}]";
        for at in 0..rest.len() {
            let (a, b) = rest.as_bytes().split_at(at);
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            decoder.feed(b"[{\"a\": \"", &mut |_| panic!());
            decoder.gap();
            for piece in [a, b] {
                decoder.feed(piece, &mut |element| seen.push(element.to_vec()));
            }
            assert_eq!(seen, [b"{\"c\": 1}", b"{\"d\": 2}"], "cut at {at}");
            assert_eq!(decoder.take_skipped(), 1);
        }
    }

    #[test]
    fn an_element_that_is_too_long_is_skipped_and_told() {
        let half = vec![b'x'; STREAM_EVENT_BYTES_MAX / 2 + 1];
        assert_eq!(decode(&[b"[{\"", &half, &half, &half, b"\"}, {}]"]), (vec!["{}".into()], 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_serde_writes_is_cut_where_it_was_joined(
            texts in proptest::collection::vec(("[\"\\\\{}\\[\\],a\n]{0,8}", any::<bool>()), 0..5),
            cuts in proptest::collection::vec(0.0..1.0f64, 0..8),
        ) {
            let elements: Vec<String> = texts
                .iter()
                .map(|(text, pretty)| {
                    let value = serde_json::json!({ text.as_str(): [text, { "x": text }, []] });
                    if *pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap()
                })
                .collect();
            let input = format!("[{}]", elements.join("\n,\n")).into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * input.len() as f64) as usize).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
            prop_assert_eq!(decode(&pieces), (elements, 0));
        }

        #[test]
        fn hostile_bytes_never_panic(pieces in proptest::collection::vec(("[\"\\\\{}\\[\\],a\n]{0,12}", any::<bool>()), 0..8)) {
            let mut decoder = Decoder::default();
            for (piece, lost) in pieces {
                decoder.feed(piece.as_bytes(), &mut |_| {});
                if lost {
                    decoder.gap();
                }
            }
            decoder.finish(&mut |_| {});
            prop_assert_eq!(decoder.buffered(), 0);
        }
    }
}
