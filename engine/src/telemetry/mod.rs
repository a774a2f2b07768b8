//! What the engine tells about itself: every counter as a metric, as Prometheus text, and on a page.
//!
//! ```text
//! metrics ──► catalogue: families with names, units and points ──► prometheus: text ──► server
//!                                                              └─► export::meter: OTLP
//! ```

mod catalogue;
mod kernel;
mod page;
mod prometheus;
mod server;

pub use self::{
    catalogue::{Family, Kind, Value, families},
    page::page,
    prometheus::text,
    server::{Listen, Server},
};
