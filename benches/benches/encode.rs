//! Encoding finished exchanges as an OTLP request: straight from what they borrow, against owned
//! messages of `opentelemetry-proto` that prost encodes.

use std::{hint::black_box, sync::Arc};

use agentsight::{
    arena::Travelling,
    exchange::{Call, CallFamily, Exchange, Process, Role, TraceContext, Value},
    export::{limit::AttributeLimits, span},
};
use agentsight_otlp::{AnyValue, Appended, Body, Envelope, Request, Scope, request::SizeLimits};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{self as oracle, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

const SPANS: u64 = 512;
const RESOURCE: [(&str, AnyValue<'_>); 3] = [
    ("service.name", AnyValue::Str("agentsight")),
    ("host.name", AnyValue::Str("gateway-7")),
    ("os.type", AnyValue::Str("linux")),
];
const LIMITS: SizeLimits = SizeLimits { target_bytes: 1 << 30, bytes_max: 1 << 30 };

/// A streamed chat as it is common, with `content_bytes` of captured content.
fn exchange(index: u64, content_bytes: usize) -> Exchange {
    let call = Travelling::<CallFamily>::new(Box::default(), |arena| {
        arena.alloc(Call {
            operation: "chat",
            provider: "openai",
            server_address: Some("api.openai.com"),
            server_port: Some(443),
            request_model: Some(arena.alloc_str("gpt-4o-mini")),
            max_tokens: Some(1024),
            temperature: Some(0.2),
            stream: true,
            openai_api_type: Some("chat_completions"),
            openai_response_service_tier: Some("default"),
            openai_system_fingerprint: Some("fp_44709d6fcb"),
            response_id: Some(arena.alloc_str(&format!("chatcmpl-{index:029}"))),
            response_model: Some(arena.alloc_str("gpt-4o-mini-2024-07-18")),
            finish_reasons: Some(arena.alloc_slice_copy(&["stop"])),
            input_tokens: Some(1834),
            output_tokens: Some(271),
            cache_read_tokens: Some(1024),
            reasoning_tokens: Some(0),
            status_code: Some(200),
            input_messages: (content_bytes > 0).then(|| &*arena.alloc_str(&"x".repeat(content_bytes))),
            ..Call::default()
        })
    });
    Exchange {
        role: Role::Client,
        trace: TraceContext {
            trace_id: u128::from(index + 1).to_be_bytes(),
            span_id: (index + 1).to_be_bytes(),
            parent_span_id: Some([7; 8]),
            flags: 1,
        },
        process: Arc::new(Process {
            pid: 4711,
            executable: Some("python3.12".to_owned()),
            container_id: Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned()),
            ..Process::default()
        }),
        network: Arc::default(),
        thread_id: 4712,
        start_unix_nano: 1_700_000_000_000_000_000 + index,
        end_unix_nano: 1_700_000_001_000_000_000 + index,
        first_chunk_nano: Some(321_000_000),
        chunk_intervals: Default::default(),
        end_unseen: false,
        lost_bytes: 0,
        incomplete: false,
        worker: 0,
        call,
    }
}

fn borrowed(exchanges: &[Exchange], envelope: &Envelope, name: &mut String, buffer: Vec<u8>) -> Body {
    let mut request = Request::new(envelope, LIMITS, buffer);
    for exchange in exchanges {
        assert_eq!(span::append(exchange, &AttributeLimits::default(), name, &mut request), Appended::Yes);
    }
    request.finish(envelope)
}

/// What an exporter on top of the generated types does.
fn owned(exchanges: &[Exchange]) -> ExportTraceServiceRequest {
    let text = |text: &str| any_value::Value::StringValue(text.to_owned());
    let pair = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(oracle::AnyValue { value: Some(value) }),
        ..Default::default()
    };
    let spans = exchanges.iter().map(|exchange| {
        let mut attributes = Vec::new();
        exchange.attributes(&mut |key, value| {
            let value = match value {
                Value::Str(value) => text(value),
                Value::Int(value) => any_value::Value::IntValue(value),
                Value::Double(value) => any_value::Value::DoubleValue(value),
                Value::Bool(value) => any_value::Value::BoolValue(value),
                Value::List(list) => any_value::Value::ArrayValue(oracle::ArrayValue {
                    values: list.iter().map(|item| oracle::AnyValue { value: Some(text(item)) }).collect(),
                }),
            };
            attributes.push(pair(key, value));
        });
        let mut name = String::new();
        exchange.name(&mut name);
        Span {
            trace_id: exchange.trace.trace_id.to_vec(),
            span_id: exchange.trace.span_id.to_vec(),
            parent_span_id: exchange.trace.parent_span_id.unwrap().to_vec(),
            flags: u32::from(exchange.trace.flags) | 0x300,
            name,
            kind: 3,
            start_time_unix_nano: exchange.start_unix_nano,
            end_time_unix_nano: exchange.end_unix_nano,
            attributes,
            ..Default::default()
        }
    });
    let resource = RESOURCE.iter().map(|(key, value)| match value {
        AnyValue::Str(value) => pair(key, text(value)),
        _ => unreachable!(),
    });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: resource.collect(), ..Default::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { name: "agentsight".to_owned(), ..Default::default() }),
                spans: spans.collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn encode(criterion: &mut Criterion) {
    let envelope = Envelope::new(&RESOURCE[..], Scope { name: "agentsight", version: "" }, "");
    for (label, content_bytes) in [("metadata", 0), ("content", 16 * 1024)] {
        let exchanges: Vec<_> = (0..SPANS).map(|index| exchange(index, content_bytes)).collect();
        let mut name = String::new();
        let body = borrowed(&exchanges, &envelope, &mut name, Vec::new());
        let messages = owned(&exchanges);
        assert_eq!(ExportTraceServiceRequest::decode(body.as_ref()).unwrap(), messages);
        assert_eq!(body.as_ref().len(), messages.encoded_len());

        let mut group = criterion.benchmark_group(format!("encode/{label}"));
        group.throughput(Throughput::ElementsAndBytes { elements: SPANS, bytes: body.as_ref().len() as u64 });
        let mut buffer = Some(body.into_buffer());
        group.bench_function("borrowed", |bencher| {
            bencher.iter(|| {
                let buffer_of_last = buffer.take().unwrap();
                let body = borrowed(black_box(&exchanges), &envelope, &mut name, buffer_of_last);
                buffer = Some(black_box(body).into_buffer());
            });
        });
        let mut out = Vec::new();
        group.bench_function("prost, messages built beforehand", |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&messages).encode(&mut out).unwrap();
                black_box(&mut out);
            });
        });
        group.bench_function("prost, messages built from the exchange", |bencher| {
            bencher.iter(|| {
                out.clear();
                owned(black_box(&exchanges)).encode(&mut out).unwrap();
                black_box(&mut out);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, encode);
criterion_main!(benches);
