//! Newline-delimited JSON: one value a line, as in Ollama's streams.

use memchr::memchr;

use crate::limits::{STREAM_BUFFER_KEPT_BYTES, STREAM_EVENT_BYTES_MAX};

/// Receives the lines of a stream.
pub trait Sink {
    /// A line.
    fn line(&mut self, line: &[u8]);
    /// A line that lies whole in the input, as `sent` with its end.
    fn whole(&mut self, line: &[u8], _sent: &[u8]) {
        self.line(line);
    }
    /// A line begins at the front of `input`. How many bytes of it are whole lines with their ends that
    /// don't have to be cut out, because they were taken here.
    fn taken(&mut self, _input: &[u8]) -> usize {
        0
    }
}

/// A closure as a sink.
struct Each<F>(F);

impl<F: FnMut(&[u8])> Sink for Each<F> {
    fn line(&mut self, line: &[u8]) {
        self.0(line);
    }
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The line so far, when it comes in pieces.
    buffer: Vec<u8>,
    /// The line under way is too long or was hit by a gap: its bytes are dropped.
    skipping: bool,
    skipped: u64,
}

impl Decoder {
    /// Bytes held back.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Lines that were dropped since the last call: hit by a gap, or longer than
    /// [`STREAM_EVENT_BYTES_MAX`].
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// Takes the next bytes. A line that lies whole in them is handed on as it lies there, without
    /// its end; empty lines are left out.
    pub fn feed(&mut self, input: &[u8], on_line: &mut impl FnMut(&[u8])) {
        self.feed_sink(input, &mut Each(on_line));
    }

    /// What comes next begins a line.
    #[inline]
    pub fn is_between_lines(&self) -> bool {
        self.buffer.is_empty() && !self.skipping
    }

    /// The same for a sink.
    pub fn feed_sink(&mut self, mut input: &[u8], sink: &mut impl Sink) {
        loop {
            if self.is_between_lines() {
                input = input.get(sink.taken(input)..).unwrap_or_default();
            }
            let Some(at) = memchr(b'\n', input) else { break };
            let (sent, rest) = input.split_at(at + 1);
            let line = &sent[..at];
            input = rest;
            if self.skipping {
                self.skipping = false;
            } else if self.buffer.is_empty() {
                emit(line, &mut |line| sink.whole(line, sent));
            } else {
                self.push(line);
                self.flush(&mut |line| sink.line(line));
            }
        }
        self.push(input);
    }

    /// Bytes are missing here: the line that they were in is dropped.
    pub fn gap(&mut self) {
        self.buffer.clear();
        if !self.skipping {
            self.skipping = true;
            self.skipped += 1;
        }
    }

    /// The stream ended. What was left of it is a line too, and the decoder is new again.
    pub fn finish(&mut self, on_line: &mut impl FnMut(&[u8])) {
        self.flush(on_line);
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.skipping {
            return;
        }
        if self.buffer.len() + bytes.len() > STREAM_EVENT_BYTES_MAX {
            return self.gap();
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn flush(&mut self, on_line: &mut impl FnMut(&[u8])) {
        if !std::mem::take(&mut self.skipping) {
            emit(&self.buffer, on_line);
        }
        self.buffer.clear();
        self.buffer.shrink_to(STREAM_BUFFER_KEPT_BYTES);
    }
}

fn emit(line: &[u8], on_line: &mut impl FnMut(&[u8])) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if !line.trim_ascii().is_empty() {
        on_line(line);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut lines = Vec::new();
        let mut on_line = |line: &[u8]| lines.push(line.escape_ascii().to_string());
        for piece in pieces {
            decoder.feed(piece, &mut on_line);
        }
        decoder.finish(&mut on_line);
        assert_eq!(decoder.buffered(), 0);
        lines
    }

    #[test]
    fn lines_are_cut_at_every_byte() {
        let input = b"{\"a\":1}\r\n\n \r\n{\"b\"}\n{\"c\":";
        for at in 0..=input.len() {
            let (a, b) = input.split_at(at);
            assert_eq!(lines(&[a, b]), [r#"{\"a\":1}"#, r#"{\"b\"}"#, r#"{\"c\":"#], "cut at {at}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_told() {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        let half = vec![b'x'; STREAM_EVENT_BYTES_MAX / 2 + 1];
        for piece in [b"a\nb".as_slice(), &half, &half, &half, b"\nc\n"] {
            decoder.feed(piece, &mut |line| seen.push(line.to_vec()));
        }
        assert_eq!(seen, [b"a", b"c"]);
        assert_eq!((decoder.take_skipped(), decoder.take_skipped()), (1, 0));
    }

    #[test]
    fn a_gap_costs_the_line_it_is_in() {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        let mut on_line = |line: &[u8]| seen.push(line.to_vec());
        decoder.feed(b"a\nb", &mut on_line);
        decoder.gap();
        decoder.feed(b"b\nc\nd", &mut on_line);
        decoder.gap();
        decoder.finish(&mut on_line);
        decoder.feed(b"e\n", &mut on_line);
        assert_eq!(seen, [b"a", b"c", b"e"]);
        assert_eq!(decoder.take_skipped(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_split_gives_the_same(pieces in proptest::collection::vec("[a\n\r ]{0,6}", 0..8)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            prop_assert_eq!(lines(&pieces), lines(&[&pieces.concat()]));
        }
    }
}
