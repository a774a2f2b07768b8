//! Responses that the generated types of `opentelemetry-proto` encode are read right.

use agentsight_otlp::response::{PartialSuccess, RpcStatus, decode_export_response, decode_status};
use opentelemetry_proto::tonic::collector::{metrics::v1 as metrics, trace::v1 as trace};
use proptest::prelude::*;
use prost::Message;

proptest! {
    #[test]
    fn partial_success_of_either_signal(rejected in any::<i64>(), error_message in ".{0,300}") {
        let expected = PartialSuccess { rejected, error_message: error_message.clone() };
        let of_traces = trace::ExportTraceServiceResponse {
            partial_success: Some(trace::ExportTracePartialSuccess {
                rejected_spans: rejected,
                error_message: error_message.clone(),
            }),
        };
        let of_metrics = metrics::ExportMetricsServiceResponse {
            partial_success: Some(metrics::ExportMetricsPartialSuccess {
                rejected_data_points: rejected,
                error_message,
            }),
        };
        for encoded in [of_traces.encode_to_vec(), of_metrics.encode_to_vec()] {
            let decoded = decode_export_response(&encoded).unwrap();
            prop_assert_eq!(decoded.partial_success.as_ref(), Some(&expected));
        }
    }

    #[test]
    fn hostile_bytes_are_an_error_or_a_value(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_export_response(&bytes);
        let _ = decode_status(&bytes);
    }
}

#[test]
fn full_success_is_empty_or_nearly() {
    assert_eq!(decode_export_response(b"").unwrap().partial_success, None);
    // A field that a later version may add.
    assert_eq!(decode_export_response(b"\x7a\x02hi").unwrap().partial_success, None);
}

#[test]
fn a_status_is_read_without_its_details() {
    // google.rpc.Status { code: 3, message: "bad", details: [Any { type_url: "x" }] }
    let status = decode_status(b"\x08\x03\x12\x03bad\x1a\x03\x0a\x01x").unwrap();
    assert_eq!(status, RpcStatus { code: 3, message: "bad".to_owned() });
    assert_eq!(decode_status(b"").unwrap(), RpcStatus::default());
    assert!(decode_status(b"\x12\x05ba").is_err(), "cut off");
    assert!(decode_status(b"\x12\x01\xff").is_err(), "not UTF-8");
}
