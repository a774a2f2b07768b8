//! From finished exchanges to a collector: encode, batch, send.
//!
//! ```text
//! queue of exchanges ──► exporter: encode into the open request, write lines, return the arena
//!                           │  closed by count, size or age; bounded in spans and bytes
//!                           ▼
//!                        otlp: POST, retry, count
//! ```

mod batcher;
pub mod config;
mod env;
pub mod exporter;
pub mod otlp;
mod resource;
mod retry;
pub mod span;
pub mod tls;
