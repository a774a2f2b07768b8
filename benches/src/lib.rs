//! Criterion benches of the engine; see the `[[bench]]` targets.
