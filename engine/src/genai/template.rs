//! Events that say what one before them said, but for texts and numbers.
//!
//! The events of a stream are hardly different: the same keys in the same order, the same ids, and
//! another piece of the answer. Once one of them was found to hold nothing that is wanted, those that
//! differ from it only inside of values need no look at all:
//!
//! ```text
//! template:   data: {"id":"x","delta":{"text":"Hel"},"n":7}⏎⏎      nothing wanted in it
//!                                            ─┬─        ┬
//! holes:      where others differed, and only there: a string's content, a number
//! an event:   the bytes before a hole are equal, the hole is filled, … to the end     → passed over
//! ```
//!
//! So an event costs comparing it with bytes that are in the cache, at the speed of memcmp, and a look at
//! what fills the holes. Where the comparison fails, the event is cut out and looked at as any other, and
//! either adds a hole or is the template from then on.
//!
//! Some APIs repeat their counts in every event, and the latest hold. Of events that differ in texts and
//! counts only, the last says what all of them say, so it is kept and read when the next one is different.
//! That one is read in place of others only if they would all be read as well as it is: what fills holes
//! then has to be valid JSON, and numbers have to be counts.
//!
//! Why nothing wanted can be in a hole, whatever the rest is: what is looked for is a key in quotes before
//! a colon (see [`super::wanted`]). What fills a hole has no quote but escaped ones, which end no key; the
//! quote that ends it is followed by no colon; and `\u00`, by which a key may be written otherwise, is let
//! in by no hole. A wanted key elsewhere would be in the template.

use std::ops::Range;

use wide::u8x16;

use super::draft::SHORT_BYTES;
use crate::limits::{TEMPLATE_BYTES_MAX, TEMPLATE_HOLES_MAX};

/// A part of the template that other events fill differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hole {
    start: u16,
    end: u16,
    is_text: bool,
}

const _: () = assert!(TEMPLATE_BYTES_MAX <= u16::MAX as usize);

impl Hole {
    fn range(self) -> Range<usize> {
        self.start.into()..self.end.into()
    }
}

/// What an event says that others are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Says {
    /// Nothing that is wanted.
    #[default]
    Nothing,
    /// Counts, of which the latest hold.
    Counts,
}

/// The event that others of its stream are like.
#[derive(Debug, Default)]
pub struct Template {
    /// As it was on the wire, with what ends it. Empty when there is none yet.
    bytes: Vec<u8>,
    /// In order, and with bytes between them.
    holes: [Hole; TEMPLATE_HOLES_MAX],
    hole_count: usize,
    /// Where its data begins. What comes before it, as the event's name, is the same in all.
    data_at: usize,
    /// What of the event isn't its data.
    around_bytes: usize,
    says: Says,
}

/// Where an event is not like the template.
enum Unlike {
    /// At this byte of the template, outside of its holes.
    At(usize),
    /// In what fills a hole, or by ending too soon.
    Otherwise,
}

impl Template {
    /// How long the event at the front of `input` is, if it is like the template.
    #[inline(always)]
    pub fn matches(&self, input: &[u8]) -> Option<usize> {
        if self.bytes.is_empty() {
            return None;
        }
        match self.says {
            Says::Nothing => self.matches_as::<false>(input),
            Says::Counts => self.matches_counts(input),
        }
    }

    #[inline(never)]
    fn matches_counts(&self, input: &[u8]) -> Option<usize> {
        self.matches_as::<true>(input)
    }

    #[inline(always)]
    fn matches_as<const COUNTS: bool>(&self, input: &[u8]) -> Option<usize> {
        let (mut rest, mut from) = (input, 0);
        for hole in self.holes.get(..self.hole_count)? {
            let hole_at = hole.range();
            rest = rest.strip_prefix(self.bytes.get(from..hole_at.start)?)?;
            rest = rest.get(filled::<COUNTS>(rest, hole.is_text)?..)?;
            from = hole_at.end;
        }
        rest = rest.strip_prefix(self.bytes.get(from..)?)?;
        let length = input.len() - rest.len();
        self.is_long(length).then_some(length)
    }

    /// Short data may be all of what marks a stream's end.
    fn is_long(&self, length: usize) -> bool {
        length > self.around_bytes + SHORT_BYTES
    }

    /// What all events say that are like it.
    #[inline]
    pub fn says(&self) -> Says {
        self.says
    }

    /// The data of an event that was like it, with what ends it.
    pub fn data_of<'a>(&self, event: &'a [u8]) -> &'a [u8] {
        event.get(self.data_at..).unwrap_or_default()
    }

    /// `event`, which is as it was on the wire and has `data` at `data_at`, `says` what the next ones may
    /// say, which may be like it.
    pub fn learn(&mut self, event: &[u8], data: &[u8], data_at: usize, says: Says) {
        let around_bytes = event.len().saturating_sub(data.trim_ascii().len());
        if event.len() > TEMPLATE_BYTES_MAX {
            return;
        }
        let is_form = (self.data_at, self.around_bytes, self.says) == (data_at, around_bytes, says);
        if !is_form || !self.widen(event) {
            self.forget();
            self.bytes.reserve_exact(event.len());
            self.bytes.extend_from_slice(event);
            (self.data_at, self.around_bytes, self.says) = (data_at, around_bytes, says);
        }
    }

    /// What is wanted changes: another stream begins.
    pub fn forget(&mut self) {
        self.bytes.clear();
        self.hole_count = 0;
    }

    /// Makes holes where `event` differs. False when it is not like the template even so.
    fn widen(&mut self, event: &[u8]) -> bool {
        loop {
            let at = match self.compare(event) {
                Ok(length) => return length == event.len(),
                Err(Unlike::At(at)) => at,
                Err(Unlike::Otherwise) => return false,
            };
            if self.hole_count == TEMPLATE_HOLES_MAX {
                return false;
            }
            let Some(hole) = self.hole_at(at) else { return false };
            let place = self.holes[..self.hole_count].partition_point(|other| other.start < hole.start);
            self.holes[place..=self.hole_count].rotate_right(1);
            self.holes[place] = hole;
            self.hole_count += 1;
        }
    }

    /// As [`Template::matches`], to tell where they differ.
    fn compare(&self, event: &[u8]) -> Result<usize, Unlike> {
        let (mut at, mut from) = (0, 0);
        let last = self.bytes.len()..self.bytes.len();
        let holes = self.holes[..self.hole_count].iter().map(|hole| (hole.range(), Some(hole.is_text)));
        for (hole, kind) in holes.chain([(last, None)]) {
            let fixed = &self.bytes[from..hole.start];
            let same = fixed.iter().zip(&event[at..]).take_while(|(one, other)| one == other).count();
            if same < fixed.len() {
                return Err(if at + same < event.len() { Unlike::At(from + same) } else { Unlike::Otherwise });
            }
            at += same;
            if let Some(is_text) = kind {
                at += self.filled(&event[at..], is_text).ok_or(Unlike::Otherwise)?;
            }
            from = hole.end;
        }
        Ok(at)
    }

    fn filled(&self, input: &[u8], is_text: bool) -> Option<usize> {
        match self.says {
            Says::Nothing => filled::<false>(input, is_text),
            Says::Counts => filled::<true>(input, is_text),
        }
    }

    /// The string or number of the template, a value of its data, that `at` is in or at the end of.
    fn hole_at(&self, at: usize) -> Option<Hole> {
        let hole = |start: usize, end: usize, is_text| {
            let hole = Hole { start: start as u16, end: end as u16, is_text };
            // Not one that is there already: something else differs.
            (!self.holes[..self.hole_count].iter().any(|other| other.start == hole.start)).then_some(hole)
        };
        let mut start = self.data_at;
        loop {
            let rest = self.bytes.get(start..)?;
            let open = start + memchr::memchr(b'"', rest).unwrap_or(rest.len());
            if at <= open {
                // Between strings, so a number or nothing that can be a hole.
                let before = self.bytes.get(start..at)?;
                let begin = start + before.iter().rposition(|byte| !is_of_number(*byte))? + 1;
                let end = begin + self.filled(self.bytes.get(begin..)?, false)?;
                return (at <= end).then(|| hole(begin, end, false))?;
            }
            let close = open + 1 + text_bytes(self.bytes.get(open + 1..)?)?;
            if at <= close {
                let is_key = self.bytes.get(close + 1..)?.trim_ascii_start().first() == Some(&b':');
                // In damaged data a key could end with the opening quote, and the colon be in the hole.
                let before = open.checked_sub(1).and_then(|before| self.bytes.get(before));
                let is_value = !is_key && matches!(before, Some(b':' | b',' | b'[' | b' '));
                return is_value.then(|| hole(open + 1, close, true))?;
            }
            start = close + 1;
        }
    }
}

/// How much of `input` fills a hole; with `COUNTS`, if it is valid JSON and no number but a count.
#[inline(always)]
fn filled<const COUNTS: bool>(input: &[u8], is_text: bool) -> Option<usize> {
    let bytes = if is_text { text_bytes(input)? } else { number_bytes(input) };
    let is_fit = match (COUNTS, is_text) {
        (false, true) => true,
        (false, false) => bytes > 0,
        (true, true) => is_valid_text(input.get(..bytes)?),
        (true, false) => is_count(input.get(..bytes)?),
    };
    is_fit.then_some(bytes)
}

/// Whether the content of a string is valid for certain: RFC 8259 section 7.
fn is_valid_text(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        match rest.get(at + 1..) {
            Some([b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', behind @ ..]) => rest = behind,
            // With `\u`, what comes before and behind it decides.
            _ => return false,
        }
    }
    std::str::from_utf8(text).is_ok()
}

/// Whether a number is a count that no reader cuts: RFC 8259 section 6.
fn is_count(number: &[u8]) -> bool {
    (1..=15).contains(&number.len())
        && number.iter().all(u8::is_ascii_digit)
        && (number.len() == 1 || !number.starts_with(b"0"))
}

/// How long the content of a string is, up to its closing quote. `None` when that isn't there, or when there
/// is something in between that has to be looked at.
#[inline(always)]
fn text_bytes(input: &[u8]) -> Option<usize> {
    match input.first_chunk() {
        // A word, as the pieces of most answers are.
        Some(first) if input.get(special(first)) == Some(&b'"') => Some(special(first)),
        _ => any_text_bytes(input),
    }
}

#[inline(never)]
fn any_text_bytes(input: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = input.get(at..)?;
        at += rest.first_chunk().map_or_else(|| rest.iter().take_while(|byte| !is_special(**byte)).count(), special);
        match input.get(at)? {
            b'"' => return Some(at),
            b'\\' if is_usual_escape(input.get(at + 1..)?.first_chunk()?) => at += 2,
            // The bytes looked at had nothing special among them.
            byte if !is_special(*byte) => {}
            _ => return None,
        }
    }
}

/// Whether what follows a backslash is no way to write a key's character, nor ends a line.
fn is_usual_escape(behind: &[u8; 4]) -> bool {
    behind[0] >= 0x20 && !behind.starts_with(b"u00") && behind != b"\\u00"
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | ..0x20)
}

/// How many bytes come before the first that is special.
#[inline(always)]
fn special(bytes: &[u8; 16]) -> usize {
    let bytes = u8x16::new(*bytes);
    let [quote, backslash, last] = [b'"', b'\\', 0x1f].map(u8x16::splat);
    let found = bytes.simd_eq(quote) | bytes.simd_eq(backslash) | bytes.min(last).simd_eq(bytes);
    (found.to_bitmask() | 1 << 16).trailing_zeros() as usize
}

/// How many bytes of a number are at the front.
#[inline(always)]
fn number_bytes(input: &[u8]) -> usize {
    input.iter().take_while(|byte| is_of_number(**byte)).count()
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        exchange::Call,
        genai::wanted::Wanted,
        wire::sse::{Decoder, Event},
    };

    static WANTED: Wanted = Wanted::new(&["\"usage\""], &[]);

    /// What an event is: its name, and its data unless that may hold what is wanted.
    fn look(sent: &str) -> Option<(String, String)> {
        let (mut decoder, mut found) = (Decoder::default(), vec![]);
        decoder.feed(sent.as_bytes(), &mut |Event { name, data, .. }| {
            found.push((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(data).into_owned()));
        });
        assert_eq!(decoder.buffered(), 0, "{sent:?} is no whole event");
        assert_eq!(found.len(), 1, "{sent:?} is not one event");
        found.pop().filter(|(_, data)| !WANTED.is_in(data.as_bytes(), WANTED.watch(&Call::default())))
    }

    fn learn(template: &mut Template, sent: &str) {
        let (_, data) = look(sent).expect("nothing is wanted");
        template.learn(sent.as_bytes(), data.as_bytes(), sent.find(&data).unwrap(), Says::Nothing);
    }

    /// With a template of `learnt`, whether each event is like it.
    fn check(learnt: &[&str], events: &[(&str, bool)]) {
        let mut template = Template::default();
        learnt.iter().for_each(|event| learn(&mut template, event));
        for (event, alike) in events {
            let expect = alike.then_some(event.len());
            for behind in ["", "\n", "data: {}\n\n", &" ".repeat(40)] {
                assert_eq!(template.matches(format!("{event}{behind}").as_bytes()), expect, "{event:?} {template:?}");
            }
            for end in 0..event.len() {
                assert_eq!(template.matches(&event.as_bytes()[..end]), None, "{event:?} up to {end}");
            }
        }
    }

    /// An event whose data has the form that chunks of a chat have.
    fn chunk(text: &str, number: &str, key: &str) -> String {
        format!(
            "data: {{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"delta\":{{\"{key}\":\"{text}\"}},\"n\":{number}}}\n\n"
        )
    }

    #[test]
    fn events_differ_in_texts_and_numbers() {
        let text = |text: &str| chunk(text, "0", "content");
        let number = |number: &str| chunk("Hel", number, "content");
        // Nothing is known to differ yet.
        check(&[&text("Hel")], &[(&text("Hel"), true), (&text("lo"), false)]);
        let long = "x".repeat(1000);
        for learnt in
            [[text("Hel"), text("lo")], [text(""), text("lo")], [text("lo"), text("")], [text("lo"), text("long")]]
        {
            check(
                &[&learnt[0], &learnt[1]],
                &[
                    (&text(""), true),
                    (&text(" there, \\\"you\\\" \\\\ and\\n \\u2019 é"), true),
                    (&text(&long), true),
                    (&text("\\u0041"), false),
                    (&text("\\\\u0041"), false),
                    (&text("a\tb"), false),
                    (&text("a\\\tb"), false),
                    (&chunk("Hel", "1", "content"), false),
                    (&chunk("Hel", "0", "contents"), false),
                    (&text("Hel").replace("\n\n", "\r\n\r\n"), false),
                    (&format!("event: e\n{}", text("Hel")), false),
                ],
            );
        }
        check(
            &[&number("1"), &number("23"), &chunk("lo", "23", "content")],
            &[(&number("-1.5e+7"), true), (&chunk("x", "4567", "content"), true), (&number("\"1\""), false)],
        );
        // Keys and names are no values, and neither are literals.
        check(&[&chunk("a", "0", "content"), &chunk("a", "0", "usage2")], &[(&chunk("a", "0", "usage3"), false)]);
        check(&[&number("true"), &number("false")], &[(&number("false"), true), (&number("true"), false)]);
        let named = |name: &str| format!("event: {name}{{\"1\n{}", text("a"));
        check(&[&named("a"), &named("b")], &[(&named("b"), true), (&named("c"), false)]);
    }

    /// Some APIs pad their events there.
    #[test]
    fn a_text_may_be_the_last_of_an_event() {
        let padded = |padding: &str| {
            format!(
                "data: {{\"item_id\":\"msg_67c9fdcf37fc8190ba82116e33fb28c507b8b0ad4e5eb654\",\"p\":\"{padding}\"}}\n\n"
            )
        };
        check(
            &[&padded("Xc8Wq1"), &padded("abc")],
            &[
                (&padded(""), true),
                (&padded("a\\nb"), true),
                (&padded(&"x".repeat(40)), true),
                (&padded("\\u0041"), false),
            ],
        );
    }

    #[test]
    fn what_marks_an_end_is_looked_at() {
        let short = |text: &str| format!("data: {{\"type\":\"{text}\"}}\n\n");
        check(&[&short(&"a".repeat(80)), &short(&"b".repeat(80))], &[(&short("message_stop"), false)]);
        check(&[&short(&"a".repeat(80)), &short(&"b".repeat(80))], &[(&short(&"c".repeat(70)), true)]);
    }

    #[test]
    fn a_template_is_bounded() {
        let mut template = Template::default();
        learn(&mut template, &chunk("a", "0", "content"));
        learn(&mut template, &chunk(&"b".repeat(TEMPLATE_BYTES_MAX), "0", "content"));
        assert!(template.bytes.capacity() <= TEMPLATE_BYTES_MAX);
        assert!(template.matches(chunk("a", "0", "content").as_bytes()).is_some());
        template.forget();
        assert_eq!(template.matches(chunk("a", "0", "content").as_bytes()), None);
        assert_eq!(template.matches(b""), None);
        // More places differ than are noted.
        let many =
            |text: &str| format!("data: [{}]\n\n", vec![format!("\"{text}\""); 2 * TEMPLATE_HOLES_MAX].join(","));
        learn(&mut template, &many("abcdefgh"));
        learn(&mut template, &many("ijklmnop"));
        assert!(template.matches(many("ijklmnop").as_bytes()).is_some());
        assert_eq!(template.matches(many("abcdefgh").as_bytes()), None);
    }

    fn piece() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            Just("\"usage\""),
            Just("usage"),
            Just("\""),
            Just(":"),
            Just(" "),
            Just(","),
            Just("null"),
            Just("{"),
            Just("}"),
            Just("\\"),
            Just("\\\""),
            Just("\\\\"),
            Just("\\u0075"),
            Just("\\u00"),
            Just("u00"),
            Just("\"a\":\"b\""),
            Just("\"b\":12"),
            Just("7"),
            Just("-"),
            Just("e"),
            Just("true"),
            Just("\t"),
            Just("é"),
            Just("\"text\":\"some words of an answer\""),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Events that differ in some of their pieces: what is like the template says what a look at it says.
        #[test]
        fn what_is_alike_has_nothing_that_is_wanted(
            pieces in proptest::collection::vec(piece(), 4..24),
            others in proptest::collection::vec(proptest::collection::vec((0..24_usize, piece()), 0..4), 1..12),
            name in prop_oneof![Just(""), Just("event: a\n"), Just("event:{\"b\":1\n")],
        ) {
            let event = |changes: &[(usize, &'static str)]| {
                let mut pieces = pieces.clone();
                for (at, other) in changes {
                    let at = at % pieces.len();
                    pieces[at] = other;
                }
                format!("{name}data: {{\"id\":\"0123456789012345678901234567890123456789012345678901234567890123456789\",{}}}\n\n", pieces.concat())
            };
            let mut template = Template::default();
            let mut template_name = String::new();
            for changes in &others {
                let event = event(changes);
                let found = look(&event);
                if let Some(bytes) = template.matches(event.as_bytes()) {
                    prop_assert_eq!(bytes, event.len());
                    let (name, _) = found.expect("nothing is wanted of what is alike");
                    prop_assert_eq!(&name, &template_name);
                } else if let Some((name, data)) = found {
                    template.learn(event.as_bytes(), data.as_bytes(), event.find("data: ").unwrap() + 6, Says::Nothing);
                    prop_assert_eq!(template.matches(event.as_bytes()), Some(event.len()));
                    template_name = name;
                }
            }
        }
    }
}
