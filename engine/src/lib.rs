//! agentsight watches what processes say to LLM APIs and exports it as OpenTelemetry GenAI spans.

pub mod arena;
pub mod exchange;
pub mod export;
pub mod genai;
pub mod limits;
pub mod metrics;
pub mod output;
pub mod semconv;
pub mod sys;
pub mod wire;
