//! Export requests: many records of one resource and one scope.
//!
//! `ExportTraceServiceRequest` and its sisters for metrics and logs have the same shape and the
//! same field numbers down to the record, so one builder makes them all.

use prost::encoding::{encode_varint, encoded_len_varint};

use crate::{
    json::put_object,
    value::{Attributes, put_attributes, put_json_attributes},
    wire::{put_bytes, put_bytes_unless_empty, put_message},
};

/// What a request is made of: a span, a metric.
pub trait Record {
    /// `ScopeSpans.spans`, `ScopeMetrics.metrics`, `ScopeLogs.log_records`.
    const FIELD: u32 = 2;

    /// Appends the record, with its key and length, to `out`.
    fn put(&self, out: &mut Vec<u8>);

    /// Appends the record in JSON, an object, to `out`.
    fn put_json(&self, out: &mut Vec<u8>);
}

/// How requests are written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `http/protobuf`.
    #[default]
    Protobuf,
    /// `http/json`.
    Json,
}

impl Encoding {
    /// The media type of a request in this encoding, and of its response.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// What the records of a request are. Protobuf gives their lists the same numbers, JSON names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ExportTraceServiceRequest`.
    Spans,
    /// `ExportMetricsServiceRequest`.
    Metrics,
}

impl Kind {
    /// The names of the lists by resource, by scope, and of the records.
    const fn lists(self) -> [&'static str; 3] {
        match self {
            Self::Spans => ["resourceSpans", "scopeSpans", "spans"],
            Self::Metrics => ["resourceMetrics", "scopeMetrics", "metrics"],
        }
    }
}

/// `opentelemetry.proto.common.v1.InstrumentationScope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope<'a> {
    /// Who made the telemetry.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
}

/// What stands around the records of every request: resource, scope and schema. Encoded once.
#[derive(Clone, Debug)]
pub struct Envelope(Around);

#[derive(Clone, Debug)]
enum Around {
    Protobuf {
        /// `ResourceSpans.resource`, as a field.
        resource: Vec<u8>,
        /// `ScopeSpans.scope` and `ScopeSpans.schema_url`, as fields.
        scope: Vec<u8>,
    },
    Json {
        /// Everything up to the first record.
        front: Vec<u8>,
        /// Everything from the last record on.
        back: Vec<u8>,
    },
}

/// The key and the longest length of `resource_spans` and of `scope_spans`.
const PREFIXES_LEN_MAX: usize = 2 * (1 + encoded_len_varint(u64::MAX));

impl Envelope {
    /// An envelope with the attributes of the resource. `schema_url` is that of the records.
    pub fn new(resource: &(impl Attributes + ?Sized), scope: Scope<'_>, schema_url: &str) -> Self {
        let (mut resource_field, mut scope_fields) = (Vec::new(), Vec::new());
        put_message(1, 2, &mut resource_field, |out| put_attributes(1, resource, out));
        put_message(1, 1, &mut scope_fields, |out| {
            put_bytes_unless_empty(1, scope.name.as_bytes(), out);
            put_bytes_unless_empty(2, scope.version.as_bytes(), out);
        });
        if !schema_url.is_empty() {
            put_bytes(3, schema_url.as_bytes(), &mut scope_fields);
        }
        Self(Around::Protobuf { resource: resource_field, scope: scope_fields })
    }

    /// The same for requests in JSON, which have to be told what their records are.
    pub fn json(kind: Kind, resource: &(impl Attributes + ?Sized), scope: Scope<'_>, schema_url: &str) -> Self {
        // A request without records, cut in two where they belong: `[` of their list ends the front.
        let [by_resource, by_scope, records] = kind.lists();
        let (mut whole, mut front_len) = (Vec::new(), 0);
        put_object(&mut whole, |request| {
            request.array(by_resource, |list| {
                put_object(list.next(), |one| {
                    one.object("resource", |object| put_json_attributes(resource, object));
                    one.array(by_scope, |list| {
                        put_object(list.next(), |one| {
                            one.object("scope", |object| {
                                object.string_unless_empty("name", scope.name);
                                object.string_unless_empty("version", scope.version);
                            });
                            one.string_unless_empty("schemaUrl", schema_url);
                            let out = one.member(records);
                            out.extend_from_slice(b"[");
                            front_len = out.len();
                            out.extend_from_slice(b"]");
                        });
                    });
                });
            });
        });
        let back = whole.split_off(front_len);
        Self(Around::Json { front: whole, back })
    }

    /// The same in either encoding.
    pub fn encoded(
        encoding: Encoding,
        kind: Kind,
        resource: &(impl Attributes + ?Sized),
        scope: Scope<'_>,
        schema_url: &str,
    ) -> Self {
        match encoding {
            Encoding::Protobuf => Self::new(resource, scope, schema_url),
            Encoding::Json => Self::json(kind, resource, scope, schema_url),
        }
    }

    /// How requests with this envelope are written down.
    pub fn encoding(&self) -> Encoding {
        match self.0 {
            Around::Protobuf { .. } => Encoding::Protobuf,
            Around::Json { .. } => Encoding::Json,
        }
    }

    /// The most that goes in front of the records, and what comes behind them.
    fn lens(&self) -> (usize, usize) {
        match &self.0 {
            Around::Protobuf { resource, scope } => (PREFIXES_LEN_MAX + resource.len() + scope.len(), 0),
            Around::Json { front, back } => (front.len(), back.len()),
        }
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
    encoding: Encoding,
    room: usize,
    /// What will come behind the records.
    back_len: usize,
    records: usize,
    limits: SizeLimits,
}

impl Request {
    /// An empty request, in a `buffer` whose capacity is used again.
    pub fn new(envelope: &Envelope, limits: SizeLimits, mut buffer: Vec<u8>) -> Self {
        let (room, back_len) = envelope.lens();
        buffer.clear();
        buffer.resize(room, 0);
        Self { buffer, encoding: envelope.encoding(), room, back_len, records: 0, limits }
    }

    /// How many records are in the request.
    pub fn records(&self) -> usize {
        self.records
    }

    /// An upper bound of the request's size so far, envelope included.
    pub fn bytes(&self) -> usize {
        self.buffer.len() + self.back_len
    }

    /// Appends a record, unless that makes the request too large.
    pub fn append(&mut self, record: &impl Record) -> Appended {
        let before = self.buffer.len();
        match self.encoding {
            Encoding::Protobuf => record.put(&mut self.buffer),
            Encoding::Json => {
                if self.records > 0 {
                    self.buffer.push(b',');
                }
                record.put_json(&mut self.buffer);
            }
        }
        let refused = match self.records {
            0 if self.bytes() > self.limits.bytes_max => Appended::TooLarge,
            1.. if self.bytes() > self.limits.target_bytes => Appended::Full,
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
        let start = match &envelope.0 {
            Around::Protobuf { resource, scope } => self.put_prefixes(resource, scope),
            Around::Json { front, back } => {
                debug_assert!(front.len() == self.room, "another envelope than the request was begun with");
                self.buffer[..self.room].copy_from_slice(front);
                self.buffer.extend_from_slice(back);
                0
            }
        };
        Body { buffer: self.buffer, encoding: self.encoding, start, records: self.records }
    }

    /// Puts everything in front of the records of a protobuf message, and tells where it starts.
    fn put_prefixes(&mut self, resource: &[u8], scope: &[u8]) -> usize {
        let records = self.buffer.len() - self.room;
        let scope_records = scope.len() + records;
        let scope_prefix = 1 + encoded_len_varint(scope_records as u64);
        let resource_records = resource.len() + scope_prefix + scope_records;
        let resource_prefix = 1 + encoded_len_varint(resource_records as u64);
        let front = resource_prefix + resource.len() + scope_prefix + scope.len();

        debug_assert!(front <= self.room, "another envelope than the request was begun with");
        let start = self.room - front;
        let mut front = &mut self.buffer[start..self.room];
        put_front(&mut front, 1, resource_records, resource);
        put_front(&mut front, 2, scope_records, scope);
        start
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
    encoding: Encoding,
    start: usize,
    records: usize,
}

impl Body {
    /// How many records the request has.
    pub fn records(&self) -> usize {
        self.records
    }

    /// How the request is written down.
    pub fn encoding(&self) -> Encoding {
        self.encoding
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
