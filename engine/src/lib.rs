//! agentsight watches what processes say to LLM APIs and exports it as OpenTelemetry GenAI spans.

pub mod arena;
pub mod exchange;
pub mod genai;
pub mod kernel;
pub mod limits;
pub mod ring;
pub mod sys;
pub mod wire;
