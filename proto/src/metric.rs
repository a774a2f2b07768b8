//! Metrics: gauges, sums and histograms with explicit buckets.

use crate::{
    json::{Members, put_double as put_json_double, put_long, put_object},
    request::Record,
    value::{Attributes, put_attributes, put_json_attributes},
    wire::{
        put_bytes, put_bytes_unless_empty, put_double, put_fixed64, put_fixed64_unless_zero, put_message, put_prefix,
        put_varint_unless_zero,
    },
};

/// `opentelemetry.proto.metrics.v1.Metric`.
#[derive(Clone, Copy)]
pub struct Metric<'a> {
    /// Name.
    pub name: &'a str,
    /// What it is, in words for a person.
    pub description: &'a str,
    /// Unit, in UCUM notation.
    pub unit: &'a str,
    /// Kind and points.
    pub data: Data<'a>,
}

/// The kind of a metric and its points.
#[derive(Clone, Copy)]
pub enum Data<'a> {
    /// Values as they are at a moment.
    Gauge(&'a dyn NumberPoints),
    /// Values that add up.
    Sum {
        /// One for each combination of attributes.
        points: &'a dyn NumberPoints,
        /// Since when they count.
        temporality: Temporality,
        /// They never go down.
        monotonic: bool,
    },
    /// Distributions of values.
    Histogram {
        /// One for each combination of attributes.
        points: &'a dyn HistogramPoints,
        /// Since when they count.
        temporality: Temporality,
    },
}

/// `AggregationTemporality`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Temporality {
    /// Since the last report.
    Delta = 1,
    /// Since a fixed start.
    Cumulative = 2,
}

/// Something with number points: it shows them one after the other.
pub trait NumberPoints {
    /// Calls `visit` for each point.
    fn visit(&self, visit: &mut dyn FnMut(&NumberPoint<'_>));
}

/// Something with histogram points: it shows them one after the other.
pub trait HistogramPoints {
    /// Calls `visit` for each point.
    fn visit(&self, visit: &mut dyn FnMut(&HistogramPoint<'_>));
}

impl NumberPoints for Vec<NumberPoint<'_>> {
    fn visit(&self, visit: &mut dyn FnMut(&NumberPoint<'_>)) {
        self.iter().for_each(visit);
    }
}

impl HistogramPoints for Vec<HistogramPoint<'_>> {
    fn visit(&self, visit: &mut dyn FnMut(&HistogramPoint<'_>)) {
        self.iter().for_each(visit);
    }
}

/// `NumberDataPoint`.
#[derive(Clone, Copy)]
pub struct NumberPoint<'a> {
    /// What the point is about.
    pub attributes: &'a dyn Attributes,
    /// Since when it counts, in nanoseconds since the Unix epoch; 0 where that means nothing.
    pub start_time_unix_nano: u64,
    /// When the value was read, in nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The value.
    pub value: Number,
}

/// An integer or a double.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// An integer.
    Int(i64),
    /// A double.
    Double(f64),
}

/// `HistogramDataPoint`.
#[derive(Clone, Copy)]
pub struct HistogramPoint<'a> {
    /// What the point is about.
    pub attributes: &'a dyn Attributes,
    /// Since when it counts, in nanoseconds since the Unix epoch.
    pub start_time_unix_nano: u64,
    /// When it was read, in nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// How many values there were: the sum of `bucket_counts`.
    pub count: u64,
    /// The sum of the values.
    pub sum: Option<f64>,
    /// The smallest value.
    pub min: Option<f64>,
    /// The largest value.
    pub max: Option<f64>,
    /// How many values each bucket has: one bucket more than there are bounds.
    pub bucket_counts: &'a [u64],
    /// The upper bounds of the buckets, inclusive and ascending; the last bucket has none.
    pub explicit_bounds: &'a [f64],
    /// Some of the values, with the spans that they came from.
    pub exemplars: &'a [Exemplar],
}

/// `Exemplar`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// When the value was taken, in nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The value.
    pub value: Number,
    /// The span during which it was taken.
    pub span_id: [u8; 8],
    /// The trace of that span.
    pub trace_id: [u8; 16],
}

/// A point with a few attributes, and a metric with a few points, take some hundreds of bytes.
const LEN_ROOM: usize = 2;

impl Record for Metric<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        put_message(Self::FIELD, LEN_ROOM, out, |out| {
            put_bytes_unless_empty(1, self.name.as_bytes(), out);
            put_bytes_unless_empty(2, self.description.as_bytes(), out);
            put_bytes_unless_empty(3, self.unit.as_bytes(), out);
            match self.data {
                Data::Gauge(points) => put_message(5, LEN_ROOM, out, |out| put_numbers(points, out)),
                Data::Sum { points, temporality, monotonic } => put_message(7, LEN_ROOM, out, |out| {
                    put_numbers(points, out);
                    put_varint_unless_zero(2, temporality as u64, out);
                    put_varint_unless_zero(3, monotonic.into(), out);
                }),
                Data::Histogram { points, temporality } => put_message(9, LEN_ROOM, out, |out| {
                    points.visit(&mut |point| put_message(1, LEN_ROOM, out, |out| point.put(out)));
                    put_varint_unless_zero(2, temporality as u64, out);
                }),
            }
        });
    }

    fn put_json(&self, out: &mut Vec<u8>) {
        put_object(out, |metric| {
            metric.string_unless_empty("name", self.name);
            metric.string_unless_empty("description", self.description);
            metric.string_unless_empty("unit", self.unit);
            match self.data {
                Data::Gauge(points) => metric.object("gauge", |gauge| put_json_numbers(points, gauge)),
                Data::Sum { points, temporality, monotonic } => metric.object("sum", |sum| {
                    put_json_numbers(points, sum);
                    sum.number_unless_zero("aggregationTemporality", temporality as u32);
                    sum.bool("isMonotonic", monotonic);
                }),
                Data::Histogram { points, temporality } => metric.object("histogram", |histogram| {
                    histogram.array("dataPoints", |list| {
                        points.visit(&mut |point| put_object(list.next(), |members| point.put_json(members)));
                    });
                    histogram.number_unless_zero("aggregationTemporality", temporality as u32);
                }),
            }
        });
    }
}

fn put_json_numbers(points: &dyn NumberPoints, data: &mut Members<'_>) {
    data.array("dataPoints", |list| {
        points.visit(&mut |point| put_object(list.next(), |members| point.put_json(members)));
    });
}

fn put_numbers(points: &dyn NumberPoints, out: &mut Vec<u8>) {
    points.visit(&mut |point| put_message(1, LEN_ROOM, out, |out| point.put(out)));
}

impl NumberPoint<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        put_fixed64_unless_zero(2, self.start_time_unix_nano, out);
        put_fixed64_unless_zero(3, self.time_unix_nano, out);
        self.value.put(4, out);
        put_attributes(7, self.attributes, out);
    }

    fn put_json(&self, point: &mut Members<'_>) {
        point.long_unless_zero("startTimeUnixNano", self.start_time_unix_nano);
        point.long_unless_zero("timeUnixNano", self.time_unix_nano);
        self.value.put_json(point);
        put_json_attributes(self.attributes, point);
    }
}

impl Number {
    /// `as_int` has the number 6 in points and exemplars; `as_double` differs.
    fn put(self, double_field: u32, out: &mut Vec<u8>) {
        match self {
            Self::Int(value) => put_fixed64(6, value as u64, out),
            Self::Double(value) => put_double(double_field, value, out),
        }
    }

    fn put_json(self, point: &mut Members<'_>) {
        match self {
            Self::Int(value) => put_long(value, point.member("asInt")),
            Self::Double(value) => point.double("asDouble", value),
        }
    }
}

impl HistogramPoint<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        put_fixed64_unless_zero(2, self.start_time_unix_nano, out);
        put_fixed64_unless_zero(3, self.time_unix_nano, out);
        put_fixed64_unless_zero(4, self.count, out);
        put_optional(5, self.sum, out);
        put_packed(6, self.bucket_counts, u64::to_le_bytes, out);
        put_packed(7, self.explicit_bounds, f64::to_le_bytes, out);
        for exemplar in self.exemplars {
            put_message(8, 1, out, |out| exemplar.put(out));
        }
        put_attributes(9, self.attributes, out);
        put_optional(11, self.min, out);
        put_optional(12, self.max, out);
    }

    fn put_json(&self, point: &mut Members<'_>) {
        point.long_unless_zero("startTimeUnixNano", self.start_time_unix_nano);
        point.long_unless_zero("timeUnixNano", self.time_unix_nano);
        point.long_unless_zero("count", self.count);
        for (name, value) in [("sum", self.sum), ("min", self.min), ("max", self.max)] {
            if let Some(value) = value {
                point.double(name, value);
            }
        }
        point.array("bucketCounts", |list| self.bucket_counts.iter().for_each(|count| put_long(count, list.next())));
        point.array("explicitBounds", |list| {
            self.explicit_bounds.iter().for_each(|bound| put_json_double(*bound, list.next()));
        });
        if !self.exemplars.is_empty() {
            point.array("exemplars", |list| {
                self.exemplars
                    .iter()
                    .for_each(|exemplar| put_object(list.next(), |members| exemplar.put_json(members)));
            });
        }
        put_json_attributes(self.attributes, point);
    }
}

impl Exemplar {
    fn put(&self, out: &mut Vec<u8>) {
        put_fixed64_unless_zero(2, self.time_unix_nano, out);
        self.value.put(3, out);
        put_bytes(4, &self.span_id, out);
        put_bytes(5, &self.trace_id, out);
    }

    fn put_json(&self, exemplar: &mut Members<'_>) {
        exemplar.long_unless_zero("timeUnixNano", self.time_unix_nano);
        self.value.put_json(exemplar);
        exemplar.hex("spanId", &self.span_id);
        exemplar.hex("traceId", &self.trace_id);
    }
}

/// A double with presence: zero is a value.
fn put_optional(field: u32, value: Option<f64>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        put_double(field, value, out);
    }
}

/// A packed repeated field of 64-bit values.
fn put_packed<T: Copy>(field: u32, values: &[T], bytes: impl Fn(T) -> [u8; 8], out: &mut Vec<u8>) {
    if !values.is_empty() {
        put_prefix(field, 8 * values.len(), out);
        for value in values {
            out.extend_from_slice(&bytes(*value));
        }
    }
}
