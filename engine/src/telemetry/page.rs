//! The page that lists all metrics, made from what counts them.

use std::fmt::Write as _;

use agentsight_abi::DropCause;

use super::{
    catalogue::{Kind, families},
    kernel, prometheus,
};
use crate::metrics::Cause;

const HEAD: &str = "\
# What agentsight tells about itself

Every counter of the engine is a metric, in two ways:

- `--metrics-listen ADDRESS:PORT` (or a port alone, which is one of loopback) serves them as Prometheus text at
  `/metrics`, and `ok` at `/healthz`. There is no authentication: listen on loopback, or where only your scraper
  gets.
- With `--otel-metrics` they are exported over OTLP too, under the instrumentation scope `agentsight.engine`, always
  cumulative.

`--stats FILE` writes the same counters as JSON in the end.

This page is made from the enums that count; a test compares (`AGENTSIGHT_BLESS=1 cargo test -p agentsight --lib
telemetry` writes it anew).

| Prometheus | OTLP | kind | unit | what |
| --- | --- | --- | --- | --- |
";

const CAUSES: &str = "
## Causes

Values of the label `cause` of drops. Those that begin with `kernel.` are counted on the kernel side, where payload
bytes are known too.

| cause | what was lost, and why |
| --- | --- |
";

const TAIL: &str = "
## Questions and where the answer is

| question | answer |
| --- | --- |
| Is anything lost? | `sum by (cause) (rate(agentsight_drops_total[5m]))` |
| How busy are the workers? | `rate(agentsight_worker_busy_seconds_total[1m]) / agentsight_workers` |
| Are the rings large enough? | `agentsight_ring_fill_bytes / agentsight_ring_bytes` |
| Is the collector keeping up? | `agentsight_export_spans_waiting`, `agentsight_spool_spans` and `agentsight_spool_age_seconds` |
| Does every span arrive? | `agentsight_spans_total + agentsight_spans_found_total` is what `agentsight_spans_exported_total`, the drops of spans, `agentsight_export_spans_waiting` and `agentsight_spool_spans` add up to |
";

/// The text of `docs/metrics.md`.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    // Writing to a string never fails.
    for family in families() {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let label = family.label.map(|label| format!("{{{label}}}")).unwrap_or_default();
        let (prometheus, name) = (prometheus::name(family.name, family.kind), family.name);
        let what = family.description;
        let _ = writeln!(page, "| `{prometheus}{label}` | `agentsight.{name}` | {kind} | {} | {what} |", family.unit);
    }
    page.push_str(CAUSES);
    let kernel = DropCause::ALL.iter().map(|&cause| (cause.name(), kernel::cause(cause)));
    let user = Cause::ALL.iter().map(|cause| (cause.name(), cause.description()));
    for (name, what) in kernel.chain(user) {
        let _ = writeln!(page, "| `{name}` | {what} |");
    }
    page.push_str(TAIL);
    page
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use super::*;

    #[test]
    fn the_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        if env::var_os("AGENTSIGHT_BLESS").is_some() {
            fs::write(path, page()).unwrap();
        }
        assert!(fs::read_to_string(path).unwrap() == page(), "AGENTSIGHT_BLESS=1 writes docs/metrics.md anew");
    }
}
