//! Content codings (RFC 9110 section 8.4.1), taken off a body as it arrives.
//!
//! Output is handed on in runs of at most [`RUN_BYTES`] from a buffer on the stack, so a decoder
//! holds only its codec's window. Decoders are taken from a [`Pool`] and put back, because setting
//! one up costs more than a short body.

mod brotli;
mod inflate;
mod zstd;

#[cfg(test)]
mod tests;

use self::{
    brotli::Brotli,
    inflate::{Deflate, Gzip},
    zstd::Zstd,
};
use crate::limits::{CODINGS_MAX, DECODED_BYTES_MAX, IDLE_CODECS_MAX};

/// The longest run of decoded bytes.
pub const RUN_BYTES: usize = 16 * 1024;

/// A coding that this engine takes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The body is under a coding that isn't known, or under too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsupported content coding")]
pub struct Unsupported;

/// The coding, by its name, that a body of JSON or of a text stream is apparently under, for a body whose
/// Content-Encoding was lost. None of those texts begins like a coding that has a mark of its own (RFC 1952
/// section 2.3.1, RFC 8878 section 3.1.1, RFC 1950 section 2.2); Brotli has none, and is what is left.
/// Whether it is will show, since little else decodes to such a text.
pub fn apparent(body: &[u8]) -> Option<&'static str> {
    match body.first()? {
        0x1f => Some("gzip"),
        0x28 => Some("zstd"),
        0x78 => Some("deflate"),
        // White space, a byte order mark, what begins a JSON value, the fields of an event, and the length of
        // a message of an AWS event stream.
        0 | b'\t' | b'\n' | b'\r' | b' ' | 0xef => None,
        b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' | b'd' | b'e' | b'i' | b'r' | b':' => None,
        _ => Some("br"),
    }
}

/// Why a body couldn't be decoded further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    /// The bytes aren't what the coding's specification says.
    #[error("corrupt content coding")]
    Corrupt,
    /// The body expands beyond [`DECODED_BYTES_MAX`].
    #[error("decoded body too large")]
    TooLarge,
}

/// What one codec did with its input.
struct Step {
    /// Bytes of the input that are used up.
    used: usize,
    /// Bytes of the output that are written.
    written: usize,
}

/// One coding's decoder.
enum Codec {
    Gzip(Gzip),
    Deflate(Deflate),
    Brotli(Brotli),
    Zstd(Zstd),
}

impl Codec {
    fn new(coding: Coding) -> Result<Self, Unsupported> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(Gzip::default()),
            Coding::Deflate => Self::Deflate(Deflate::default()),
            Coding::Brotli => Self::Brotli(Brotli::default()),
            Coding::Zstd => Self::Zstd(Zstd::new().ok_or(Unsupported)?),
        })
    }

    fn coding(&self) -> Coding {
        match self {
            Self::Gzip(_) => Coding::Gzip,
            Self::Deflate(_) => Coding::Deflate,
            Self::Brotli(_) => Coding::Brotli,
            Self::Zstd(_) => Coding::Zstd,
        }
    }

    /// Makes it as good as new, keeping its memory.
    fn reset(&mut self) {
        match self {
            Self::Gzip(codec) => codec.reset(),
            Self::Deflate(codec) => codec.reset(),
            Self::Brotli(codec) => codec.reset(),
            Self::Zstd(codec) => codec.reset(),
        }
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Error> {
        match self {
            Self::Gzip(codec) => codec.step(input, output),
            Self::Deflate(codec) => codec.step(input, output),
            Self::Brotli(codec) => codec.step(input, output),
            Self::Zstd(codec) => codec.step(input, output),
        }
    }

    fn is_complete(&self) -> bool {
        match self {
            Self::Gzip(codec) => codec.is_complete(),
            Self::Deflate(codec) => codec.is_complete(),
            Self::Brotli(codec) => codec.is_complete(),
            Self::Zstd(codec) => codec.is_complete(),
        }
    }
}

/// Codecs that are set up and idle.
#[derive(Default)]
pub struct Pool {
    idle: Vec<Codec>,
}

impl Pool {
    /// A decoder for a body with these values of Content-Encoding, in order.
    pub fn decoder<'a>(&mut self, values: impl IntoIterator<Item = &'a [u8]>) -> Result<Decoder, Unsupported> {
        let mut decoder = Decoder::identity();
        for coding in values.into_iter().flat_map(|value| value.split(|&byte| byte == b',')) {
            let Some(coding) = parse(coding.trim_ascii())? else { continue };
            // Codings are listed in the order in which they were applied, so the last goes first.
            let free = decoder.codecs.iter_mut().rev().find(|codec| codec.is_none()).ok_or(Unsupported)?;
            *free = Some(self.codec(coding)?);
        }
        Ok(decoder)
    }

    /// Takes a decoder's codecs back.
    pub fn put_back(&mut self, decoder: Decoder) {
        for codec in decoder.codecs.into_iter().flatten() {
            if self.idle.len() < IDLE_CODECS_MAX {
                self.idle.push(codec);
            }
        }
    }

    fn codec(&mut self, coding: Coding) -> Result<Codec, Unsupported> {
        match self.idle.iter().rposition(|codec| codec.coding() == coding) {
            Some(at) => {
                let mut codec = self.idle.swap_remove(at);
                codec.reset();
                Ok(codec)
            }
            None => Codec::new(coding),
        }
    }
}

/// RFC 9110 section 8.4.1 and the registry of content codings; `None` is no coding at all.
fn parse(name: &[u8]) -> Result<Option<Coding>, Unsupported> {
    const NAMES: [(&[u8], Option<Coding>); 7] = [
        (b"gzip", Some(Coding::Gzip)),
        (b"x-gzip", Some(Coding::Gzip)),
        (b"deflate", Some(Coding::Deflate)),
        (b"br", Some(Coding::Brotli)),
        (b"zstd", Some(Coding::Zstd)),
        (b"identity", None),
        (b"", None),
    ];
    let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    known.map(|&(_, coding)| coding).ok_or(Unsupported)
}

/// Takes the content codings off one body.
pub struct Decoder {
    /// In the order in which they are taken off; the free places come first.
    codecs: [Option<Codec>; CODINGS_MAX],
    decoded_bytes: usize,
    failed: Option<Error>,
}

impl Decoder {
    /// A decoder for a body without codings: hands on what it gets.
    pub fn identity() -> Self {
        Self { codecs: [const { None }; CODINGS_MAX], decoded_bytes: 0, failed: None }
    }

    /// A decoder outside any pool for a body with this Content-Encoding.
    pub fn new(content_encoding: &[u8]) -> Result<Self, Unsupported> {
        Pool::default().decoder([content_encoding])
    }

    /// There is nothing to take off.
    pub fn is_identity(&self) -> bool {
        self.codecs.iter().all(Option::is_none)
    }

    /// All codings have reached their ends: the body is whole.
    pub fn is_complete(&self) -> bool {
        self.failed.is_none() && self.codecs.iter().flatten().all(Codec::is_complete)
    }

    /// Takes the next bytes of the body. After an error the body is lost from there on, and every
    /// further call says so again.
    pub fn feed(&mut self, input: &[u8], out: &mut impl FnMut(&[u8])) -> Result<(), Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let decoded_bytes = &mut self.decoded_bytes;
        let mut bounded = |bytes: &[u8]| {
            *decoded_bytes += bytes.len();
            if *decoded_bytes > DECODED_BYTES_MAX {
                return Err(Error::TooLarge);
            }
            out(bytes);
            Ok(())
        };
        let result = run(&mut self.codecs, input, &mut bounded);
        self.failed = result.err();
        result
    }
}

/// Runs `input` through the codecs one after the other.
fn run(
    codecs: &mut [Option<Codec>],
    mut input: &[u8],
    out: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some((first, others)) = codecs.split_first_mut() else { return out(input) };
    let Some(codec) = first else { return run(others, input, out) };
    let mut output = [0; RUN_BYTES];
    loop {
        let Step { used, written } = codec.step(input, &mut output)?;
        input = input.get(used..).unwrap_or_default();
        if written > 0 {
            run(others, &output[..written], out)?;
        }
        // A codec that filled the output may hold more back.
        if written < output.len() && (input.is_empty() || used + written == 0) {
            return Ok(());
        }
    }
}
