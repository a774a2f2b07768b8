//! Takes closed batches one after the other and brings each to its end.

use std::{future::Future, pin::pin, sync::Arc};

use tokio::{select, sync::mpsc};

use super::{batch::EncodedBatch, batcher::Waiting, otlp::Client};
use crate::metrics::{Cause, Metrics};

/// The other end of the batcher's queue.
pub(super) struct Outlet {
    queue: mpsc::UnboundedReceiver<EncodedBatch>,
    waiting: Arc<Waiting>,
    metrics: Arc<Metrics>,
}

impl Outlet {
    pub(super) fn new(
        queue: mpsc::UnboundedReceiver<EncodedBatch>,
        waiting: Arc<Waiting>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { queue, waiting, metrics }
    }

    /// Sends until the batcher is gone and nothing is left, or until `time_is_over`; then every batch
    /// that has not met its end is left over, the one on its way included.
    pub(super) async fn deliver(mut self, mut client: Client, time_is_over: impl Future<Output = ()>) {
        let mut time_is_over = pin!(time_is_over);
        while let Some(batch) = self.queue.recv().await {
            select! {
                outcome = client.send(&batch) => outcome.account(&batch, &self.metrics),
                () = &mut time_is_over => {
                    self.leave(&batch);
                    while let Ok(batch) = self.queue.try_recv() {
                        self.leave(&batch);
                    }
                    return;
                }
            }
            self.waiting.remove(&batch);
        }
    }

    /// What is not delivered when the time is over has nowhere to stay.
    fn leave(&self, batch: &EncodedBatch) {
        self.metrics.lost(Cause::ShutdownDeadline, batch.records);
        self.waiting.remove(batch);
    }
}
