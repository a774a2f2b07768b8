//! From HTTP messages to GenAI calls: is it one, whose, and what does it say. Pure.
//!
//! ```text
//! request head ─► route: host, path ─► provider, dialect, model of the path
//! request body ─► json ─► dialect's fields ─► facts
//! response head, body or events ─► wanted? ─► json ─► dialect's fields ─► facts
//! end ─► facts ─► exchange::Call
//! ```
//!
//! Absent here, on purpose: framing and content codings, which `wire` has removed; times; and the
//! span's identity, of which only the request's `traceparent` is read.

mod base64;
mod content;
mod destination;
mod dialect;
mod draft;
#[cfg(any(test, feature = "fuzz"))]
pub mod exercise;
mod facts;
mod failure;
mod json;
mod plan;
mod provider;
mod route;
mod skim;
mod socket;
mod template;
mod text;
mod trace_context;
mod wanted;

#[cfg(test)]
mod content_tests;
#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod draft_tests;
#[cfg(test)]
mod testing;

pub use draft::{BodyKind, Draft, DraftFamily, Ended, Options, Seen, Verdict};
pub use json::{Extract, Extraction, Forms, Scratch};
pub use socket::{SocketEvent, Upgrade};
pub use template::{Says, Template};
pub use trace_context::{TraceParent, trace_parent};
