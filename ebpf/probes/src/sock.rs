//! What the kernel's `struct sock` and the structures around it say, by the offsets of its own BTF.

use core::ffi::c_void;

use agentsight_abi::socket::{AF_INET, AF_INET6, AF_UNIX, Endpoints, PATH_BYTES, SocketLayout};
use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{bpf_get_current_task, bpf_probe_read_kernel as bpf_probe_read_kernel_to},
};

use crate::maps::offset;

/// The offset of one field of the layout.
macro_rules! at {
    ($field:ident) => {
        offset(core::mem::offset_of!(SocketLayout, $field))
    };
}

/// `SOCK_STREAM`, linux/net.h.
const SOCK_STREAM: u16 = 1;
/// `RCV_SHUTDOWN | SEND_SHUTDOWN`, net/sock.h: set before a socket that is closed changes its state.
const SHUTDOWN_MASK: u8 = 3;
/// `TCP_CLOSE`, net/tcp_states.h.
const TCP_CLOSE: u8 = 7;
/// `skc_state` follows `skc_family`, net/sock.h.
const STATE_AFTER_FAMILY: u64 = 2;

#[inline(always)]
fn read<T>(address: u64) -> Option<T> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// Its address family, when it is a stream that is looked at: TCP (or MPTCP, SCTP) and UNIX.
#[inline(always)]
pub fn stream_family(sk: u64) -> Option<u16> {
    if read::<u16>(sk + at!(kind))? != SOCK_STREAM {
        return None;
    }
    let family = read::<u16>(sk + at!(family))?;
    matches!(family, AF_UNIX | AF_INET | AF_INET6).then_some(family)
}

/// The process has closed it.
#[inline(always)]
pub fn is_shut(sk: u64) -> bool {
    read::<u8>(sk + at!(shutdown)).is_some_and(|shutdown| shutdown & SHUTDOWN_MASK == SHUTDOWN_MASK)
}

/// A TCP socket without a connection.
#[inline(always)]
pub fn is_over(sk: u64) -> bool {
    read::<u8>(sk + at!(family) + STATE_AFTER_FAMILY) == Some(TCP_CLOSE)
}

/// The number of its inode, which no other socket has had for a long time; 0 when it has none.
#[inline(always)]
pub fn inode(sk: u64) -> u64 {
    let Some(socket) = read::<u64>(sk + at!(socket)) else { return 0 };
    if socket == 0 { 0 } else { read(socket + at!(socket_inode)).unwrap_or(0) }
}

/// Writes both ends of an IP socket to `ends`; of another one its family alone.
#[inline(always)]
pub fn endpoints(sk: u64, family: u16, ends: *mut Endpoints) {
    // SAFETY: the caller's memory for an `Endpoints`; the helpers cope with any source address.
    unsafe {
        ends.write(Endpoints { family, local_port: 0, peer_port: 0, pad: 0, local: [0; 16], peer: [0; 16] });
        if family == AF_UNIX {
            return;
        }
        (*ends).local_port = read(sk + at!(local_port)).unwrap_or(0);
        (*ends).peer_port = u16::from_be(read(sk + at!(peer_port)).unwrap_or(0));
        let (local, peer) = ((&raw mut (*ends).local).cast::<c_void>(), (&raw mut (*ends).peer).cast::<c_void>());
        if family == AF_INET {
            bpf_probe_read_kernel_to(local, 4, (sk + at!(local_v4)) as *const c_void);
            bpf_probe_read_kernel_to(peer, 4, (sk + at!(peer_v4)) as *const c_void);
        } else if at!(peer_v6) != 0 {
            bpf_probe_read_kernel_to(local, 16, (sk + at!(local_v6)) as *const c_void);
            bpf_probe_read_kernel_to(peer, 16, (sk + at!(peer_v6)) as *const c_void);
        }
    }
}

/// Writes the path of a UNIX socket's named end to `path`: that of the other end, else its own.
#[inline(always)]
pub fn unix_path(sk: u64, path: *mut [u8; PATH_BYTES]) {
    // SAFETY: the caller's memory for a path; the helper copes with any source address.
    unsafe { path.write([0; PATH_BYTES]) };
    if at!(unix_addr) == 0 {
        return;
    }
    let peer = read::<u64>(sk + at!(unix_peer)).unwrap_or(0);
    for end in [peer, sk] {
        if end == 0 {
            continue;
        }
        let Some(address) = read::<u64>(end + at!(unix_addr)).filter(|address| *address != 0) else { continue };
        // The family's two bytes count too; an end without a name has nothing behind them.
        let len = read::<u32>(address + at!(unix_len)).unwrap_or(0).saturating_sub(2);
        if len == 0 || len >= PATH_BYTES as u32 {
            continue;
        }
        // SAFETY: as above, and `len` is less than the path's length.
        unsafe {
            let len = core::hint::black_box(len) & 127;
            if len < PATH_BYTES as u32 {
                bpf_probe_read_kernel_to(path.cast(), len, (address + at!(unix_path)) as *const c_void);
            }
        }
        return;
    }
}

/// Descriptor `fd` of the calling process is this very socket, so that what the system call in flight
/// says of its buffers is said of it. Sockets of the kernel itself (of network file systems) are used
/// inside system calls too.
#[inline(always)]
pub fn is_descriptor(sk: u64, fd: u64) -> bool {
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    lookup(task, fd as u32).is_some_and(|socket| socket != 0 && read::<u64>(sk + at!(socket)) == Some(socket))
}

/// What the file of a descriptor keeps: of a socket its `struct socket`.
#[inline(always)]
fn lookup(task: u64, fd: u32) -> Option<u64> {
    let files: u64 = read(task + at!(files))?;
    let table: u64 = read(files + at!(table))?;
    if fd >= read::<u32>(table + at!(table_len))? {
        return None;
    }
    let slots: u64 = read(table + at!(table_files))?;
    let file: u64 = read(slots + 8 * fd as u64)?;
    read(file + at!(private_data))
}
