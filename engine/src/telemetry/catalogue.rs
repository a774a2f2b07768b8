//! Which metrics there are, and where their values come from.

use agentsight_abi::{DropCause, Total as KernelTotal};

use super::kernel;
use crate::metrics::{Cause, Gauge, LATENCY_BOUNDS, Metrics, Total};

/// What a family's values are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They come and go.
    Gauge,
    /// How many of what size.
    Histogram,
}

/// A point's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A number of things.
    Count(u64),
    /// A number that need not be whole.
    Number(f64),
    /// A distribution.
    Histogram {
        /// Upper bounds of all buckets but the last, which has none.
        bounds: &'a [f64],
        /// Values in each bucket, those of others not included.
        counts: &'a [u64],
        /// All values together.
        sum: f64,
    },
}

/// Points of one name.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Behind `agentsight.`; words are joined by underscores.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Unit, in UCUM notation.
    pub unit: &'static str,
    /// What it is, in words for a person.
    pub description: &'static str,
    /// What tells its points apart, if it has several.
    pub label: Option<&'static str>,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Total(Total),
    Gauge(Gauge),
    Kernel(KernelTotal),
    Drops,
    DropBytes,
    Providers,
    Latency,
}

/// Every family, in the order in which they are shown.
pub fn families() -> impl Iterator<Item = Family> {
    let of_kernel = |total: KernelTotal| {
        let (name, description) = kernel::total(total);
        Family { name, kind: Kind::Counter, unit: "1", description, label: None, source: Source::Kernel(total) }
    };
    let of_total = |total: Total| Family {
        name: total.name(),
        kind: Kind::Counter,
        unit: unit(total.name()),
        description: total.description(),
        label: None,
        source: Source::Total(total),
    };
    let of_gauge = |gauge: Gauge| Family {
        name: gauge.name(),
        kind: Kind::Gauge,
        unit: unit(gauge.name()),
        description: gauge.description(),
        label: None,
        source: Source::Gauge(gauge),
    };
    let of_kernel_side = KernelTotal::ALL.iter().copied().map(of_kernel);
    let totals = Total::ALL.iter().copied().map(of_total);
    of_kernel_side.chain(totals).chain(SPECIAL).chain(Gauge::ALL.iter().copied().map(of_gauge))
}

const SPECIAL: [Family; 4] = [
    Family {
        name: "spans_by_provider",
        kind: Kind::Counter,
        unit: "1",
        description: "Spans made, by what `gen_ai.provider.name` says; those of hosts beyond a bound are `_OTHER`.",
        label: Some("provider"),
        source: Source::Providers,
    },
    Family {
        name: "drops",
        kind: Kind::Counter,
        unit: "1",
        description: "What was lost, by its cause.",
        label: Some("cause"),
        source: Source::Drops,
    },
    Family {
        name: "dropped_bytes",
        kind: Kind::Counter,
        unit: "By",
        description: "Payload bytes that the kernel side could not hand over, by the cause.",
        label: Some("cause"),
        source: Source::DropBytes,
    },
    Family {
        name: "export_duration_seconds",
        kind: Kind::Histogram,
        unit: "s",
        description: "How long attempts to export took, from connecting to the end of the response or of the time for it.",
        label: None,
        source: Source::Latency,
    },
];

fn unit(name: &str) -> &'static str {
    let ends = |word: &str| name.ends_with(word) || name.contains(&format!("{word}_"));
    if ends("bytes") {
        "By"
    } else if ends("seconds") {
        "s"
    } else {
        "1"
    }
}

impl Family {
    /// The points as they are now, each with the value of the label, if there is one.
    pub fn points(&self, metrics: &Metrics, visit: &mut dyn FnMut(Option<&str>, Value<'_>)) {
        match self.source {
            // Counted in nanoseconds, since many of its parts are short.
            Source::Total(total @ Total::WorkerBusySeconds) => {
                visit(None, Value::Number(metrics.total(total) as f64 / 1e9));
            }
            Source::Total(total) => visit(None, Value::Count(metrics.total(total))),
            Source::Gauge(gauge) => visit(None, Value::Count(metrics.gauge(gauge))),
            Source::Kernel(total) => visit(None, Value::Count(metrics.kernel_total(total))),
            Source::Drops => {
                for &cause in DropCause::ALL {
                    visit(Some(cause.name()), Value::Count(metrics.kernel_drops(cause).events));
                }
                for &cause in Cause::ALL {
                    visit(Some(cause.name()), Value::Count(metrics.losses(cause)));
                }
            }
            Source::DropBytes => {
                for &cause in DropCause::ALL {
                    visit(Some(cause.name()), Value::Count(metrics.kernel_drops(cause).bytes));
                }
            }
            Source::Providers => metrics.providers(|provider, spans| visit(Some(provider), Value::Count(spans))),
            Source::Latency => {
                let (counts, sum) = metrics.latency();
                visit(None, Value::Histogram { bounds: &LATENCY_BOUNDS, counts: &counts, sum });
            }
        }
    }
}
