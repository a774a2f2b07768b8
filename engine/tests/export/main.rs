//! The exporter against collectors on loopback: those that do as they should, those that don't, and
//! those that are reached over TLS, HTTP/2 or a proxy.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod faults;
mod http2;
mod json;
mod proxy;
mod receiver;
mod sampling;
mod tls;
