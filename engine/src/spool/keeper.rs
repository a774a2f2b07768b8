//! The thread that waits for the disk, so that nobody else has to.

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Folder, FolderError, Left, Losses, Settings, Stamp,
    store::{Batch, Front, Store},
};
use crate::{
    log::Log,
    metrics::{Cause, Gauge, Metrics, Total},
    sys::disk::Appender,
};

/// How often age, room and what is not synced are looked at.
const CHORES: Duration = Duration::from_secs(1);

/// What the spool says about what it was told.
#[derive(Debug)]
pub enum Event {
    /// What an earlier run left is open. The first event.
    Opened {
        /// There is something.
        holds: bool,
    },
    /// The last group of batches, as far as it goes to the one with this id, is kept. Of the rest,
    /// if any, nothing is.
    Written {
        /// The last one that is kept.
        through: Option<u64>,
        /// The disk took the whole group.
        all: bool,
    },
    /// The batch whose turn it is, or none is kept. One of an earlier run has an id that is only
    /// good for telling that it is done.
    Front(Option<Front>),
    /// It has ended, and this much is kept.
    Ended(Left),
}

enum Order<B> {
    Append { batches: Vec<Batch<B>>, out: Option<u64> },
    Front,
    Done(u64),
    Release,
    End,
}

/// The running thread.
pub struct Spool<B> {
    orders: Sender<Order<B>>,
}

impl<B: AsRef<[u8]> + Send + 'static> Spool<B> {
    /// Starts it. `tell` gets every event, in the order of what caused it.
    ///
    /// # Errors
    /// When there is no thread to be had. A disk that fails is no error: it is said, and tried
    /// again with each group of batches.
    pub fn start(
        settings: Settings,
        metrics: Arc<Metrics>,
        log: Log,
        tell: impl FnMut(Event) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let keeper = Keeper { settings, metrics, log, tell, store: None, first_id: 0, trouble: None };
        // Nobody waits for its end: a disk that hangs must not hold up the exit.
        thread::Builder::new().name("agentsight-spool".to_owned()).spawn(move || keeper.run(&inbox))?;
        Ok(Self { orders })
    }

    /// Keeps a group of batches, whose ids grow from 0 on with every run; `out` is the id of one of them that is being delivered already.
    /// Answered by [`Event::Written`]; there must be no other group before that.
    pub fn append(&self, batches: Vec<Batch<B>>, out: Option<u64>) {
        self.order(Order::Append { batches, out });
    }

    /// Asks for the batch whose turn it is. Answered by [`Event::Front`].
    pub fn front(&self) {
        self.order(Order::Front);
    }

    /// The batch with this id, and all before it, have met their end.
    pub fn done(&self, id: u64) {
        self.order(Order::Done(id));
    }

    /// The batch that was being delivered was not.
    pub fn release(&self) {
        self.order(Order::Release);
    }

    /// Ends, with everything on the disk. Answered by [`Event::Ended`].
    pub fn end(&self) {
        self.order(Order::End);
    }

    fn order(&self, order: Order<B>) {
        // A thread that is gone has panicked; whoever waits for its answer learns that from the
        // end of the events.
        let _ = self.orders.send(order);
    }
}

struct Keeper<T> {
    settings: Settings,
    metrics: Arc<Metrics>,
    log: Log,
    tell: T,
    store: Option<Store>,
    /// The id that the store gives to what this run calls its first batch.
    first_id: u64,
    /// Why the disk can't be used, as it was last said.
    trouble: Option<String>,
}

impl<T: FnMut(Event)> Keeper<T> {
    fn run<B: AsRef<[u8]>>(mut self, inbox: &Receiver<Order<B>>) {
        // Folders are made when there is something to keep; but what is left is sent.
        if self.settings.folder.exists() {
            self.open();
        }
        let holds = self.store.as_ref().is_some_and(|store| store.left().bytes > 0);
        (self.tell)(Event::Opened { holds });
        let mut chores_done = Instant::now();
        loop {
            match inbox.recv_timeout(CHORES) {
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(order) => self.follow(order),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if chores_done.elapsed() >= CHORES {
                chores_done = Instant::now();
                self.on_disk(Store::tick);
            }
            self.publish();
        }
        if let Some(store) = &mut self.store {
            store.release();
        }
        self.on_disk(Store::sync);
        let left = self.publish();
        // The folder is free again when this is told.
        self.store = None;
        (self.tell)(Event::Ended(left));
    }

    fn follow<B: AsRef<[u8]>>(&mut self, order: Order<B>) {
        match order {
            Order::Append { mut batches, out } => {
                let written = self.append(&mut batches, out);
                let last = written.checked_sub(1).and_then(|last| batches.get(last));
                let through = last.map(|batch| batch.id.wrapping_sub(self.first_id));
                (self.tell)(Event::Written { through, all: written == batches.len() });
            }
            Order::Front => {
                let front = match self.store.as_mut().map(Store::front) {
                    Some(Ok(front)) => front,
                    Some(Err(error)) => {
                        self.fail(&error.to_string());
                        None
                    }
                    None => None,
                };
                let ours = |front: Front| Front { id: front.id.wrapping_sub(self.first_id), ..front };
                (self.tell)(Event::Front(front.map(ours)));
            }
            Order::Done(id) => {
                let id = id.wrapping_add(self.first_id);
                self.on_disk(|store| store.done(id));
            }
            Order::Release => self.store.iter_mut().for_each(Store::release),
            Order::End => {}
        }
    }

    /// Tells how many were written.
    fn append<B: AsRef<[u8]>>(&mut self, batches: &mut [Batch<B>], out: Option<u64>) -> usize {
        if self.store.is_none() {
            self.open();
        }
        let Some(store) = &mut self.store else { return 0 };
        let first_id = self.first_id;
        batches.iter_mut().for_each(|batch| batch.id = batch.id.wrapping_add(first_id));
        let (written, result) = store.append(batches, out.map(|id| id.wrapping_add(first_id)));
        let spans = batches[..written].iter().map(|batch| u64::from(batch.spans)).sum();
        self.metrics.add(Total::SpansSpooled, spans);
        match result {
            Ok(()) => self.recover(),
            Err(error) => self.fail(&error.to_string()),
        }
        written
    }

    fn on_disk(&mut self, act: impl FnOnce(&mut Store) -> std::io::Result<()>) {
        if let Some(Err(error)) = self.store.as_mut().map(act) {
            self.fail(&error.to_string());
        }
    }

    fn open(&mut self) {
        let path = self.settings.folder.clone();
        match self.try_open(&path) {
            Ok(mut store) => {
                if store.folder().path() != path {
                    self.log.warn(&format!(
                        "another engine has the spool {}; this one uses {}",
                        path.display(),
                        store.folder().path().display()
                    ));
                }
                // What was torn or too old was found too, and is counted as lost below.
                let (left, losses) = (store.left(), store.take_losses());
                self.metrics.add(Total::SpansFound, left.spans + losses.spans());
                self.count(losses);
                if left.spans > 0 {
                    self.log.info(&format!(
                        "{} spans of an earlier run are in {} and are sent first",
                        left.spans,
                        path.display()
                    ));
                }
                self.first_id = store.next_id();
                self.store = Some(store);
                self.publish();
            }
            Err(error) => self.fail(&error.to_string()),
        }
    }

    fn try_open(&self, path: &Path) -> Result<Store, FolderError> {
        let folder = Folder::claim(path)?;
        let mut store = Store::open(folder, &self.settings, Appender::new(), Stamp::now)?;
        for folder in Folder::abandoned(path) {
            // One that can't be read now may be readable by the next run.
            if let Ok(other) = Store::open(folder, &self.settings, Appender::plain(), Stamp::now) {
                self.adopt(other, &mut store)?;
            }
        }
        Ok(store)
    }

    /// Takes over what an engine that is gone has left in a folder of its own.
    fn adopt(&self, mut other: Store, store: &mut Store) -> std::io::Result<()> {
        while let Some(front) = other.front()? {
            let id = front.id;
            let (_, result) = store.append(&[Front { id: store.next_id(), ..front }], None);
            result?;
            other.done(id)?;
        }
        let losses = other.take_losses();
        self.metrics.add(Total::SpansFound, losses.spans());
        self.count(losses);
        Ok(())
    }

    /// Brings the counters up to date.
    fn publish(&mut self) -> Left {
        let Some(store) = &mut self.store else { return Left::default() };
        let (losses, left) = (store.take_losses(), store.left());
        self.count(losses);
        self.metrics.set(Gauge::SpoolSpans, left.spans);
        self.metrics.set(Gauge::SpoolBytes, left.bytes);
        self.metrics.set(Gauge::SpoolAgeSeconds, left.age.as_secs());
        left
    }

    fn count(&self, losses: Losses) {
        self.metrics.lost(Cause::SpoolFull, losses.full);
        self.metrics.lost(Cause::SpoolExpired, losses.expired);
        self.metrics.lost(Cause::SpoolDamaged, losses.damaged);
        if losses.damaged_bytes > 0 {
            self.metrics.add(Total::SpoolBytesDamaged, losses.damaged_bytes);
            self.log.warn(&format!(
                "{} damaged bytes in the spool {} are passed over, with {} spans as far as is known",
                losses.damaged_bytes,
                self.settings.folder.display(),
                losses.damaged
            ));
        }
    }

    /// Says what is wrong, once.
    fn fail(&mut self, why: &str) {
        if self.trouble.as_deref() != Some(why) {
            self.trouble = Some(why.to_owned());
            self.log.warn(&format!(
                "the spool {} can't be used, spans wait in memory: {why}",
                self.settings.folder.display()
            ));
        }
    }

    fn recover(&mut self) {
        if self.trouble.take().is_some() {
            self.log.warn(&format!("the spool {} works again", self.settings.folder.display()));
        }
    }
}
