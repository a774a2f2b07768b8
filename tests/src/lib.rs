//! Support for the integration tests: the program under test, the gate of the privileged tests, and
//! the clients that make traffic. The mock LLM endpoint and the OTLP receiver are those of
//! [`agentsight::demo`].
//!
//! A support function that can't do its work panics: the test that called it has failed.

pub mod certificate;
pub mod command;
pub mod corpus;
pub mod drive;
pub mod engine;
pub mod envoy;
pub mod gate;
pub mod go;
pub mod http2;
pub mod live;
pub mod matrix;
pub mod prepared;
pub mod program;
pub mod records;
pub mod relay;
pub mod retry;
pub mod rustls;
