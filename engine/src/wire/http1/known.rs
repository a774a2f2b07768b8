//! Heads that differ from one before them only in the values of fields: read without being parsed.
//!
//! ```text
//! HTTP/1.1 200 OK␍␊date: Mon, 01 Jan 2035 00:00:00 GMT␍␊content-type: application/json␍␊content-length: 812␍␊␍␊
//! HTTP/1.1 200 OK␍␊date: Mon, 01 Jan 2035 00:00:07 GMT␍␊content-type: application/json␍␊content-length: 1024␍␊␍␊
//! ─── the same ───────────────────────────────── ┴─ its line's end ─ the same ─────────────────────── ┴─
//! ```
//!
//! A client sends the same head each time, and so does a server, but for dates, lengths and ids. So heads that
//! were parsed are kept, and the next one is compared with them. Where it differs inside of a field's value,
//! that value is read to the end of its line and judged as the parser judges it; then the comparison goes on
//! behind it. Whatever else differs, or isn't there yet, is parsed.

use wide::u8x16;

use super::{
    super::span::Span,
    Side,
    head::{HeadParser, StartLine},
};
use crate::limits::{HEAD_BYTES_MAX, HEAD_KNOWN_BYTES_MAX, HEADS_KNOWN_MAX, HEADS_TRIED_MAX};

/// Of heads in a row that are like none beyond [`HEADS_KNOWN_MAX`], one in so many is kept.
const KEPT_EVERY: usize = 16;

/// Fields whose values are secrets, which are not kept.
const SECRETS: [&[u8]; 8] = [
    b"authorization",
    b"proxy-authorization",
    b"cookie",
    b"set-cookie",
    b"x-api-key",
    b"api-key",
    b"x-goog-api-key",
    b"x-amz-security-token",
];

/// Heads of all connections of a worker.
#[derive(Debug, Default)]
pub struct Heads {
    requests: Kept,
    responses: Kept,
}

/// Heads of one side, the last one that was seen first.
#[derive(Debug, Default)]
struct Kept {
    heads: Vec<Head>,
    /// Heads that were like none since the last one that was.
    misses: usize,
}

/// A head that was parsed.
#[derive(Debug, Default)]
struct Head {
    /// Its bytes, without the values that are secrets.
    text: Vec<u8>,
    start_line: Option<StartLine>,
    fields: Vec<(Span, Span)>,
}

impl Heads {
    fn of(&mut self, side: Side) -> &mut Kept {
        match side {
            Side::Requests => &mut self.requests,
            Side::Responses => &mut self.responses,
        }
    }

    /// Reads the head at the front of `input` into `parser`, which is at its start, if a head like it was
    /// kept. Returns how long it is.
    pub(super) fn read(&mut self, input: &[u8], parser: &mut HeadParser) -> Option<usize> {
        let kept = self.of(parser.side());
        let tried = kept.heads.iter().take(HEADS_TRIED_MAX);
        let (at, bytes) = tried.enumerate().find_map(|(at, head)| Some((at, head.read(input, parser)?)))?;
        kept.heads.swap(0, at);
        kept.misses = 0;
        Some(bytes)
    }

    /// Keeps `head`, which `parser` has read.
    pub(super) fn keep(&mut self, head: &[u8], parser: &HeadParser) {
        let kept = self.of(parser.side());
        kept.misses += 1;
        let is_wanted = kept.misses <= HEADS_KNOWN_MAX || kept.misses.is_multiple_of(KEPT_EVERY);
        if !is_wanted || head.len() > HEAD_KNOWN_BYTES_MAX || parser.has_bare_line_feeds() {
            return;
        }
        let oldest = if kept.heads.len() < HEADS_KNOWN_MAX { None } else { kept.heads.pop() };
        let mut known = oldest.unwrap_or_default();
        known.become_like(head, parser);
        kept.heads.insert(0, known);
    }
}

impl Head {
    fn become_like(&mut self, head: &[u8], parser: &HeadParser) {
        self.text.clear();
        self.fields.clear();
        self.start_line = Some(parser.start_line());
        let mut copied = 0;
        for &(name, value) in parser.fields() {
            let cut = copied - self.text.len();
            let is_secret = SECRETS.iter().any(|secret| name.of(head).eq_ignore_ascii_case(secret));
            let until = if is_secret { value.start() } else { value.end() };
            self.text.extend_from_slice(head.get(copied..until).unwrap_or_default());
            copied = value.end();
            let value = Span::new(value.start() - cut, until - value.start());
            self.fields.push((Span::new(name.start() - cut, name.len()), value));
        }
        self.text.extend_from_slice(head.get(copied..).unwrap_or_default());
    }

    fn read(&self, input: &[u8], parser: &mut HeadParser) -> Option<usize> {
        let bytes = self.read_fields(input, parser.fields_mut());
        match bytes {
            Some(_) => parser.is_read(self.start_line?),
            None => parser.fields_mut().clear(),
        }
        bytes
    }

    fn read_fields(&self, input: &[u8], fields: &mut Vec<(Span, Span)>) -> Option<usize> {
        let mut known = self.fields.iter();
        // Both texts are the same so far, but for values.
        let (mut at, mut known_at) = (0, 0);
        loop {
            let (rest, known_rest) = (input.get(at..)?, self.text.get(known_at..)?);
            let same = common_bytes(rest, known_rest);
            // What is here at `at` is there at `known_at`.
            let moved = |span: Span| Span::new(span.start() + at - known_at, span.len());
            let differs_at = known_at + same;
            if same == known_rest.len() {
                fields.extend(known.map(|(name, value)| (moved(*name), moved(*value))));
                return Some(at + same).filter(|bytes| *bytes <= HEAD_BYTES_MAX);
            }
            let (name, value) = loop {
                let (name, value) = known.next()?;
                if value.end() >= differs_at {
                    break (*name, *value);
                }
                fields.push((moved(*name), moved(*value)));
            };
            // Its name or what is before it.
            let inside = differs_at.checked_sub(value.start())?;
            let start = at + same - inside;
            // What is before that place is in the value that was judged already.
            let line = input.get(start..at + same + line_bytes(input.get(at + same..)?)?)?;
            if [line.first(), line.last()].into_iter().flatten().any(u8::is_ascii_whitespace) {
                return None;
            }
            fields.push((moved(name), Span::new(start, line.len())));
            (at, known_at) = (start + line.len(), value.end());
        }
    }
}

/// How long the line is that `text` begins with, if it ends in CRLF and may be the end of a value.
#[inline]
fn line_bytes(text: &[u8]) -> Option<usize> {
    let (blocks, rest) = text.as_chunks::<16>();
    let in_block = |(place, block): (usize, &[u8; 16])| {
        let block = u8x16::new(*block);
        let [feed, carriage, nul] = [b'\n', b'\r', 0].map(|byte| block.simd_eq(u8x16::splat(byte)));
        let ends = (feed | carriage | nul).to_bitmask();
        (ends != 0).then(|| place * 16 + ends.trailing_zeros() as usize)
    };
    let in_rest = || rest.iter().position(|byte| matches!(byte, b'\n' | b'\r' | 0)).map(|at| blocks.len() * 16 + at);
    let end = blocks.iter().enumerate().find_map(in_block).or_else(in_rest)?;
    text.get(end..)?.starts_with(b"\r\n").then_some(end)
}

/// How many bytes at their front two texts have in common.
#[inline]
fn common_bytes(one: &[u8], other: &[u8]) -> usize {
    let ((ones, _), (others, _)) = (one.as_chunks::<16>(), other.as_chunks::<16>());
    let mut same = 0;
    for (one, other) in ones.iter().zip(others) {
        let differ = !u8x16::new(*one).simd_eq(u8x16::new(*other)).to_bitmask() & 0xffff;
        if differ != 0 {
            return same + differ.trailing_zeros() as usize;
        }
        same += 16;
    }
    let rest = one.iter().zip(other).skip(same);
    same + rest.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::head::Step, *};

    const REQUEST: &str = "POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com\r\nX-Api-Key: secret\r\nempty:\r\n\
        Content-Length: 99\r\nContent-Type: application/json \r\ntraceparent:  00-0af7\r\nx-a: b\r\n\r\n";
    const RESPONSE: &str = "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2035\r\nContent-Length : 1024\r\n\
        Set-Cookie: a=b\r\nconnection: keep-alive\r\n\r\n";

    fn parse(side: Side, input: &[u8]) -> Option<(usize, String)> {
        let mut parser = HeadParser::new(side);
        let Ok(Step::Done { bytes }) = parser.advance(input) else { return None };
        Some((bytes, told(&parser)))
    }

    fn told(parser: &HeadParser) -> String {
        format!("{:?} {:?} {}", parser.start_line(), parser.fields(), parser.has_bare_line_feeds())
    }

    /// What is read of `input` without parsing it is what a parser finds. Tells whether anything is.
    fn check(side: Side, heads: &mut Heads, input: &[u8]) -> bool {
        let mut parser = HeadParser::new(side);
        let Some(bytes) = heads.read(input, &mut parser) else {
            assert!(parser.fields().is_empty());
            return false;
        };
        assert_eq!(Some((bytes, told(&parser))), parse(side, input), "{}", input.escape_ascii());
        true
    }

    fn knowing(side: Side, head: &str) -> Heads {
        let (mut heads, mut parser) = (Heads::default(), HeadParser::new(side));
        assert!(matches!(parser.advance(head.as_bytes()), Ok(Step::Done { bytes }) if bytes == head.len()));
        heads.keep(head.as_bytes(), &parser);
        heads
    }

    #[test]
    fn a_head_that_differs_at_any_byte_is_read_as_it_is_parsed() {
        for (side, known) in [(Side::Requests, REQUEST), (Side::Responses, RESPONSE)] {
            let mut heads = knowing(side, known);
            let mut read = 0;
            for at in 0..=known.len() {
                let (before, rest) = known.as_bytes().split_at(at);
                for change in [&b""[..], b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b"\x0c", b":", b"a", b"7", b"\xff"]
                {
                    for replaced in [0, 1, 2] {
                        let rest = rest.get(replaced..).unwrap_or_default();
                        read += usize::from(check(side, &mut heads, &[before, change, rest, b"{body"].concat()));
                    }
                }
                // What is there of a head that comes in pieces is never all of it.
                assert!(at == known.len() || !check(side, &mut heads, before));
            }
            assert!(read > 500, "{read}");
        }
    }

    #[test]
    fn only_values_may_differ() {
        for (of_requests, was, is, expect) in [
            (true, "99", "100", true),
            (true, "99", "", true),
            (true, "empty:", "empty:full", true),
            (true, "secret", "another", true),
            (true, "secret", "", true),
            (true, "99", " 99", false),
            (true, "99", "99 ", false),
            (true, "99", "9\r9", false),
            (true, "Content-Length", "content-length", false),
            (true, "x-a: b\r\n", "", false),
            (true, "x-a: b\r\n", "x-a: b\r\nx-b: c\r\n", false),
            (true, "x-a: b\r\n", "x-a: b\r\n c\r\n", false),
            (true, "x-a: b\r\n", "x-a: b\n", false),
            (true, "messages", "message", false),
            (false, "2035", "2036, 00:00:00 GMT", true),
            (false, "200", "500", false),
        ] {
            let (side, known) = if of_requests { (Side::Requests, REQUEST) } else { (Side::Responses, RESPONSE) };
            let head = known.replacen(was, is, 1);
            assert_eq!(check(side, &mut knowing(side, known), head.as_bytes()), expect, "{was} {is}");
        }
    }

    #[test]
    fn secrets_are_not_kept() {
        for (side, head, secret) in [(Side::Requests, REQUEST, "secret"), (Side::Responses, RESPONSE, "a=b")] {
            let mut heads = knowing(side, head);
            let text = &heads.of(side).heads[0].text;
            assert_eq!(text.len(), head.len() - secret.len());
            assert!(memchr::memmem::find(text, secret.as_bytes()).is_none());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever heads were seen before.
        #[test]
        fn what_is_read_is_what_is_parsed(
            heads in proptest::collection::vec((0..3_usize, "[a-z]{0,3}", "( ?[a-z0-9]{0,40} ?\r?)", 0..3_usize), 1..60)
        ) {
            let mut known = Heads::default();
            for (kind, name, value, count) in heads {
                let fields = format!("Host:{value}\r\n{name}: {value}\r\nAuthorization: {value}\r\n");
                let start = ["POST / HTTP/1.1", "GET /a HTTP/1.1", "POST / HTTP/1.1"][kind];
                let head = format!("{start}\r\n{}x: {value}\r\n\r\n", fields.repeat(count));
                let side = Side::Requests;
                if !check(side, &mut known, head.as_bytes()) {
                    let mut parser = HeadParser::new(side);
                    if let Ok(Step::Done { bytes }) = parser.advance(head.as_bytes()) {
                        known.keep(&head.as_bytes()[..bytes], &parser);
                    }
                }
            }
        }
    }
}
