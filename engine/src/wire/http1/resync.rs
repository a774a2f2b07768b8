//! Finding the next message after a loss.

use memchr::memchr_iter;

use super::Side;

const METHODS: [&[u8]; 9] =
    [b"POST ", b"GET ", b"PUT ", b"PATCH ", b"DELETE ", b"HEAD ", b"OPTIONS ", b"CONNECT ", b"TRACE "];

/// Where in `input` a head may start: at its beginning, when that is also where a piece of the
/// direction starts, or after a CRLF. The head that is then parsed has to prove itself.
pub(super) fn find_head(side: Side, input: &[u8], piece_start: bool) -> Option<usize> {
    if piece_start && looks_like_head(side, input) {
        return Some(0);
    }
    memchr_iter(b'\n', input)
        .filter(|&at| at > 0 && input[at - 1] == b'\r')
        .map(|at| at + 1)
        .find(|&at| looks_like_head(side, &input[at..]))
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
