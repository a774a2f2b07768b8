//! Which direction of a connection that was met in the middle carries the requests.

use super::frame::{Frame, HEADER_BYTES, Kind};

/// Looks for the first HEADERS frame of `bytes`, which begin with a frame, and tells from the first
/// field whether it is a request (`Some(true)`) or a response. Only what the static table says is
/// believed (RFC 7541 appendix A); `None` when there is nothing of it.
pub fn is_request_direction(mut bytes: &[u8]) -> Option<bool> {
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let frame = Frame::parse(header);
        frame.check().ok()?;
        let length = usize::try_from(frame.length).ok()?;
        if frame.kind == Kind::Headers {
            // PADDED adds one byte and PRIORITY five before the field block (RFC 9113 section 6.2).
            let before = usize::from(frame.is_padded()) + if frame.has_priority() { 5 } else { 0 };
            return first_field(rest.get(before..length.min(rest.len()))?);
        }
        bytes = rest.get(length..)?;
    }
    None
}

/// Pseudo-fields come first (RFC 9113 section 8.3), `:status` in responses.
fn first_field(block: &[u8]) -> Option<bool> {
    let index = match after_size_updates(block)? {
        byte if byte & 0x80 != 0 => byte & 0x7f,
        byte if byte & 0x40 != 0 => byte & 0x3f,
        byte => byte & 0x0f,
    };
    match index {
        1..=7 => Some(true),
        8..=14 => Some(false),
        _ => None,
    }
}

/// The first byte behind changes of the table's size, which may come first (RFC 7541 section 6.3): an
/// integer with a prefix of five bits each, which goes on while bytes have their highest bit set
/// (section 5.1).
fn after_size_updates(block: &[u8]) -> Option<u8> {
    let mut bytes = block.iter().copied();
    loop {
        let byte = bytes.next()?;
        if byte & 0xe0 != 0x20 {
            return Some(byte);
        }
        if byte & 0x1f == 0x1f {
            while bytes.next()? & 0x80 != 0 {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Option<bool>) {
        assert_eq!(is_request_direction(bytes), expected, "{bytes:x?}");
    }

    #[test]
    fn the_first_head_tells() {
        let window_update = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        check(&[0, 0, 2, 1, 4, 0, 0, 0, 1, 0x83, 0x87], Some(true));
        check(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88], Some(false));
        check(&[0, 0, 6, 1, 0x24, 0, 0, 0, 1, 0, 0, 0, 0, 15, 0x41], Some(true));
        check(&[0, 0, 2, 1, 4, 0, 0, 0, 1, 0x20, 0x88], Some(false));
        check(&[0, 0, 5, 1, 4, 0, 0, 0, 1, 0x3f, 0xe1, 0x1f, 0x20, 0x88], Some(false));
        check(&[0, 0, 2, 1, 4, 0, 0, 0, 1, 0x3f, 0x48], None);
        check(&[&window_update[..], &[0, 0, 1, 1, 4, 0, 0, 0, 3, 0x8d]].concat(), Some(false));
        check(&[0, 0, 1, 1, 4, 0, 0, 0, 1, 0xbe], None);
        check(&window_update, None);
        check(b"HTTP/1.1 200 OK\r\n", None);
        check(&[], None);
    }
}
