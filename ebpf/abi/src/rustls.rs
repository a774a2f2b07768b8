//! What rustls hands to the objects that encrypt and decrypt records, and which of them are a connection's.
//!
//! `Box<dyn MessageEncrypter>` and `Box<dyn MessageDecrypter>` stay where they are while a connection
//! moves about in memory, and lie next to each other in its record layer:
//!
//! ```text
//! encrypter, its vtable, decrypter, its vtable
//! ```

/// Ways of encrypting records, by where the plaintext's type is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// TLS 1.3: behind the plaintext (RFC 8446, section 5.2).
    Inner,
    /// TLS 1.2: in the record's header.
    Outer,
}

/// `ContentType` of a record (RFC 8446, section 5.1).
pub const APPLICATION_DATA: u8 = 23;
/// As above.
pub const ALERT: u8 = 21;

/// The bytes of a record's header: type, version 3.3, length (RFC 8446, section 5.1).
pub const HEADER_BYTES: u64 = 5;

/// More is in no record: 2^14 and what TLS 1.2 may add (RFC 5246, section 6.2.3).
pub const CIPHERTEXT_BYTES_MAX: u64 = (1 << 14) + 2048;

/// What an encrypter adds to the plaintext at least: the tag, and in TLS 1.3 the type.
pub const TAG_BYTES: u64 = 16;

/// What AES-GCM puts before the ciphertext in TLS 1.2: the explicit part of the nonce (RFC 5288, section 3).
pub const NONCE_BYTES: u64 = 8;

/// `enum ContentType` of rustls, whose variants are numbered in the order of the protocol's numbers.
pub mod content {
    /// `ContentType::Alert`.
    pub const ALERT: u8 = 1;
    /// `ContentType::ApplicationData`.
    pub const APPLICATION_DATA: u8 = 3;
}

/// Slices of a message that are read. hyper puts no more than 16 parts and a head into one write.
pub const SLICES_MAX: usize = 24;

/// `OutboundPlainMessage` of rustls 0.23 as it lies in memory: `OutboundChunks` and two enums.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Outbound {
    /// Address of several slices, or 0 when there is one.
    pub slices: u64,
    /// Number of the slices, or address of the one.
    pub first: u64,
    /// Offset within all slices at which the message begins, or length of the one.
    pub start: u64,
    /// Offset at which it ends, if there are several.
    pub end: u64,
    /// One of [`content`], and whatever is in the rest of this word.
    pub content: u64,
}

impl Outbound {
    /// One of [`content`].
    #[inline(always)]
    pub const fn content(&self) -> u8 {
        self.content as u8
    }
}

/// The part of a slice of `len` bytes, of which `before` are in earlier ones, that is between `start` and
/// `end`: how many bytes it leaves out, and how many it has.
#[inline(always)]
pub fn part(before: u64, len: u64, start: u64, end: u64) -> (u64, u64) {
    let skipped = start.saturating_sub(before);
    let until = end.saturating_sub(before);
    let until = if until < len { until } else { len };
    if skipped < until { (skipped, until - skipped) } else { (0, 0) }
}

/// Whether `header` belongs to a record of encrypted data with `len` bytes behind it.
#[inline(always)]
pub fn is_header(header: &[u8; HEADER_BYTES as usize], len: u64) -> bool {
    let said = (header[3] as u64) << 8 | header[4] as u64;
    header[1] == 3 && header[2] == 3 && said == len && (TAG_BYTES..=CIPHERTEXT_BYTES_MAX).contains(&len)
}

/// Address and length of the plaintext that a decrypter left of `len` bytes of ciphertext at `buffer`: the
/// slice that its result holds, wherever in it. An error holds no such slice.
#[inline(always)]
pub fn plaintext(result: &[u64; 8], buffer: u64, len: u64, protection: Protection) -> Option<(u64, u64)> {
    let mut at = 0;
    while at < 7 {
        let (address, plain_len) = (result[at], result[at + 1]);
        let is_plaintext = match protection {
            // Less by the type and as many zeros as the peer liked.
            Protection::Inner => address == buffer && plain_len < len - TAG_BYTES,
            // ring moves what was behind a nonce to the front; aws-lc-rs leaves it there.
            Protection::Outer if plain_len.wrapping_add(NONCE_BYTES + TAG_BYTES) == len => {
                address == buffer || address == buffer.wrapping_add(NONCE_BYTES)
            }
            Protection::Outer => address == buffer && plain_len == len - TAG_BYTES,
        };
        if is_plaintext {
            return Some((address, plain_len));
        }
        at += 1;
    }
    None
}

/// The two objects of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Pair {
    /// Address of what encrypts.
    pub encrypter: u64,
    /// Address of what decrypts.
    pub decrypter: u64,
}

/// A vtable: of drop, size, alignment, and the first function.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Vtable {
    /// Address of the function that drops, or 0.
    pub drop: u64,
    /// Size of the object.
    pub size: u64,
    /// Its alignment.
    pub align: u64,
    /// The first function.
    pub function: u64,
}

impl Vtable {
    /// Whether it may be the vtable of a cipher: keys of some hundred bytes.
    #[inline(always)]
    pub const fn is_plausible(&self) -> bool {
        self.size != 0 && self.size <= 4096 && (self.align == 8 || self.align == 16) && self.function != 0
    }
}

const _: () = assert!(size_of::<Outbound>() == 40 && size_of::<Vtable>() == 32 && size_of::<Pair>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_out_of_slices() {
        // Slices of 10, 5 and 20 bytes.
        for (start, end, expected) in [
            (0, 35, [(0, 10), (0, 5), (0, 20)]),
            (3, 12, [(3, 7), (0, 2), (0, 0)]),
            (10, 15, [(0, 0), (0, 5), (0, 0)]),
            (14, 40, [(0, 0), (4, 1), (0, 20)]),
            (20, 10, [(0, 0), (0, 0), (0, 0)]),
        ] {
            let parts = [(0, 10), (10, 5), (15, 20)].map(|(before, len)| part(before, len, start, end));
            assert_eq!(parts, expected, "{start}..{end}");
        }
    }

    #[test]
    fn headers_are_told() {
        assert!(is_header(&[23, 3, 3, 0x40, 0x11], 0x4011));
        assert!(!is_header(&[23, 3, 3, 0x40, 0x11], 0x4012));
        assert!(!is_header(&[23, 3, 1, 0, 32], 32));
        assert!(!is_header(&[23, 3, 3, 0, 15], 15));
        assert!(!is_header(&[23, 3, 3, 0xff, 0xff], 0xffff));
    }

    #[test]
    fn a_result_tells_the_plaintext() {
        const AT: u64 = 0x7000;
        let inner = |result: [u64; 8]| plaintext(&result, AT, 100, Protection::Inner);
        assert_eq!(inner([0x16, AT, 83, 0, 0, 0, 0, 0]), Some((AT, 83)));
        assert_eq!(inner([0, 0, 0, 0, 0, 0, AT, 0]), Some((AT, 0)));
        // Longer than what was decrypted, of another buffer, behind a nonce that there is none of, and an error.
        assert_eq!(inner([0x16, AT, 84, 0, 0, 0, 0, 0]), None);
        assert_eq!(inner([0x16, AT - 8, 83, 0, 0, 0, 0, 0]), None);
        assert_eq!(inner([0x16, AT + 8, 76, 0, 0, 0, 0, 0]), None);
        assert_eq!(inner([5, 0, 0, 0, 0, 0, 0, AT]), None);
        let outer = |result: [u64; 8]| plaintext(&result, AT, 100, Protection::Outer);
        // AES-GCM of ring, of aws-lc-rs, and ChaCha20-Poly1305.
        assert_eq!(outer([0x16, AT, 76, 0, 0, 0, 0, 0]), Some((AT, 76)));
        assert_eq!(outer([0x16, AT + 8, 76, 0, 0, 0, 0, 0]), Some((AT + 8, 76)));
        assert_eq!(outer([0x16, AT, 84, 0, 0, 0, 0, 0]), Some((AT, 84)));
        // None of them has other lengths, and nothing behind a nonce is as long as without one.
        assert_eq!(outer([0x16, AT, 83, 0, 0, 0, 0, 0]), None);
        assert_eq!(outer([0x16, AT + 8, 84, 0, 0, 0, 0, 0]), None);
        assert_eq!(outer([0x16, AT, 100, AT, u64::MAX, AT, u64::MAX - 20, 0]), None);
    }

    #[test]
    fn vtables_of_ciphers_are_plausible() {
        let vtable = |size, align, function| Vtable { drop: 0, size, align, function }.is_plausible();
        assert!(vtable(560, 16, 0x5555_0000));
        assert!(!vtable(0, 8, 0x5555_0000) && !vtable(560, 1, 0x5555_0000) && !vtable(560, 16, 0));
        assert!(!vtable(0x5555_0000, 16, 0x5555_0000));
    }
}
