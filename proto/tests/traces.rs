//! What this crate encodes, the generated types of `opentelemetry-proto` decode to the same values.

mod common;

use agentsight_otlp::{
    AnyValue, Appended, Attributes, Body, Encoding, Envelope, Kind, Request, Scope, Span, SpanFlags, SpanKind, Status,
    request::SizeLimits,
};
use common::{Given, attributes};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
    trace::v1::{self as oracle, ResourceSpans, ScopeSpans},
};
use proptest::prelude::*;
use prost::Message;

const WIDE: SizeLimits = SizeLimits { target_bytes: 1 << 30, bytes_max: 1 << 30 };

fn spans() -> impl Strategy<Value = oracle::Span> {
    let ids = (any::<[u8; 16]>(), any::<[u8; 8]>(), proptest::option::of(any::<[u8; 8]>()), "[a-z=,]{0,40}");
    let status = prop_oneof![Just(None), Just(Some((1, String::new()))), ".{0,200}".prop_map(|text| Some((2, text)))];
    let rest = (".{0,50}", 1..=5, any::<u64>(), any::<u64>(), any::<u32>(), any::<u8>(), any::<bool>());
    (ids, rest, attributes(), status).prop_map(|(ids, rest, attributes, status)| oracle::Span {
        trace_id: ids.0.to_vec(),
        span_id: ids.1.to_vec(),
        parent_span_id: ids.2.map(|id| id.to_vec()).unwrap_or_default(),
        trace_state: ids.3,
        name: rest.0,
        kind: rest.1,
        start_time_unix_nano: rest.2,
        end_time_unix_nano: rest.3,
        dropped_attributes_count: rest.4,
        flags: u32::from(rest.5) | 0x100 | if rest.6 { 0x200 } else { 0 },
        attributes,
        status: status.map(|(code, message)| oracle::Status { code, message }),
        ..Default::default()
    })
}

/// Attributes of which some were left out.
struct Dropping<'a>(Given<'a>, u32);

impl Attributes for Dropping<'_> {
    fn visit(&self, visit: &mut dyn FnMut(&str, &AnyValue<'_>)) {
        self.0.visit(visit);
    }

    fn dropped(&self) -> u32 {
        self.1
    }
}

/// Appends a generated span in this crate's terms.
fn append(request: &mut Request, span: &oracle::Span) -> Appended {
    request.append(&Span {
        trace_id: span.trace_id[..].try_into().unwrap(),
        span_id: span.span_id[..].try_into().unwrap(),
        trace_state: &span.trace_state,
        parent_span_id: span.parent_span_id[..].try_into().ok(),
        flags: SpanFlags::new(span.flags as u8, span.flags & 0x200 != 0),
        name: &span.name,
        kind: [SpanKind::Internal, SpanKind::Server, SpanKind::Client, SpanKind::Producer, SpanKind::Consumer]
            [span.kind as usize - 1],
        start_time_unix_nano: span.start_time_unix_nano,
        end_time_unix_nano: span.end_time_unix_nano,
        attributes: Dropping(Given(&span.attributes), span.dropped_attributes_count),
        status: match &span.status {
            None => Status::Unset,
            Some(status) if status.code == 1 => Status::Ok,
            Some(status) => Status::Error(&status.message),
        },
    })
}

fn envelope(resource: &impl Attributes, scope: &InstrumentationScope, schema_url: &str) -> Envelope {
    Envelope::new(resource, Scope { name: &scope.name, version: &scope.version }, schema_url)
}

/// Decodes `body` and checks that it is exactly as long as what prost writes for the same message.
fn decode(body: &Body) -> ExportTraceServiceRequest {
    let decoded = ExportTraceServiceRequest::decode(body.as_ref()).unwrap();
    assert_eq!(body.as_ref().len(), decoded.encoded_len(), "no padding");
    decoded
}

fn request(
    resource: Vec<KeyValue>,
    scope: InstrumentationScope,
    schema_url: &str,
    spans: Vec<oracle::Span>,
) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: resource, ..Default::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, schema_url: schema_url.to_owned() }],
            schema_url: String::new(),
        }],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_request_decodes_to_what_went_into_it(
        resource in attributes(),
        scope in (".{0,20}", ".{0,10}"),
        schema_url in "[a-z:/.]{0,40}",
        spans in proptest::collection::vec(spans(), 0..6),
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let scope = InstrumentationScope { name: scope.0, version: scope.1, ..Default::default() };
        let envelope = envelope(&Given(&resource), &scope, &schema_url);
        let mut building = Request::new(&envelope, WIDE, garbage);
        for span in &spans {
            prop_assert_eq!(append(&mut building, span), Appended::Yes);
        }
        prop_assert_eq!(building.records(), spans.len());
        let bound = building.bytes();
        let body = building.finish(&envelope);
        prop_assert!(body.as_ref().len() <= bound);
        prop_assert_eq!(body.records(), spans.len());
        let expected = request(resource.clone(), scope.clone(), &schema_url, spans.clone());
        prop_assert_eq!(decode(&body), expected);

        let (mut resource, mut spans) = (resource, spans);
        common::make_finite(&mut resource);
        spans.iter_mut().for_each(|span| common::make_finite(&mut span.attributes));
        let expected = request(resource.clone(), scope.clone(), &schema_url, spans.clone());
        let scope = Scope { name: &scope.name, version: &scope.version };
        let envelope = Envelope::encoded(Encoding::Json, Kind::Spans, &Given(&resource), scope, &schema_url);
        let mut building = Request::new(&envelope, WIDE, body.into_buffer());
        for span in &spans {
            prop_assert_eq!(append(&mut building, span), Appended::Yes);
        }
        let bytes = building.bytes();
        let body = building.finish(&envelope);
        prop_assert_eq!((body.as_ref().len(), body.records(), body.encoding()), (bytes, spans.len(), Encoding::Json));
        prop_assert_eq!(common::from_json::<ExportTraceServiceRequest>(body.as_ref()), expected);
    }

    #[test]
    fn a_request_keeps_to_its_size_and_loses_no_span(
        spans in proptest::collection::vec(spans(), 1..12),
        target_bytes in 100_usize..4_000,
        json: bool,
    ) {
        let mut spans = spans;
        spans.iter_mut().for_each(|span| common::make_finite(&mut span.attributes));
        let limits = SizeLimits { target_bytes, bytes_max: 2 * target_bytes };
        let encoding = if json { Encoding::Json } else { Encoding::Protobuf };
        let envelope = Envelope::encoded(encoding, Kind::Spans, &Given(&[]), Scope::default(), "");
        let mut building = Request::new(&envelope, limits, Vec::new());
        let (mut sent, mut left_out) = (Vec::new(), Vec::new());
        let mut close = |building: &mut Request| {
            let full = std::mem::replace(building, Request::new(&envelope, limits, Vec::new()));
            if full.records() > 0 {
                let body = full.finish(&envelope);
                let size = body.as_ref().len();
                assert!(size <= limits.target_bytes || body.records() == 1 && size <= limits.bytes_max);
                let mut request = if json { common::from_json(body.as_ref()) } else { decode(&body) };
                sent.extend(request.resource_spans.remove(0).scope_spans.remove(0).spans);
            }
        };
        for span in &spans {
            let mut appended = append(&mut building, span);
            if appended == Appended::Full {
                close(&mut building);
                appended = append(&mut building, span);
            }
            match appended {
                Appended::Yes => {}
                Appended::Full => panic!("an empty request is never full"),
                Appended::TooLarge => left_out.push(span.clone()),
            }
        }
        close(&mut building);
        for span in &left_out {
            prop_assert!(json || span.encoded_len() + 30 > limits.bytes_max);
        }
        let kept: Vec<_> = spans.into_iter().filter(|span| !left_out.contains(span)).collect();
        prop_assert_eq!(sent, kept);
    }
}

#[test]
fn lengths_of_every_width_are_right() {
    let scope = InstrumentationScope { name: "s".to_owned(), ..Default::default() };
    let envelope = envelope(&Given(&[]), &scope, "");
    for len in [0, 1, 60, 120, 128, 200, 16_200, 16_300, 16_384, 2_097_152 + 7] {
        let span = oracle::Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: "n".repeat(len),
            kind: 3,
            flags: 0x100,
            ..Default::default()
        };
        let mut building = Request::new(&envelope, WIDE, Vec::new());
        assert_eq!(append(&mut building, &span), Appended::Yes);
        let decoded = decode(&building.finish(&envelope));
        assert_eq!(decoded, request(vec![], scope.clone(), "", vec![span]));
    }
}
