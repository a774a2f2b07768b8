//! Export requests: many records of one resource and one scope.
//!
//! `ExportTraceServiceRequest` and its sisters for metrics and logs have the same shape and the
//! same field numbers down to the record, so one builder makes them all.

use prost::encoding::{encode_varint, encoded_len_varint};

use crate::{
    value::{Attributes, put_attributes},
    wire::{put_bytes, put_bytes_unless_empty, put_message},
};

/// What a request is made of: a span, a metric.
pub trait Record {
    /// `ScopeSpans.spans`, `ScopeMetrics.metrics`, `ScopeLogs.log_records`.
    const FIELD: u32 = 2;

    /// Appends the record, with its key and length, to `out`.
    fn put(&self, out: &mut Vec<u8>);
}

/// `opentelemetry.proto.common.v1.InstrumentationScope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope<'a> {
    /// Who made the telemetry.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
}

/// What stands before the records of every request: resource, scope and schema. Encoded once.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// `ResourceSpans.resource`, as a field.
    resource: Vec<u8>,
    /// `ScopeSpans.scope` and `ScopeSpans.schema_url`, as fields.
    scope: Vec<u8>,
}

/// The key and the longest length of `resource_spans` and of `scope_spans`.
const PREFIXES_LEN_MAX: usize = 2 * (1 + encoded_len_varint(u64::MAX));

impl Envelope {
    /// An envelope with the attributes of the resource. `schema_url` is that of the records.
    pub fn new(resource: &(impl Attributes + ?Sized), scope: Scope<'_>, schema_url: &str) -> Self {
        let mut envelope = Self { resource: Vec::new(), scope: Vec::new() };
        put_message(1, 2, &mut envelope.resource, |out| put_attributes(1, resource, out));
        put_message(1, 1, &mut envelope.scope, |out| {
            put_bytes_unless_empty(1, scope.name.as_bytes(), out);
            put_bytes_unless_empty(2, scope.version.as_bytes(), out);
        });
        if !schema_url.is_empty() {
            put_bytes(3, schema_url.as_bytes(), &mut envelope.scope);
        }
        envelope
    }

    /// The most that goes in front of the records.
    fn len_max(&self) -> usize {
        PREFIXES_LEN_MAX + self.resource.len() + self.scope.len()
    }
}

/// What became of a record that was to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Appended {
    /// It is in the request.
    Yes,
    /// It is not, since the request would grow past its size with it. The next one will take it.
    Full,
    /// It is not, and never will be: alone it is beyond the largest size.
    TooLarge,
}

/// The size that a request aims at, and the one that it never passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeLimits {
    /// A request takes no further record that would bring it past this.
    pub target_bytes: usize,
    /// A request with one record may have up to this.
    pub bytes_max: usize,
}

/// A request that is being filled.
///
/// The records are written one after the other behind some free room, and [`Request::finish`] puts
/// the envelope into that room so that it ends where they begin: nothing is moved or measured.
#[derive(Debug)]
pub struct Request {
    buffer: Vec<u8>,
    room: usize,
    records: usize,
    limits: SizeLimits,
}

impl Request {
    /// An empty request, in a `buffer` whose capacity is used again.
    pub fn new(envelope: &Envelope, limits: SizeLimits, mut buffer: Vec<u8>) -> Self {
        let room = envelope.len_max();
        buffer.clear();
        buffer.resize(room, 0);
        Self { buffer, room, records: 0, limits }
    }

    /// How many records are in the request.
    pub fn records(&self) -> usize {
        self.records
    }

    /// An upper bound of the request's size so far, envelope included.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Appends a record, unless that makes the request too large.
    pub fn append(&mut self, record: &impl Record) -> Appended {
        let before = self.buffer.len();
        record.put(&mut self.buffer);
        let refused = match self.records {
            0 if self.buffer.len() > self.limits.bytes_max => Appended::TooLarge,
            1.. if self.buffer.len() > self.limits.target_bytes => Appended::Full,
            _ => {
                self.records += 1;
                return Appended::Yes;
            }
        };
        self.buffer.truncate(before);
        refused
    }

    /// Completes the request. The `envelope` is the one that it was begun with.
    pub fn finish(mut self, envelope: &Envelope) -> Body {
        let records = self.buffer.len() - self.room;
        let scope_records = envelope.scope.len() + records;
        let scope_prefix = 1 + encoded_len_varint(scope_records as u64);
        let resource_records = envelope.resource.len() + scope_prefix + scope_records;
        let resource_prefix = 1 + encoded_len_varint(resource_records as u64);
        let front = resource_prefix + envelope.resource.len() + scope_prefix + envelope.scope.len();

        debug_assert!(front <= self.room, "another envelope than the request was begun with");
        let start = self.room - front;
        let mut front = &mut self.buffer[start..self.room];
        put_front(&mut front, 1, resource_records, &envelope.resource);
        put_front(&mut front, 2, scope_records, &envelope.scope);
        Body { buffer: self.buffer, start, records: self.records }
    }
}

/// A message's key, its length and the first of its content.
fn put_front(mut out: &mut &mut [u8], field: u32, len: usize, content: &[u8]) {
    use prost::{
        bytes::BufMut,
        encoding::{WireType, encode_key},
    };
    encode_key(field, WireType::LengthDelimited, &mut out);
    encode_varint(len as u64, &mut out);
    out.put_slice(content);
}

/// A finished request.
#[derive(Debug)]
pub struct Body {
    buffer: Vec<u8>,
    start: usize,
    records: usize,
}

impl Body {
    /// How many records the request has.
    pub fn records(&self) -> usize {
        self.records
    }

    /// The buffer, for another request.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }
}
