//! Finding the next message after a loss.

use memchr::memchr_iter;

use super::Side;

const METHODS: [&[u8]; 9] =
    [b"POST ", b"GET ", b"PUT ", b"PATCH ", b"DELETE ", b"HEAD ", b"OPTIONS ", b"CONNECT ", b"TRACE "];

/// Where in `input` a head may start: at its beginning, when that is also where a piece of the
/// direction starts, or after a CRLF. The head that is then parsed has to prove itself.
pub(super) fn find_head(side: Side, input: &[u8], piece_start: bool) -> Option<usize> {
    line_starts(input, piece_start).find(|&at| looks_like_head(side, &input[at..]))
}

/// What was found behind a gap in a chunked body.
pub(super) enum Found {
    /// A chunk of the same message.
    Chunk(usize),
    /// The head of the next one.
    Head(usize),
}

/// Where in `input` the next chunk begins, if there may be one, or the next head. A chunk has to be
/// whole, so that its size proves itself by the line end behind the data.
pub(super) fn find_chunk_or_head(side: Side, input: &[u8], piece_start: bool, chunks: bool) -> Option<Found> {
    line_starts(input, piece_start).find_map(|at| {
        if looks_like_head(side, &input[at..]) {
            return Some(Found::Head(at));
        }
        (chunks && is_whole_chunk(&input[at..])).then_some(Found::Chunk(at))
    })
}

/// The start of the input, if a piece starts there, and the places behind a CRLF.
fn line_starts(input: &[u8], piece_start: bool) -> impl Iterator<Item = usize> {
    let behind_line_ends = memchr_iter(b'\n', input).filter(|&at| at > 0 && input[at - 1] == b'\r').map(|at| at + 1);
    piece_start.then_some(0).into_iter().chain(behind_line_ends)
}

/// A size, without the extensions that nobody sends, so many bytes, and a line end. For the last chunk
/// that is the end of the message.
fn is_whole_chunk(input: &[u8]) -> bool {
    const DIGITS_MAX: usize = 7;
    let digits = input.iter().take(DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if !(1..=DIGITS_MAX).contains(&digits) {
        return false;
    }
    let size = input[..digits].iter().fold(0, |size, &byte| size << 4 | char::from(byte).to_digit(16).unwrap_or(0));
    let behind = |input: &[u8], at: usize| input.get(at..).is_some_and(|rest| rest.starts_with(b"\r\n"));
    behind(input, digits) && behind(input, digits + 2 + size as usize)
}

fn looks_like_head(side: Side, input: &[u8]) -> bool {
    match side {
        Side::Responses => input.starts_with(b"HTTP/1."),
        Side::Requests => METHODS.iter().any(|method| {
            let target = input.strip_prefix(*method).and_then(|rest| rest.first());
            // origin-form, absolute-form, authority-form, asterisk-form: RFC 9112 section 3.2.
            target.is_some_and(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'*' | b'['))
        }),
    }
}
