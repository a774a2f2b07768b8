//! From ring records to finished exchanges, on one core, beside a memcpy of the same bytes.
//!
//! The records are those of captured connections: heads and bodies in the pieces that TLS libraries
//! hand over. Each iteration goes through all of them and requires every exchange to come out.

use std::{hint::black_box, sync::Arc};

use agentsight::{
    exchange::Exchange,
    flow::{IdSource, Outlet, Pipeline, Roles, Settings, describe_by_comm},
    genai,
    metrics::Metrics,
    ring::Record,
    sys::clock::UnixOffset,
};
use agentsight_abi::{Direction, Kind, RecordHeader};
use bumpalo::Bump;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Plaintext of one TLS record at most, RFC 8446 section 5.1.
const TLS_RECORD_BYTES: usize = 16 * 1024;
const EXCHANGES: usize = 64;

struct Made {
    header: RecordHeader,
    payload: Vec<u8>,
}

/// Records of `EXCHANGES` exchanges on one connection.
fn records(exchange: impl Fn(usize) -> (Vec<u8>, Vec<Vec<u8>>)) -> Vec<Made> {
    let mut made = vec![];
    let mut offsets = [0; 2];
    let mut ktime_ns = 1;
    let mut push = |direction: Direction, kind: Kind, payload: Vec<u8>| {
        ktime_ns += 1000;
        let offset = &mut offsets[direction as usize];
        let header = RecordHeader {
            conn: 1,
            ktime_ns,
            offset: *offset,
            tgid: 1,
            tid: 1,
            len: payload.len() as u32,
            kind: kind as u8,
            direction: direction as u8,
            ..RecordHeader::default()
        };
        if kind == Kind::Data {
            *offset += payload.len() as u64;
        }
        made.push(Made { header, payload });
    };
    push(Direction::Write, Kind::Open, vec![0; 32]);
    for index in 0..EXCHANGES {
        let (request, response) = exchange(index);
        for piece in request.chunks(TLS_RECORD_BYTES) {
            push(Direction::Write, Kind::Data, piece.to_vec());
        }
        for piece in response.iter().flat_map(|piece| piece.chunks(TLS_RECORD_BYTES)) {
            push(Direction::Read, Kind::Data, piece.to_vec());
        }
    }
    made
}

fn request(stream: bool, padding: usize) -> Vec<u8> {
    let body = format!(
        r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{}"}}],"temperature":0.5,"max_tokens":256,"stream":{stream}}}"#,
        "lorem ipsum ".repeat(padding / 12)
    );
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: api.openai.com\r\nAuthorization: Bearer sk-0000\r\n\
                Content-Type: application/json\r\nAccept: */*\r\nUser-Agent: bench/1.0\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// One document of about `padding` bytes.
fn plain(padding: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let body = format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46}}}}"#,
        "dolor sit amet ".repeat(padding / 15)
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: 1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (request(false, padding), vec![[head.into_bytes(), body.into_bytes()].concat()])
}

/// A stream of `events` deltas, each a chunk and a read of its own.
fn streamed(events: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let chunk = |data: &str| format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8).into_bytes();
    let prefix = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_1","choices":[{"index":0,"delta":"#;
    let mut pieces =
        vec![b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec()];
    for index in 0..events {
        let delta = format!(r#"{prefix}{{"content":" word{index}"}},"finish_reason":null}}],"usage":null}}"#);
        pieces.push(chunk(&delta));
    }
    pieces.push(chunk(&format!(r#"{prefix}{{}},"finish_reason":"stop"}}],"usage":null}}"#)));
    pieces.push(chunk(
        r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini-2024-07-18","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46}}"#,
    ));
    pieces.push(chunk("[DONE]"));
    pieces.push(b"0\r\n\r\n".to_vec());
    (request(true, 1024), pieces)
}

/// Counts exchanges that say what they should, and gives their arenas back.
#[derive(Default)]
struct Count {
    right: usize,
    #[expect(clippy::vec_box, reason = "exchanges give and take boxes")]
    arenas: Vec<Box<Bump>>,
}

impl Outlet for Count {
    fn finished(&mut self, exchange: Exchange) {
        let right = exchange.call.with(|call| call.input_tokens == Some(12) && call.output_tokens == Some(34));
        self.right += usize::from(right);
        self.arenas.push(exchange.call.into_arena());
    }

    fn ignore(&mut self, _: u64) {}

    fn arena(&mut self) -> Option<Box<Bump>> {
        self.arenas.pop()
    }
}

fn pipeline(bench: &mut Criterion) {
    let mixes: [(&str, Vec<Made>); 4] = [
        ("1 KiB and 1 KiB", records(|_| plain(700))),
        ("64 KiB and 64 KiB", records(|_| plain(64 << 10))),
        ("stream of 200 events", records(|_| streamed(200))),
        (
            "mix, 70% streamed",
            records(|index| if index % 10 < 7 { streamed(20 + index * 10) } else { plain(index << 10) }),
        ),
    ];
    for (name, records) in &mixes {
        let bytes: usize = records.iter().map(|record| record.payload.len()).sum();
        let mut group = bench.benchmark_group(format!("records to exchanges, {name}"));
        let settings = Settings {
            roles: Roles::Client,
            call: genai::Options::default(),
            idle_ns: u64::MAX,
            clock: UnixOffset(0),
            ids: IdSource::fixed(1),
            describe: describe_by_comm,
            worker: 0,
        };
        let mut pipeline = Pipeline::new(settings, Arc::new(Metrics::default()));
        let mut count = Count::default();
        let mut go = || {
            count.right = 0;
            for Made { header, payload } in records {
                pipeline.record(&Record { header: *header, payload }, &mut count);
            }
            assert_eq!(count.right, EXCHANGES);
        };
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("bytes", |bencher| bencher.iter(&mut go));
        group.throughput(Throughput::Elements(EXCHANGES as u64));
        group.bench_function("exchanges", |bencher| bencher.iter(&mut go));
        let mut copy = vec![0; TLS_RECORD_BYTES];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("memcpy", |bencher| {
            bencher.iter(|| {
                for Made { payload, .. } in records {
                    copy[..payload.len()].copy_from_slice(black_box(payload));
                    black_box(&mut copy);
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
