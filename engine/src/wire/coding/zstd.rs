//! Zstandard (RFC 8878).

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective};

use super::{Error, Step};
use crate::limits::ZSTD_WINDOW_LOG_MAX;

/// A series of zstd frames.
pub(super) struct Zstd {
    context: DCtx<'static>,
    /// Between frames, after at least one.
    complete: bool,
}

impl Zstd {
    /// `None` when there is no memory for it.
    pub fn new() -> Option<Self> {
        let mut context = DCtx::try_create()?;
        context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
        Some(Self { context, complete: false })
    }

    pub fn reset(&mut self) {
        // Resetting the session can't fail; the parameters stay.
        let reset = self.context.reset(ResetDirective::SessionOnly);
        debug_assert!(reset.is_ok());
        self.complete = false;
    }

    pub fn is_complete(&self) -> bool {
        self.complete
    }

    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        if input.is_empty() && self.complete {
            return Ok(Step { used: 0, written: 0 });
        }
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(output);
        let hint = self.context.decompress_stream(&mut output, &mut input).map_err(|_| Error::Corrupt)?;
        self.complete = hint == 0;
        Ok(Step { used: input.pos(), written: output.pos() })
    }
}
