//! Plain sockets: where the kernel keeps what the programs read of them, and what crosses to the engine.

use crate::{Conn, first_bytes::LOOKED_AT};

/// Sockets that the kernel remembers; the least recently used one goes first.
pub const SOCKETS_MAX: usize = 65_536;
/// Threads inside a call for several messages.
pub const BATCHES_MAX: usize = 8_192;
/// Calls on a socket met in the middle that are looked at for a message head.
pub const MIDWAY_LOOKS_MAX: u32 = 4_096;
/// Steps over one call's buffers: a step is an entry of its array, or a record. Half are for IOV_MAX
/// entries (readv(2)), the other for their records.
pub const STEPS_MAX: u32 = 2_304;
/// Bytes of a UNIX socket's path (`sun_path`, unix(7)), rounded up.
pub const PATH_BYTES: usize = 112;

/// Offsets in bytes of kernel structures' fields, read from the kernel's BTF when loading.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketLayout {
    /// 1 when sockets are looked at; everything else is zero otherwise.
    pub enabled: u32,
    /// `sock.__sk_common.skc_family`, u16.
    pub family: u32,
    /// `sock.__sk_common.skc_dport`, u16 in network order.
    pub peer_port: u32,
    /// `sock.__sk_common.skc_num`, u16.
    pub local_port: u32,
    /// `sock.__sk_common.skc_daddr`.
    pub peer_v4: u32,
    /// `sock.__sk_common.skc_rcv_saddr`.
    pub local_v4: u32,
    /// `sock.__sk_common.skc_v6_daddr`, or 0 in a kernel without IPv6.
    pub peer_v6: u32,
    /// `sock.__sk_common.skc_v6_rcv_saddr`, or 0.
    pub local_v6: u32,
    /// `sock.sk_type`, u16.
    pub kind: u32,
    /// `sock.sk_shutdown`, u8.
    pub shutdown: u32,
    /// `sock.sk_socket`.
    pub socket: u32,
    /// From a `socket` to the `i_ino` of the inode beside it (`socket_alloc`), u64.
    pub socket_inode: u32,
    /// `unix_sock.addr`, or 0 where UNIX sockets are a module.
    pub unix_addr: u32,
    /// `unix_sock.peer`.
    pub unix_peer: u32,
    /// `unix_address.len`, u32, with the two bytes of the family.
    pub unix_len: u32,
    /// `unix_address.name[0].sun_path`.
    pub unix_path: u32,
    /// `task_struct.files`.
    pub files: u32,
    /// `files_struct.fdt`.
    pub table: u32,
    /// `fdtable.max_fds`, u32.
    pub table_len: u32,
    /// `fdtable.fd`.
    pub table_files: u32,
    /// `file.private_data`, a `socket` where the file is one.
    pub private_data: u32,
    /// Zero.
    pub pad: u32,
}

/// Words of a [`SocketLayout`].
pub const LAYOUT_WORDS: usize = size_of::<SocketLayout>() / 4;

/// Both ends of a connection.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// [`AF_INET`], [`AF_INET6`], [`AF_UNIX`], or 0 when they aren't known.
    pub family: u16,
    /// Port of the process's end.
    pub local_port: u16,
    /// Port of the other end.
    pub peer_port: u16,
    /// Zero.
    pub pad: u16,
    /// Address of the process's end in network order; of IPv4 the first four bytes.
    pub local: [u8; 16],
    /// Address of the other end.
    pub peer: [u8; 16],
}

/// `AF_UNIX`, linux/socket.h.
pub const AF_UNIX: u16 = 1;
/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

/// What carries a connection's bytes, as [`crate::OpenInfo`] tells it.
pub mod transport {
    /// A TLS library.
    pub const TLS: u32 = 0;
    /// An IP socket without TLS, whose end the kernel always tells.
    pub const INET: u32 = 1;
    /// A UNIX socket, whose path follows the information.
    pub const UNIX: u32 = 2;
}

/// What the kernel remembers of a socket.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Socket {
    /// The connection; its id is 0 before the first call.
    pub conn: Conn,
    /// Number of the socket's inode when it is a UNIX socket, whose end nothing tells; of a socket with TLS the
    /// connection that it carries ([`crate::ConnKey::ssl`]), or 0.
    pub inode_or_ssl: u64,
    /// Some of [`traits`].
    pub traits: u32,
    /// Zero.
    pub pad: u32,
}

/// Bits of [`Socket::traits`].
pub mod traits {
    /// A UNIX socket.
    pub const UNIX: u32 = 1;
    /// TLS records go over it.
    pub const TLS: u32 = 2;
    /// Captured at some time, and counted as opened.
    pub const COUNTED: u32 = 4;
    /// The process is the client.
    pub const CLIENT: u32 = 8;
}

/// Where a thread is in a call for several messages (sendmmsg(2), recvmmsg(2)).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Address of the array of messages.
    pub messages: u64,
    /// Messages done.
    pub done: u32,
    /// Bytes that the last of them moved.
    pub moved: u32,
}

/// How a system call names its buffers.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// By address: the second argument.
    Buffer,
    /// By an array of `struct iovec`: the second argument, and its length the third.
    Vector,
    /// By a `struct msghdr`: the second argument.
    Message,
    /// By an array of `struct mmsghdr`: the second argument, and its length the third.
    Messages,
    /// Not at all, or in a way that isn't known: sendfile(2), splice(2), io_uring_enter(2).
    Unseen,
}

/// The shape of system call `number` of this architecture (asm/unistd.h; `arm` is that of aarch64).
#[inline(always)]
pub const fn shape(number: u64, arm: bool) -> Shape {
    if arm {
        return match number {
            // read, write, sendto, recvfrom
            63 | 64 | 206 | 207 => Shape::Buffer,
            // readv, writev, preadv2, pwritev2
            65 | 66 | 286 | 287 => Shape::Vector,
            // sendmsg, recvmsg
            211 | 212 => Shape::Message,
            // recvmmsg, sendmmsg
            243 | 269 => Shape::Messages,
            _ => Shape::Unseen,
        };
    }
    match number {
        0 | 1 | 44 | 45 => Shape::Buffer,
        19 | 20 | 327 | 328 => Shape::Vector,
        46 | 47 => Shape::Message,
        299 | 307 => Shape::Messages,
        _ => Shape::Unseen,
    }
}

/// A TLS record header: content types 20 to 24 and version 3.x (RFC 8446 section 5.1).
#[inline(always)]
pub fn is_tls_record(bytes: &[u8; LOOKED_AT], len: usize) -> bool {
    len >= 3 && bytes[0] >= 20 && bytes[0] <= 24 && bytes[1] == 3 && bytes[2] <= 4
}

/// Whether what looks like a message head begins with enough of one to be believed on a socket that
/// was met in the middle, where it may be ciphertext: a method and the beginning of a target
/// (RFC 9112 section 3.2), or a status line as far as the code, or all of the HTTP/2 preface.
#[inline(always)]
pub fn is_certain_head(bytes: &[u8; LOOKED_AT], len: usize) -> bool {
    if len < 12 {
        return false;
    }
    if bytes[0] == b'H' && bytes[1] == b'T' {
        // HTTP/1.1 200
        return bytes[5] == b'1' && bytes[7] <= b'1' && bytes[8] == b' ' && bytes[9] >= b'1' && bytes[9] <= b'5';
    }
    if bytes[0] == b'P' && bytes[1] == b'R' {
        return len >= 14;
    }
    let mut at = 3;
    while at < 8 {
        if bytes[at] == b' ' {
            let target = bytes[at + 1];
            let is_authority = bytes[0] == b'C' && target > b' ';
            return target == b'/' || target == b'*' || target == b'h' || is_authority;
        }
        at += 1;
    }
    false
}

const _: () = assert!(size_of::<SocketLayout>().is_multiple_of(8) && size_of::<Endpoints>() == 40);
const _: () = assert!(size_of::<Socket>() == 80 && size_of::<Batch>() == 16);
const _: () = assert!(PATH_BYTES.is_multiple_of(8));

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(text: &[u8]) -> ([u8; LOOKED_AT], usize) {
        let mut bytes = [0; LOOKED_AT];
        let len = text.len().min(LOOKED_AT);
        bytes[..len].copy_from_slice(&text[..len]);
        (bytes, len)
    }

    #[test]
    fn heads_in_the_middle_have_to_be_certain() {
        for (text, expected) in [
            (&b"POST /v1/chat/completions HTTP/1.1"[..], true),
            (b"GET / HTTP/1.1\r\n", true),
            (b"OPTIONS * HTTP/1.1", true),
            (b"DELETE /a HTTP/1.1", true),
            (b"GET http://host/ HTTP/1.1", true),
            (b"CONNECT api.example:443 HTTP/1.1", true),
            (b"HTTP/1.1 200 OK\r\n", true),
            (b"HTTP/1.0 404 Not", true),
            (b"PRI * HTTP/2.0\r\n\r\nSM", true),
            (b"POST \x8e\x01\x02\x03\x04\x05\x06\x07", false),
            (b"P", false),
            (b"HTTP/1.x \xff\xff\xff\xff", false),
            (b"GET me some of it, please", false),
        ] {
            let (bytes, len) = padded(text);
            assert_eq!(is_certain_head(&bytes, len), expected, "{text:?}");
        }
    }

    #[test]
    fn tls_records_are_told() {
        for (text, expected) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], true),
            (b"\x17\x03\x03\x40\x11", true),
            (b"\x16\x03", false),
            (b"POST / HTTP/1.1", false),
            (b"\x17\x04\x03\x00\x11", false),
        ] {
            let (bytes, len) = padded(text);
            assert_eq!(is_tls_record(&bytes, len), expected, "{text:?}");
        }
    }

    #[test]
    fn calls_have_shapes() {
        for (x86, arm, expected) in [
            (0, 63, Shape::Buffer),
            (20, 66, Shape::Vector),
            (46, 211, Shape::Message),
            (307, 269, Shape::Messages),
            // sendfile, io_uring_enter
            (40, 71, Shape::Unseen),
            (426, 426, Shape::Unseen),
        ] {
            assert_eq!((shape(x86, false), shape(arm, true)), (expected, expected), "{x86} {arm}");
        }
    }
}
