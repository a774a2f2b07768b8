//! Fields of the protobuf wire format, on top of prost's primitives.

use prost::encoding::{WireType, encode_key, encoded_len_varint};

/// Bytes that the key of a field below 16 takes. All fields of OTLP but [`flags`] of a span are.
///
/// [`flags`]: crate::trace::Span::flags
const KEY_LEN: usize = 1;

/// The length of a length-delimited field below 16 with `len` bytes of content.
pub(crate) const fn delimited_len(len: usize) -> usize {
    KEY_LEN + encoded_len_varint(len as u64) + len
}

/// The length of a varint field below 16.
pub(crate) const fn varint_len(value: u64) -> usize {
    KEY_LEN + encoded_len_varint(value)
}

/// The length of a 64-bit field below 16.
pub(crate) const FIXED64_LEN: usize = KEY_LEN + 8;

/// A varint, in one piece: prost's own asks the buffer for room byte by byte.
#[inline]
pub(crate) fn encode_varint(value: u64, out: &mut Vec<u8>) {
    if value < 0x80 {
        out.push(value as u8);
        return;
    }
    let mut bytes = [0; encoded_len_varint(u64::MAX)];
    let len = put_short_varint(value, &mut bytes);
    out.extend_from_slice(bytes.get(..len).unwrap_or_default());
}

/// A varint at the front of what has room for any. Returns its length.
#[inline]
pub(crate) fn put_short_varint(mut value: u64, out: &mut [u8; encoded_len_varint(u64::MAX)]) -> usize {
    let mut len = 0;
    for byte in out {
        len += 1;
        *byte = value as u8 & 0x7f;
        value >>= 7;
        if value == 0 {
            break;
        }
        *byte |= 0x80;
    }
    len
}

/// The longest text that [`copy_short`] copies.
pub(crate) const SHORT_BYTES: usize = 48;

/// Copies a short text in pieces that overlap, each of a length that is known here. What is behind the
/// text stays as it is.
#[inline]
pub(crate) fn copy_short(from: &[u8], to: &mut [u8; SHORT_BYTES]) {
    fn ends<const N: usize>(from: &[u8], to: &mut [u8; SHORT_BYTES]) -> Option<()> {
        let (first, last) = (from.first_chunk::<N>()?, from.last_chunk::<N>()?);
        *to.first_chunk_mut()? = *first;
        *to.get_mut(..from.len())?.last_chunk_mut()? = *last;
        Some(())
    }
    if let (Some(middle), Some(to)) = (from.get(16..32), to.get_mut(16..32)) {
        to.copy_from_slice(middle);
    }
    let copied = ends::<16>(from, to).or_else(|| ends::<8>(from, to)).or_else(|| ends::<4>(from, to));
    if copied.is_none() {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}

/// The key of a field below 16.
#[inline]
const fn key(field: u32, kind: WireType) -> u8 {
    (field << 3) as u8 | kind as u8
}

/// The key and length that stand before `len` bytes of content. Nearly all are one byte each.
#[inline]
pub(crate) fn put_prefix(field: u32, len: usize, out: &mut Vec<u8>) {
    if field < 16 && len < 0x80 {
        out.extend_from_slice(&[key(field, WireType::LengthDelimited), len as u8]);
    } else {
        encode_key(field, WireType::LengthDelimited, out);
        encode_varint(len as u64, out);
    }
}

/// A prefix and, inside, another one, whose content with its prefix is all of the outer one's.
#[inline]
pub(crate) fn put_prefixes(outer: u32, inner: u32, len: usize, out: &mut Vec<u8>) {
    if outer < 16 && inner < 16 && len < 0x7e {
        let kind = WireType::LengthDelimited;
        out.extend_from_slice(&[key(outer, kind), len as u8 + 2, key(inner, kind), len as u8]);
    } else {
        put_prefix(outer, delimited_len(len), out);
        put_prefix(inner, len, out);
    }
}

/// A string or bytes field.
#[inline]
pub(crate) fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_prefix(field, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// A string or bytes field without presence: absent when empty.
#[inline]
pub(crate) fn put_bytes_unless_empty(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        put_bytes(field, bytes, out);
    }
}

/// A varint field.
#[inline]
pub(crate) fn put_varint(field: u32, value: u64, out: &mut Vec<u8>) {
    if field < 16 && value < 0x80 {
        out.extend_from_slice(&[key(field, WireType::Varint), value as u8]);
    } else {
        encode_key(field, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// A varint field without presence: absent when zero.
#[inline]
pub(crate) fn put_varint_unless_zero(field: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        put_varint(field, value, out);
    }
}

/// A 64-bit field.
#[inline]
pub(crate) fn put_fixed64(field: u32, value: u64, out: &mut Vec<u8>) {
    if field < 16 {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        out.extend_from_slice(&[key(field, WireType::SixtyFourBit), a, b, c, d, e, f, g, h]);
    } else {
        encode_key(field, WireType::SixtyFourBit, out);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// A 64-bit field without presence: absent when zero.
#[inline]
pub(crate) fn put_fixed64_unless_zero(field: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        put_fixed64(field, value, out);
    }
}

/// A 32-bit field without presence: absent when zero.
#[inline]
pub(crate) fn put_fixed32_unless_zero(field: u32, value: u32, out: &mut Vec<u8>) {
    if value != 0 {
        encode_key(field, WireType::ThirtyTwoBit, out);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// A double field.
#[inline]
pub(crate) fn put_double(field: u32, value: f64, out: &mut Vec<u8>) {
    put_fixed64(field, value.to_bits(), out);
}

/// A message field whose length is known only once its `content` is written.
///
/// `room` bytes are left for the length. It should be what the length will most often take; where
/// it takes more or less, the content moves.
#[inline]
pub(crate) fn put_message(field: u32, room: usize, out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    if field < 16 {
        out.push(key(field, WireType::LengthDelimited))
    } else {
        encode_key(field, WireType::LengthDelimited, out)
    }
    let prefix = out.len();
    let start = prefix + room;
    out.resize(start, 0);
    content(out);
    let end = out.len();
    let len = end - start;
    let width = encoded_len_varint(len as u64);
    if width != room {
        out.resize(end.max(prefix + width + len), 0);
        out.copy_within(start..end, prefix + width);
        out.truncate(prefix + width + len);
    }
    prost::encoding::encode_varint(len as u64, &mut &mut out[prefix..prefix + width]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_are_copied() {
        let text: Vec<u8> = (1..=SHORT_BYTES as u8).collect();
        for len in 0..=SHORT_BYTES {
            let mut to = [0; SHORT_BYTES];
            copy_short(&text[..len], &mut to);
            assert_eq!((&to[..len], &to[len..]), (&text[..len], &[0; SHORT_BYTES][len..]));
        }
    }

    #[test]
    fn a_length_takes_the_room_it_needs_whatever_was_left() {
        for len in [0, 1, 127, 128, 200, 16_383, 16_384, 70_000] {
            let mut exact = vec![9];
            put_bytes(3, &vec![7; len], &mut exact);
            for room in 0..6 {
                let mut out = vec![9];
                put_message(3, room, &mut out, |out| out.extend_from_slice(&vec![7; len]));
                assert_eq!(out, exact, "{len} bytes, room of {room}");
            }
        }
    }
}
