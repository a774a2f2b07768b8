//! Server-Sent Events (WHATWG HTML, section 9.2 "Server-sent events"), of any size in any pieces.
//!
//! ```text
//! for each line (ending in CR, LF or CRLF):
//!     empty        → hand on the event, if it had data
//!     ":comment"   → nothing
//!     "name: text" → note the text under the name; more data is joined with LF
//! ```
//!
//! The usual event lies whole in one piece with one line of data: those are handed on in a loop of
//! their own, of one search each. Of others, texts are noted as slices of the input; only what a piece
//! leaves unfinished is copied.

use memchr::{memchr, memchr2};

use crate::limits::{STREAM_BUFFER_KEPT_BYTES, STREAM_EVENT_BYTES_MAX};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event` field; empty when there was none, which means `message`.
    pub name: &'a [u8],
    /// The `data` fields, joined with LF.
    pub data: &'a [u8],
    /// The `id` field of this event.
    pub id: Option<&'a [u8]>,
}

/// Receives the events of a stream.
pub trait Sink {
    /// An event.
    fn event(&mut self, event: Event<'_>);
    /// An event that lies whole in the input, as `sent` with the line ends behind it, and its data in one
    /// piece at `data_at`.
    fn whole(&mut self, event: Event<'_>, _sent: &[u8], _data_at: usize) {
        self.event(event);
    }
    /// An event begins at the front of `input`. How many bytes of it are whole events, each with the line
    /// ends behind it, that don't have to be cut out, because they were taken here.
    fn taken(&mut self, _input: &[u8]) -> usize {
        0
    }
}

/// A closure as a sink.
struct Each<F>(F);

impl<F: FnMut(Event<'_>)> Sink for Each<F> {
    fn event(&mut self, event: Event<'_>) {
        self.0(event);
    }
}

/// Cuts a stream into events.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The line so far, when it comes in pieces.
    line: Vec<u8>,
    /// The event so far, when it comes in pieces or has more than one line of data.
    event: Owned,
    /// The last line ended in CR, so an LF that follows belongs to it.
    after_cr: bool,
    /// Bytes of the byte order mark that were there, until the first other byte.
    mark: Mark,
    /// The event under way is too long or was hit by a gap: it is dropped.
    skipping: bool,
    /// Bytes are missing between an event and what comes next.
    after_gap: bool,
    skipped: u64,
}

#[derive(Clone, Copy, Debug)]
enum Mark {
    Matched(usize),
    Past,
}

impl Default for Mark {
    fn default() -> Self {
        Mark::Matched(0)
    }
}

/// Texts that were copied.
#[derive(Debug, Default)]
struct Owned {
    name: Option<Vec<u8>>,
    data: Option<Vec<u8>>,
    id: Option<Vec<u8>>,
    /// Buffers for the next ones.
    spare: Vec<Vec<u8>>,
}

/// Texts that lie in the input; each takes the place of the copied one.
#[derive(Default)]
struct Borrowed<'a> {
    name: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
}

impl Decoder {
    /// Bytes held back.
    pub fn buffered(&self) -> usize {
        self.line.len() + self.event.bytes()
    }

    /// Events that were dropped since the last call: hit by a gap, or longer than
    /// [`STREAM_EVENT_BYTES_MAX`] while coming in pieces.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, input: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        self.feed_sink(input, &mut Each(on_event));
    }

    /// What comes next begins an event, and nothing of one has been seen.
    #[inline]
    pub fn is_between_events(&self) -> bool {
        matches!(self.mark, Mark::Past) && !self.after_gap && self.is_fresh()
    }

    /// Takes the next bytes for a sink.
    pub fn feed_sink(&mut self, mut input: &[u8], sink: &mut impl Sink) {
        if let Mark::Matched(_) = self.mark {
            input = self.skip_mark(input);
        }
        if std::mem::take(&mut self.after_gap) && begins_event(input) {
            self.line.clear();
            self.skipping = false;
        }
        let mut here = Borrowed::default();
        while !input.is_empty() {
            if self.is_fresh() && here.is_empty() {
                input = take_usual(input, sink);
                if input.is_empty() {
                    break;
                }
            }
            if std::mem::take(&mut self.after_cr) && input[0] == b'\n' {
                input = &input[1..];
                continue;
            }
            let Some(at) = memchr2(b'\r', b'\n', input) else {
                self.keep_line(input);
                break;
            };
            let line = &input[..at];
            self.after_cr = input[at] == b'\r';
            input = &input[at + 1..];
            if self.line.is_empty() {
                self.take_line(line, &mut here, sink);
            } else {
                self.keep_line(line);
                self.take_kept_line(sink);
            }
        }
        if !here.is_empty() {
            self.keep_event(here);
        }
    }

    /// Bytes are missing here: the event that they were in is dropped. When they begin between two
    /// events, and what comes next begins like one, then whole events were lost and no more.
    pub fn gap(&mut self) {
        self.after_gap |= self.buffered() == 0 && !self.skipping;
        self.mark = Mark::Past;
        self.after_cr = false;
        // The loss is taken to be inside a line: what comes next is the rest of that line.
        self.line.push(b':');
        self.skip();
    }

    /// The stream ended. An event without the empty line that ends it is handed on too, though the
    /// specification drops it: a stream that was cut off often ends in one. The decoder is new
    /// again afterwards.
    pub fn finish(&mut self, on_event: &mut impl FnMut(Event<'_>)) {
        let sink = &mut Each(on_event);
        if !self.line.is_empty() {
            self.take_kept_line(sink);
        }
        self.take_line(&[], &mut Borrowed::default(), sink);
        self.after_cr = false;
        self.after_gap = false;
        self.mark = Mark::default();
    }

    /// Nothing of an event has been seen.
    #[inline]
    fn is_fresh(&self) -> bool {
        self.line.is_empty() && !self.after_cr && !self.skipping && self.event.is_empty()
    }

    fn skip_mark<'a>(&mut self, mut input: &'a [u8]) -> &'a [u8] {
        while let (Mark::Matched(matched), Some((&byte, rest))) = (self.mark, input.split_first()) {
            if BYTE_ORDER_MARK.get(matched) == Some(&byte) {
                self.mark = Mark::Matched(matched + 1);
                input = rest;
            } else {
                self.mark = Mark::Past;
                if matched < BYTE_ORDER_MARK.len() {
                    self.keep_line(&BYTE_ORDER_MARK[..matched]);
                }
            }
        }
        input
    }

    /// A whole line that lies in the input.
    fn take_line<'a>(&mut self, line: &'a [u8], here: &mut Borrowed<'a>, sink: &mut impl Sink) {
        if line.is_empty() {
            return self.dispatch(std::mem::take(here), sink);
        }
        if self.skipping {
            return;
        }
        let colon = memchr(b':', line).unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"data" => match here.data.or(self.event.data.as_deref()) {
                None => here.data = Some(value),
                Some(_) => {
                    self.keep_event(std::mem::take(here));
                    self.append_data(value);
                }
            },
            b"event" => here.name = Some(value),
            b"id" if memchr(0, value).is_none() => here.id = Some(value),
            // A comment (an empty name), `retry`, or a field that has no meaning.
            _ => {}
        }
    }

    /// A whole line that was put together in the buffer.
    fn take_kept_line(&mut self, sink: &mut impl Sink) {
        let mut line = std::mem::take(&mut self.line);
        let mut here = Borrowed::default();
        self.take_line(&line, &mut here, sink);
        self.keep_event(here);
        line.clear();
        line.shrink_to(STREAM_BUFFER_KEPT_BYTES);
        self.line = line;
    }

    fn dispatch(&mut self, here: Borrowed<'_>, sink: &mut impl Sink) {
        if !std::mem::take(&mut self.skipping)
            && let Some(data) = here.data.or(self.event.data.as_deref())
        {
            let name = here.name.or(self.event.name.as_deref()).unwrap_or_default();
            sink.event(Event { name, data, id: here.id.or(self.event.id.as_deref()) });
        }
        self.event.clear();
    }

    /// Copies what of the event lies in the input, because the input ends or more data comes.
    fn keep_event(&mut self, here: Borrowed<'_>) {
        if [here.name, here.data, here.id].into_iter().flatten().any(|text| text.len() > STREAM_EVENT_BYTES_MAX) {
            return self.skip();
        }
        let parts =
            [(&mut self.event.name, here.name), (&mut self.event.data, here.data), (&mut self.event.id, here.id)];
        for (owned, text) in parts {
            let Some(text) = text else { continue };
            let mut kept = owned.take().or_else(|| self.event.spare.pop()).unwrap_or_default();
            kept.clear();
            kept.extend_from_slice(text);
            *owned = Some(kept);
        }
        self.check_bound();
    }

    fn append_data(&mut self, value: &[u8]) {
        if let Some(data) = &mut self.event.data
            && data.len() + 1 + value.len() <= STREAM_EVENT_BYTES_MAX
        {
            data.push(b'\n');
            data.extend_from_slice(value);
            self.check_bound();
        } else {
            self.skip();
        }
    }

    /// The start or the middle of a line whose end isn't there yet, or the rest of one.
    fn keep_line(&mut self, bytes: &[u8]) {
        // Of a line that is dropped one byte stays, to tell it from the empty line.
        let bytes = if self.skipping { &bytes[..bytes.len().min(1 - self.line.len().min(1))] } else { bytes };
        if self.line.len() + bytes.len() > STREAM_EVENT_BYTES_MAX {
            self.line.push(b':');
            return self.skip();
        }
        self.line.extend_from_slice(bytes);
        self.check_bound();
    }

    fn check_bound(&mut self) {
        if self.buffered() > STREAM_EVENT_BYTES_MAX {
            self.skip();
        }
    }

    /// Drops everything up to the next empty line.
    fn skip(&mut self) {
        if !self.skipping {
            self.skipped += 1;
        }
        self.skipping = true;
        self.event.clear();
        // One byte stays of a line that is under way, to tell its rest from an empty line.
        self.line.truncate(1);
        self.line.shrink_to(STREAM_BUFFER_KEPT_BYTES);
    }
}

/// Hands on the events at the front that lie whole in the input, as nearly all do, with one line of
/// data and a name before it at the most. Returns what comes behind them.
fn take_usual<'a>(mut input: &'a [u8], sink: &mut impl Sink) -> &'a [u8] {
    loop {
        input = input.get(sink.taken(input)..).unwrap_or_default();
        let Some((event, data_at, rest)) = usual(input) else { return input };
        sink.whole(event, &input[..input.len() - rest.len()], data_at);
        input = rest;
    }
}

/// The event at the front, where its data begins, and the rest behind it.
#[inline(always)]
fn usual(input: &[u8]) -> Option<(Event<'_>, usize, &[u8])> {
    let (name, rest) = match input.strip_prefix(b"event:") {
        None => (&b""[..], input),
        Some(named) => {
            let (name, rest) = line(named)?;
            (name, rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n"))?)
        }
    };
    let (data, rest) = line(rest.strip_prefix(b"data:")?)?;
    let data_at = input.len() - rest.len() - data.len();
    let rest = rest.strip_prefix(b"\n\n").or_else(|| rest.strip_prefix(b"\r\n\r\n"))?;
    Some((Event { name, data, id: None }, data_at, rest))
}

/// A field's value up to the line's end, and the rest from there on.
#[inline(always)]
fn line(from: &[u8]) -> Option<(&[u8], &[u8])> {
    let value = from.strip_prefix(b" ").unwrap_or(from);
    value.split_at_checked(memchr2(b'\r', b'\n', value)?)
}

/// Servers write an event at once, so what is captured of a stream usually begins with one.
fn begins_event(input: &[u8]) -> bool {
    [&b"data:"[..], b"event:", b"id:"].iter().any(|field| input.starts_with(field))
}

impl Borrowed<'_> {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.data.is_none() && self.id.is_none()
    }
}

impl Owned {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.data.is_none() && self.id.is_none()
    }

    fn bytes(&self) -> usize {
        [&self.name, &self.data, &self.id].into_iter().flatten().map(Vec::len).sum()
    }

    fn clear(&mut self) {
        for mut text in [self.name.take(), self.data.take(), self.id.take()].into_iter().flatten() {
            text.shrink_to(STREAM_BUFFER_KEPT_BYTES);
            self.spare.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> String {
        bytes.escape_ascii().to_string()
    }

    fn events(pieces: &[&[u8]]) -> Vec<(String, String, Option<String>)> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        let mut on_event = |event: Event<'_>| events.push((text(event.name), text(event.data), event.id.map(text)));
        for piece in pieces {
            decoder.feed(piece, &mut on_event);
        }
        decoder.finish(&mut on_event);
        assert_eq!((decoder.buffered(), decoder.take_skipped()), (0, 0));
        events
    }

    /// The specification, word by word, on the whole text.
    fn oracle(input: &str) -> Vec<(String, String, Option<String>)> {
        let input = input.strip_prefix('\u{feff}').unwrap_or(input);
        let input = input.replace("\r\n", "\n").replace('\r', "\n");
        let mut events = Vec::new();
        let (mut name, mut data, mut id) = (String::new(), None::<String>, None);
        for line in input.split('\n').chain([""]) {
            if line.is_empty() {
                if let Some(data) = data.take() {
                    events.push((text(name.as_bytes()), text(data.as_bytes()), id.take()));
                }
                (name, id) = (String::new(), None);
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => data = Some(data.map_or(value.to_owned(), |before| before + "\n" + value)),
                "event" => name = value.to_owned(),
                "id" if !value.contains('\0') => id = Some(text(value.as_bytes())),
                _ => {}
            }
        }
        events
    }

    fn check(input: &str, expect: &[(&str, &str, Option<&str>)]) {
        let expect: Vec<_> =
            expect.iter().map(|(name, data, id)| ((*name).into(), (*data).into(), id.map(String::from))).collect();
        assert_eq!(oracle(input), expect, "the oracle");
        for at in 0..=input.len() {
            let (a, b) = input.as_bytes().split_at(at);
            assert_eq!(events(&[a, b]), expect, "cut at {at}");
        }
        let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
        assert_eq!(events(&bytes), expect, "byte by byte");
    }

    #[test]
    fn events_as_providers_send_them() {
        check("data: {\"a\":1}\n\ndata: [DONE]\n\n", &[("", r#"{\"a\":1}"#, None), ("", "[DONE]", None)]);
        check(
            "event: message_start\r\ndata: {}\r\n\r\nevent: ping\r\ndata: {}\r\n\r\n",
            &[("message_start", "{}", None), ("ping", "{}", None)],
        );
        check(": keep-alive\n\nid: 1\ndata:x\n\n", &[("", "x", Some("1"))]);
    }

    #[test]
    fn events_as_the_specification_allows_them() {
        check("\u{feff}data: a\ndata\ndata:  b\n\n", &[("", r"a\n\n b", None)]);
        check("data: a\r\revent: n\rdata: b\r\n\r", &[("", "a", None), ("n", "b", None)]);
        check("event: lost\n\ndata: b\n\n", &[("", "b", None)]);
        check("data\n\ndata:\n\ndatum: x\n\nretry: 3\n\n", &[("", "", None), ("", "", None)]);
        check("event: a\nevent: b\nid: 1\nid: \0\nid\ndata: c\n\n", &[("b", "c", Some(""))]);
    }

    #[test]
    fn an_event_without_its_end_comes_at_the_end() {
        check("data: a\n\ndata: {\"cut", &[("", "a", None), ("", r#"{\"cut"#, None)]);
        check("event: e\ndata: a\n", &[("e", "a", None)]);
    }

    #[test]
    fn the_usual_event_is_not_copied() {
        let input = b"event: delta\ndata: {\"text\":\"hello\"}\n\n";
        let mut decoder = Decoder::default();
        decoder.feed(input, &mut |event| {
            assert!(input.as_ptr_range().contains(&event.data.as_ptr()));
            assert!(input.as_ptr_range().contains(&event.name.as_ptr()));
        });
        assert_eq!(decoder.buffered(), 0);
    }

    fn skip(pieces: &[&[u8]], gap_after: usize) -> (Vec<String>, u64) {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            decoder.feed(piece, &mut |event| seen.push(text(event.data)));
            assert!(decoder.buffered() <= STREAM_EVENT_BYTES_MAX);
            if index == gap_after {
                decoder.gap();
            }
        }
        decoder.finish(&mut |event| seen.push(text(event.data)));
        (seen, decoder.take_skipped())
    }

    #[test]
    fn an_event_that_is_too_long_is_skipped_and_told() {
        let half = vec![b'x'; STREAM_EVENT_BYTES_MAX / 2 + 1];
        let none = usize::MAX;
        let one_line: [&[u8]; 5] = [b"data: a\n\ndata: ", &half, &half, &half, b"\ndata: b\n\ndata: c\n\n"];
        assert_eq!(skip(&one_line, none), (vec!["a".into(), "c".into()], 1));
        let lines: [&[u8]; 7] = [b"data: ", &half, b"\n", b"data: ", &half, b"\n", b"\ndata: c\n\n"];
        assert_eq!(skip(&lines, none), (vec!["c".into()], 1));
        let whole = [b"data: ".as_slice(), &half, b"\ndata: ", &half, b"\n"].concat();
        assert_eq!(skip(&[&whole, b"\ndata: c\n\n"], none), (vec!["c".into()], 1));
        let whole = [b"data: ".as_slice(), &half, &half, b"\n"].concat();
        assert_eq!(skip(&[&whole, b"\ndata: c\n\n"], none), (vec!["c".into()], 1));
    }

    #[test]
    fn a_gap_costs_the_event_it_is_in() {
        assert_eq!(skip(&[b"data: a\n\ndata: b", b"b\n\ndata: c\n\n"], 0), (vec!["a".into(), "c".into()], 1));
        assert_eq!(skip(&[b"data: a\n\ndata: b", b"\n\ndata: c"], 0), (vec!["a".into(), "c".into()], 1));
        assert_eq!(skip(&[b"data: a", b"event: x"], 0), (vec![], 1));
        // Between two events, whole ones are missing.
        assert_eq!(skip(&[b"data: a\n\n", b"data: c\n\n"], 0), (vec!["a".into(), "c".into()], 1));
        assert_eq!(skip(&[b"data: a\n\n", b"c\n\ndata: d\n\n"], 0), (vec!["a".into(), "d".into()], 1));
        assert_eq!(skip(&[b"data: a\n", b"data: b\n\ndata: c\n\n"], 0), (vec!["c".into()], 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_split_is_what_the_specification_says(
            pieces in proptest::collection::vec("(\u{feff}|data|event|id|:|: |\n|\r|\r\n|\n\n|x){0,6}", 0..8),
        ) {
            let whole = pieces.concat();
            let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            prop_assert_eq!(events(&pieces), oracle(&whole));
        }

        #[test]
        fn hostile_bytes_never_panic(steps in proptest::collection::vec((any::<Vec<u8>>(), any::<bool>()), 0..8)) {
            let mut decoder = Decoder::default();
            for (bytes, lost) in steps {
                decoder.feed(&bytes, &mut |_| {});
                if lost {
                    decoder.gap();
                }
            }
            decoder.finish(&mut |_| {});
            prop_assert_eq!(decoder.buffered(), 0);
        }
    }
}
