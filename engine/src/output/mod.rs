//! Finished exchanges as lines: for a person, or as JSON.

mod json;
mod readable;
mod writer;

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use writer::{Chunk, Writer};

use crate::{
    exchange::Exchange,
    limits,
    metrics::{Cause, Metrics},
};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For a person.
    Readable {
        /// With colours, for terminals.
        colour: bool,
    },
    /// One JSON object with everything that the span has.
    Json,
}

impl Style {
    /// For a person, in colour if standard output is a terminal and `NO_COLOR` is empty or unset.
    pub fn readable(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let forbidden = env("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::Readable { colour: io::stdout().is_terminal() && !forbidden }
    }
}

/// Writes lines, on a thread of its own. Lines that the reader is too slow for are dropped and
/// counted; when the reader is gone there are no more lines, and a flag says so.
pub struct Lines {
    style: Style,
    writer: Writer,
    /// Lines that the writer has not got yet.
    pending: Chunk,
    /// Lines so far, those in `pending` included.
    made: u64,
    name: String,
    metrics: Arc<Metrics>,
}

/// Pending lines go to the writer when they are this many bytes, or at the next flush.
const CHUNK_BYTES: usize = 64 * 1024;

impl Lines {
    /// Lines of `style` to `out`.
    pub fn new(style: Style, out: Box<dyn Write + Send>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let writer = Writer::spawn(out, Arc::clone(&metrics))?;
        Ok(Self { style, writer, pending: Chunk::default(), made: 0, name: String::new(), metrics })
    }

    /// Becomes true when nobody reads the lines any more, or they can't be written.
    pub fn broken(&self) -> Arc<AtomicBool> {
        Arc::clone(self.writer.broken())
    }

    /// Makes the line of one exchange.
    pub fn write(&mut self, exchange: &Exchange) {
        if self.writer.broken().load(Relaxed) {
            return;
        }
        if self.pending.bytes.len() >= limits::OUTPUT_PENDING_BYTES_MAX {
            self.metrics.lost(Cause::OutputBehind, 1);
            return;
        }
        let out = &mut self.pending.bytes;
        match self.style {
            Style::Readable { colour } => readable::line(exchange, colour, out, &mut self.name),
            Style::Json => json::object(exchange, out, &mut self.name),
        }
        out.push(b'\n');
        self.pending.lines += 1;
        self.made += 1;
        if out.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    /// Hands what is pending to the writer, if that one is ready for it.
    pub fn flush(&mut self) {
        self.writer.offer(&mut self.pending);
    }

    /// Waits until everything is written, for up to `limit`. What is not written then is counted.
    pub fn finish(self, limit: Duration) {
        let broken = self.broken();
        let written = self.writer.finish(self.pending, limit);
        // A reader who left wanted no more of them.
        if !broken.load(Relaxed) {
            self.metrics.lost(Cause::OutputBehind, self.made - written);
        }
    }
}
