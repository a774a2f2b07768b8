//! The decoders of `agentsight::wire`, in bytes per second. Each run asserts what was decoded.
//!
//! Input comes in pieces of 16 KiB, as TLS records do, and once in small ones.

use std::{hint::black_box, io::Write};

use agentsight::wire::{
    Field, RequestHead, ResponseHead, coding, eventstream, hpack,
    http1::{self, Answers},
    http2, json_array, ndjson, sse, websocket,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// The plaintext of one TLS record.
const PIECE_BYTES: usize = 16 * 1024;

#[derive(Default)]
struct Count {
    fields: usize,
    body_bytes: usize,
    complete: usize,
}

impl http1::Sink for Count {
    fn request(&mut self, head: &RequestHead<'_>) {
        self.fields += head.fields.len();
    }
    fn response(&mut self, head: &ResponseHead<'_>) -> Answers {
        self.fields += head.fields.len();
        Answers::Other
    }
    fn body(&mut self, bytes: &[u8]) {
        self.body_bytes += bytes.len();
    }
    fn gap(&mut self, _: u64) {}
    fn end(&mut self, end: http1::End) {
        self.complete += usize::from(end == http1::End::Complete);
    }
    fn upgrade(&mut self) {}
    fn malformed(&mut self, error: http1::Malformed) {
        panic!("{error}");
    }
}

fn head(start: &str, framing: &str) -> String {
    let mut head = format!("{start}\r\ncontent-type: application/json\r\n{framing}\r\n");
    for at in 0..14 {
        head += &format!("x-usual-header-{at}: a value of the usual length, {at}\r\n");
    }
    head + "\r\n"
}

/// A stream of events as a chat completion sends them.
fn events(count: usize) -> String {
    let event = |at| {
        format!(
            "data: {{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion.chunk\",\
             \"created\":1741569952,\"model\":\"gpt-5\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\" word{at}\"}},\
             \"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
        )
    };
    (0..count).map(event).collect()
}

fn http1(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http1");
    let requests = head("POST /v1/chat/completions HTTP/1.1", "content-length: 0").repeat(400);
    let body = "x".repeat(4 << 20);
    let long = head("HTTP/1.1 200 OK", &format!("content-length: {}", body.len())) + &body;
    let chunked: String =
        events(4000).split_inclusive("\n\n").map(|event| format!("{:x}\r\n{event}\r\n", event.len())).collect();
    let chunked = head("HTTP/1.1 200 OK", "transfer-encoding: chunked") + &chunked + "0\r\n\r\n";
    type Case<'a> = (&'a str, fn() -> http1::Decoder, &'a str, usize, usize);
    let cases: [Case<'_>; 4] = [
        ("heads", http1::Decoder::requests, &requests, PIECE_BYTES, 400),
        ("heads in pieces of 100", http1::Decoder::requests, &requests, 100, 400),
        ("body", http1::Decoder::responses, &long, PIECE_BYTES, 1),
        ("chunked", http1::Decoder::responses, &chunked, PIECE_BYTES, 1),
    ];
    for (name, decoder, input, piece_bytes, messages) in cases {
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |bencher| {
            let mut decoder = decoder();
            bencher.iter(|| {
                let mut count = Count::default();
                for piece in black_box(input.as_bytes()).chunks(piece_bytes) {
                    decoder.feed(piece, &mut count);
                }
                assert_eq!((count.complete, count.fields), (messages, 16 * messages));
                count.body_bytes
            });
        });
    }
    group.finish();
}

fn sse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sse");
    let input = events(10_000);
    group.throughput(Throughput::Bytes(input.len() as u64));
    for (name, piece_bytes) in [("events", PIECE_BYTES), ("events in pieces of 100", 100)] {
        group.bench_function(name, |bencher| {
            let mut decoder = sse::Decoder::default();
            bencher.iter(|| {
                let (mut count, mut bytes) = (0, 0);
                for piece in black_box(input.as_bytes()).chunks(piece_bytes) {
                    decoder.feed(piece, &mut |event| (count, bytes) = (count + 1, bytes + event.data.len()));
                }
                assert_eq!((count, bytes), (10_000, input.len() - 10_000 * "data: \n\n".len()));
            });
        });
    }
    group.finish();
}

/// Decoded bytes per second.
fn coding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coding");
    let text = events(4000);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).expect("memory");
    let gzip = gzip.finish().expect("memory");
    let mut brotli = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams { quality: 5, ..Default::default() };
    brotli::BrotliCompress(&mut text.as_bytes(), &mut brotli, &parameters).expect("memory");
    let mut zstd = Vec::with_capacity(zstd_safe::compress_bound(text.len()));
    zstd_safe::compress(&mut zstd, text.as_bytes(), 3).expect("memory");
    group.throughput(Throughput::Bytes(text.len() as u64));
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    deflate.write_all(text.as_bytes()).expect("memory");
    let deflate = deflate.finish().expect("memory");
    let codings =
        [("identity", text.as_bytes()), ("gzip", &gzip), ("deflate", &deflate), ("br", &brotli), ("zstd", &zstd)];
    for (name, coded) in codings {
        group.bench_function(name, |bencher| {
            let mut pool = coding::Pool::default();
            bencher.iter(|| {
                let mut decoder = pool.decoder([name.as_bytes()]).expect("a known coding");
                let mut bytes = 0;
                for piece in black_box(coded).chunks(PIECE_BYTES) {
                    decoder.feed(piece, &mut |run| bytes += run.len()).expect("not corrupt");
                }
                assert!(decoder.is_complete() && bytes == text.len());
                pool.put_back(decoder);
            });
        });
    }
    group.finish();
}

/// The three requests of RFC 7541 appendix C.4 again and again: Huffman code and both tables.
fn hpack(criterion: &mut Criterion) {
    let blocks: [&[u8]; 3] = [
        &[0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
        &[0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf],
        &[
            0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89, 0x25, 0xa8, 0x49,
            0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf,
        ],
    ];
    let mut group = criterion.benchmark_group("hpack");
    group.throughput(Throughput::Bytes(blocks.iter().map(|block| block.len() as u64).sum()));
    group.bench_function("rfc 7541 c.4", |bencher| {
        let mut decoder = hpack::Decoder::new();
        bencher.iter(|| {
            let mut fields = 0;
            for block in black_box(blocks) {
                fields += decoder.decode(block).expect("not malformed").with(|list| list.len());
            }
            assert_eq!(fields, 4 + 5 + 5);
        });
    });
    group.finish();
}

impl http2::Sink for Count {
    fn request(&mut self, _: http2::StreamId, _: &RequestHead<'_>, _: usize) {}
    fn response(&mut self, _: http2::StreamId, head: &ResponseHead<'_>, unknown_fields: usize) {
        assert_eq!((head.status, unknown_fields), (200, 0));
    }
    fn body(&mut self, _: http2::StreamId, bytes: &[u8]) {
        self.body_bytes += bytes.len();
    }
    fn gap(&mut self, _: http2::StreamId, _: u64) {}
    fn trailers(&mut self, _: http2::StreamId, _: &[Field<'_>]) {}
    fn end(&mut self, _: http2::StreamId, end: http2::End) {
        self.complete += usize::from(end == http2::End::Complete);
    }
    fn reset(&mut self, _: http2::StreamId, _: u32) {}
    fn go_away(&mut self, _: http2::StreamId, _: u32) {}
    fn malformed(&mut self, error: http2::Malformed) {
        panic!("{error}");
    }
}

/// Responses on several streams whose frames lie between each other, one event a frame.
fn http2(criterion: &mut Criterion) {
    const STREAMS: u32 = 8;
    const EVENTS: usize = 1_000;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let ids = || (0..STREAMS).map(|number| 2 * number + 1);
    let event = events(1);
    let mut input = vec![];
    // END_HEADERS; `:status: 200` of the static table.
    ids().for_each(|stream| input.extend(frame(1, 4, stream, &[0x88])));
    for _ in 0..EVENTS {
        ids().for_each(|stream| input.extend(frame(0, 0, stream, event.as_bytes())));
    }
    ids().for_each(|stream| input.extend(frame(0, 1, stream, b"")));
    let mut group = criterion.benchmark_group("http2");
    group.throughput(Throughput::Bytes(input.len() as u64));
    for (name, piece_bytes) in [("interleaved streams", PIECE_BYTES), ("interleaved streams in pieces of 100", 100)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (mut decoder, mut count) = (http2::Decoder::responses(), Count::default());
                for piece in black_box(&input[..]).chunks(piece_bytes) {
                    decoder.feed(piece, &mut count);
                }
                let streams = STREAMS as usize;
                assert_eq!((count.complete, count.body_bytes), (streams, streams * EVENTS * event.len()));
            });
        });
    }
    group.finish();
}

/// One document a line, and an array of documents.
fn documents(criterion: &mut Criterion) {
    const COUNT: usize = 4_000;
    let document = events(1).trim_start_matches("data: ").trim_end().to_owned();
    let lines = format!("{document}\n").repeat(COUNT);
    let array = format!("[{}]", vec![&*document; COUNT].join(",\n"));
    let mut group = criterion.benchmark_group("documents");
    group.throughput(Throughput::Bytes(lines.len() as u64));
    group.bench_function("lines", |bencher| {
        let mut decoder = ndjson::Decoder::default();
        bencher.iter(|| {
            let mut bytes = 0;
            for piece in black_box(lines.as_bytes()).chunks(PIECE_BYTES) {
                decoder.feed(piece, &mut |line| bytes += line.len());
            }
            assert_eq!(bytes, COUNT * document.len());
        });
    });
    group.throughput(Throughput::Bytes(array.len() as u64));
    group.bench_function("array", |bencher| {
        bencher.iter(|| {
            let (mut decoder, mut bytes) = (json_array::Decoder::default(), 0);
            for piece in black_box(array.as_bytes()).chunks(PIECE_BYTES) {
                decoder.feed(piece, &mut |element| bytes += element.len());
            }
            assert_eq!(bytes, COUNT * document.len());
        });
    });
    group.finish();
}

/// Messages of a server, and of a client, which are masked.
fn websocket(criterion: &mut Criterion) {
    const COUNT: usize = 4_000;
    struct Messages(usize);
    impl websocket::Sink for Messages {
        fn message(&mut self, _: websocket::Kind, payload: &[u8]) {
            self.0 += payload.len();
        }
        fn lost(&mut self, bytes: u64) {
            panic!("{bytes} lost");
        }
        fn close(&mut self, _: Option<u16>) {}
    }
    let event = events(1).into_bytes();
    let length = (event.len() as u16).to_be_bytes();
    let mask = [1, 2, 3, 4];
    let masked: Vec<u8> = event.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    let server = [&[0x81, 126], &length[..], &event].concat().repeat(COUNT);
    let client = [&[0x81, 254], &length[..], &mask, &masked].concat().repeat(COUNT);
    let none = websocket::Extensions::agreed(&[]).expect("no extension");
    let mut group = criterion.benchmark_group("websocket");
    for (name, input, decoder) in [
        ("server", &server, websocket::Decoder::server as fn(&websocket::Extensions) -> websocket::Decoder),
        ("client", &client, websocket::Decoder::client),
    ] {
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(name, |bencher| {
            let mut decoder = decoder(&none);
            bencher.iter(|| {
                let mut messages = Messages(0);
                for piece in black_box(&input[..]).chunks(PIECE_BYTES) {
                    decoder.feed(piece, &mut messages).expect("not malformed");
                }
                assert_eq!(messages.0, COUNT * event.len());
            });
        });
    }
    group.finish();
}

fn eventstream(criterion: &mut Criterion) {
    let message = {
        let payload = events(1).into_bytes();
        let mut out = (payload.len() as u32 + 16).to_be_bytes().to_vec();
        out.extend([0; 4]);
        let checksum = |bytes: &[u8]| {
            let mut crc = flate2::Crc::new();
            crc.update(bytes);
            crc.sum().to_be_bytes()
        };
        out.extend(checksum(&out));
        out.extend(payload);
        out.extend(checksum(&out));
        out
    };
    let input = message.repeat(4000);
    let mut group = criterion.benchmark_group("eventstream");
    group.throughput(Throughput::Bytes(input.len() as u64));
    group.bench_function("messages", |bencher| {
        let mut decoder = eventstream::Decoder::default();
        bencher.iter(|| {
            let mut count = 0;
            for piece in black_box(&input[..]).chunks(PIECE_BYTES) {
                decoder.feed(piece, &mut |_| count += 1);
            }
            assert_eq!(count, 4000);
        });
    });
    group.finish();
}

criterion_group!(benches, http1, http2, hpack, coding, sse, documents, eventstream, websocket);
criterion_main!(benches);
