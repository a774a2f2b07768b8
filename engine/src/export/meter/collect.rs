//! What the recorder knows, as OTLP metrics.

use agentsight_otlp::{
    AnyValue, Appended, Attributes, Body, Envelope, Request,
    metric::{Data, HistogramPoint, HistogramPoints, Metric, Temporality},
    request::SizeLimits,
};

use super::{
    instrument::{INSTRUMENTS, Instrument, Slot},
    labels::Labels,
    recorder::Recorder,
};
use crate::{limits, semconv::metric as name};

pub(super) const SIZE_LIMITS: SizeLimits =
    SizeLimits { target_bytes: limits::EXPORT_REQUEST_BYTES_TARGET, bytes_max: limits::EXPORT_REQUEST_BYTES_MAX };

/// A metric is one record of a request, and has to fit into one.
const _: () = assert!(limits::METRIC_SETS_MAX * 2 * 12 * limits::TEXT_BYTES_MAX < limits::EXPORT_REQUEST_BYTES_MAX);

/// A request and how many points it has.
pub(super) struct Collected {
    pub body: Body,
    pub points: u64,
}

/// What the points of one collection have in common.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub temporality: Temporality,
    pub start_unix_nano: u64,
    pub end_unix_nano: u64,
}

/// Encodes every metric that has values: mostly one request, none when there is nothing to tell.
pub(super) fn collect(recorder: &Recorder, envelope: &Envelope, span: Span) -> Vec<Collected> {
    let mut collected = Vec::new();
    let mut open = Request::new(envelope, SIZE_LIMITS, Vec::new());
    let mut open_points = 0;
    for instrument in &INSTRUMENTS {
        let count = instrument.slots.iter().map(|&slot| recorder.points(slot).count() as u64).sum::<u64>();
        if count == 0 {
            continue;
        }
        if append(recorder, instrument, span, &mut open) == Appended::Full {
            let full = std::mem::replace(&mut open, Request::new(envelope, SIZE_LIMITS, Vec::new()));
            collected.push(Collected { body: full.finish(envelope), points: open_points });
            open_points = 0;
            // It is the first of its request now, where all of them fit.
            let _ = append(recorder, instrument, span, &mut open);
        }
        open_points += count;
    }
    if open.records() > 0 {
        collected.push(Collected { body: open.finish(envelope), points: open_points });
    }
    collected
}

fn append(recorder: &Recorder, instrument: &Instrument, span: Span, request: &mut Request) -> Appended {
    request.append(&Metric {
        name: instrument.name,
        description: instrument.description,
        unit: instrument.unit,
        data: Data::Histogram { points: &Points { recorder, instrument, span }, temporality: span.temporality },
    })
}

struct Points<'a> {
    recorder: &'a Recorder,
    instrument: &'a Instrument,
    span: Span,
}

impl HistogramPoints for Points<'_> {
    fn visit(&self, visit: &mut dyn FnMut(&HistogramPoint<'_>)) {
        let bounds = self.instrument.bounds;
        for &slot in self.instrument.slots {
            for (labels, point) in self.recorder.points(slot) {
                let histogram = &point.histogram;
                visit(&HistogramPoint {
                    attributes: &Shown { labels, slot },
                    start_time_unix_nano: self.span.start_unix_nano,
                    time_unix_nano: self.span.end_unix_nano,
                    count: histogram.count,
                    sum: Some(histogram.sum),
                    min: Some(histogram.min),
                    max: Some(histogram.max),
                    bucket_counts: histogram.counts.get(..=bounds.len()).unwrap_or_default(),
                    explicit_bounds: bounds,
                    exemplars: &[],
                });
            }
        }
    }
}

/// The attributes of a point.
struct Shown<'a> {
    labels: Option<Labels<&'a str>>,
    slot: Slot,
}

impl Attributes for Shown<'_> {
    fn visit(&self, visit: &mut dyn FnMut(&str, &AnyValue<'_>)) {
        let Some(labels) = self.labels else {
            return visit(name::OTEL_METRIC_OVERFLOW, &AnyValue::Bool(true));
        };
        labels.visit(visit);
        if let Some(token_type) = self.slot.token_type() {
            visit(name::GEN_AI_TOKEN_TYPE, &AnyValue::Str(token_type));
        }
    }
}
