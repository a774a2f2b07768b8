//! Load generator, overhead and loss harness.
fn main() {}
