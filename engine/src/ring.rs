//! One BPF ring buffer, read in place.
//!
//! The kernel's layout (kernel/bpf/ringbuf.c): a page with the consumer's position, a page with the
//! producers' position, and the data mapped twice in a row, so that a record that wraps around can
//! be read as one slice. A record is an 8-byte header, its length with two flag bits, and the bytes.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use agentsight_abi::{RecordHeader, record::HEADER_BYTES};

use crate::sys::memory::{Access, Mapping, page_bytes};

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const LENGTH_HEADER_BYTES: usize = 8;

/// Space is given back to the producers after so many bytes, so that a long drain doesn't keep the
/// ring full.
const RELEASE_BYTES: u64 = 128 * 1024;

/// A record in ring memory (or a recording), valid until the reader moves on.
#[derive(Clone, Copy, Debug)]
pub struct Record<'ring> {
    /// What the kernel said about it.
    pub header: RecordHeader,
    /// `header.len` bytes.
    pub payload: &'ring [u8],
}

impl<'ring> Record<'ring> {
    /// Reads a record from its bytes; `None` when there are fewer than it claims.
    pub fn parse(bytes: &'ring [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let u64_at = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let u32_at = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let header = RecordHeader {
            conn: u64_at(0),
            ktime_ns: u64_at(8),
            offset: u64_at(16),
            lost: u64_at(24),
            tgid: u32_at(32),
            tid: u32_at(36),
            len: u32_at(40),
            kind: head[44],
            direction: head[45],
            flags: u16::from_ne_bytes([head[46], head[47]]),
        };
        Some(Self { header, payload: rest.get(..header.len as usize)? })
    }

    /// The header as it lies in a ring, for recordings.
    pub fn header_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let header = &self.header;
        bytes[0..8].copy_from_slice(&header.conn.to_ne_bytes());
        bytes[8..16].copy_from_slice(&header.ktime_ns.to_ne_bytes());
        bytes[16..24].copy_from_slice(&header.offset.to_ne_bytes());
        bytes[24..32].copy_from_slice(&header.lost.to_ne_bytes());
        bytes[32..36].copy_from_slice(&header.tgid.to_ne_bytes());
        bytes[36..40].copy_from_slice(&header.tid.to_ne_bytes());
        bytes[40..44].copy_from_slice(&header.len.to_ne_bytes());
        bytes[44] = header.kind;
        bytes[45] = header.direction;
        bytes[46..48].copy_from_slice(&header.flags.to_ne_bytes());
        bytes
    }
}

/// What a drain did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records handed over.
    pub records: u64,
    /// Their payload.
    pub bytes: u64,
    /// Records whose bytes contradicted themselves; nothing of them was handed over.
    pub malformed: u64,
}

/// The only consumer of one ring.
pub struct Ring {
    consumer: Mapping,
    producer: Mapping,
    data_bytes: usize,
}

impl Ring {
    /// Maps the ring buffer `fd` of `data_bytes` bytes, a power of two of whole pages.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn new(fd: BorrowedFd<'_>, data_bytes: usize) -> io::Result<Self> {
        if !data_bytes.is_power_of_two() || !data_bytes.is_multiple_of(page_bytes()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a ring's size is a power of two of whole pages"));
        }
        let page = page_bytes();
        Ok(Self {
            consumer: Mapping::new(fd, 0, page, Access::ReadWrite)?,
            producer: Mapping::new(fd, page, page + 2 * data_bytes, Access::Read)?,
            data_bytes,
        })
    }

    /// Bytes that wait to be read.
    pub fn filled(&self) -> u64 {
        // In this order, because whoever only looks on isn't the one that reads, and might see less written
        // than was read by then.
        let consumed = self.consumed().load(Ordering::Acquire);
        self.produced().load(Ordering::Acquire).wrapping_sub(consumed)
    }

    /// Bytes that the ring holds.
    pub fn capacity(&self) -> u64 {
        self.data_bytes as u64
    }

    /// Hands over what is there, up to about `bytes_max` bytes of ring, oldest first.
    pub fn drain(&mut self, bytes_max: u64, mut each: impl FnMut(Record<'_>)) -> Drained {
        let mut done = Drained::default();
        let mut at = self.consumed().load(Ordering::Relaxed);
        let (start, mut released) = (at, at);
        // Pairs with the release by which the kernel publishes `producer_pos` after a reservation.
        let end = self.produced().load(Ordering::Acquire);
        while at < end && at - start < bytes_max {
            // Pairs with the kernel's exchange of the length word on commit; a busy record is not
            // written yet, and those after it have to wait for their turn.
            let word = self.length_word(at).load(Ordering::Acquire);
            if word & BUSY != 0 {
                break;
            }
            let len = (word & !(BUSY | DISCARDED)) as usize;
            if word & DISCARDED == 0 {
                match Record::parse(self.bytes(at + LENGTH_HEADER_BYTES as u64, len)) {
                    Some(record) => {
                        done.records += 1;
                        done.bytes += record.payload.len() as u64;
                        each(record);
                    }
                    None => done.malformed += 1,
                }
            }
            at += (len + LENGTH_HEADER_BYTES).next_multiple_of(8) as u64;
            if at - released >= RELEASE_BYTES {
                self.release(at);
                released = at;
            }
        }
        if at != released {
            self.release(at);
        }
        done
    }

    /// Lets the producers write over everything before `at`.
    fn release(&self, at: u64) {
        // Pairs with the kernel's acquire of `consumer_pos` before it reserves: our reads are done.
        self.consumed().store(at, Ordering::Release);
    }
}

#[expect(unsafe_code, reason = "memory that the kernel writes; SAFETY at each block")]
impl Ring {
    fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the first word of a page that is mapped as long as `self` is, aligned, and only
        // ever used as an atomic.
        unsafe { AtomicU64::from_ptr(self.consumer.start().cast().as_ptr()) }
    }

    fn produced(&self) -> &AtomicU64 {
        // SAFETY: as above; the page is read-only, and this is only ever loaded from.
        unsafe { AtomicU64::from_ptr(self.producer.start().cast().as_ptr()) }
    }

    fn length_word(&self, at: u64) -> &AtomicU32 {
        let offset = page_bytes() + (at as usize & (self.data_bytes - 1));
        // SAFETY: `offset` is less than one page and the data, and the mapping holds the data twice.
        // Positions are multiples of eight, so the word is aligned. It is only ever loaded from.
        unsafe { AtomicU32::from_ptr(self.producer.start().add(offset).cast().as_ptr()) }
    }

    fn bytes(&self, at: u64, len: usize) -> &[u8] {
        let offset = at as usize & (self.data_bytes - 1);
        // A record is never longer than the ring; should the word say so, nothing is read.
        let len = if len <= self.data_bytes { len } else { 0 };
        // SAFETY: `offset + len` is within the doubled data. The bytes were committed before the
        // length word was loaded, and the kernel doesn't write them again before `release`.
        unsafe { std::slice::from_raw_parts(self.producer.start().add(page_bytes() + offset).as_ptr(), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let header = RecordHeader {
            conn: 1 << 48 | 7,
            ktime_ns: 2,
            offset: 3,
            lost: 4,
            tgid: 5,
            tid: 6,
            len: 3,
            kind: 2,
            direction: 1,
            flags: 9,
        };
        let record = Record { header, payload: b"abc" };
        let mut bytes = record.header_bytes().to_vec();
        assert!(Record::parse(&bytes).is_none(), "a payload is missing");
        bytes.extend_from_slice(b"abcpadding");
        let read = Record::parse(&bytes).unwrap();
        assert_eq!((read.header, read.payload), (header, &b"abc"[..]));
    }
}
