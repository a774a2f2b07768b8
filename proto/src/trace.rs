//! Spans.

use crate::{
    json::put_object,
    request::Record,
    value::{Attributes, put_attributes, put_json_attributes},
    wire::{
        put_bytes, put_bytes_unless_empty, put_fixed32_unless_zero, put_fixed64_unless_zero, put_message,
        put_varint_unless_zero,
    },
};

/// `opentelemetry.proto.trace.v1.Span`. `A` gives the attributes.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a, A> {
    /// Trace id, not all zero.
    pub trace_id: [u8; 16],
    /// Span id, not all zero.
    pub span_id: [u8; 8],
    /// W3C `tracestate`, or nothing.
    pub trace_state: &'a str,
    /// The parent's span id; a root has none.
    pub parent_span_id: Option<[u8; 8]>,
    /// W3C trace flags and what is known of the parent.
    pub flags: SpanFlags,
    /// Name, of low cardinality.
    pub name: &'a str,
    /// Kind.
    pub kind: SpanKind,
    /// Begin, in nanoseconds since the Unix epoch.
    pub start_time_unix_nano: u64,
    /// End, in nanoseconds since the Unix epoch, not before the begin.
    pub end_time_unix_nano: u64,
    /// Attributes.
    pub attributes: A,
    /// Status.
    pub status: Status<'a>,
}

/// `SpanKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum SpanKind {
    /// Within an application.
    Internal = 1,
    /// The side that received a request.
    Server = 2,
    /// The side that sent a request.
    Client = 3,
    /// The side that put a message somewhere.
    Producer = 4,
    /// The side that took a message.
    Consumer = 5,
}

/// `Span.flags`: the low eight bits are the W3C trace flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanFlags(u32);

impl SpanFlags {
    /// It is known whether the parent is remote.
    const CONTEXT_HAS_IS_REMOTE: u32 = 0x100;
    /// The parent is remote.
    const CONTEXT_IS_REMOTE: u32 = 0x200;

    /// W3C `trace_flags` of a span whose parent came over the wire, or not.
    pub const fn new(trace_flags: u8, parent_is_remote: bool) -> Self {
        let remote = if parent_is_remote { Self::CONTEXT_IS_REMOTE } else { 0 };
        Self(trace_flags as u32 | Self::CONTEXT_HAS_IS_REMOTE | remote)
    }

    /// The field's value.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// `Status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status<'a> {
    /// The default: nothing went wrong that anybody knows of.
    #[default]
    Unset,
    /// Declared a success by somebody who knows.
    Ok,
    /// An error, with a description or an empty one.
    Error(&'a str),
}

/// The length of a span with a few dozen attributes takes two bytes, one with content three.
const SPAN_LEN_ROOM: usize = 2;

impl<A: Attributes> Record for Span<'_, A> {
    fn put(&self, out: &mut Vec<u8>) {
        put_message(Self::FIELD, SPAN_LEN_ROOM, out, |out| {
            put_bytes(1, &self.trace_id, out);
            put_bytes(2, &self.span_id, out);
            put_bytes_unless_empty(3, self.trace_state.as_bytes(), out);
            if let Some(parent) = &self.parent_span_id {
                put_bytes(4, parent, out);
            }
            put_bytes_unless_empty(5, self.name.as_bytes(), out);
            put_varint_unless_zero(6, self.kind as u64, out);
            put_fixed64_unless_zero(7, self.start_time_unix_nano, out);
            put_fixed64_unless_zero(8, self.end_time_unix_nano, out);
            put_attributes(9, &self.attributes, out);
            put_varint_unless_zero(10, self.attributes.dropped().into(), out);
            match self.status {
                Status::Unset => {}
                Status::Ok => put_message(15, 1, out, |out| put_varint_unless_zero(3, 1, out)),
                Status::Error(message) => put_message(15, 1, out, |out| {
                    put_bytes_unless_empty(2, message.as_bytes(), out);
                    put_varint_unless_zero(3, 2, out);
                }),
            }
            put_fixed32_unless_zero(16, self.flags.bits(), out);
        });
    }

    fn put_json(&self, out: &mut Vec<u8>) {
        put_object(out, |span| {
            span.hex("traceId", &self.trace_id);
            span.hex("spanId", &self.span_id);
            span.string_unless_empty("traceState", self.trace_state);
            if let Some(parent) = &self.parent_span_id {
                span.hex("parentSpanId", parent);
            }
            span.number_unless_zero("flags", self.flags.bits());
            span.string_unless_empty("name", self.name);
            span.number_unless_zero("kind", self.kind as u32);
            span.long_unless_zero("startTimeUnixNano", self.start_time_unix_nano);
            span.long_unless_zero("endTimeUnixNano", self.end_time_unix_nano);
            put_json_attributes(&self.attributes, span);
            span.number_unless_zero("droppedAttributesCount", self.attributes.dropped());
            match self.status {
                Status::Unset => {}
                Status::Ok => span.object("status", |status| status.number_unless_zero("code", 1)),
                Status::Error(message) => span.object("status", |status| {
                    status.string_unless_empty("message", message);
                    status.number_unless_zero("code", 2);
                }),
            }
        });
    }
}
