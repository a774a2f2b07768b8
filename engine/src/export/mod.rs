//! From finished exchanges to a collector: encode, batch, send.
//!
//! ```text
//! queue of exchanges ──► exporter: encode into the open request, write lines, return the arena
//!                           │  closed by count, size or age; bounded in spans and bytes
//!                           ▼
//!                        otlp: POST, retry, count
//!
//! beside it, where metrics are wanted: meter: adds up exchanges, and posts the sums now and then
//! ```

mod batcher;
pub mod config;
mod env;
pub mod exporter;
pub mod meter;
pub mod otlp;
mod resource;
mod retry;
pub mod span;
pub mod tls;
