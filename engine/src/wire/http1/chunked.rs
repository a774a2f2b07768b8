//! The chunked transfer coding (RFC 9112 section 7.1).

use memchr::{memchr, memchr2};

use super::Malformed;
use crate::limits::HEAD_BYTES_MAX;

/// Takes chunk framing off, piece by piece.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    /// Lines may end in LF alone, as those of the head did. Otherwise that is refused: where readers
    /// disagree about a chunk's framing they see different messages.
    bare_line_feeds: bool,
    /// Bytes of the current size line, or of all trailers.
    line_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the hexadecimal digits.
    Size {
        size: u64,
        digits: u8,
    },
    /// In whitespace behind the digits.
    SizeSpace {
        size: u64,
    },
    /// In an extension.
    Extension {
        size: u64,
    },
    /// Behind the CR of the size line.
    SizeLineFeed {
        size: u64,
    },
    Data {
        remaining: u64,
    },
    /// Behind the data.
    DataEnd,
    /// Behind the CR that follows the data.
    DataLineFeed,
    /// At the start of a trailer line, or of the empty line that ends the message.
    Trailer,
    /// Behind a CR at the start of a trailer line.
    TrailerLineFeed,
    /// Inside a trailer line.
    TrailerRest,
}

/// Digits of a chunk's size that are read in one go.
const USUAL_DIGITS_MAX: usize = 8;

const CHUNK_START: State = State::Size { size: 0, digits: 0 };

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Body bytes.
    Data(&'a [u8]),
    /// The input is used up.
    More,
    /// The message ended.
    End,
}

impl Chunked {
    pub fn new(bare_line_feeds: bool) -> Self {
        Self { state: CHUNK_START, bare_line_feeds, line_bytes: 0 }
    }

    /// The chunk of size zero was there: the body is whole.
    pub fn saw_last_chunk(&self) -> bool {
        matches!(self.state, State::Trailer | State::TrailerLineFeed | State::TrailerRest)
    }

    /// `lost` bytes are missing here. False when the framing went with them.
    pub fn gap(&mut self, lost: u64) -> bool {
        let State::Data { remaining } = self.state else { return false };
        let Some(remaining) = remaining.checked_sub(lost) else { return false };
        self.state = if remaining == 0 { State::DataEnd } else { State::Data { remaining } };
        true
    }

    /// Moves on through `input`, as far as the next run of body bytes.
    #[inline]
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, Malformed> {
        if input.is_empty() {
            return Ok(Step::More);
        }
        // Most chunks are an event each, and lie whole in the input: nothing changes by them.
        if let State::Size { digits: 0, .. } = self.state
            && let Some((data, rest)) = whole_chunk(input)
        {
            *input = rest;
            return Ok(Step::Data(data));
        }
        self.next_piece(input)
    }

    #[inline(never)]
    fn next_piece<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, Malformed> {
        while let Some((&byte, rest)) = input.split_first() {
            let (state, used) = match self.state {
                State::Data { remaining } => {
                    let here = usize::try_from(remaining).unwrap_or(usize::MAX).min(input.len());
                    let (data, rest) = input.split_at(here);
                    let remaining = remaining - here as u64;
                    self.state = if remaining == 0 { State::DataEnd } else { State::Data { remaining } };
                    *input = rest;
                    // So that the next chunk is at the front, if there is one.
                    if let (State::DataEnd, Some(rest)) = (self.state, rest.strip_prefix(b"\r\n")) {
                        self.state = CHUNK_START;
                        *input = rest;
                    }
                    return Ok(Step::Data(data));
                }
                State::Size { digits: 0, .. } if let Some((size, used)) = usual_size(input) => (data(size), used),
                State::Size { size, digits } => (self.size_digit(size, digits, byte)?, 1),
                State::SizeSpace { size } => (self.behind_size(size, byte)?, 1),
                State::Extension { size } => match memchr2(b'\r', b'\n', input) {
                    Some(at) if input[at] == b'\r' => (State::SizeLineFeed { size }, at + 1),
                    Some(at) => (self.behind_size(size, input[at])?, at + 1),
                    None => (State::Extension { size }, input.len()),
                },
                State::SizeLineFeed { size } if byte == b'\n' => (data(size), 1),
                State::SizeLineFeed { .. } => return Err(Malformed::ChunkSize),
                State::DataEnd if input.starts_with(b"\r\n") => (CHUNK_START, 2),
                State::DataEnd if byte == b'\r' => (State::DataLineFeed, 1),
                State::DataLineFeed if byte == b'\n' => (CHUNK_START, 1),
                State::DataEnd if byte == b'\n' && self.bare_line_feeds => (CHUNK_START, 1),
                State::DataEnd | State::DataLineFeed => return Err(Malformed::ChunkEnd),
                State::Trailer if byte == b'\n' && !self.bare_line_feeds => return Err(Malformed::Trailers),
                State::Trailer | State::TrailerLineFeed if byte == b'\n' => {
                    *input = rest;
                    return Ok(Step::End);
                }
                State::Trailer if byte == b'\r' => (State::TrailerLineFeed, 1),
                State::TrailerLineFeed => return Err(Malformed::Trailers),
                State::Trailer | State::TrailerRest => match memchr(b'\n', input) {
                    Some(at) => (State::Trailer, at + 1),
                    None => (State::TrailerRest, input.len()),
                },
            };
            self.count(state, used)?;
            self.state = state;
            *input = &input[used..];
        }
        Ok(Step::More)
    }

    /// Lines cost no memory, but one that never ends is no chunk framing.
    fn count(&mut self, next: State, used: usize) -> Result<(), Malformed> {
        self.line_bytes = self.line_bytes.saturating_add(used);
        match next {
            State::Data { .. } | State::DataEnd | State::DataLineFeed => self.line_bytes = 0,
            State::Trailer | State::TrailerLineFeed | State::TrailerRest if self.line_bytes > HEAD_BYTES_MAX => {
                return Err(Malformed::Trailers);
            }
            _ if self.line_bytes > HEAD_BYTES_MAX => return Err(Malformed::ChunkSize),
            _ => {}
        }
        Ok(())
    }

    fn size_digit(&self, size: u64, digits: u8, byte: u8) -> Result<State, Malformed> {
        match (char::from(byte).to_digit(16), digits) {
            (Some(_), 16..) | (None, 0) => Err(Malformed::ChunkSize),
            (Some(digit), _) => Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }),
            (None, _) => self.behind_size(size, byte),
        }
    }

    fn behind_size(&self, size: u64, byte: u8) -> Result<State, Malformed> {
        match byte {
            b'\n' if self.bare_line_feeds => Ok(data(size)),
            b'\r' => Ok(State::SizeLineFeed { size }),
            // Old servers pad the size with spaces.
            b' ' | b'\t' => Ok(State::SizeSpace { size }),
            b';' => Ok(State::Extension { size }),
            _ => Err(Malformed::ChunkSize),
        }
    }
}

/// The chunk at the front, when all of it is there with the line end behind it, and what follows it.
#[inline(always)]
fn whole_chunk(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, used) = usual_size(input)?;
    let (data, rest) = input.get(used..)?.split_at_checked(usize::try_from(size).ok()?)?;
    // The last one has no data.
    Some((data, rest.strip_prefix(b"\r\n").filter(|_| size > 0)?))
}

/// The size line at the front, when it is whole and nothing but digits: its size and length.
#[inline(always)]
fn usual_size(input: &[u8]) -> Option<(u64, usize)> {
    let mut size = 0;
    let mut digits = 0;
    loop {
        match DIGITS[usize::from(*input.get(digits)?)] {
            NO_DIGIT => break,
            digit => size = size << 4 | u64::from(digit),
        }
        digits += 1;
        if digits > USUAL_DIGITS_MAX {
            return None;
        }
    }
    (digits > 0 && input.get(digits..digits + 2)? == b"\r\n").then_some((size, digits + 2))
}

const NO_DIGIT: u8 = u8::MAX;

/// What each byte is as a hexadecimal digit.
static DIGITS: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut byte = 0;
    while byte < 256 {
        if let Some(digit) = char::to_digit(byte as u8 as char, 16) {
            table[byte] = digit as u8;
        }
        byte += 1;
    }
    table
};

fn data(size: u64) -> State {
    if size == 0 { State::Trailer } else { State::Data { remaining: size } }
}
