//! What benches, tests of allocations and counts of instructions run: records of made-up traffic, and
//! the way from them to spans. The criterion benches are the `[[bench]]` targets.

pub mod dialect;
pub mod ring;
pub mod through;
pub mod workload;
