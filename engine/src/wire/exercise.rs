//! What fuzzers do with the decoders, and the test that replays their seeds.
//!
//! Each function takes a fuzzer's input and panics when a decoder does, or when it breaks a promise:
//! the same bytes in other pieces give the same result, and every message that begins ends once. The
//! first byte of an input says how long the pieces are.

use super::{
    Field, RequestHead, ResponseHead, coding, eventstream, hpack,
    http1::{self, Answers},
    http2, json_array, ndjson, sse, websocket,
};

/// The body of a fuzz target.
pub type Exercise = fn(&[u8]);

/// Everything that can be exercised, by the name of its fuzz target and of its folder of seeds.
pub const ALL: [(&str, Exercise); 9] = [
    ("http1", http1),
    ("http2", http2),
    ("hpack", hpack),
    ("coding", coding),
    ("sse", sse),
    ("ndjson", ndjson),
    ("json_array", json_array),
    ("eventstream", eventstream),
    ("websocket", websocket),
];

/// Splits off the first byte and cuts the rest into pieces of that length.
fn pieces(data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (&length, input) = data.split_first()?;
    Some((input, input.chunks(usize::from(length).max(1)).collect()))
}

/// What a decoder said, with runs of body bytes joined.
#[derive(Default)]
struct Said {
    events: Vec<(u32, String)>,
    bodies: Vec<(u32, Vec<u8>)>,
    under_way: Vec<u32>,
    malformed: bool,
}

impl Said {
    fn say(&mut self, stream: u32, what: impl std::fmt::Debug) {
        self.events.push((stream, format!("{what:?}")));
    }

    fn begin(&mut self, stream: u32) {
        assert!(!self.under_way.contains(&stream), "begun twice");
        self.under_way.push(stream);
    }

    fn within(&mut self, stream: u32) {
        assert!(self.under_way.contains(&stream), "outside a message");
    }

    fn body(&mut self, stream: u32, bytes: &[u8]) {
        self.within(stream);
        assert!(!bytes.is_empty());
        match self.bodies.iter_mut().find(|(other, _)| *other == stream) {
            Some((_, body)) => body.extend_from_slice(bytes),
            None => self.bodies.push((stream, bytes.to_vec())),
        }
    }

    fn end(&mut self, stream: u32, end: impl std::fmt::Debug) {
        let at = self.under_way.iter().position(|&open| open == stream).expect("a message that began");
        self.under_way.remove(at);
        let body = self.bodies.iter().position(|(other, _)| *other == stream).map(|at| self.bodies.remove(at).1);
        self.say(stream, (end, body));
    }

    /// After a loss, where the next message is found depends on how the bytes were cut.
    fn compare(&self, other: &Self) {
        assert!(self.under_way.is_empty() && other.under_way.is_empty(), "a message without end");
        if !self.malformed && !other.malformed {
            assert_eq!(self.events, other.events);
        }
    }
}

impl http1::Sink for Said {
    fn request(&mut self, head: &RequestHead<'_>) {
        self.begin(0);
        self.say(0, head);
    }
    fn response(&mut self, head: &ResponseHead<'_>) -> Answers {
        self.say(0, head);
        if head.status == 101 || !(100..200).contains(&head.status) {
            self.begin(0);
        }
        [Answers::Other, Answers::Head, Answers::Connect][self.events.len() % 3]
    }
    fn body(&mut self, bytes: &[u8]) {
        Said::body(self, 0, bytes);
    }
    fn gap(&mut self, lost: u64) {
        self.within(0);
        self.say(0, lost);
    }
    fn end(&mut self, end: http1::End) {
        Said::end(self, 0, end);
    }
    fn upgrade(&mut self) {
        self.say(0, "upgrade");
    }
    fn malformed(&mut self, _: http1::Malformed) {
        self.malformed = true;
    }
}

impl http2::Sink for Said {
    fn request(&mut self, stream: http2::StreamId, head: &RequestHead<'_>, unknown_fields: usize) {
        self.begin(stream.0);
        self.say(stream.0, (head, unknown_fields));
    }
    fn response(&mut self, stream: http2::StreamId, head: &ResponseHead<'_>, unknown_fields: usize) {
        self.say(stream.0, (head, unknown_fields));
        if !(100..200).contains(&head.status) {
            self.begin(stream.0);
        }
    }
    fn body(&mut self, stream: http2::StreamId, bytes: &[u8]) {
        Said::body(self, stream.0, bytes);
    }
    fn gap(&mut self, stream: http2::StreamId, lost_max: u64) {
        self.within(stream.0);
        self.say(stream.0, lost_max);
    }
    fn trailers(&mut self, stream: http2::StreamId, fields: &[Field<'_>]) {
        self.within(stream.0);
        self.say(stream.0, fields);
    }
    fn end(&mut self, stream: http2::StreamId, end: http2::End) {
        Said::end(self, stream.0, end);
    }
    fn reset(&mut self, stream: http2::StreamId, error_code: u32) {
        self.say(stream.0, error_code);
    }
    fn go_away(&mut self, last: http2::StreamId, error_code: u32) {
        self.say(last.0, ("go away", error_code));
    }
    fn malformed(&mut self, _: http2::Malformed) {
        self.malformed = true;
    }
}

/// HTTP/1, both directions, and with a gap in the middle.
pub fn http1(data: &[u8]) {
    let Some((input, pieces)) = pieces(data) else { return };
    for decoder in [http1::Decoder::requests, http1::Decoder::responses] {
        let run = |pieces: &[&[u8]], gap_at: Option<usize>| {
            let (mut decoder, mut said) = (decoder(), Said::default());
            for (at, piece) in pieces.iter().enumerate() {
                decoder.feed(piece, &mut said);
                if gap_at == Some(at) {
                    decoder.gap(at as u64 + 1, &mut said);
                }
            }
            decoder.close(&mut said);
            said
        };
        run(&[input], None).compare(&run(&pieces, None));
        assert!(run(&pieces, Some(pieces.len() / 2)).under_way.is_empty());
    }
}

/// HTTP/2, both directions, and with a gap in the middle.
pub fn http2(data: &[u8]) {
    let Some((input, pieces)) = pieces(data) else { return };
    for decoder in [http2::Decoder::requests, http2::Decoder::responses] {
        let run = |pieces: &[&[u8]], gap_at: Option<usize>| {
            let (mut decoder, mut said) = (decoder(), Said::default());
            for (at, piece) in pieces.iter().enumerate() {
                decoder.feed(piece, &mut said);
                if gap_at == Some(at) {
                    decoder.gap(at as u64 + 1, &mut said);
                }
            }
            decoder.close(&mut said);
            said
        };
        run(&[input], None).compare(&run(&pieces, None));
        assert!(run(&pieces, Some(pieces.len() / 2)).under_way.is_empty());
    }
}

/// HPACK: each piece is a block. A decoder that missed the first one says nothing that the other
/// doesn't.
pub fn hpack(data: &[u8]) {
    let Some((_, blocks)) = pieces(data) else { return };
    let (mut decoder, mut late) = (hpack::Decoder::new(), hpack::Decoder::midway());
    let list = |fields: hpack::Fields<'_>| {
        let list: Vec<_> =
            fields.with(|list| list.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect());
        (list, fields.unknown)
    };
    for (at, block) in blocks.iter().enumerate() {
        let Ok((all, 0)) = decoder.decode(block).map(list) else { return };
        let Some((some, unknown)) = (at > 0).then(|| late.decode(block).map(list).expect("as the other did")) else {
            continue;
        };
        assert_eq!(some.len() + unknown, all.len());
        let mut all = all.iter();
        assert!(some.iter().all(|field| all.any(|other| other == field)));
    }
}

/// Content codings: the next byte says which.
pub fn coding(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    let names = ["gzip", "deflate", "br", "zstd", "gzip, br", "zstd, deflate"];
    let name = names[usize::from(which) % names.len()].as_bytes();
    let Some((input, pieces)) = pieces(data) else { return };
    let run = |pieces: &[&[u8]]| {
        let (mut decoder, mut out) = (coding::Decoder::new(name).expect("a known coding"), Vec::new());
        let keep = &mut |bytes: &[u8]| {
            // A bomb isn't kept, only measured.
            if out.len() < 1 << 20 {
                out.extend_from_slice(bytes);
            }
        };
        let result = pieces.iter().try_for_each(|piece| decoder.feed(piece, keep));
        result.map(|()| (out, decoder.is_complete()))
    };
    // How much comes out before an error may depend on the pieces.
    if let (Ok(whole), Ok(cut)) = (run(&[input]), run(&pieces)) {
        assert!(whole == cut);
    }
}

/// Server-sent events.
pub fn sse(data: &[u8]) {
    let Some((input, pieces)) = pieces(data) else { return };
    let events = |pieces: &[&[u8]]| {
        let (mut decoder, mut said) = (sse::Decoder::default(), Vec::new());
        let mut on_event = |event: sse::Event<'_>| said.push(format!("{event:?}"));
        pieces.iter().for_each(|piece| decoder.feed(piece, &mut on_event));
        decoder.finish(&mut on_event);
        assert_eq!((decoder.buffered(), decoder.take_skipped()), (0, 0));
        said
    };
    assert_eq!(events(&[input]), events(&pieces));
}

/// Lines of JSON.
pub fn ndjson(data: &[u8]) {
    let Some((input, pieces)) = pieces(data) else { return };
    let lines = |pieces: &[&[u8]]| {
        let (mut decoder, mut said) = (ndjson::Decoder::default(), Vec::new());
        let mut on_line = |line: &[u8]| said.push(line.to_vec());
        pieces.iter().for_each(|piece| decoder.feed(piece, &mut on_line));
        decoder.finish(&mut on_line);
        assert_eq!((decoder.buffered(), decoder.take_skipped()), (0, 0));
        said
    };
    assert_eq!(lines(&[input]), lines(&pieces));
}

/// Arrays that arrive element by element.
pub fn json_array(data: &[u8]) {
    let Some((input, pieces)) = pieces(data) else { return };
    let elements = |pieces: &[&[u8]]| {
        let (mut decoder, mut said) = (json_array::Decoder::default(), Vec::new());
        let mut on_element = |element: &[u8]| said.push(element.to_vec());
        pieces.iter().for_each(|piece| decoder.feed(piece, &mut on_element));
        decoder.finish(&mut on_element);
        assert_eq!(decoder.buffered(), 0);
        (said, decoder.take_skipped())
    };
    assert_eq!(elements(&[input]), elements(&pieces));
}

/// AWS event streams.
pub fn eventstream(data: &[u8]) {
    let Some((input, pieces)) = pieces(data) else { return };
    let messages = |pieces: &[&[u8]]| {
        let (mut decoder, mut said) = (eventstream::Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.feed(piece, &mut |message| {
                said.push((format!("{message:?}"), message.header(":event-type").is_some()))
            });
        }
        decoder.finish();
        assert_eq!(decoder.buffered(), 0);
        (said, decoder.take_skipped())
    };
    let (whole, cut) = (messages(&[input]), messages(&pieces));
    if whole.1 == 0 && cut.1 == 0 {
        assert_eq!(whole, cut);
    }
}

impl websocket::Sink for Vec<String> {
    fn message(&mut self, kind: websocket::Kind, payload: &[u8]) {
        self.push(format!("{kind:?} {payload:?}"));
    }
    fn lost(&mut self, bytes: u64) {
        self.push(format!("lost {bytes}"));
    }
    fn close(&mut self, code: Option<u16>) {
        self.push(format!("close {code:?}"));
    }
}

/// WebSocket frames, both directions, and with a gap in the middle. The next byte says what was agreed
/// to.
pub fn websocket(data: &[u8]) {
    let Some((&agreed, data)) = data.split_first() else { return };
    let names = ["", "permessage-deflate", "permessage-deflate;client_no_context_takeover;server_no_context_takeover"];
    let value = names[usize::from(agreed) % names.len()].as_bytes();
    let extensions = websocket::Extensions::agreed(&[Field { name: b"sec-websocket-extensions", value }]);
    let extensions = extensions.expect("a known extension");
    let Some((input, pieces)) = pieces(data) else { return };
    for decoder in [websocket::Decoder::client, websocket::Decoder::server] {
        let run = |pieces: &[&[u8]], gap_at: Option<usize>| {
            let (mut decoder, mut said) = (decoder(&extensions), Vec::new());
            let mut feed = |(at, piece): (usize, &&[u8])| {
                decoder.feed(piece, &mut said)?;
                if gap_at == Some(at) { decoder.gap(at as u64 + 1, &mut said) } else { Ok(()) }
            };
            let result = pieces.iter().enumerate().try_for_each(&mut feed);
            (result, said)
        };
        assert_eq!(run(&[input], None), run(&pieces, None));
        let _with_a_gap = run(&pieces, Some(pieces.len() / 2));
    }
}

/// Replays the seeds of a fuzz target: as they are, and in other ways that are the same each time. The byte at
/// `length_at` is the length of pieces, for targets that have one.
#[cfg(test)]
pub(crate) fn replay(name: &str, exercise: Exercise, length_at: usize) {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(name);
    let seeds = std::fs::read_dir(seeds).unwrap().map(|seed| std::fs::read(seed.unwrap().path()).unwrap());
    let seeds: Vec<Vec<u8>> = seeds.collect();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for seed in &seeds {
        exercise(seed);
        for length in [1, 2, 3, 5, 7, 17, 255] {
            let mut seed = seed.clone();
            seed[length_at] = length;
            exercise(&seed);
        }
        // Damaged a little.
        for damaged in (0..seed.len()).step_by(seed.len() / 64 + 1) {
            let mut seed = seed.clone();
            seed[damaged] ^= 1 << (damaged % 8);
            exercise(&seed);
            exercise(&seed[..damaged]);
        }
    }
    mutate(name, exercise, &seeds);
}

/// For as many seconds as `AGENTSIGHT_FUZZ_SECONDS` says, which is none at all unless it is set: the seeds, cut
/// and joined and damaged at random. An input that something is wrong with is left in the temporary folder.
#[cfg(test)]
fn mutate(name: &str, exercise: Exercise, seeds: &[Vec<u8>]) {
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
    let seconds = std::env::var("AGENTSIGHT_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let begun = Instant::now();
    let mut state = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64 | 1);
    let mut below = |end: usize| {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % end.max(1) as u64) as usize
    };
    let (mut runs, mut inputs) = (0_u64, seeds.to_vec());
    while begun.elapsed() < Duration::from_secs(seconds) {
        let mut input = inputs[below(inputs.len())].clone();
        for _ in 0..=below(6) {
            let at = below(input.len());
            match below(6) {
                0 => input.truncate(at),
                1 => input.insert(at, below(256) as u8),
                2 if !input.is_empty() => _ = input.remove(at),
                3 => {
                    let other = &inputs[below(inputs.len())];
                    let from = below(other.len());
                    let length = below(64).min(other.len() - from);
                    input.splice(at..at, other[from..from + length].iter().copied());
                }
                _ if !input.is_empty() => input[at] ^= 1 << below(8),
                _ => {}
            }
        }
        if let Err(panic) = std::panic::catch_unwind(|| exercise(&input)) {
            let path = std::env::temp_dir().join(format!("agentsight-fuzz-{name}-{}", std::process::id()));
            std::fs::write(&path, &input).unwrap();
            println!("{name}: after {runs} runs, {}", path.display());
            std::panic::resume_unwind(panic);
        }
        runs += 1;
        // What was damaged once is damaged again, a little of it.
        if below(50) == 0 && input.len() < 4096 {
            let place = seeds.len() + below(64);
            if place < inputs.len() {
                inputs[place] = input;
            } else {
                inputs.push(input);
            }
        }
    }
    if runs > 0 {
        println!("{name}: {runs} runs");
    }
}

#[cfg(test)]
#[test]
fn the_seeds_of_the_fuzzers() {
    for (name, exercise) in ALL {
        replay(name, exercise, usize::from(name == "coding" || name == "websocket"));
    }
}
