//! After warm-up, encoding a span and writing a line allocate nothing.

mod support;

use std::{io, sync::Arc};

use agentsight::{
    exchange::{Call, Exchange},
    export::{limit::AttributeLimits, span},
    output::{Lines, Style},
};
use agentsight_otlp::{AnyValue, Appended, Encoding, Envelope, Kind, Request, Scope, request::SizeLimits};
use support::exchange_with;

/// Exchanges with strings, lists and numbers of various lengths.
fn exchanges() -> Vec<Exchange> {
    let exchange = |index| {
        let mut exchange = exchange_with(index, Box::default(), |call| Call {
            stop_sequences: Some(&["\n", "END", "\u{1}"]),
            finish_reasons: Some(&["stop", "length"]),
            input_messages: Some(r#"[{"role":"user","parts":[{"type":"text","content":"Hi"}]}]"#),
            error_type: (call.max_tokens.is_some()).then_some("server_error"),
            trace_state: Some("a=1,b=2"),
            ..call
        });
        exchange.first_chunk_nano = Some(index * 1_000_003);
        exchange.lost_bytes = index % 3;
        exchange
    };
    (0..100).map(exchange).collect()
}

/// Allocations that `work` makes once it has run already.
fn allocations(mut work: impl FnMut()) -> u64 {
    work();
    allocation_counter::measure(work).count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

#[test]
fn encoding_spans() {
    let exchanges = exchanges();
    let resource = [("service.name", AnyValue::Str("agentsight"))];
    let scope = Scope { name: "agentsight", version: "1" };
    let limits = SizeLimits { target_bytes: 1 << 20, bytes_max: 1 << 20 };
    let short = AttributeLimits { count_max: 10, value_chars_max: Some(3) };
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        let envelope = Envelope::encoded(encoding, Kind::Spans, &resource[..], scope, "http://schema");
        for attributes in [AttributeLimits::default(), short] {
            let (mut name, mut buffer) = (String::new(), Vec::new());
            let count = allocations(|| {
                let mut request = Request::new(&envelope, limits, std::mem::take(&mut buffer));
                for exchange in &exchanges {
                    assert_eq!(span::append(exchange, &attributes, &mut name, &mut request), Appended::Yes);
                }
                let body = request.finish(&envelope);
                assert_eq!(body.records(), exchanges.len());
                buffer = body.into_buffer();
            });
            assert_eq!(count, 0, "{encoding:?} {attributes:?}");
        }
    }
}

#[test]
fn writing_lines() {
    let exchanges = exchanges();
    for style in [Style::Json, Style::Readable { colour: true }] {
        let mut lines = Lines::new(style, Box::new(io::sink()), Arc::default()).unwrap();
        // A few rounds are the warm-up, until as many buffers go round as there will ever be.
        let mut rounds = 0;
        let count = loop {
            let count = allocations(|| exchanges.iter().for_each(|exchange| lines.write(exchange)));
            lines.flush();
            rounds += 1;
            if count == 0 || rounds == 1000 {
                break count;
            }
        };
        assert_eq!(count, 0, "{style:?}");
    }
}
