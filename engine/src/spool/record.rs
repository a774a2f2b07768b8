//! A record: a header of fixed size, and a batch as it goes to a collector.

use super::Stamp;
use crate::limits::EXPORT_REQUEST_BYTES_MAX;

/// Bytes of a header.
///
/// | bytes | what | |
/// | --- | --- | --- |
/// | 0..8 | mark | the same in a whole segment, and unknown to whoever makes the batches' content |
/// | 8 | version | 1 |
/// | 9 | signal | 1: traces |
/// | 10 | encoding | 1: protobuf, 2: JSON |
/// | 11 | zero | |
/// | 12..16 | length of the batch | |
/// | 16..20 | spans in it | |
/// | 20..24 | spans in the records before it in this segment | tells how many are in a damaged one |
/// | 24..32 | id | grows from batch to batch |
/// | 32..40 | time of day | nanoseconds since the Unix epoch |
/// | 40..48 | time since the machine was started | nanoseconds |
/// | 48..52 | which start that was | |
/// | 52..56 | checksum of the batch | CRC-32C, RFC 3720 appendix B.4 |
/// | 56..60 | zero | |
/// | 60..64 | checksum of the header before it | |
///
/// All numbers are little-endian.
pub const HEADER_BYTES: usize = 64;

const VERSION: u8 = 1;
const TRACES: u8 = 1;

/// How a batch is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// OTLP in protobuf.
    #[default]
    Protobuf = 1,
    /// OTLP in JSON.
    Json = 2,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub encoding: Encoding,
    pub body_len: u32,
    pub spans: u32,
    /// Spans in the records before this one in the same segment.
    pub spans_before: u32,
    pub id: u64,
    pub written: Stamp,
    pub body_crc: u32,
}

impl Header {
    /// Header and batch.
    pub fn record_len(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.body_len)
    }

    /// The header's bytes in a segment with this mark.
    pub fn encode(&self, mark: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &mark.to_le_bytes());
        put(8, &[VERSION, TRACES, self.encoding as u8, 0]);
        put(12, &self.body_len.to_le_bytes());
        put(16, &self.spans.to_le_bytes());
        put(20, &self.spans_before.to_le_bytes());
        put(24, &self.id.to_le_bytes());
        put(32, &self.written.unix_ns.to_le_bytes());
        put(40, &self.written.since_boot_ns.to_le_bytes());
        put(48, &self.written.boot.to_le_bytes());
        put(52, &self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What `bytes` say in a segment with this mark; `None` if they are no header, or none that
    /// this version understands.
    pub fn decode(bytes: &[u8; HEADER_BYTES], mark: u64) -> Option<Self> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if u64_at(0) != mark || u32_at(60) != crc32c::crc32c(&bytes[..60]) || bytes[8..10] != [VERSION, TRACES] {
            return None;
        }
        let encoding = match bytes[10] {
            1 => Encoding::Protobuf,
            2 => Encoding::Json,
            _ => return None,
        };
        let written = Stamp { unix_ns: u64_at(32), since_boot_ns: u64_at(40), boot: u32_at(48) };
        let header = Self {
            encoding,
            body_len: u32_at(12),
            spans: u32_at(16),
            spans_before: u32_at(20),
            id: u64_at(24),
            written,
            body_crc: u32_at(52),
        };
        (header.body_len as usize <= EXPORT_REQUEST_BYTES_MAX).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written_and_not_at_all_when_a_bit_has_changed() {
        const MARK: u64 = 0x1234_5678_9abc_def0;
        let written = Stamp { unix_ns: u64::MAX - 1, since_boot_ns: 17, boot: 99 };
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let header = Header {
                encoding,
                body_len: 4711,
                spans: 512,
                spans_before: 1024,
                id: 77,
                written,
                body_crc: 0xdead_beef,
            };
            let bytes = header.encode(MARK);
            assert_eq!(Header::decode(&bytes, MARK), Some(header));
            assert_eq!(Header::decode(&bytes, MARK + 1), None);
            for bit in 0..HEADER_BYTES * 8 {
                let mut changed = bytes;
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Header::decode(&changed, MARK), None, "bit {bit}");
            }
        }
    }
}
