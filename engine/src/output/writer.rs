//! A thread that writes, so that a reader who is slow, or has stopped, holds up nothing else: not
//! the export, and not the exit.

use std::{
    io::{self, ErrorKind, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    limits,
    metrics::{Metrics, Total},
};

/// Some whole lines.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

/// The near end of the thread.
pub(super) struct Writer {
    chunks: SyncSender<Chunk>,
    /// Buffers of written chunks, to be used again.
    empties: Receiver<Vec<u8>>,
    /// Never receives: it is disconnected when the thread ends.
    ended: Receiver<()>,
    progress: Arc<Progress>,
}

/// What the thread has come to. Relaxed, since each stands for itself alone.
#[derive(Default)]
struct Progress {
    /// Nobody reads any more, or nothing can be written.
    broken: Arc<AtomicBool>,
    lines_written: AtomicU64,
}

impl Writer {
    pub(super) fn spawn(out: Box<dyn Write + Send>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (chunks, inbox) = mpsc::sync_channel(limits::OUTPUT_CHUNKS_MAX);
        let (outbox, empties) = mpsc::sync_channel(limits::OUTPUT_CHUNKS_MAX);
        let (end, ended) = mpsc::sync_channel(0);
        let progress = Arc::<Progress>::default();
        let theirs = Arc::clone(&progress);
        thread::Builder::new().name("agentsight-output".to_owned()).spawn(move || {
            let _end = end;
            write_all(out, &inbox, &outbox, &theirs, &metrics);
        })?;
        Ok(Self { chunks, empties, ended, progress })
    }

    pub(super) fn broken(&self) -> &Arc<AtomicBool> {
        &self.progress.broken
    }

    /// Hands `chunk` over and empties it, unless the thread is too far behind.
    pub(super) fn offer(&self, chunk: &mut Chunk) {
        if chunk.lines == 0 {
            return;
        }
        match self.chunks.try_send(std::mem::take(chunk)) {
            Ok(()) => chunk.bytes = self.empties.try_recv().unwrap_or_default(),
            Err(TrySendError::Full(same) | TrySendError::Disconnected(same)) => *chunk = same,
        }
    }

    /// Hands over the last chunk and waits for the thread to end, for up to `limit`. Tells how many
    /// lines were written.
    pub(super) fn finish(self, mut last: Chunk, limit: Duration) -> u64 {
        let deadline = Instant::now() + limit;
        loop {
            self.offer(&mut last);
            if last.lines == 0 || self.progress.broken.load(Relaxed) || Instant::now() >= deadline {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        drop(self.chunks);
        let left = deadline.saturating_duration_since(Instant::now());
        // When it is too late the thread is left behind; it holds nothing but the output.
        let (Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) = self.ended.recv_timeout(left);
        self.progress.lines_written.load(Relaxed)
    }
}

fn write_all(
    mut out: Box<dyn Write + Send>,
    inbox: &Receiver<Chunk>,
    outbox: &SyncSender<Vec<u8>>,
    progress: &Progress,
    metrics: &Metrics,
) {
    for Chunk { mut bytes, lines } in inbox {
        if let Err(error) = out.write_all(&bytes).and_then(|()| out.flush()) {
            // The reader of a pipe may leave at any time; that is how `| head` ends.
            if error.kind() != ErrorKind::BrokenPipe {
                eprintln!("agentsight: can't write output: {error}");
            }
            progress.broken.store(true, Relaxed);
            return;
        }
        progress.lines_written.fetch_add(lines, Relaxed);
        metrics.add(Total::Lines, lines);
        bytes.clear();
        if bytes.capacity() <= limits::OUTPUT_PENDING_BYTES_MAX {
            let _ = outbox.try_send(bytes);
        }
    }
}
