//! Brotli (RFC 7932).

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::{Error, Step};

type State = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

/// A brotli stream. Its window is at most 16 MiB, and allocated when the stream asks for it.
pub(super) struct Brotli {
    state: Box<State>,
    complete: bool,
}

impl Default for Brotli {
    fn default() -> Self {
        Self { state: Box::new(new_state()), complete: false }
    }
}

fn new_state() -> State {
    // Strict: without the extension that allows windows beyond 16 MiB.
    BrotliState::new_strict(StandardAlloc::default(), StandardAlloc::default(), StandardAlloc::default())
}

impl Brotli {
    pub fn reset(&mut self) {
        *self.state = new_state();
        self.complete = false;
    }

    pub fn is_complete(&self) -> bool {
        self.complete
    }

    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        if self.complete {
            return Ok(Step { used: input.len(), written: 0 });
        }
        let (mut available_in, mut used) = (input.len(), 0);
        let (mut available_out, mut written, mut total) = (output.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut available_in,
            &mut used,
            input,
            &mut available_out,
            &mut written,
            output,
            &mut total,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultFailure => return Err(Error::Corrupt),
            BrotliResult::ResultSuccess => self.complete = true,
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
        Ok(Step { used, written })
    }
}
