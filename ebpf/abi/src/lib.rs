//! What crosses from the kernel programs to the engine, and the logic that both sides share.
//!
//! Everything here is `no_std`, integers only in shared structs, and tested on the host; the
//! programs in `ebpf/probes` are maps, bounds and hand-off around it.
#![no_std]

pub mod carrier;
pub mod config;
pub mod first_bytes;
pub mod gnutls;
pub mod go;
pub mod pid;
pub mod pieces;
pub mod pressure;
pub mod record;
pub mod rustls;
pub mod socket;
pub mod tally;

pub use config::Config;
pub use first_bytes::{FirstBytes, first_bytes};
pub use record::{Direction, Kind, OpenInfo, RecordHeader, flags};
pub use tally::{DropCause, Tally, Total};

/// A connection's key in the kernel's map: an `SSL*` is an address in one process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnKey {
    /// The process, as the engine numbers it ([`pid`]).
    pub tgid: u32,
    /// Zero; map keys are compared byte for byte.
    pub pad: u32,
    /// Address of the `SSL` object.
    pub ssl: u64,
}

/// Bits of a connection's number that count, and those above them that name a CPU: Linux has up to 8192.
const COUNT_BITS: u32 = 29;
const CPU_BITS: u32 = 13;

/// The number of a connection that `thread` was the first to see, on `cpu`, when that CPU had counted to
/// `count`. Threads that interrupt each other may have counted to the same.
#[inline(always)]
pub fn conn_id(thread: u32, cpu: u32, count: u64) -> u64 {
    // Thread ids have 22 bits, PID_MAX_LIMIT in linux/threads.h.
    (thread as u64) << (CPU_BITS + COUNT_BITS)
        | ((cpu as u64) & ((1 << CPU_BITS) - 1)) << COUNT_BITS
        | count & ((1 << COUNT_BITS) - 1)
}

/// What the kernel remembers of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Conn {
    /// Unique among all connections of a run, by [`conn_id`].
    pub id: u64,
    /// Bytes transferred so far, by [`Direction`].
    pub offset: [u64; 2],
    /// When a call of this direction was last accounted for (CLOCK_MONOTONIC).
    pub accounted_ns: [u64; 2],
    /// Index of the ring that every record of this connection goes to.
    pub home: u32,
    /// Calls so far, wrapping; every 16th looks whether the engine has set a verdict.
    pub calls: u32,
    /// One of [`verdict`].
    pub verdict: u32,
    /// Reads that failed since the last one that didn't.
    pub failed_reads: u32,
    /// Some of [`reads`].
    pub reads: u16,
    /// What is known of the socket that carries it, one of [`carrier::state`].
    pub carrier: u16,
    /// The process that it was first seen in.
    pub tgid: u32,
}

/// What a connection's failed reads tell. `SSL_read` returns 0 at the end of what the peer sends and
/// less when it would have to wait. `SSL_read_ex` returns 0 for both; there the answer to
/// `SSL_get_error` tells, and when nobody asks, the order: a reader that waits elsewhere fails once
/// after all data that is there, and again only at the end.
pub mod reads {
    /// A read said that the peer has closed.
    pub const END: u16 = 1;
    /// A read that failed was followed by one that didn't: this reader doesn't wait inside reads.
    pub const WAITS_ELSEWHERE: u16 = 2;
}

impl Conn {
    /// A read returned data.
    #[inline(always)]
    pub fn read_data(&mut self) {
        if self.failed_reads != 0 {
            self.reads |= reads::WAITS_ELSEWHERE;
        }
        self.failed_reads = 0;
    }

    /// A read returned none. `tells` is what its return value alone says: whether it is the end.
    #[inline(always)]
    pub fn read_failed(&mut self, tells: Option<bool>) {
        match tells {
            Some(true) => self.reads |= reads::END,
            Some(false) => {
                self.reads |= reads::WAITS_ELSEWHERE;
                self.failed_reads = 0;
            }
            None => self.failed_reads = self.failed_reads.saturating_add(1),
        }
    }

    /// Whether why the last read failed is still open.
    #[inline(always)]
    pub fn wonders(&self) -> bool {
        self.verdict == verdict::CAPTURE && self.failed_reads != 0
    }

    /// The peer has closed, as far as the reads tell.
    #[inline(always)]
    pub fn peer_closed(&self) -> bool {
        let enough = if self.reads & reads::WAITS_ELSEWHERE != 0 { 2 } else { 1 };
        self.reads & reads::END != 0 || self.failed_reads >= enough
    }
}

/// What is to be done with a connection's bytes.
pub mod verdict {
    /// Seen from its start, nothing transferred yet: the first bytes decide.
    pub const FRESH: u32 = 0;
    /// First seen in the middle: each call's first bytes are looked at until a head appears.
    pub const MIDWAY: u32 = 1;
    /// Captured.
    pub const CAPTURE: u32 = 2;
    /// Not HTTP, or the engine gave it up: later calls cost a look-up.
    pub const IGNORE: u32 = 3;
}

/// Key of a call in flight. The stack pointer tells nested calls on one thread apart (TLS inside
/// TLS, or a library whose `SSL_read_ex` is made of `SSL_read`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallKey {
    /// `bpf_get_current_pid_tgid()`.
    pub pid_tgid: u64,
    /// Stack pointer on entry.
    pub stack: u64,
}

/// The arguments of a call in flight.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Address of the `SSL` object.
    pub ssl: u64,
    /// Address of the caller's buffer.
    pub buffer: u64,
    /// Address of the `size_t` that an `_ex` function reports through, or 0.
    pub count: u64,
    /// When the call began (CLOCK_MONOTONIC).
    pub entered_ns: u64,
    /// [`Direction`] as an integer, and some bits of [`call`].
    pub direction: u64,
}

/// What [`Call::direction`] is made of.
pub mod call {
    /// The bit that is the direction.
    pub const DIRECTION: u64 = 1;
    /// A read that returns 0 has met the end of what the peer sends, although it reports through
    /// [`super::Call::count`].
    pub const ZERO_ENDS: u64 = 2;
}

/// What `SSL_get_error` says of a failed read: true at the end of what the peer sends, false when the
/// caller has to wait. SSL_get_error(3): 2 and 3 are WANT_READ and WANT_WRITE, 1, 5 and 6 are the
/// failures SSL, SYSCALL and ZERO_RETURN; others ask for something else.
#[inline(always)]
pub fn end_by_error(code: i32) -> Option<bool> {
    match code {
        1 | 5 | 6 => Some(true),
        2 | 3 => Some(false),
        _ => None,
    }
}

/// Connections that the kernel remembers; the least recently used one goes first.
pub const CONNS_MAX: usize = 65_536;
/// Calls in flight at once; more evict the one that began first.
pub const CALLS_MAX: usize = 32_768;
/// Entries of each filter.
pub const FILTER_MAX: usize = 16_384;
/// Rings, one for each possible CPU.
pub const RINGS_MAX: usize = 64;
/// Cgroups from the root down that a cgroup filter looks at.
pub const CGROUP_DEPTH_MAX: i32 = 8;
/// The engine is woken when a ring fills beyond this; below it, it comes by on a timer.
pub const WAKE_BYTES: u64 = 256 * 1024;
/// How often a captured connection's verdict is looked up: every so many calls, a power of two.
pub const VERDICT_EVERY: u32 = 16;

const _: () = assert!(size_of::<ConnKey>() == 16 && size_of::<Conn>() == 64);
const _: () = assert!(size_of::<CallKey>() == 16 && size_of::<Call>() == 40);
const _: () = assert!(VERDICT_EVERY.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    /// `d` data, `w` SSL_read that would wait, `e` SSL_read at the end, `f` SSL_read_ex that
    /// failed, a digit what SSL_get_error answered.
    fn check(story: &str, closed: bool) {
        let mut conn = Conn {
            id: 1,
            offset: [0; 2],
            accounted_ns: [0; 2],
            home: 0,
            calls: 0,
            verdict: verdict::CAPTURE,
            failed_reads: 0,
            reads: 0,
            carrier: 0,
            tgid: 1,
        };
        for step in story.chars() {
            match step {
                'd' => conn.read_data(),
                'w' => conn.read_failed(Some(false)),
                'e' => conn.read_failed(Some(true)),
                '0'..='9' => match end_by_error(step as i32 - '0' as i32) {
                    Some(end) if conn.wonders() => conn.read_failed(Some(end)),
                    _ => {}
                },
                _ => conn.read_failed(None),
            }
        }
        assert_eq!(conn.peer_closed(), closed, "{story}");
    }

    #[test]
    fn reads_tell_who_closed() {
        check("", false);
        check("dd", false);
        check("dwdw", false);
        check("dwde", true);
        check("ddf", true);
        check("dfdfdf", false);
        check("dfdfdff", true);
        check("df2df2", false);
        check("df2df6", true);
        check("df2f2f2", false);
        check("df5", true);
    }
}
