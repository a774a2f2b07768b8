//! Live tests: real processes on this machine's TLS library, captured through the kernel.
//!
//! They need root (or CAP_BPF with CAP_PERFMON) and are reported as skipped without; with `CI` set
//! they fail instead.

mod bodies;
mod clients;
mod commands;
mod connections;
mod containers;
mod endings;
mod filters;
mod gateways;
mod go;
mod h2c;
mod http2;
mod libssl;
mod matrix;
mod metrics;
mod namespaces;
mod plain;
mod pressure;
mod rustls;
mod sockets;
mod threads;
mod unknown;
