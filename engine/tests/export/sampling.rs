//! Which spans are exported at all.

use std::{sync::Arc, time::Duration};

use agentsight::{
    export::{
        config::{self, Flags},
        exporter::{Exporter, Inlet, Outputs},
    },
    handoff::Handoff,
    log::{Level, Log},
    metrics::{Metrics, Total},
};

use crate::support::{Collector, exchange, ok};

/// Exports ten spans with `sampler`, of which the first four have a parent that is sampled, and the
/// next three one that is not; tells how many were delivered and how many left out.
fn sampled(sampler: &str) -> (u64, u64) {
    let collector = Collector::start(vec![ok()]);
    let env = |name: &str| (name == "OTEL_TRACES_SAMPLER").then(|| sampler.to_owned());
    let flags = Flags { endpoint: Some(format!("http://{}", collector.address)) };
    let settings = config::settings(&flags, &env).unwrap().settings;
    let queue = Arc::new(Handoff::new(10));
    for index in 0..10 {
        let mut exchange = exchange(index);
        exchange.trace.parent_span_id = (index < 7).then_some([7; 8]);
        exchange.trace.flags = u8::from(!(4..7).contains(&index));
        assert!(queue.push(exchange).is_ok());
    }
    let metrics = Arc::new(Metrics::default());
    let exporter = Exporter::spawn(
        Inlet { exchanges: queue, arenas: vec![] },
        Outputs { otlp: settings, ..Outputs::default() },
        Arc::clone(&metrics),
        Log::new(Some(Level::Info), |line: &str| panic!("{line}")),
    );
    let report = exporter.unwrap().shutdown(Duration::from_secs(5));
    assert_eq!((report.exchanges, report.losses), (10, vec![]));
    assert_eq!(collector.received().is_empty(), report.exported == 0, "nothing empty is sent");
    (report.exported, metrics.total(Total::SpansNotSampled))
}

#[test]
fn the_sampler_decides() {
    assert_eq!(sampled(""), (10, 0));
    assert_eq!(sampled("always_off"), (0, 10));
    assert_eq!(sampled("parentbased_always_on"), (7, 3));
    assert_eq!(sampled("parentbased_always_off"), (4, 6));
}
