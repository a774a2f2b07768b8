//! What happens before requests are sent: which spans, with what, in batches of what size, how often.

use std::time::Duration;

use agentsight_otlp::metric::Temporality;

use super::{AttributeLimits, Env, Sampler, Signal};
use crate::limits;

/// When a request is closed and how many may wait to be sent (`OTEL_BSP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How long the first span of a request waits for others.
    pub delay: Duration,
    /// Spans in one request.
    pub spans_max: usize,
    /// Spans in requests that wait for the collector, the one on its way included. The default is
    /// above the specification's 2048: a busy gateway finishes that many calls in less time than
    /// a collector takes to restart. What they take is bounded in bytes as well.
    pub waiting_spans_max: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), spans_max: 512, waiting_spans_max: 32_768 }
    }
}

const _: () = assert!(limits::EXPORT_WAITING_BYTES_MAX >= limits::EXPORT_REQUEST_BYTES_TARGET);

pub(super) fn disabled(env: &mut Env<'_>) -> bool {
    if env.text("OTEL_CONFIG_FILE").is_some() {
        env.warn("OTEL_CONFIG_FILE is ignored: only the variables are read");
    }
    env.flag("OTEL_SDK_DISABLED")
}

/// `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER`: a list, of which only `otlp` and `none` mean
/// something here. Whether `otlp` is in it, or nothing when it is not set.
pub(super) fn exporters(signal: Signal, env: &mut Env<'_>) -> Option<bool> {
    let name = match signal {
        Signal::Traces => "OTEL_TRACES_EXPORTER",
        Signal::Metrics => "OTEL_METRICS_EXPORTER",
    };
    let list = env.text(name)?;
    let mut wanted = false;
    for exporter in list.split(',').map(str::trim) {
        match exporter.to_ascii_lowercase().as_str() {
            "otlp" => wanted = true,
            "none" | "" => {}
            _ => env.warn(format!("{name} has an exporter other than otlp and none, which is ignored")),
        }
    }
    Some(wanted)
}

pub(super) fn batch(env: &mut Env<'_>) -> Batch {
    let default = Batch::default();
    let delay = env.duration("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(default.delay);
    let spans_max = env.positive("OTEL_BSP_MAX_EXPORT_BATCH_SIZE");
    let waiting_spans_max = env.positive("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(default.waiting_spans_max);
    if spans_max.is_some_and(|spans_max| spans_max > waiting_spans_max) {
        env.warn("OTEL_BSP_MAX_EXPORT_BATCH_SIZE is above the queue size and is lowered to it");
    }
    Batch { delay, spans_max: spans_max.unwrap_or(default.spans_max).min(waiting_spans_max), waiting_spans_max }
}

/// The variables for spans, then those for all attributes.
pub(super) fn attribute_limits(env: &mut Env<'_>) -> AttributeLimits {
    let mut limit = |names: [&str; 2]| {
        let number = env.first(&names, |env, name| env.number(name));
        number.map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    };
    AttributeLimits {
        count_max: limit(["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"])
            .unwrap_or(AttributeLimits::default().count_max),
        value_chars_max: limit(["OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"]),
    }
}

/// `OTEL_TRACES_SAMPLER` and its argument. The specification's default, `parentbased_always_on`,
/// would hide the calls of programs that sample their own traces, and nobody asked for that.
pub(super) fn sampler(env: &mut Env<'_>) -> Sampler {
    #[derive(Clone, Copy)]
    enum Root {
        Always,
        Never,
        Ratio,
    }
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    let known = [
        ("always_on", (false, Root::Always)),
        ("always_off", (false, Root::Never)),
        ("traceidratio", (false, Root::Ratio)),
        ("parentbased_always_on", (true, Root::Always)),
        ("parentbased_always_off", (true, Root::Never)),
        ("parentbased_traceidratio", (true, Root::Ratio)),
    ];
    let Some((by_parent, root)) = env.choice(&[NAME], &known, "is not a known sampler and is ignored") else {
        return Sampler::default();
    };
    let ratio = match root {
        Root::Always => 1.0,
        Root::Never => 0.0,
        Root::Ratio => env.ratio("OTEL_TRACES_SAMPLER_ARG").unwrap_or(1.0),
    };
    Sampler::new(by_parent, ratio)
}

pub(super) fn interval(env: &mut Env<'_>) -> Duration {
    Duration::from_millis(env.positive("OTEL_METRIC_EXPORT_INTERVAL").unwrap_or(60_000) as u64)
}

/// `lowmemory` means delta for histograms, and all our metrics are histograms.
pub(super) fn temporality(env: &mut Env<'_>) -> Temporality {
    let known =
        [("cumulative", Temporality::Cumulative), ("delta", Temporality::Delta), ("lowmemory", Temporality::Delta)];
    let names = ["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"];
    let chosen = env.choice(&names, &known, "is none of cumulative, delta and lowmemory, and is ignored");
    chosen.unwrap_or(Temporality::Cumulative)
}

pub(super) fn aggregation(env: &mut Env<'_>) {
    let names = ["OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"];
    let known = [("explicit_bucket_histogram", ())];
    let _ = env.choice(&names, &known, "is ignored: only explicit_bucket_histogram is supported");
}
