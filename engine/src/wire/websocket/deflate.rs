//! `permessage-deflate`, RFC 7692.

use flate2::{Decompress, FlushDecompress, Status};

use super::{
    super::{Field, fields},
    Malformed,
    frame::Frame,
};

/// What the server agreed to in its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Messages may be compressed.
    pub(super) deflate: Option<Deflate>,
}

/// Whether a message may refer to those before it, by direction (RFC 7692 section 7.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deflate {
    pub client_takes_over: bool,
    pub server_takes_over: bool,
}

/// An extension that isn't known was agreed to, so that nobody knows what the frames mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown extension")]
pub struct Unsupported;

impl Extensions {
    /// What the fields of the handshake's response say.
    pub fn agreed(response: &[Field<'_>]) -> Result<Self, Unsupported> {
        let mut agreed = Self::default();
        let values = fields(response, "sec-websocket-extensions");
        for extension in values.flat_map(|value| value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii) {
            let mut parts = extension.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            match parts.next() {
                None | Some(b"") => {}
                Some(name) if name.eq_ignore_ascii_case(b"permessage-deflate") && agreed.deflate.is_none() => {
                    let mut deflate = Deflate { client_takes_over: true, server_takes_over: true };
                    for part in parts {
                        // How large a window the compressor uses makes no difference here.
                        deflate.client_takes_over &= !part.eq_ignore_ascii_case(b"client_no_context_takeover");
                        deflate.server_takes_over &= !part.eq_ignore_ascii_case(b"server_no_context_takeover");
                    }
                    agreed.deflate = Some(deflate);
                }
                Some(_) => return Err(Unsupported),
            }
        }
        Ok(agreed)
    }
}

/// What ends a message is left out by its sender (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// About what the inflater holds: its window of 32 KiB and its tables.
const INFLATER_BYTES: usize = 48 * 1024;

/// Bytes that are unmasked at a time.
const MASKED_BYTES: usize = 4 * 1024;

/// Bytes that are decompressed at a time.
const RUN_BYTES: usize = 16 * 1024;

/// Takes the messages that come out, run by run.
type Out<'a> = dyn FnMut(&[u8]) -> Result<(), Malformed> + 'a;

/// Decompresses the messages of one direction.
#[derive(Debug)]
pub(super) struct Inflater {
    takes_over: bool,
    /// From the first compressed message on.
    inflate: Option<Decompress>,
}

impl Inflater {
    pub fn new(takes_over: bool) -> Self {
        Self { takes_over, inflate: None }
    }

    /// Whether messages refer to earlier ones.
    pub fn takes_over(&self) -> bool {
        self.takes_over
    }

    pub fn held_bytes(&self) -> usize {
        if self.inflate.is_some() { INFLATER_BYTES } else { 0 }
    }

    /// Decompresses payload of `frame`.
    pub fn run(&mut self, payload: &[u8], mut frame: Frame, out: &mut Out<'_>) -> Result<(), Malformed> {
        let mut plain = [0; MASKED_BYTES];
        for piece in payload.chunks(MASKED_BYTES) {
            let Some(plain) = plain.get_mut(..piece.len()) else { break };
            plain.copy_from_slice(piece);
            frame.unmask(plain);
            frame.skip(piece.len() as u64);
            self.inflate(plain, out)?;
        }
        Ok(())
    }

    /// The message under way ended; `broken` when some of it was left out.
    pub fn end_message(&mut self, broken: bool, out: &mut Out<'_>) -> Result<(), Malformed> {
        if !broken {
            self.inflate(&TAIL, out)?;
        }
        if let Some(inflate) = self.inflate.as_mut().filter(|_| !self.takes_over) {
            inflate.reset(false);
        }
        Ok(())
    }

    fn inflate(&mut self, mut input: &[u8], out: &mut Out<'_>) -> Result<(), Malformed> {
        let inflate = self.inflate.get_or_insert_with(|| Decompress::new(false));
        let mut output = [0; RUN_BYTES];
        loop {
            let (used_before, out_before) = (inflate.total_in(), inflate.total_out());
            let status =
                inflate.decompress(input, &mut output, FlushDecompress::Sync).map_err(|_| Malformed::Deflate)?;
            let used = usize::try_from(inflate.total_in() - used_before).unwrap_or(usize::MAX);
            let written = usize::try_from(inflate.total_out() - out_before).unwrap_or(usize::MAX);
            input = input.get(used..).unwrap_or_default();
            out(output.get(..written).unwrap_or_default())?;
            if status == Status::StreamEnd {
                // Section 7.2.3.4: a message may have a last block, with others after it.
                inflate.reset(false);
            } else if written < output.len() && (input.is_empty() || used + written == 0) {
                // An inflater that is stuck with input left has been given something else.
                return if input.is_empty() { Ok(()) } else { Err(Malformed::Deflate) };
            }
            if status == Status::StreamEnd && input.is_empty() {
                return Ok(());
            }
        }
    }
}
