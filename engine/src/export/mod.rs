//! From finished exchanges to a collector: encode, batch, send.
//!
//! ```text
//! queue of exchanges ──► exporter: encode into the open request, write lines, return the arena
//!                           │  batcher: closed by count, size or age; bounded in spans and bytes
//!                           ▼
//!                        batch: an encoded request, complete in itself
//!                           │  outlet: one after the other, each to an outcome that is counted
//!                           ▼
//!                        otlp: POST, until delivered, refused or given up for now
//!
//! beside it, where metrics are wanted: meter: adds up exchanges, and posts the sums now and then
//! ```

#[cfg(not(feature = "fuzz"))]
mod answer;
#[cfg(feature = "fuzz")]
pub mod answer;
pub mod batch;
mod batcher;
pub mod config;
pub mod exporter;
mod journal;
pub mod limit;
pub mod meter;
pub mod otlp;
mod outlet;
mod retry;
mod route;
pub mod sampler;
pub mod span;
pub mod tls;
