//! A record in a ring: this header, then `len` bytes.

use crate::socket::{Endpoints, PATH_BYTES};

/// The header of every record. What follows it in the ring is `len` bytes of payload and then
/// padding up to the reserved size.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// [`crate::Conn::id`].
    pub conn: u64,
    /// CLOCK_MONOTONIC: when a write began, or when a read returned.
    pub ktime_ns: u64,
    /// Bytes of this direction before the payload, since the connection was first seen.
    pub offset: u64,
    /// Bytes right after the payload that were transferred but are not captured.
    pub lost: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Bytes of payload.
    pub len: u32,
    /// [`Kind`] as an integer.
    pub kind: u8,
    /// [`Direction`] as an integer.
    pub direction: u8,
    /// Some of [`flags`].
    pub flags: u16,
}

/// Bits of [`RecordHeader::flags`].
pub mod flags {
    /// The connection was first seen in the middle.
    pub const MIDWAY: u16 = 1;
    /// `lost` could not be read from the process's memory.
    pub const FAULT: u16 = 2;
    /// `lost` is the middle of a call beyond the per-call budget.
    pub const BUDGET: u16 = 4;
    /// The application reset the connection; the object lives on as another connection.
    pub const RESET: u16 = 8;
    /// The last that was read was the end of what the peer sends.
    pub const PEER_CLOSED: u16 = 16;
    /// What came last may not be what was transferred.
    pub const SPOILT: u16 = 32;
    /// Where the bits begin that say which step of [`crate::pressure`] the ring was at.
    pub const PRESSURE_SHIFT: u16 = 14;

    /// The step of [`crate::pressure`] at which a record was made.
    pub const fn pressure(flags: u16) -> u32 {
        (flags >> PRESSURE_SHIFT) as u32
    }
}

/// What a record is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection is captured from here on; the payload is an [`OpenInfo`].
    Open = 1,
    /// Bytes of one direction.
    Data = 2,
    /// The connection ended. `offset` holds what was read, `lost` what was written, in all.
    Close = 3,
    /// The ends of a connection that was opened without; the payload is an [`Endpoints`].
    Ends = 4,
}

impl Kind {
    /// The kind that `value` stands for.
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Open),
            2 => Some(Self::Data),
            3 => Some(Self::Close),
            4 => Some(Self::Ends),
            _ => None,
        }
    }
}

/// Which way bytes went, seen from the observed process.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The process wrote them.
    Write = 0,
    /// The process read them.
    Read = 1,
}

impl Direction {
    /// The direction that `value` stands for.
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Write),
            1 => Some(Self::Read),
            _ => None,
        }
    }
}

/// The payload of [`Kind::Open`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenInfo {
    /// Name of the calling thread, NUL padded.
    pub comm: [u8; 16],
    /// Cgroup of the process (the v2 hierarchy).
    pub cgroup: u64,
    /// Real user id.
    pub uid: u32,
    /// One of [`crate::socket::transport`].
    pub transport: u32,
    /// Both ends, where they are known.
    pub endpoints: Endpoints,
}

/// The payload of [`Kind::Open`] of a UNIX socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixOpenInfo {
    /// What there is of every connection.
    pub info: OpenInfo,
    /// `sun_path` of the end that has a name, NUL padded; an abstract one begins with NUL (unix(7)).
    pub path: [u8; PATH_BYTES],
}

/// Bytes of a [`RecordHeader`].
pub const HEADER_BYTES: usize = size_of::<RecordHeader>();

const _: () = assert!(HEADER_BYTES == 48 && HEADER_BYTES.is_multiple_of(8));
const _: () = assert!(size_of::<OpenInfo>() == 72 && size_of::<UnixOpenInfo>() == 184);
