use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Journal(Vec<String>);

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn list(fields: &[Field<'_>]) -> String {
    fields.iter().map(|field| format!(" {}={}", text(field.name), text(field.value))).collect()
}

fn unknown(fields: usize) -> String {
    if fields == 0 { String::new() } else { format!(" ?{fields}") }
}

impl Sink for Journal {
    fn request(&mut self, stream: StreamId, head: &RequestHead<'_>, fields: usize) {
        let authority = head.authority.map_or("-".into(), text);
        let (method, target) = (text(head.method), text(head.target));
        self.0.push(format!("{} > {method} {target} {authority}{}{}", stream.0, list(head.fields), unknown(fields)));
    }
    fn response(&mut self, stream: StreamId, head: &ResponseHead<'_>, fields: usize) {
        self.0.push(format!("{} < {}{}{}", stream.0, head.status, list(head.fields), unknown(fields)));
    }
    fn body(&mut self, stream: StreamId, bytes: &[u8]) {
        assert!(!bytes.is_empty());
        let start = format!("{} \"", stream.0);
        match self.0.last_mut() {
            Some(line) if line.starts_with(&start) => *line += &text(bytes),
            _ => self.0.push(start + &text(bytes)),
        }
    }
    fn gap(&mut self, stream: StreamId, lost_max: u64) {
        self.0.push(format!("{} gap {lost_max}", stream.0));
    }
    fn trailers(&mut self, stream: StreamId, fields: &[Field<'_>]) {
        self.0.push(format!("{} trailers{}", stream.0, list(fields)));
    }
    fn end(&mut self, stream: StreamId, end: End) {
        self.0.push(format!("{} {end:?}", stream.0));
    }
    fn reset(&mut self, stream: StreamId, error_code: u32) {
        self.0.push(format!("{} reset {error_code}", stream.0));
    }
    fn go_away(&mut self, last: StreamId, error_code: u32) {
        self.0.push(format!("go away {} {error_code}", last.0));
    }
    fn malformed(&mut self, error: Malformed) {
        self.0.push(format!("{error:?}"));
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// `name: value` as a literal that is added to the table, or a plain index.
fn block(fields: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        match field.parse::<u8>() {
            Ok(index) => out.push(0x80 | index),
            Err(_) => {
                let (name, value) = field[1..].split_once(':').unwrap();
                let name = format!("{}{name}", &field[..1]);
                out.extend([0x40, name.len() as u8]);
                out.extend(name.bytes());
                out.push(value.len() as u8);
                out.extend(value.bytes());
            }
        }
    }
    out
}

/// `:method: POST`, `:scheme: https`, and a path of its own.
fn request(path: &str) -> Vec<u8> {
    block(&["3", "7", &format!(":path:{path}")])
}

fn decode(mut decoder: Decoder, pieces: &[&[u8]]) -> Vec<String> {
    let mut journal = Journal::default();
    for piece in pieces {
        decoder.feed(piece, &mut journal);
    }
    decoder.close(&mut journal);
    assert_eq!(decoder.buffered(), 0);
    journal.0
}

/// Decodes `frames` whole, cut in two at every byte, and byte by byte.
fn check(decoder: fn() -> Decoder, frames: &[Vec<u8>], expect: &[&str]) {
    let input = frames.concat();
    assert_eq!(decode(decoder(), &[&input]), expect);
    if expect.iter().any(|line| line.starts_with(char::is_uppercase)) {
        return;
    }
    for at in 0..=input.len() {
        let (a, b) = input.split_at(at);
        assert_eq!(decode(decoder(), &[a, b]), expect, "cut at {at}");
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(decode(decoder(), &bytes), expect, "byte by byte");
}

#[test]
fn streams_are_interleaved() {
    check(
        Decoder::requests,
        &[
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 16, 0]),
            frame(HEADERS, END_HEADERS, 1, &request("/a")),
            frame(8, 0, 1, &[0, 0, 1, 0]),
            frame(HEADERS, END_HEADERS | END_STREAM, 3, &request("/b")),
            frame(DATA, 0, 1, b"ab"),
            frame(PING, 1, 0, &[0; 8]),
            frame(DATA, 0, 1, b""),
            frame(DATA, END_STREAM, 1, b"c"),
            frame(HEADERS, END_HEADERS, 5, &block(&["62", "3", ":authority:h:1", "a:b"])),
        ],
        &["1 > POST /a -", "3 > POST /b -", "3 Complete", "1 \"abc", "1 Complete", "5 > POST /b h:1 a=b", "5 Cut"],
    );
}

#[test]
fn blocks_padding_priority_and_continuations() {
    let block = request("/long");
    let (a, rest) = block.split_at(3);
    let (b, c) = rest.split_at(2);
    let padded = [&[3, 0x80, 0, 0, 1, 9][..], a, &[0; 3]].concat();
    check(
        Decoder::requests,
        &[
            PREFACE.to_vec(),
            frame(HEADERS, 0x8 | 0x20, 1, &padded),
            frame(CONTINUATION, 0, 1, b),
            frame(CONTINUATION, 0, 1, b""),
            frame(CONTINUATION, END_HEADERS, 1, c),
            frame(DATA, 0x8, 1, b"\x02xyz\0\0"),
            frame(DATA, 0x8 | END_STREAM, 1, b"\x01\0"),
            frame(0xbe, 0xff, 7, b"extension"),
        ],
        &["1 > POST /long -", "1 \"xyz", "1 Complete"],
    );
}

#[test]
fn responses_interim_trailers_pushes_and_ends() {
    check(
        Decoder::responses,
        &[
            frame(SETTINGS, 1, 0, b""),
            frame(HEADERS, END_HEADERS, 1, &block(&[":status:103", "link:x"])),
            frame(HEADERS, END_HEADERS, 1, &block(&["8", "content-type:y"])),
            frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &request("/pushed")].concat()),
            frame(HEADERS, END_HEADERS, 2, &block(&["8"])),
            frame(DATA, END_STREAM, 2, b"pushed"),
            frame(DATA, 0, 1, b"z"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&["grpc-status:0"])),
            frame(HEADERS, END_HEADERS, 3, &block(&["13"])),
            frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]),
            frame(RST_STREAM, 0, 5, &[0, 0, 0, 7]),
            frame(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 1, b'w', b'h', b'y']),
        ],
        &[
            "1 < 103 link=x",
            "1 < 200 content-type=y",
            "1 \"z",
            "1 trailers grpc-status=0",
            "1 Complete",
            "3 < 404",
            "3 Reset",
            "3 reset 8",
            "5 reset 7",
            "go away 3 1",
        ],
    );
}

#[test]
fn what_breaks_the_rules_is_told() {
    let preface = || PREFACE.to_vec();
    for (frames, expect) in [
        (vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()], "Preface"),
        (vec![preface(), frame(DATA, 0, 0, b"x")], "Frame"),
        (vec![preface(), frame(PING, 0, 0, b"short")], "Frame"),
        (vec![preface(), frame(SETTINGS, 0, 0, b"1234567")], "Frame"),
        (vec![preface(), frame(DATA, 0x8, 1, b"\x02x")], "Padding"),
        (vec![preface(), frame(DATA, 0x8, 1, b"")], "Padding"),
        (vec![preface(), frame(HEADERS, 0x8 | END_HEADERS, 1, b"\x09x")], "Padding"),
        (vec![preface(), frame(CONTINUATION, END_HEADERS, 1, b"")], "Continuation"),
        (vec![preface(), frame(HEADERS, 0, 1, b""), frame(DATA, 0, 1, b"")], "Continuation"),
        (vec![preface(), frame(HEADERS, END_HEADERS, 1, b"\x80")], "Block(Index)"),
        (vec![preface(), frame(HEADERS, END_HEADERS, 1, &block(&["3"]))], "Head"),
        (vec![preface(), frame(HEADERS, END_HEADERS, 1, &block(&["3", "3", "4"]))], "Head"),
        (vec![preface(), frame(HEADERS, END_HEADERS, 1, &block(&["3", "a:b", "4"]))], "Head"),
        (vec![preface(), frame(HEADERS, END_HEADERS, 1, &vec![0; HEAD_BYTES_MAX + 1])], "TooLong"),
        (
            vec![
                preface(),
                frame(HEADERS, 0, 1, &vec![0; HEAD_BYTES_MAX]),
                frame(CONTINUATION, END_HEADERS, 1, &[0; 1]),
                frame(DATA, END_STREAM, 1, b"of no known message"),
            ],
            "TooLong",
        ),
    ] {
        check(Decoder::requests, &frames, &[expect]);
    }
    check(Decoder::responses, &[frame(HEADERS, END_HEADERS, 1, &block(&[":status:20"]))], &["Head"]);
}

#[test]
fn met_in_the_middle_it_finds_frames_and_learns_fields() {
    let input = [
        b"ta: the rest of an event\n\n".to_vec(),
        frame(DATA, END_STREAM, 1, b"data: more\n\n"),
        frame(HEADERS, END_HEADERS, 3, &block(&["8", "62", "content-type:y"])),
        frame(DATA, END_STREAM, 3, b"data: z\n\n"),
        frame(HEADERS, END_HEADERS, 5, &block(&["8", "62", "63"])),
    ]
    .concat();
    let expect = ["3 < 200 content-type=y ?1", "3 \"data: z\\n\\n", "3 Complete", "5 < 200 content-type=y ?1", "5 Cut"];
    assert_eq!(decode(Decoder::responses().midway(), &[&input]), expect);
    // A single frame at the start of a piece is enough.
    let head = frame(HEADERS, END_HEADERS, 3, &block(&["8"]));
    assert_eq!(decode(Decoder::responses().midway(), &[b"junk", &head, b"\0"]), ["3 < 200", "3 Cut"]);
    let rest = frame(CONTINUATION, END_HEADERS, 1, b"??");
    let unknown = frame(HEADERS, END_HEADERS, 3, &block(&["62", "63"]));
    assert_eq!(decode(Decoder::responses().midway(), &[&rest, &unknown]), ["3 < 0 ?2", "3 Cut"]);
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&["62"]));
    assert_eq!(decode(Decoder::responses().midway(), &[&trailers]), ["Head"]);
}

#[test]
fn gaps_cost_what_they_hide() {
    let check = |before: &[u8], lost: u64, after: &[u8], expect: &[&str]| {
        let mut journal = Journal::default();
        let mut decoder = Decoder::responses();
        decoder.feed(before, &mut journal);
        decoder.gap(lost, &mut journal);
        decoder.feed(after, &mut journal);
        decoder.close(&mut journal);
        assert_eq!(journal.0, expect);
    };
    let head = |stream| frame(HEADERS, END_HEADERS, stream, &block(&["8", "a:b"]));
    let data = frame(DATA, END_STREAM, 1, b"abcdef");
    let before = [head(1), data[..11].to_vec()].concat();
    let next = [head(3), frame(DATA, END_STREAM, 3, b"z")].concat();
    let next_lines = ["3 < 200 a=b", "3 \"z", "3 Complete"];
    let expect = |lines: &[&'static str]| [lines, &next_lines].concat();
    check(
        &before,
        2,
        &[b"ef", &next[..]].concat(),
        &expect(&["1 < 200 a=b", "1 \"ab", "1 gap 2", "1 \"ef", "1 Complete"]),
    );
    check(&before, 4, &next, &expect(&["1 < 200 a=b", "1 \"ab", "1 gap 4", "1 Complete"]));
    // Beyond the frame: the message stays open, as more of it may come.
    let more = frame(DATA, END_STREAM, 1, b"end");
    check(&before, 30, &more, &["1 < 200 a=b", "1 \"ab", "1 gap 30", "1 \"end", "1 Complete"]);
    // Inside a block the frame's end is known, but not its fields, nor the table's.
    check(
        &[head(1), head(5)[..12].to_vec()].concat(),
        (head(5).len() - 12) as u64,
        &[&more[..], &next].concat(),
        &["1 < 200 a=b", "1 \"end", "1 Complete", "3 < 200 a=b", "3 \"z", "3 Complete"],
    );
    let indexed = frame(HEADERS, END_HEADERS, 3, &block(&["8", "62"]));
    check(&head(5)[..12], (head(5).len() - 12) as u64, &indexed, &["3 < 200 ?1", "3 Cut"]);
}

#[test]
fn the_oldest_message_makes_room() {
    let mut frames = vec![PREFACE.to_vec()];
    for stream in 0..=STREAMS_MAX as u32 {
        frames.push(frame(HEADERS, END_HEADERS, 2 * stream + 1, &block(&["3", "4"])));
    }
    let lines = decode(Decoder::requests(), &[&frames.concat()]);
    assert_eq!(lines.iter().filter(|line| line.ends_with("Lost")).collect::<Vec<_>>(), ["1 Lost"]);
    assert_eq!(lines.iter().filter(|line| line.ends_with("Cut")).count(), STREAMS_MAX);
}

#[test]
fn the_other_direction_can_end_a_message() {
    let (mut journal, mut decoder) = (Journal::default(), Decoder::responses());
    decoder.feed(&frame(HEADERS, END_HEADERS, 1, &block(&["8"])), &mut journal);
    assert!(!decoder.is_idle());
    decoder.forget(StreamId(1), &mut journal);
    decoder.forget(StreamId(1), &mut journal);
    decoder.feed(&frame(DATA, END_STREAM, 1, b"late"), &mut journal);
    assert!(decoder.is_idle());
    assert_eq!(journal.0, ["1 < 200", "1 Reset"]);
}

#[test]
fn the_frames_of_others() {
    let Some(corpus) = crate::wire::corpus("http2-frames") else { return };
    let mut frames = 0;
    for folder in std::fs::read_dir(corpus).unwrap().map(|folder| folder.unwrap().path()).filter(|path| path.is_dir()) {
        for case in std::fs::read_dir(folder).unwrap() {
            let path = case.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let case: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let wire = case["wire"].as_str().unwrap();
            let wire: Vec<u8> =
                (0..wire.len()).step_by(2).map(|at| u8::from_str_radix(&wire[at..at + 2], 16).unwrap()).collect();
            let parsed = Frame::parse(wire.first_chunk().unwrap());
            let payload = &wire[HEADER_BYTES..];
            let name = path.display();
            if case["error"].is_null() {
                let expect = &case["frame"];
                assert_eq!(expect["length"], parsed.length, "{name}");
                assert_eq!(expect["stream_identifier"], parsed.stream.0, "{name}");
                assert_eq!(parsed.check(), Ok(()), "{name}");
                assert_eq!(frame::find_boundary(&wire, true), Some(0), "{name}");
                let text = &expect["frame_payload"]["header_block_fragment"];
                if let Some(text) = text.as_str() {
                    assert_eq!(fragment(parsed, payload), Ok(text.as_bytes()), "{name}");
                }
            } else {
                // Errors of flow control and of push mean nothing to an observer, and a peer may have
                // raised the size of a frame.
                let ignored = ["increment", "promised_stream", "data-frame-size"]
                    .iter()
                    .any(|word| name.to_string().contains(word));
                let block = matches!(parsed.kind, Kind::Headers | Kind::PushPromise);
                let padding = parsed.is_padded() && payload.first().is_some_and(|&pad| u32::from(pad) >= parsed.length);
                let refused = parsed.check().is_err() || block && fragment(parsed, payload).is_err() || padding;
                assert!(refused || ignored, "{name} {parsed:?}");
            }
            frames += 1;
        }
    }
    assert!(frames > 30, "only {frames} frames were found");
}

/// A naive encoder's frames for some messages, interleaved by `order`.
fn conversation() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let body =
        proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..20), proptest::option::of(0u8..5)), 0..4);
    proptest::collection::vec((0u32..4, "[a-z]{0,5}", 0usize..8, body), 0..5).prop_map(|messages| {
        let mut frames = vec![frame(SETTINGS, 0, 0, b"")];
        for (at, (_, value, cut, body)) in messages.into_iter().enumerate() {
            let stream = 2 * at as u32 + 1;
            let block = block(&["8", &format!("x:{value}")]);
            let (head, rest) = block.split_at(cut.min(block.len()));
            frames.push(frame(HEADERS, 0, stream, head));
            frames.push(frame(CONTINUATION, END_HEADERS, stream, rest));
            for (bytes, padding) in body {
                match padding {
                    Some(padding) => {
                        let padded = [&[padding][..], &bytes, &vec![0; padding.into()]].concat();
                        frames.push(frame(DATA, 0x8, stream, &padded));
                    }
                    None => frames.push(frame(DATA, 0, stream, &bytes)),
                }
            }
            if at % 2 == 0 {
                frames.push(frame(DATA, END_STREAM, stream, b""));
            }
        }
        frames
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same(frames in conversation(), cuts in proptest::collection::vec(0.0..1.0f64, 0..12)) {
        let input = frames.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * input.len() as f64) as usize).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
        let whole = decode(Decoder::responses(), &[&input]);
        prop_assert!(!whole.iter().any(|line| line.starts_with(char::is_uppercase)), "{:?}", whole);
        prop_assert_eq!(whole, decode(Decoder::responses(), &pieces));
    }

    #[test]
    fn hostile_bytes_and_gaps_never_panic(steps in proptest::collection::vec((conversation(), any::<Vec<u8>>(), 0u64..40, any::<u8>()), 0..5)) {
        for mut decoder in [Decoder::requests(), Decoder::responses(), Decoder::requests().midway()] {
            let mut journal = Journal::default();
            for (frames, noise, lost, flip) in &steps {
                let mut bytes = frames.concat();
                if let Some(at) = usize::from(*flip).checked_rem(bytes.len()) {
                    bytes[at] ^= flip;
                }
                decoder.feed(&bytes, &mut journal);
                decoder.gap(*lost, &mut journal);
                decoder.feed(noise, &mut journal);
            }
            decoder.close(&mut journal);
            let count = |word: &str| journal.0.iter().filter(|line| line.contains(word)).count();
            let begun = count(" > ") + count(" < ") - count(" < 1");
            let ended = count(" Complete") + count(" Reset") + count(" Cut") + count(" Lost");
            prop_assert_eq!(begun, ended, "every message that begins ends once: {:?}", journal.0);
        }
    }
}
