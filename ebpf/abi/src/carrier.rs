//! Which socket carries a TLS connection.
//!
//! Where a library uses the socket itself, that happens inside its call, on the same thread. Where the program
//! moves the ciphertext (memory `BIO`s), and with rustls, a thread that has written to a connection sends the
//! record soon after; in Go, before the write returns, but maybe on another thread. Then records tell: their
//! lengths follow from what was written, and a thread has few writes on their way at once. What fits more
//! than one of them fits none.

use crate::socket::Endpoints;

/// States of [`crate::Conn::carrier`]; below [`state::WRITES_MAX`] it counts the writes that were waited for.
pub mod state {
    /// So many writes are waited for; the socket of a connection that sends in an unknown way stays unknown.
    pub const WRITES_MAX: u16 = 32;
    /// The socket was found before the connection was captured: the engine doesn't know yet.
    pub const FOUND: u16 = 0xfffe;
    /// The engine knows.
    pub const TOLD: u16 = 0xffff;
}

/// Threads that use TLS and that the kernel remembers.
pub const THREADS_MAX: usize = 8_192;
/// Writes of a thread that are on their way at once.
pub const WRITES_MAX: usize = 4;
/// Records at the start of a call for sending that are looked at: what a handshake ends with, and the data.
pub const RECORDS_MAX: u32 = 4;
/// What wasn't sent after so long was sent by another thread, or in a way that isn't seen.
pub const WAIT_NS_MAX: u64 = 1_000_000_000;

/// The bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 5;
/// Plaintext of a record (RFC 8446, section 5.1).
const PLAIN_BYTES_MAX: u32 = 1 << 14;
/// The records that a TLS 1.3 handshake ends with look like data: the header of 4 bytes and a hash of 32 or 48
/// (RFC 8446, section 4.4.4), the type and the tag.
const FINISHED_BYTES: [u32; 2] = [4 + 32 + 17, 4 + 48 + 17];

/// What a thread's calls on TLS connections have to do with sockets.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    /// The socket that was used inside the call, or one of family 0.
    pub ends: Endpoints,
    /// The connection of the call, [`crate::ConnKey::ssl`].
    pub ssl: u64,
    /// One of [`inside`].
    pub inside: u64,
    /// Writes on their way.
    pub writes: Writes,
}

/// Whether a thread is in a TLS call that waits to be told its socket.
pub mod inside {
    /// It is in none.
    pub const NO: u64 = 0;
    /// It is.
    pub const YES: u64 = 1;
    /// The call has returned, and what it was told is to be used.
    pub const RETURNED: u64 = 2;
}

/// A write on its way to a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// The connection, [`crate::ConnKey::ssl`].
    pub ssl: u64,
    /// Its [`crate::Conn::id`], or 0 where it can't be told whose write it is.
    pub conn: u64,
    /// When it was made (CLOCK_MONOTONIC).
    pub at_ns: u64,
    /// Bytes of plaintext, or 0 where there is no write.
    pub len: u32,
    /// One of [`records`].
    pub records: u32,
}

/// How a write is divided into records.
pub mod records {
    /// All but the last are as long as records may be.
    pub const FULL: u32 = 0;
    /// As Go does: as long as a segment of TCP may be in any case, then twice that, and so on.
    pub const GROWING: u32 = 1;
}

/// Go's crypto/tls (conn.go) fits its first record, header included, into this many bytes.
const GO_SEGMENT_BYTES: u32 = 1208;

/// What AEAD ciphers add to the plaintext: ChaCha20-Poly1305 in TLS 1.2 a tag, TLS 1.3 the type before it,
/// AES-GCM in TLS 1.2 a nonce (RFC 7905, RFC 8446 section 5.2, RFC 5288).
const ADDED_BYTES: [u32; 3] = [16, 17, 24];

impl Write {
    /// Whether the first record of this write may have `len` bytes behind its header.
    #[inline(always)]
    pub fn fits(&self, len: u32) -> bool {
        if len == FINISHED_BYTES[0] || len == FINISHED_BYTES[1] {
            return false;
        }
        let first = if self.len < PLAIN_BYTES_MAX { self.len } else { PLAIN_BYTES_MAX };
        let mut at = 0;
        while at < ADDED_BYTES.len() {
            let added = ADDED_BYTES[at];
            let plain = len.wrapping_sub(added);
            if plain == first {
                return true;
            }
            let step = GO_SEGMENT_BYTES - RECORD_HEADER_BYTES as u32 - added;
            if self.records == records::GROWING && plain < first && plain != 0 && plain.is_multiple_of(step) {
                return true;
            }
            at += 1;
        }
        false
    }

    #[inline(always)]
    fn is_on_its_way(&self, now_ns: u64) -> bool {
        self.len != 0 && now_ns.wrapping_sub(self.at_ns) < WAIT_NS_MAX
    }
}

/// The writes of a thread that are on their way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// There were too many; until then none is remembered.
    pub too_many_until_ns: u64,
    /// In no order.
    pub of: [Write; WRITES_MAX],
}

impl Writes {
    /// None.
    pub const NONE: Self =
        Self { too_many_until_ns: 0, of: [Write { ssl: 0, conn: 0, at_ns: 0, len: 0, records: 0 }; WRITES_MAX] };

    /// Whether there is one, whichever.
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.of[0].len | self.of[1].len | self.of[2].len | self.of[3].len != 0
    }

    /// Whether one of the connection `ssl` is among them.
    #[inline(always)]
    pub fn has(&self, ssl: u64) -> bool {
        let mut at = 0;
        while at < WRITES_MAX {
            if self.of[at].len != 0 && self.of[at].ssl == ssl {
                return true;
            }
            at += 1;
        }
        false
    }

    /// Remembers a write. Of several of a connection the first is sent first.
    #[inline(always)]
    pub fn add(&mut self, write: &Write) {
        if write.at_ns < self.too_many_until_ns {
            return;
        }
        let mut free = WRITES_MAX;
        let mut at = 0;
        while at < WRITES_MAX {
            let known = &self.of[at];
            if !known.is_on_its_way(write.at_ns) {
                free = at;
            } else if known.conn == write.conn {
                return;
            }
            at += 1;
        }
        if free < WRITES_MAX {
            self.of[free] = *write;
            return;
        }
        // One that isn't remembered could be taken for one that is.
        self.too_many_until_ns = write.at_ns + WAIT_NS_MAX;
        *self = Self { too_many_until_ns: self.too_many_until_ns, ..Self::NONE };
    }

    /// The write whose first record, of `len` bytes behind its header, is being sent; it is forgotten. `None`
    /// when there is no such write; [`Write::conn`] is 0 when there are several.
    #[inline(always)]
    pub fn take(&mut self, len: u32, now_ns: u64) -> Option<Write> {
        let (mut fitting, mut last) = (0, 0);
        let mut at = 0;
        while at < WRITES_MAX {
            if self.of[at].is_on_its_way(now_ns) && self.of[at].fits(len) {
                fitting += 1;
                last = at;
            }
            at += 1;
        }
        if fitting == 0 {
            return None;
        }
        // Which of several it was isn't known, and so neither whose the others are.
        at = 0;
        while fitting > 1 && at < WRITES_MAX {
            if self.of[at].fits(len) {
                self.of[at].conn = 0;
            }
            at += 1;
        }
        let taken = self.of[last & (WRITES_MAX - 1)];
        self.of[last & (WRITES_MAX - 1)].len = 0;
        Some(taken)
    }
}

/// The bytes behind the header of a record of data protected by an AEAD cipher, which is always of version
/// 3.3 (RFC 8446 and RFC 5246); `None` of anything else.
#[inline(always)]
pub fn data_bytes(header: &[u8; RECORD_HEADER_BYTES]) -> Option<u32> {
    (header[0] == 23 && header[1] == 3 && header[2] == 3).then_some(record_bytes(header))
}

/// The header of any record.
#[inline(always)]
pub fn is_record(header: &[u8; RECORD_HEADER_BYTES]) -> bool {
    header[0] >= 20 && header[0] <= 24 && header[1] == 3
}

/// The bytes behind a record's header.
#[inline(always)]
pub fn record_bytes(header: &[u8; RECORD_HEADER_BYTES]) -> u32 {
    (header[3] as u32) << 8 | header[4] as u32
}

const _: () = assert!(WRITES_MAX == 4, "`Writes::any` names them");
const _: () = assert!(size_of::<Write>() == 32 && size_of::<Thread>() == 192);

#[cfg(test)]
mod tests {
    use super::*;

    fn write(conn: u64, len: u32) -> Write {
        Write { ssl: conn + 0x1000, conn, at_ns: 1, len, records: records::FULL }
    }

    fn writes(of: &[Write]) -> Writes {
        let mut writes = Writes::NONE;
        of.iter().for_each(|write| writes.add(write));
        writes
    }

    /// What a record of `len` bytes is taken for: no write, one that isn't clear, or that of a connection.
    fn check(writes: &mut Writes, len: u32, expected: Option<u64>) {
        assert_eq!(writes.take(len, 2).map(|write| write.conn), expected, "{len}: {writes:?}");
    }

    #[test]
    fn lengths_of_records_follow_from_the_plaintext() {
        for (plain, len, expected) in [
            (500, 517, true),
            (500, 516, true),
            (500, 524, true),
            (500, 518, false),
            (500, 500, false),
            // A handshake's end, not 36 or 52 bytes of data.
            (36, 53, false),
            (52, 69, false),
            (36, 60, true),
            (16_384, 16_401, true),
            (300_000, 16_401, true),
            (300_000, 16_400, true),
            (300_000, 1_203, false),
            (500, 3, false),
        ] {
            assert_eq!(write(1, plain).fits(len), expected, "{plain} {len}");
        }
    }

    #[test]
    fn records_of_go_grow() {
        let go = |len| Write { records: records::GROWING, ..write(1, len) };
        // TLS 1.3, and in TLS 1.2 AES-GCM and ChaCha20: one segment.
        for len in [1_186 + 17, 1_179 + 24, 1_187 + 16] {
            assert_eq!(len, 1_203);
            assert!(go(5_000).fits(len) && !go(900).fits(len));
        }
        assert!(go(5_000).fits(2 * 1_186 + 17) && go(300_000).fits(16_401) && go(700).fits(717));
        assert!(!go(5_000).fits(700) && !go(5_000).fits(17) && !go(0).fits(5));
    }

    #[test]
    fn one_write_is_found_once() {
        let mut writes = writes(&[write(7, 500)]);
        check(&mut writes, 600, None);
        check(&mut writes, 517, Some(7));
        check(&mut writes, 517, None);
        assert!(!writes.any());
    }

    #[test]
    fn the_first_write_of_a_connection_counts() {
        let mut writes = writes(&[write(7, 500), write(7, 90)]);
        check(&mut writes, 107, None);
        check(&mut writes, 517, Some(7));
        check(&mut writes, 107, None);
    }

    #[test]
    fn writes_that_look_alike_are_nobodys() {
        let mut writes = writes(&[write(1, 500), write(2, 500), write(3, 90)]);
        check(&mut writes, 517, Some(0));
        // The other of the two is still to come, and may be sent before a new one.
        writes.add(&write(4, 500));
        check(&mut writes, 517, Some(0));
        check(&mut writes, 517, Some(0));
        check(&mut writes, 517, None);
        check(&mut writes, 107, Some(3));
    }

    #[test]
    fn ciphers_of_different_connections_may_add_different_amounts() {
        let mut writes = writes(&[write(1, 500), write(2, 493)]);
        check(&mut writes, 517, Some(0));
        let mut writes = self::writes(&[write(1, 500), write(2, 480)]);
        check(&mut writes, 497, Some(2));
        check(&mut writes, 517, Some(1));
    }

    #[test]
    fn more_than_there_is_room_for_are_forgotten() {
        let mut writes = writes(&[write(1, 100), write(2, 200), write(3, 300), write(4, 400), write(5, 500)]);
        for len in [117, 217, 317, 417, 517] {
            check(&mut writes, len, None);
        }
        writes.add(&write(6, 600));
        check(&mut writes, 617, None);
        let later = WAIT_NS_MAX + 2;
        writes.add(&Write { at_ns: later, ..write(6, 600) });
        assert_eq!(writes.take(617, later).map(|write| write.conn), Some(6));
    }

    #[test]
    fn what_was_not_sent_is_forgotten() {
        let mut writes = writes(&[write(1, 500)]);
        assert!(writes.has(0x1001) && !writes.has(0x1002));
        assert_eq!(writes.take(517, WAIT_NS_MAX + 1), None);
        for conn in 2..6 {
            writes.add(&Write { at_ns: WAIT_NS_MAX + 1, ..write(conn, 500) });
        }
        assert!(!writes.has(0x1001));
    }

    #[test]
    fn records_of_data_are_told() {
        assert_eq!(data_bytes(&[23, 3, 3, 0x40, 0x11]), Some(0x4011));
        for header in [[22, 3, 3, 0, 90], [23, 3, 1, 0, 90], [20, 3, 3, 0, 1]] {
            assert_eq!(data_bytes(&header), None);
        }
    }
}
