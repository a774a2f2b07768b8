//! Can these be the first bytes of HTTP? The verdict that keeps other TLS traffic cheap.

use crate::{Direction, config::unwanted};

/// Bytes that the decision looks at: an HTTP/2 preface is 24 long (RFC 9113 section 3.4).
pub const LOOKED_AT: usize = 24;

/// What a call's first bytes look like.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// Nothing of HTTP.
    Other = 0,
    /// A request line: a method that is in use, and a space.
    Request = 1,
    /// A status line.
    Response = 2,
    /// The HTTP/2 connection preface.
    Preface = 3,
    /// A frame header that HTTP/2 allows (RFC 9113 section 4.1), which only fits in the middle of
    /// a connection or at the start of a server's direction.
    Frame = 4,
}

impl FirstBytes {
    /// A message head begins here, so that a parser can start.
    pub const fn is_head(self) -> bool {
        matches!(self, Self::Request | Self::Response | Self::Preface)
    }

    /// Whether the process that transferred these bytes in this direction sends the requests of their
    /// connection; `fresh` when they are its first ones. `None` when that can't be told: frames of the
    /// middle of a connection go both ways, while at its start the client's have the preface before them.
    #[inline(always)]
    pub const fn is_of_client(self, direction: Direction, fresh: bool) -> Option<bool> {
        let writes = matches!(direction, Direction::Write);
        match self {
            Self::Request | Self::Preface => Some(writes),
            Self::Response => Some(!writes),
            Self::Frame if fresh => Some(!writes),
            Self::Frame | Self::Other => None,
        }
    }

    /// Whether `unwanted` ([`crate::config::unwanted`]) says that such a connection is not looked at.
    #[inline(always)]
    pub const fn is_unwanted(self, direction: Direction, fresh: bool, unwanted: u32) -> bool {
        match self.is_of_client(direction, fresh) {
            Some(true) => unwanted & unwanted::CLIENTS != 0,
            Some(false) => unwanted & unwanted::SERVERS != 0,
            None => false,
        }
    }
}

/// The methods of RFC 9110 section 9 and RFC 5789, each with the space that follows it.
const METHODS: [&[u8]; 9] =
    [b"POST ", b"GET ", b"PUT ", b"HEAD ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"TRACE "];

/// Looks at the first `len` (at most [`LOOKED_AT`]) bytes of a call. Fewer bytes than a token has
/// count as that token as far as they agree with it, for peers that write byte by byte.
#[inline(always)]
pub fn first_bytes(bytes: &[u8; LOOKED_AT], len: usize) -> FirstBytes {
    if len == 0 {
        return FirstBytes::Other;
    }
    let mut at = 0;
    while at < METHODS.len() {
        if agrees(bytes, len, METHODS[at]) {
            return FirstBytes::Request;
        }
        at += 1;
    }
    if agrees(bytes, len, b"HTTP/1.") {
        return FirstBytes::Response;
    }
    if agrees(bytes, len, b"PRI * HTTP/2.0\r\n") {
        return FirstBytes::Preface;
    }
    if len >= 9 && is_frame(bytes) { FirstBytes::Frame } else { FirstBytes::Other }
}

#[inline(always)]
fn agrees(bytes: &[u8; LOOKED_AT], len: usize, token: &[u8]) -> bool {
    let mut at = 0;
    while at < token.len() && at < LOOKED_AT {
        if at >= len {
            return true;
        }
        if bytes[at] != token[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A frame of a known type with the flags and the stream that its type allows, RFC 9113 section 6.
/// DATA and HEADERS may be large; the others have lengths of their own.
#[inline(always)]
pub fn is_frame(bytes: &[u8; LOOKED_AT]) -> bool {
    let length = (bytes[0] as u32) << 16 | (bytes[1] as u32) << 8 | bytes[2] as u32;
    let (kind, flags) = (bytes[3], bytes[4]);
    if bytes[5] & 0x80 != 0 {
        return false;
    }
    let stream = (bytes[5] as u32) << 24 | (bytes[6] as u32) << 16 | (bytes[7] as u32) << 8 | bytes[8] as u32;
    match kind {
        0 => stream != 0 && stream < 1 << 24 && flags & !0x9 == 0 && length <= 1 << 20,
        1 => {
            stream != 0
                && stream < 1 << 24
                && flags & !0x2d == 0
                && flags & 0x4 != 0
                && length != 0
                && length <= 1 << 16
        }
        3 => stream != 0 && stream < 1 << 24 && length == 4,
        4 => stream == 0 && flags & !1 == 0 && length.is_multiple_of(6) && length <= 240 && (flags == 0 || length == 0),
        6 => stream == 0 && flags & !1 == 0 && length == 8,
        7 => stream == 0 && flags == 0 && (8..=1024).contains(&length),
        8 => flags == 0 && length == 4 && stream < 1 << 24,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], expected: FirstBytes) {
        let mut bytes = [0; LOOKED_AT];
        let len = input.len().min(LOOKED_AT);
        bytes[..len].copy_from_slice(&input[..len]);
        assert_eq!(first_bytes(&bytes, len), expected, "{input:?}");
    }

    #[test]
    fn heads_are_told_from_other_protocols() {
        use FirstBytes::*;
        check(b"POST /v1/chat/completions HTTP/1.1\r\n", Request);
        check(b"GET / HTTP/1.1", Request);
        check(b"P", Request);
        check(b"HTTP/1.1 200 OK", Response);
        check(b"HTTP/1.0 200 OK", Response);
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Preface);
        check(b"", Other);
        check(b"220 mail.example ESMTP", Other);
        check(b"POSTGRES", Other);
        check(b"\x16\x03\x01\x02\x00\x01\x00", Other);
        check(b"{\"id\":1}", Other);
        check(b"data: {\"choices\":[", Other);
        check(&[0; 24], Other);
    }

    #[test]
    fn sides_are_told_by_who_sends_what() {
        use {Direction::*, FirstBytes::*};
        for (seen, direction, fresh, expected) in [
            (Request, Write, true, Some(true)),
            (Request, Read, false, Some(false)),
            (Preface, Write, true, Some(true)),
            (Preface, Read, true, Some(false)),
            (Response, Read, false, Some(true)),
            (Response, Write, false, Some(false)),
            // A server's settings may come before the client's preface.
            (Frame, Read, true, Some(true)),
            (Frame, Write, true, Some(false)),
            (Frame, Write, false, None),
            (Other, Write, true, None),
        ] {
            assert_eq!(seen.is_of_client(direction, fresh), expected, "{seen:?} {direction:?}");
            assert!(!seen.is_unwanted(direction, fresh, 0));
            assert_eq!(seen.is_unwanted(direction, fresh, unwanted::CLIENTS), expected == Some(true));
            assert_eq!(seen.is_unwanted(direction, fresh, unwanted::SERVERS), expected == Some(false));
        }
    }

    #[test]
    fn frames_are_told_from_noise() {
        use FirstBytes::*;
        // An empty SETTINGS, its acknowledgement, PING, WINDOW_UPDATE, HEADERS of stream 1, DATA.
        check(&[0, 0, 0, 4, 0, 0, 0, 0, 0], Frame);
        check(&[0, 0, 0, 4, 1, 0, 0, 0, 0], Frame);
        check(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], Frame);
        check(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0], Frame);
        check(&[0, 0, 30, 1, 4, 0, 0, 0, 1, 0x88], Frame);
        check(&[0, 0, 5, 0, 1, 0, 0, 0, 1, b'h'], Frame);
        // The reserved bit, a stream where there is none, a length that the type forbids.
        check(&[0, 0, 0, 4, 0, 0x80, 0, 0, 0], Other);
        check(&[0, 0, 0, 4, 0, 0, 0, 0, 1], Other);
        check(&[0, 0, 7, 6, 0, 0, 0, 0, 0], Other);
        check(&[0xff; 24], Other);
    }
}
