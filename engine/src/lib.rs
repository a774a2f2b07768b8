//! agentsight watches what processes say to LLM APIs and exports it as OpenTelemetry GenAI spans.
//!
//! The modules in the order of the data:
//!
//! ```text
//! application ─ uprobes, tracepoints ─► kernel ─► ring ─► worker ─► flow ─► wire ─► genai ─► exchange ─► export, output
//! ```
//!
//! Absent on purpose: `wire` and `genai` know no ring, descriptor, clock or protobuf; only `export`
//! knows `proto`; header values other than the few that a span needs go no further than `wire`.

pub mod arena;
pub mod capture;
pub mod cli;
pub mod demo;
pub mod exchange;
pub mod export;
pub mod flow;
pub mod genai;
pub mod handoff;
pub mod intervals;
pub mod kernel;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod network;
pub mod output;
pub mod recording;
pub mod ring;
pub mod semconv;
pub mod simd;
pub mod spool;
pub mod sys;
pub mod telemetry;
pub mod wire;
pub mod worker;
