use flate2::{Compress, Compression, FlushCompress, Status};
use proptest::prelude::*;

use super::*;

/// What a decoder said.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    messages: Vec<(Kind, Vec<u8>)>,
    lost: Vec<u64>,
    closed: Option<Option<u16>>,
}

impl Sink for Said {
    fn message(&mut self, kind: Kind, payload: &[u8]) {
        assert_eq!(self.closed, None);
        self.messages.push((kind, payload.to_vec()));
    }

    fn lost(&mut self, bytes: u64) {
        self.lost.push(bytes);
    }

    fn close(&mut self, code: Option<u16>) {
        assert_eq!(self.closed, None);
        self.closed = Some(code);
    }
}

/// A naive writer of frames.
struct Writer {
    mask: Option<[u8; 4]>,
    /// With it, whether messages refer to earlier ones.
    compress: Option<(Compress, bool)>,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(masks: bool, takes_over: Option<bool>) -> Self {
        let compress = takes_over.map(|takes_over| (Compress::new(Compression::default(), false), takes_over));
        Self { mask: masks.then_some([0x12, 0, 0xfe, 0x80]), compress, bytes: vec![] }
    }

    fn frame(&mut self, first: u8, payload: &[u8]) {
        self.bytes.push(first);
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..126 => self.bytes.push(masked | length as u8),
            length @ 126..65_536 => {
                self.bytes.push(masked | 126);
                self.bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                self.bytes.push(masked | 127);
                self.bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        self.bytes.extend_from_slice(self.mask.as_ref().map_or(&[], |mask| &mask[..]));
        let mask = self.mask.unwrap_or_default();
        self.bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    }

    fn compressed(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let (compress, takes_over) = self.compress.as_mut()?;
        let mut out = Vec::with_capacity(payload.len() * 2 + 1_000);
        let status = compress.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
        assert_eq!(status, Status::Ok);
        assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
        out.truncate(out.len() - 4);
        if !*takes_over {
            compress.reset();
        }
        Some(out)
    }

    /// A message in frames that end at `cuts`, with a ping after each of them.
    fn message(&mut self, kind: Kind, payload: &[u8], compress: bool, cuts: &[usize]) {
        let compressed = if compress { self.compressed(payload) } else { None };
        let mut first = if kind == Kind::Text { 1 } else { 2 } | if compressed.is_some() { 0x40 } else { 0 };
        let mut payload = compressed.as_deref().unwrap_or(payload);
        for &cut in cuts {
            let (here, rest) = payload.split_at(cut.min(payload.len()));
            self.frame(first, here);
            self.frame(0x89, b"are you there?");
            first = 0;
            payload = rest;
        }
        self.frame(first | 0x80, payload);
    }
}

fn extensions(takes_over: Option<bool>) -> Extensions {
    let deflate = takes_over.map(|both| deflate::Deflate { client_takes_over: both, server_takes_over: both });
    Extensions { deflate }
}

fn decoder(masks: bool, takes_over: Option<bool>) -> Decoder {
    let extensions = extensions(takes_over);
    if masks { Decoder::client(&extensions) } else { Decoder::server(&extensions) }
}

fn check(masks: bool, takes_over: Option<bool>, bytes: &[u8], expect: Result<&Said, Malformed>) {
    for piece in [bytes.len().max(1), 1, 2, 3, 13] {
        let (mut decoder, mut said) = (decoder(masks, takes_over), Said::default());
        let result = bytes.chunks(piece).try_for_each(|piece| decoder.feed(piece, &mut said));
        assert_eq!(result.as_ref().map(|()| &said), expect.as_ref().copied(), "in pieces of {piece}");
        if let Err(error) = result {
            assert_eq!(decoder.feed(b"more", &mut said), Err(error));
        }
    }
}

/// The examples of RFC 6455 section 5.7 and RFC 7692 section 7.2.3.
#[test]
fn examples_of_the_rfcs() {
    let hello = Said { messages: vec![(Kind::Text, b"Hello".to_vec())], ..Said::default() };
    check(false, None, b"\x81\x05Hello", Ok(&hello));
    check(true, None, b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", Ok(&hello));
    check(false, None, b"\x01\x03Hel\x80\x02lo", Ok(&hello));
    check(false, None, b"\x01\x03Hel\x89\x05Hello\x80\x02lo", Ok(&hello));
    let twice = Said { messages: [&hello.messages[..], &hello.messages].concat(), ..Said::default() };
    check(false, Some(true), b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00", Ok(&hello));
    check(false, Some(true), b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00", Ok(&hello));
    // The same again refers to the first one.
    check(false, Some(true), b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\xc1\x05\xf2\x00\x11\x00\x00", Ok(&twice));
    // A block without compression, and one that is marked as the last.
    check(false, Some(true), b"\xc1\x0b\x00\x05\x00\xfa\xffHello\x00", Ok(&hello));
    check(false, Some(true), b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00", Ok(&hello));
    // Two blocks in one message.
    let two = b"\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00";
    check(false, Some(true), two, Ok(&hello));
}

#[test]
fn what_breaks_the_rules_ends_the_reading() {
    check(false, None, b"\xc1\x00", Err(Malformed::Reserved));
    check(false, None, b"\x91\x00", Err(Malformed::Reserved));
    check(false, Some(true), b"\x41\x00\xc0\x00", Err(Malformed::Reserved));
    check(false, None, b"\x83\x00", Err(Malformed::Opcode));
    check(false, None, b"\x8b\x00", Err(Malformed::Opcode));
    check(true, None, b"\x81\x00", Err(Malformed::Mask));
    check(false, None, b"\x81\x80\0\0\0\0", Err(Malformed::Mask));
    check(false, None, b"\x82\x7f\x80\0\0\0\0\0\0\0", Err(Malformed::Length));
    check(false, None, b"\x09\x00", Err(Malformed::Control));
    check(false, None, b"\x89\x7e\0\x7e", Err(Malformed::Control));
    check(false, None, b"\x80\x00", Err(Malformed::Fragment));
    check(false, None, b"\x01\x00\x81\x00", Err(Malformed::Fragment));
    check(false, Some(true), b"\xc1\x02\xff\xff", Err(Malformed::Deflate));
}

#[test]
fn a_close_frame_is_the_end() {
    let closed = |code| Said { closed: Some(code), ..Said::default() };
    check(false, None, b"\x88\x00\xff\xff", Ok(&closed(None)));
    check(false, None, b"\x88\x01x", Ok(&closed(None)));
    check(false, None, b"\x88\x05\x03\xe8bye", Ok(&closed(Some(1000))));
}

#[test]
fn extensions_are_read_off_the_response() {
    let agreed = |values: &[&str]| {
        let fields: Vec<_> =
            values.iter().map(|value| Field { name: b"Sec-WebSocket-Extensions", value: value.as_bytes() }).collect();
        Extensions::agreed(&fields)
            .map(|agreed| agreed.deflate.map(|deflate| (deflate.client_takes_over, deflate.server_takes_over)))
    };
    assert_eq!(agreed(&[]), Ok(None));
    assert_eq!(agreed(&["", " , "]), Ok(None));
    assert_eq!(agreed(&["permessage-deflate"]), Ok(Some((true, true))));
    assert_eq!(
        agreed(&["Permessage-Deflate; server_no_context_takeover; client_max_window_bits=12"]),
        Ok(Some((true, false)))
    );
    assert_eq!(
        agreed(&["permessage-deflate;client_no_context_takeover ;server_no_context_takeover"]),
        Ok(Some((false, false)))
    );
    assert_eq!(agreed(&["permessage-bzip2"]), Err(Unsupported));
    assert_eq!(agreed(&["permessage-deflate, permessage-deflate"]), Err(Unsupported));
}

/// A gap inside a payload costs its message; one that hides a head, or part of what later messages
/// refer to, costs the rest.
#[test]
fn gaps() {
    let gap = |takes_over, bytes: &[u8], from: usize, to: usize| {
        let (mut decoder, mut said) = (decoder(false, takes_over), Said::default());
        let result = decoder
            .feed(&bytes[..from], &mut said)
            .and_then(|()| decoder.gap((to - from) as u64, &mut said))
            .and_then(|()| decoder.feed(&bytes[to..], &mut said));
        let texts: Vec<_> = said.messages.iter().map(|(_, text)| String::from_utf8_lossy(text).into_owned()).collect();
        (texts.join(","), said.lost, result.err())
    };
    let bytes = b"\x81\x03one\x01\x02tw\x80\x01o\x81\x05three";
    let all = |lost: &[u64]| lost.to_vec();
    assert_eq!(gap(None, bytes, 3, 4), ("two,three".into(), all(&[1]), None));
    assert_eq!(gap(None, bytes, 2, 5), ("two,three".into(), all(&[3]), None));
    assert_eq!(gap(None, bytes, 7, 8), ("one,three".into(), all(&[1]), None));
    assert_eq!(gap(None, bytes, 8, 9), ("one,three".into(), all(&[1]), None));
    assert_eq!(gap(None, bytes, 3, 6), ("".into(), all(&[3]), Some(Malformed::Gap)));
    assert_eq!(gap(None, bytes, 5, 9), ("one".into(), all(&[]), Some(Malformed::Gap)));
    assert_eq!(gap(None, bytes, 9, 10), ("one".into(), all(&[1]), Some(Malformed::Gap)));
    for (takes_over, expect) in
        [(true, ("one".into(), all(&[1]), Some(Malformed::Gap))), (false, ("one,three".into(), all(&[1]), None))]
    {
        let mut writer = Writer::new(false, Some(takes_over));
        writer.message(Kind::Text, b"one", true, &[]);
        let second = writer.bytes.len();
        writer.message(Kind::Text, b"two", true, &[]);
        writer.message(Kind::Text, b"three", true, &[]);
        assert_eq!(gap(Some(takes_over), &writer.bytes, second + 4, second + 5), expect);
    }
}

#[test]
fn long_messages_are_dropped_and_what_follows_is_read() {
    let long = vec![b'a'; STREAM_EVENT_BYTES_MAX + 1];
    for (compress, masks) in [(false, false), (false, true), (true, false)] {
        let mut writer = Writer::new(masks, Some(true));
        writer.message(Kind::Binary, &long, compress, &[7]);
        writer.message(Kind::Text, b"aaaaaaaaaaaaaaaaaaaa", compress, &[]);
        let expect =
            Said { messages: vec![(Kind::Text, b"aaaaaaaaaaaaaaaaaaaa".to_vec())], lost: vec![0], ..Said::default() };
        let (mut decoder, mut said) = (decoder(masks, Some(true)), Said::default());
        for piece in writer.bytes.chunks(16_384) {
            decoder.feed(piece, &mut said).unwrap();
            assert!(decoder.held_bytes() < 3 * STREAM_EVENT_BYTES_MAX);
        }
        assert_eq!(said, expect, "{compress} {masks}");
        assert!(decoder.is_idle() && decoder.held_bytes() < 100_000);
    }
}

fn messages() -> impl Strategy<Value = Vec<(bool, bool, Vec<u8>, Vec<usize>)>> {
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        (any::<u8>(), 0..70_000_usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    proptest::collection::vec(
        (any::<bool>(), any::<bool>(), payload, proptest::collection::vec(0..400_usize, 0..3)),
        0..8,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        messages in messages(),
        masks: bool,
        takes_over: Option<bool>,
        lengths in proptest::collection::vec(1..9_000_usize, 1..40),
    ) {
        let mut writer = Writer::new(masks, takes_over);
        let mut expect = Said::default();
        for (is_text, compress, payload, cuts) in &messages {
            let kind = if *is_text { Kind::Text } else { Kind::Binary };
            writer.message(kind, payload, *compress, cuts);
            expect.messages.push((kind, payload.clone()));
        }
        writer.frame(0x88, &[3, 0xe9]);
        expect.closed = Some(Some(1001));
        let (mut decoder, mut said) = (decoder(masks, takes_over), Said::default());
        let (mut rest, mut lengths) = (&writer.bytes[..], lengths.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(lengths.next().unwrap().min(rest.len()));
            decoder.feed(piece, &mut said).unwrap();
            rest = after;
        }
        prop_assert_eq!(said, expect);
        prop_assert!(decoder.is_idle());
    }

    #[test]
    fn any_bytes_in_any_pieces_give_the_same(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        masks: bool,
        takes_over: Option<bool>,
        piece in 1..50_usize,
    ) {
        let run = |piece: usize| {
            let (mut decoder, mut said) = (decoder(masks, takes_over), Said::default());
            let result = bytes.chunks(piece).try_for_each(|piece| decoder.feed(piece, &mut said));
            (result, said)
        };
        prop_assert_eq!(run(bytes.len().max(1)), run(piece));
    }
}
