//! Finished exchanges on their way from the workers to the encoder: a bounded queue without locks, and a bell for an
//! encoder that has gone to sleep.

use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

use crate::exchange::Exchange;

/// The queue.
pub struct Handoff {
    queue: ArrayQueue<Exchange>,
    /// Whoever takes exchanges waits for the bell, or is about to.
    is_asleep: AtomicBool,
    bell: Notify,
}

impl Handoff {
    /// An empty queue with room for `capacity` exchanges.
    pub fn new(capacity: usize) -> Self {
        Self { queue: ArrayQueue::new(capacity), is_asleep: AtomicBool::new(false), bell: Notify::new() }
    }

    /// Appends an exchange. It never waits, and makes a system call only to wake whoever sleeps.
    ///
    /// # Errors
    /// The exchange, when the queue is full.
    #[expect(clippy::result_large_err, reason = "it is given back as it came, without an allocation")]
    pub fn push(&self, exchange: Exchange) -> Result<(), Exchange> {
        self.queue.push(exchange)?;
        // Pairs with the fence in `wait`: either that sees the exchange, or this sees the sleeper.
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Takes the oldest exchange.
    pub fn pop(&self) -> Option<Exchange> {
        self.queue.pop()
    }

    /// Exchanges that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// None waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sleeps until there is an exchange; now and then it returns without one. For the one who takes them.
    pub async fn wait(&self) {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            self.bell.notified().await;
        }
        self.is_asleep.store(false, Ordering::Relaxed);
    }
}
