//! gzip (RFC 1952), and deflate, which is zlib (RFC 1950) or, from some servers, bare (RFC 1951).

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::{Error, Step};

/// One call to the inflater.
fn inflate(inflater: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<(Step, bool), Error> {
    let (in_before, out_before) = (inflater.total_in(), inflater.total_out());
    let status = inflater.decompress(input, output, FlushDecompress::Sync).map_err(|_| Error::Corrupt)?;
    let used = (inflater.total_in() - in_before) as usize;
    let written = (inflater.total_out() - out_before) as usize;
    Ok((Step { used, written }, status == Status::StreamEnd))
}

/// A series of gzip members; what follows the last one is ignored, as gzip itself does.
pub(super) struct Gzip {
    inflater: Decompress,
    state: GzipState,
    checksum: Crc,
}

#[derive(Clone, Copy)]
enum GzipState {
    /// In the ten fixed bytes: the flags once they were there.
    Fixed {
        at: u8,
        flags: u8,
    },
    /// In the length of the extra field, with the flags of the fields that come after it.
    ExtraLength {
        flags: u8,
        low: Option<u8>,
    },
    /// In a field of known length.
    Skip {
        flags: u8,
        remaining: u16,
    },
    /// In a text that ends with NUL.
    Text {
        flags: u8,
    },
    Body,
    /// In the checksum and the length.
    Trailer {
        at: u8,
        bytes: [u8; 8],
    },
    /// Behind a member.
    Between,
    /// Behind the last member.
    Past,
}

const HEADER_CHECKSUM: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

const GZIP_START: GzipState = GzipState::Fixed { at: 0, flags: 0 };

impl Default for Gzip {
    fn default() -> Self {
        Self { inflater: Decompress::new(false), state: GZIP_START, checksum: Crc::new() }
    }
}

impl Gzip {
    pub fn reset(&mut self) {
        self.inflater.reset(false);
        self.checksum.reset();
        self.state = GZIP_START;
    }

    pub fn is_complete(&self) -> bool {
        matches!(self.state, GzipState::Between | GzipState::Past)
    }

    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        let mut used = 0;
        while !matches!(self.state, GzipState::Body | GzipState::Past) {
            let Some(&byte) = input.get(used) else { return Ok(Step { used, written: 0 }) };
            self.header_or_trailer(byte)?;
            used += 1;
        }
        if matches!(self.state, GzipState::Past) {
            return Ok(Step { used: input.len(), written: 0 });
        }
        let (step, ended) = inflate(&mut self.inflater, &input[used..], output)?;
        self.checksum.update(output.get(..step.written).unwrap_or_default());
        if ended {
            self.state = GzipState::Trailer { at: 0, bytes: [0; 8] };
        }
        Ok(Step { used: used + step.used, written: step.written })
    }

    fn header_or_trailer(&mut self, byte: u8) -> Result<(), Error> {
        self.state = match self.state {
            GzipState::Fixed { at, flags } => match (at, byte) {
                (0, 0x1f) | (1, 0x8b) | (2, 8) => GzipState::Fixed { at: at + 1, flags },
                (0..=2, _) => return Err(Error::Corrupt),
                (3, flags) if flags & RESERVED != 0 => return Err(Error::Corrupt),
                (3, flags) => GzipState::Fixed { at: 4, flags },
                (9.., _) => next_optional(flags),
                _ => GzipState::Fixed { at: at + 1, flags },
            },
            GzipState::ExtraLength { flags, low: None } => GzipState::ExtraLength { flags, low: Some(byte) },
            GzipState::ExtraLength { flags, low: Some(low) } => match u16::from_le_bytes([low, byte]) {
                0 => next_optional(flags),
                remaining => GzipState::Skip { flags, remaining },
            },
            GzipState::Skip { flags, remaining: 0 | 1 } => next_optional(flags),
            GzipState::Skip { flags, remaining } => GzipState::Skip { flags, remaining: remaining - 1 },
            GzipState::Text { flags } if byte == 0 => next_optional(flags),
            GzipState::Text { flags } => GzipState::Text { flags },
            GzipState::Trailer { at, mut bytes } => {
                if let Some(place) = bytes.get_mut(usize::from(at)) {
                    *place = byte;
                }
                if at == 7 { self.end_member(bytes)? } else { GzipState::Trailer { at: at + 1, bytes } }
            }
            GzipState::Between if byte == 0x1f => {
                self.inflater.reset(false);
                self.checksum.reset();
                GzipState::Fixed { at: 1, flags: 0 }
            }
            GzipState::Between | GzipState::Past => GzipState::Past,
            GzipState::Body => GzipState::Body,
        };
        Ok(())
    }

    fn end_member(&self, trailer: [u8; 8]) -> Result<GzipState, Error> {
        let [a, b, c, d, e, f, g, h] = trailer;
        let matches = u32::from_le_bytes([a, b, c, d]) == self.checksum.sum()
            && u32::from_le_bytes([e, f, g, h]) == self.checksum.amount();
        if matches { Ok(GzipState::Between) } else { Err(Error::Corrupt) }
    }
}

/// The state for the first field that `flags` still hold.
fn next_optional(flags: u8) -> GzipState {
    if flags & EXTRA != 0 {
        GzipState::ExtraLength { flags: flags & !EXTRA, low: None }
    } else if flags & NAME != 0 {
        GzipState::Text { flags: flags & !NAME }
    } else if flags & COMMENT != 0 {
        GzipState::Text { flags: flags & !COMMENT }
    } else if flags & HEADER_CHECKSUM != 0 {
        GzipState::Skip { flags: flags & !HEADER_CHECKSUM, remaining: 2 }
    } else {
        GzipState::Body
    }
}

/// A zlib stream, or a bare one when it doesn't begin like zlib.
pub(super) struct Deflate {
    inflater: Decompress,
    state: DeflateState,
}

#[derive(Clone, Copy)]
enum DeflateState {
    /// The first two bytes tell which it is.
    Start(Option<u8>),
    Body,
    Past,
}

impl Default for Deflate {
    fn default() -> Self {
        Self { inflater: Decompress::new(true), state: DeflateState::Start(None) }
    }
}

impl Deflate {
    pub fn reset(&mut self) {
        self.state = DeflateState::Start(None);
    }

    pub fn is_complete(&self) -> bool {
        matches!(self.state, DeflateState::Past)
    }

    pub fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        let Some(&byte) = input.first() else {
            // Output may be held back even when no input is left.
            return if matches!(self.state, DeflateState::Body) {
                self.body(input, output)
            } else {
                Ok(Step { used: 0, written: 0 })
            };
        };
        match self.state {
            DeflateState::Start(None) => {
                self.state = DeflateState::Start(Some(byte));
                Ok(Step { used: 1, written: 0 })
            }
            DeflateState::Start(Some(first)) => {
                self.inflater.reset(is_zlib(first, byte));
                self.state = DeflateState::Body;
                let held = self.body(&[first], output)?;
                let step = self.body(input, output.get_mut(held.written..).unwrap_or_default())?;
                Ok(Step { used: step.used, written: held.written + step.written })
            }
            DeflateState::Body => self.body(input, output),
            DeflateState::Past => Ok(Step { used: input.len(), written: 0 }),
        }
    }

    fn body(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        let (step, ended) = inflate(&mut self.inflater, input, output)?;
        if ended {
            self.state = DeflateState::Past;
        }
        Ok(step)
    }
}

/// RFC 1950 section 2.2: method 8, a window of up to 32 KiB, and a check over both bytes.
fn is_zlib(first: u8, second: u8) -> bool {
    first & 0x0f == 8 && first >> 4 <= 7 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}
