//! The Prometheus text format, version 0.0.4.

use std::fmt::Write as _;

use super::catalogue::{Kind, Value, families};
use crate::metrics::Metrics;

/// Its media type.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is counted.
pub fn text(metrics: &Metrics) -> String {
    let mut out = String::with_capacity(32 * 1024);
    for family in families() {
        let name = name(family.name, family.kind);
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = family.description.replace('\\', "\\\\");
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        family.points(metrics, &mut |label, value| {
            let labels = match (family.label, label) {
                (Some(key), Some(label)) => format!("{{{key}=\"{}\"}}", escaped(label)),
                _ => String::new(),
            };
            // Writing to a string never fails.
            let _ = match value {
                Value::Count(count) => writeln!(out, "{name}{labels} {count}"),
                Value::Number(number) => writeln!(out, "{name}{labels} {number}"),
                Value::Histogram { bounds, counts, sum } => histogram(&mut out, &name, bounds, counts, sum),
            };
        });
    }
    out
}

/// Here buckets include those below them.
fn histogram(out: &mut String, name: &str, bounds: &[f64], counts: &[u64], sum: f64) -> std::fmt::Result {
    let mut count = 0;
    let bounds = bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (bound, more) in bounds.zip(counts) {
        count += more;
        writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}")?;
    }
    writeln!(out, "{name}_sum {sum}\n{name}_count {count}")
}

/// Counters end in `_total`.
pub(super) fn name(name: &str, kind: Kind) -> String {
    let suffix = if kind == Kind::Counter { "_total" } else { "" };
    format!("agentsight_{name}{suffix}")
}

/// Providers are names of hosts that anybody may choose.
fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;
    use crate::metrics::{Cause, Gauge, Total};

    #[test]
    fn every_counter_is_told_in_the_text_format() {
        let metrics = Metrics::default();
        metrics.add(Total::Records, 7);
        metrics.add(Total::WorkerBusySeconds, 1_500_000_000);
        metrics.lost(Cause::SpoolFull, 3);
        metrics.set(Gauge::SpoolBytes, 4096);
        metrics.count_provider("openai", 2);
        metrics.count_provider("evil\"\n\\", 1);
        for millis in [1, 30, 30, 100_000] {
            metrics.attempt_took(Duration::from_millis(millis));
        }
        let text = text(&metrics);
        for line in [
            "agentsight_records_total 7",
            "agentsight_worker_busy_seconds_total 1.5",
            "agentsight_drops_total{cause=\"spool_full\"} 3",
            "agentsight_drops_total{cause=\"kernel.ring_full\"} 0",
            "agentsight_spool_bytes 4096",
            "agentsight_spans_by_provider_total{provider=\"openai\"} 2",
            "agentsight_spans_by_provider_total{provider=\"evil\\\"\\n\\\\\"} 1",
            "agentsight_export_duration_seconds_bucket{le=\"0.01\"} 1",
            "agentsight_export_duration_seconds_bucket{le=\"0.04\"} 3",
            "agentsight_export_duration_seconds_bucket{le=\"+Inf\"} 4",
            "agentsight_export_duration_seconds_count 4",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
        let mut names = HashSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            assert!(names.insert(line.split(' ').next().unwrap()), "{line} is told once");
        }
        for cause in Cause::ALL {
            assert!(text.contains(&format!("cause=\"{}\"", cause.name())), "{cause:?}");
        }
        let shape = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            name.starts_with("agentsight_") && value.parse::<f64>().is_ok()
        };
        assert!(text.lines().all(|line| line.starts_with("# ") || shape(line)), "{text}");
    }
}
