//! OTLP messages that borrow their data, and their encoder.
