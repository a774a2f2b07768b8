//! What a collector answers.

use prost::{DecodeError, Message};

/// `ExportTraceServiceResponse` and its sisters, which have the same shape.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ExportResponse {
    /// Set when a part of the request was not accepted, or accepted with a warning.
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess` and its sisters.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PartialSuccess {
    /// Records that were rejected; they are not to be sent again.
    #[prost(int64, tag = "1")]
    pub rejected: i64,
    /// Why, in words for a person.
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// `google.rpc.Status`, the body of a response to a refused request. Its details are skipped.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RpcStatus {
    /// A gRPC code. OTLP tells clients not to act on it.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What went wrong, in words for a person.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Reads the body of a response with status 200.
pub fn decode_export_response(body: &[u8]) -> Result<ExportResponse, DecodeError> {
    ExportResponse::decode(body)
}

/// Reads the body of any other response, which is not bound to have one.
pub fn decode_status(body: &[u8]) -> Result<RpcStatus, DecodeError> {
    RpcStatus::decode(body)
}
