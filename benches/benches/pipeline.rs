//! From captured records to the bytes of an export request, on one core, beside what any such way has
//! to do at least: a search through the same bytes, a copy of them.
//!
//! Each pass goes through all records and requires every exchange to come out right.

use std::{hint::black_box, sync::Arc};

use agentsight::{flow::Outlet, metrics::Metrics, worker};
use agentsight_benches::{
    dialect::Dialect,
    ring::Filled,
    through::{Gathered, Through, To},
    workload::{Reads, Workload},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const EXCHANGES: usize = 64;

fn pipeline(bench: &mut Criterion) {
    let workloads = [
        ("1 KiB and 1 KiB", Workload::plain(Dialect::Chat, 700, 500, EXCHANGES)),
        ("64 KiB and 64 KiB", Workload::plain(Dialect::Chat, 64 << 10, 64 << 10, EXCHANGES)),
        ("streams of 200, a read each", Workload::streamed(Dialect::Chat, 200, EXCHANGES, Reads::Each)),
        ("streams of 200, full reads", Workload::streamed(Dialect::Chat, 200, EXCHANGES, Reads::Full)),
        ("streams of 2,000, full reads", Workload::streamed(Dialect::Chat, 2_000, EXCHANGES, Reads::Full)),
        ("mix", Workload::mix(7, EXCHANGES)),
    ];
    for (name, workload) in &workloads {
        let mut group = bench.benchmark_group(format!("pipeline, {name}"));
        let throughput = Throughput::ElementsAndBytes { elements: EXCHANGES as u64, bytes: workload.bytes as u64 };
        group.throughput(throughput);
        for (end, to) in [("to exchanges", To::Exchange), ("to OTLP", To::Otlp)] {
            let mut through = Through::new(to);
            group.bench_function(end, |bencher| bencher.iter(|| through.run(black_box(workload))));
        }
        let mut copy = vec![0; 64 << 10];
        group.bench_function("memcpy", |bencher| {
            bencher.iter(|| {
                for recorded in &workload.records {
                    copy[..recorded.payload.len()].copy_from_slice(black_box(&recorded.payload));
                    black_box(&mut copy);
                }
            });
        });
        group.bench_function("memchr", |bencher| {
            bencher.iter(|| {
                for recorded in &workload.records {
                    // A byte that text never has, so that all of it is looked at.
                    black_box(memchr::memchr(0xff, black_box(&recorded.payload)));
                }
            });
        });
        group.finish();
    }
}

/// The whole way, out of a ring's memory.
fn ring(bench: &mut Criterion) {
    let workload = Workload::mix(7, EXCHANGES);
    let mut filled = Filled::new(&workload).expect("a ring in a file");
    let mut group = bench.benchmark_group("ring");
    group.throughput(Throughput::Bytes(filled.bytes));
    group.bench_function("drain", |bencher| {
        bencher.iter(|| {
            let mut bytes = 0;
            filled.drain(|record| bytes += record.payload.len());
            assert_eq!(bytes as u64, workload.bytes as u64 + 8 * 32);
        });
    });
    group.finish();
}

/// Finished exchanges to the encoder's queue, and their arenas back.
fn hand_off(bench: &mut Criterion) {
    let workload = Workload::plain(Dialect::Chat, 700, 500, EXCHANGES);
    let mut gathered = Some(Gathered::default());
    let mut through = Through::new(To::Exchange);
    let queues = worker::Queues::new(1, EXCHANGES);
    let mut outlet = worker::QueueOutlet::new(queues.clone(), 0, None, Arc::new(Metrics::default()));
    let mut exchanges = through.gather(&workload, gathered.take().unwrap_or_default());
    let mut group = bench.benchmark_group("hand-off");
    group.throughput(Throughput::Elements(EXCHANGES as u64));
    group.bench_function("exchanges", |bencher| {
        bencher.iter(|| {
            while let Some(exchange) = exchanges.0.pop() {
                outlet.finished(exchange);
            }
            while let Some(exchange) = queues.exchanges.pop() {
                exchanges.0.push(exchange);
            }
            assert_eq!(exchanges.0.len(), EXCHANGES);
        });
    });
    group.finish();
}

criterion_group!(benches, pipeline, ring, hand_off);
criterion_main!(benches);
