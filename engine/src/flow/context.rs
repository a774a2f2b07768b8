//! What an event of a decoder is seen with.

use std::sync::Arc;

use super::{
    Shared,
    body::{Pools, Reader},
};
use crate::{
    arena::Travelling,
    exchange::{Process, Role},
    genai::{DraftFamily, Ended},
    network::Network,
};

/// Everything around the messages of a connection while bytes of it are taken.
pub(super) struct Context<'a, O> {
    pub shared: &'a mut Shared,
    pub outlet: &'a mut O,
    pub conn: u64,
    pub role: Role,
    pub process: &'a Arc<Process>,
    pub network: &'a Arc<Network>,
    /// When and by which thread the message under way was begun.
    pub begun_ns: u64,
    pub thread_id: u32,
    /// The time of the bytes at hand.
    pub now_ns: u64,
    /// What a connection that ends inside a response means.
    pub cut: Ended,
}

impl Shared {
    /// The way of a body's content to its call, beside the pools.
    pub(super) fn reader<'a>(&'a mut self, draft: &'a mut Travelling<DraftFamily>) -> (&'a mut Pools, Reader<'a>) {
        let reader = Reader { draft, scratch: &mut self.scratch, options: &self.settings.call, metrics: &self.metrics };
        (&mut self.pools, reader)
    }
}
