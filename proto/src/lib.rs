//! OTLP messages that borrow their data, and their encoder.
//!
//! ```text
//! Span, Metric           borrow strings, give their attributes through a visitor
//!   │  encoded once, straight into the request's buffer
//!   ▼
//! Request                records of one resource and one scope, up to a count and a size
//!   │  finish: the lengths and the envelope go in front of the records
//!   ▼
//! Body                   the bytes to send, in a buffer that comes back for the next request
//! ```
//!
//! The length of a protobuf message stands before its content, so an encoder has to measure
//! everything first (prost walks each message once per level of nesting), write backwards, or come
//! back to the length. This one comes back: attributes are visited once, in their order, which a
//! backward encoder would turn around; nearly all lengths are known at once from a key and a
//! string; and the few that are not (a span, a request) are written into room that was left for
//! them. A wrong guess of that room moves the bytes of one span by one. The result has no padding:
//! it is as long as what prost writes for the same message.
//!
//! The JSON mapping of the same messages is written in the same way, with everything that stands
//! behind the records put there at the end. There is no gRPC and no decoder of telemetry here; of what
//! a collector sends, only its responses are read.

mod json;
pub mod metric;
pub mod request;
pub mod response;
pub mod trace;
pub mod value;
mod wire;

pub use request::{Appended, Body, Encoding, Envelope, Kind, Request, Scope};
pub use trace::{Span, SpanFlags, SpanKind, Status};
pub use value::{AnyValue, Attributes};
