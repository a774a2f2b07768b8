//! After warm-up, an exchange allocates nothing from the bytes of its records to those of its export
//! request, and streams that are under way take little.

use agentsight_benches::{
    dialect::Dialect,
    through::{Through, To},
    workload::{Reads, Workload},
};
use agentsight_tests::corpus;

/// Allocations of a pass over `workload` once passes have become the same.
fn allocations(workload: &Workload) -> u64 {
    let mut through = Through::new(To::Otlp);
    // Arenas and buffers grow by doubling until the largest exchange fits.
    (0..16).for_each(|_| assert!(through.run(workload) > 0));
    allocation_counter::measure(|| assert!(through.run(workload) > 0)).count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}

#[test]
fn no_dialect_allocates() {
    for dialect in Dialect::ALL {
        for (kind, workload) in [
            ("small", Workload::plain(dialect, 700, 500, 8)),
            ("large", Workload::plain(dialect, 100 << 10, 40 << 10, 8)),
            ("streamed", Workload::streamed(dialect, 200, 8, Reads::Each)),
            ("streamed, full reads", Workload::streamed(dialect, 200, 8, Reads::Full)),
        ] {
            assert_eq!(allocations(&workload), 0, "{}, {kind}", dialect.name());
        }
    }
    assert_eq!(allocations(&Workload::mix(3, 40)), 0, "a mix of all");
}

/// What a connection keeps to put a head together that comes in pieces.
const HEAD_KEPT_BYTES: usize = agentsight::limits::HEAD_BUFFER_KEPT_BYTES;

/// What the clients of every API sent and got, but for heads that are larger than what is kept for them,
/// and bodies in brotli: its decoder makes its tables anew for each of them.
#[test]
fn no_recorded_exchange_allocates() {
    let Some(folder) = corpus::folder() else { return };
    let mut plan = corpus::plan(&folder, 11, 1, 1);
    plan.retain(|planned| !planned.coding.contains("br"));
    // Some events of web searches are longer than what a stream keeps for one that comes in pieces.
    plan.retain(|planned| !planned.id.contains("web_search"));
    let has_usual_head = |message: &[u8]| message.windows(4).take(HEAD_KEPT_BYTES).any(|four| four == b"\r\n\r\n");
    let messages = plan.iter().map(corpus::Planned::messages);
    let workload =
        Workload::foreign(messages.filter(|(request, response)| has_usual_head(request) && has_usual_head(response)));
    assert!(workload.exchanges > 600, "{} exchanges", workload.exchanges);
    assert_eq!(allocations(&workload), 0);
}

/// A stream's length costs nothing, so this is what ten thousand of any length take.
#[test]
fn ten_thousand_streams_take_little() {
    const BYTES_MAX: u64 = 64 << 20;
    for dialect in Dialect::ALL {
        let workload = Workload::under_way(dialect, 20, 10_000);
        let mut through = Through::new(To::Otlp);
        let taken = allocation_counter::measure(|| assert!(through.run(&workload) > 0));
        println!("{}: {} bytes each", dialect.name(), taken.bytes_max / 10_000);
        assert!(taken.bytes_max <= BYTES_MAX, "{}: {} bytes", dialect.name(), taken.bytes_max);
    }
}
