//! Support for the integration tests: a mock LLM endpoint, clients and an OTLP sink.
