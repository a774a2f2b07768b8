//! Counters as JSON, for `--stats`.

use std::{fs, path::Path};

use agentsight_abi::Total as KernelTotal;
use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::run::Ended;
use crate::metrics::{Gauge, Metrics, Total};

/// What the engine did, as one object: totals, and under `drops` every cause that lost something.
pub fn of_capture(ended: &Ended) -> Value {
    let mut stats = of_metrics(&ended.metrics);
    let kernel = &ended.kernel.tallies;
    let kernel: Map<String, Value> =
        KernelTotal::ALL.iter().map(|&total| (total.name().to_owned(), json!(kernel.total(total).events))).collect();
    stats["kernel"] = Value::Object(kernel);
    stats["drops"] = ended.drops().map(|(name, count)| (name.to_owned(), json!(count))).collect::<Map<_, _>>().into();
    stats
}

/// The user side's part of it.
pub fn of_metrics(metrics: &Metrics) -> Value {
    let total = |total| metrics.total(total);
    let drops: Map<String, Value> =
        metrics.all_losses().map(|(cause, count)| (cause.name().to_owned(), json!(count))).collect();
    json!({
        "records": total(Total::Records),
        "bytes": total(Total::RecordBytes),
        "connections": total(Total::Connections),
        "connections_unrecognised": total(Total::ConnectionsUnrecognised),
        "requests": total(Total::Requests),
        "exchanges": total(Total::Exchanges),
        "spans": total(Total::Spans),
        "exported": total(Total::SpansExported),
        "spooled": total(Total::SpansSpooled),
        "spool_found": total(Total::SpansFound),
        "spool_left": metrics.gauge(Gauge::SpoolSpans),
        "spool_bytes_damaged": total(Total::SpoolBytesDamaged),
        "export_attempts": total(Total::ExportAttempts),
        "exported_bytes": total(Total::ExportedBytes),
        "metric_points_exported": total(Total::MetricPointsExported),
        "lines": total(Total::Lines),
        "pressure_steps": total(Total::PressureSteps),
        "drops": drops,
    })
}

/// Writes the object, with a line end.
pub fn write(path: &Path, stats: &Value) -> anyhow::Result<()> {
    fs::write(path, format!("{stats:#}\n")).with_context(|| format!("can't write the statistics to {}", path.display()))
}
