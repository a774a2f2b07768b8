//! A frame's head, RFC 6455 section 5.2.

use super::Malformed;

/// The longest head: two bytes, a length of eight, a mask of four.
pub(super) const HEAD_BYTES_MAX: usize = 14;

/// The longest payload of a control frame (section 5.5).
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    pub fn begins_message(self) -> bool {
        matches!(self, Self::Text | Self::Binary)
    }
}

/// A frame whose payload is arriving.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub opcode: Opcode,
    /// The last frame of its message.
    pub is_last: bool,
    /// The bit that `permessage-deflate` uses.
    pub compressed: bool,
    /// Bytes of payload still to come.
    pub remaining: u64,
    /// All zero when nothing is masked.
    mask: [u8; 4],
    /// Which byte of the mask is for the next byte of payload.
    mask_at: u8,
}

/// How long a head is that begins with `have`, as far as that can be told: at least one byte more
/// while it can't.
pub(super) fn head_bytes(have: &[u8]) -> usize {
    let Some(second) = have.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 == 0 { 0 } else { 4 }
}

impl Frame {
    /// A whole head of a side that `masks` its frames.
    pub fn parse(head: &[u8], masks: bool) -> Result<Self, Malformed> {
        let [first, second, rest @ ..] = head else { return Err(Malformed::Length) };
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Malformed::Opcode),
        };
        let (is_last, compressed) = (first & 0x80 != 0, first & 0x40 != 0);
        if first & 0x30 != 0 {
            return Err(Malformed::Reserved);
        }
        if (second & 0x80 != 0) != masks {
            return Err(Malformed::Mask);
        }
        let (remaining, rest) = match (second & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            (127, rest) => {
                let (length, rest) = rest.split_first_chunk().ok_or(Malformed::Length)?;
                (u64::from_be_bytes(*length), rest)
            }
            (length, rest) => (u64::from(length), rest),
        };
        if remaining >> 63 != 0 {
            return Err(Malformed::Length);
        }
        if opcode.is_control() && (!is_last || remaining > CONTROL_BYTES_MAX as u64) {
            return Err(Malformed::Control);
        }
        let mask = rest.first_chunk().copied().unwrap_or_default();
        Ok(Self { opcode, is_last, compressed, remaining, mask, mask_at: 0 })
    }

    /// The whole message, as it begins.
    pub fn is_alone(&self) -> bool {
        self.is_last && self.opcode.begins_message()
    }

    /// So many bytes of payload are taken; no more than there are.
    pub fn skip(&mut self, bytes: u64) {
        self.remaining = self.remaining.saturating_sub(bytes);
        self.mask_at = (self.mask_at + (bytes % 4) as u8) % 4;
    }

    /// Takes the mask off bytes that come next.
    pub fn unmask(&self, bytes: &mut [u8]) {
        if self.mask == [0; 4] {
            return;
        }
        let mut mask = self.mask;
        mask.rotate_left(usize::from(self.mask_at % 4));
        // Eight bytes at a time, which compilers make wider still.
        let (words, rest) = bytes.as_chunks_mut::<8>();
        let [a, b, c, d] = mask;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
}
