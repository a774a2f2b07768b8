//! Finished exchanges as lines: for a person, or as JSON.

mod json;
mod readable;

use std::{
    io::{self, BufWriter, ErrorKind, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    exchange::Exchange,
    metrics::{Metrics, Total},
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

/// Writes lines. After the first failed write it writes no more and says so through a flag.
pub struct Lines {
    style: Style,
    out: BufWriter<Box<dyn Write + Send>>,
    broken: Arc<AtomicBool>,
    line: Vec<u8>,
    text: String,
}

impl Lines {
    /// Lines of `style` to `out`.
    pub fn new(style: Style, out: Box<dyn Write + Send>) -> Self {
        let broken = Arc::new(AtomicBool::new(false));
        Self { style, out: BufWriter::new(out), broken, line: Vec::new(), text: String::new() }
    }

    /// Becomes true when nobody reads the lines any more, or they can't be written.
    pub fn broken(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.broken)
    }

    /// Writes the line of one exchange.
    pub fn write(&mut self, exchange: &Exchange, metrics: &Metrics) {
        if self.broken.load(Ordering::Relaxed) {
            return;
        }
        self.line.clear();
        match self.style {
            Style::Readable { colour } => readable::line(exchange, colour, &mut self.line, &mut self.text),
            Style::Json => json::object(exchange, &mut self.line, &mut self.text),
        }
        self.line.push(b'\n');
        let result = self.out.write_all(&self.line);
        if self.check(result) {
            metrics.add(Total::Lines, 1);
        }
    }

    /// Brings what was written to the reader.
    pub fn flush(&mut self) {
        if !self.broken.load(Ordering::Relaxed) {
            let result = self.out.flush();
            self.check(result);
        }
    }

    fn check(&mut self, result: io::Result<()>) -> bool {
        match result {
            Ok(()) => true,
            Err(error) => {
                // The reader of a pipe may leave at any time; that is how `| head` ends.
                if error.kind() != ErrorKind::BrokenPipe {
                    eprintln!("agentsight: can't write output: {error}");
                }
                self.broken.store(true, Ordering::Relaxed);
                false
            }
        }
    }
}
