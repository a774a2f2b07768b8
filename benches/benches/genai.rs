//! What a call says, from whole bodies and from events, by dialect; and the fields of JSON bodies beside
//! a tape of the same bodies by simd-json. Each run asserts what was found.

use std::hint::black_box;

use agentsight::{
    genai::{Draft, Ended, Options, Scratch, Verdict},
    wire::{Field, RequestHead, ResponseHead, sse},
};
use agentsight_benches::{
    dialect::{Dialect, INPUT_TOKENS, OUTPUT_TOKENS},
    workload::Words,
};
use bumpalo::Bump;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use simd_json::{Buffers, Tape};

/// The head and body of a message that lies whole in `bytes`.
fn parts(bytes: &[u8]) -> (Vec<(String, String)>, String, Vec<u8>) {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").expect("a head");
    let head = std::str::from_utf8(&bytes[..end]).expect("text");
    let (start, fields) = head.split_once("\r\n").expect("fields");
    let fields = fields.split("\r\n").map(|field| field.split_once(": ").expect("a field"));
    (
        fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        start.to_owned(),
        bytes[end + 4..].to_vec(),
    )
}

fn borrowed(fields: &[(String, String)]) -> Vec<Field<'_>> {
    fields.iter().map(|(name, value)| Field { name: name.as_bytes(), value: value.as_bytes() }).collect()
}

struct Exchange {
    request_fields: Vec<(String, String)>,
    target: String,
    request: Vec<u8>,
    response_fields: Vec<(String, String)>,
}

impl Exchange {
    fn new(dialect: Dialect, texts: &[String], stream: bool, response: &[u8]) -> Self {
        let (request_fields, start, request) = parts(&dialect.request(texts, stream));
        let target = start.split(' ').nth(1).expect("a target").to_owned();
        Self { request_fields, target, request, response_fields: parts(response).0 }
    }

    /// Drives a draft up to the response's body, which `answer` hands over.
    fn drive(
        &self,
        arena: &mut Bump,
        copy: &mut Vec<u8>,
        scratch: &mut Scratch,
        answer: impl for<'a> FnOnce(&'a Bump, &mut Draft<'a>, &mut Scratch),
    ) {
        arena.reset();
        let arena = &*arena;
        let options = Options::default();
        let fields = borrowed(&self.request_fields);
        let target = self.target.as_bytes();
        let head = RequestHead { method: b"POST", target, authority: None, protocol: None, fields: &fields };
        let draft = Draft::new(arena, &head, scratch, &options).expect("a call");
        copy.clear();
        copy.extend_from_slice(black_box(&self.request));
        assert_eq!(draft.request_body(arena, copy, scratch, &options), Verdict::Call);
        let fields = borrowed(&self.response_fields);
        draft.response_head(arena, &ResponseHead { status: 200, fields: &fields });
        answer(arena, draft, scratch);
        let call = draft.finish(arena, Ended::Complete, &options);
        assert_eq!((call.input_tokens, call.output_tokens), (Some(INPUT_TOKENS), Some(OUTPUT_TOKENS)));
    }
}

fn dialects(bench: &mut Criterion) {
    let (mut arena, mut copy, mut scratch) = (Bump::new(), vec![], Scratch::default());
    let mut words = Words(3);
    for dialect in Dialect::ALL {
        let mut group = bench.benchmark_group(format!("genai, {}", dialect.name()));
        let texts = words.texts(2048);
        let response = dialect.response(&words.text(1024));
        let exchange = Exchange::new(dialect, &texts, false, &response);
        let body = parts(&response).2;
        group.throughput(Throughput::Bytes((exchange.request.len() + body.len()) as u64));
        let mut answer = vec![];
        group.bench_function("plain", |bencher| {
            bencher.iter(|| {
                exchange.drive(&mut arena, &mut copy, &mut scratch, |arena, draft, scratch| {
                    answer.clear();
                    answer.extend_from_slice(black_box(&body));
                    draft.response_body(arena, &mut answer, scratch, &Options::default());
                });
            });
        });
        if dialect == Dialect::Converse {
            // Its events are messages, which `wire` cuts.
            continue;
        }
        let said: Vec<_> = (0..200).map(|_| words.word()).collect();
        let exchange = Exchange::new(dialect, &texts, true, &dialect.streamed(&said)[0]);
        let events: Vec<_> = dialect.events(&said).iter().flat_map(|event| cut(event)).collect();
        group.throughput(Throughput::Bytes(events.iter().map(|(_, data)| data.len() as u64).sum()));
        group.bench_function("events", |bencher| {
            bencher.iter(|| {
                exchange.drive(&mut arena, &mut copy, &mut scratch, |arena, draft, scratch| {
                    for (name, data) in black_box(&events) {
                        draft.event(arena, name, data, scratch, &Options::default());
                    }
                });
            });
        });
        group.finish();
    }
}

/// Name and data of the events in `bytes`; a line of its own is one.
fn cut(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    if bytes.starts_with(b"{") {
        return vec![(vec![], bytes.trim_ascii().to_vec())];
    }
    let mut events = vec![];
    sse::Decoder::default().feed(bytes, &mut |event| events.push((event.name.to_vec(), event.data.to_vec())));
    events
}

/// Bodies of one shape each, read by a draft and by simd-json.
fn json(bench: &mut Criterion) {
    let mut words = Words(4);
    let numbers: Vec<_> = (0..8_000).map(|_| format!("-0.0{:07}", words.below(10_000_000))).collect();
    let response = |text: &str| Dialect::Chat.response_body(text).into_bytes();
    let bodies = [
        ("1 KiB of text", response(&words.text(500))),
        ("64 KiB of text", response(&words.text(64 << 10))),
        ("1 MiB of text", response(&words.text(1 << 20))),
        (
            "messages",
            format!(r#"{{"history":[{}],{}"#, words.texts(64 << 10).iter().map(|text| format!(r#"{{"role":"user","content":"{text}"}}"#)).collect::<Vec<_>>().join(","), &Dialect::Chat.response_body("a")[1..]).into_bytes(),
        ),
        (
            "numbers",
            format!(r#"{{"data":[{}],{}"#, numbers.join(","), &Dialect::Chat.response_body("a")[1..]).into_bytes(),
        ),
        (
            "schemas",
            format!(
                r#"{{"tools":[{}],{}"#,
                vec![r#"{"type":"function","function":{"name":"get_weather","description":"Get the weather of a place.","parameters":{"type":"object","properties":{"city":{"type":"string","description":"The city"},"unit":{"type":"string","enum":["c","f"]}},"required":["city"],"additionalProperties":false}}}"#; 200].join(","),
                &Dialect::Chat.response_body("a")[1..]
            )
            .into_bytes(),
        ),
    ];
    let (mut arena, mut copy, mut scratch) = (Bump::new(), vec![], Scratch::default());
    let exchange = Exchange::new(Dialect::Chat, &words.texts(100), false, &Dialect::Chat.response("a"));
    for (name, body) in bodies {
        let mut group = bench.benchmark_group(format!("json, {name}"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut answer = body.clone();
        group.bench_function("fields", |bencher| {
            bencher.iter(|| {
                exchange.drive(&mut arena, &mut copy, &mut scratch, |arena, draft, scratch| {
                    answer.copy_from_slice(black_box(&body));
                    draft.response_body(arena, &mut answer, scratch, &Options::default());
                });
            });
        });
        let (mut buffers, mut tape) = (Buffers::default(), Some(Tape(Vec::new())));
        group.bench_function("simd-json tape", |bencher| {
            bencher.iter(|| {
                answer.copy_from_slice(black_box(&body));
                let mut filled = tape.take().unwrap_or_else(|| Tape(Vec::new())).reset();
                simd_json::fill_tape(&mut answer, &mut buffers, &mut filled).expect("JSON");
                assert!(filled.0.len() > 10);
                tape = Some(filled.reset());
            });
        });
        group.finish();
    }
}

criterion_group!(benches, json, dialects);
criterion_main!(benches);
