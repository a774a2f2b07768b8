//! Plain HTTP: what goes over stream sockets without TLS, and which socket carries a TLS connection.
//!
//! The kernel tells of every transfer on a socket (`sock_send_length`, `sock_recv_length`, Linux 6.3),
//! with the socket itself and after the bytes were moved, whatever system call moved them; the call's
//! arguments are still in the thread's registers. So files and pipes cost nothing, nothing has to be
//! stashed, and a connection is its socket, however descriptors are duplicated, inherited and reused.

use core::ffi::{c_long, c_void};

use agentsight_abi::{
    Conn, Direction, DropCause, FirstBytes, Kind, OpenInfo, RecordHeader, Total,
    first_bytes::{LOOKED_AT, first_bytes, is_frame},
    flags,
    pieces::{CALL_BYTES_MAX, PIECE_BYTES},
    record::UnixOpenInfo,
    socket::{AF_UNIX, MIDWAY_LOOKS_MAX, STEPS_MAX, Socket, is_certain_head, is_tls_record, traits, transport},
    verdict,
};
use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::PerCpuArray,
    helpers::{bpf_probe_read_user, generated::bpf_loop},
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};

use crate::{
    carrier,
    conn::{self, given_up, header, peek},
    emit,
    helpers::{now_ns, this_cpu},
    maps::{RINGS, SOCKETS, config, count, count_drop, next_conn_id},
    pid,
    select::selected,
    sock,
    source::{Source, batch_failed, source},
};

/// `MSG_OOB | MSG_PEEK | MSG_TRUNC | MSG_ERRQUEUE`, linux/socket.h: bytes that are not the stream's,
/// that are read again, or that are thrown away.
const MSG_PEEK: u32 = 0x2;
const MSG_NOT_OF_THE_STREAM: u32 = 0x1 | 0x2000;
const MSG_TRUNC: u32 = 0x20;
/// asm-generic/errno.h and linux/errno.h: what a call that has to wait says, or one that is interrupted.
const EAGAIN: i32 = -11;
const ERESTARTSYS: i32 = -512;
/// What is said once the peer is gone.
const EPIPE: i32 = -32;
/// net/tcp_states.h.
const TCP_ESTABLISHED: u32 = 1;
const TCP_CLOSE: u32 = 7;

/// `sock_send_length(struct sock *sk, int ret, int flags)`
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn socket_sent(ctx: RawTracePointContext) {
    called(ctx.arg(0), ctx.arg::<u32>(1) as i32, 0, Direction::Write);
}

/// `sock_recv_length(struct sock *sk, int ret, int flags)`
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn socket_received(ctx: RawTracePointContext) {
    called(ctx.arg(0), ctx.arg::<u32>(1) as i32, ctx.arg(2), Direction::Read);
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`, which may run in
/// an interrupt of any process.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn socket_state(ctx: RawTracePointContext) {
    let sk: u64 = ctx.arg(0);
    let state: u32 = ctx.arg(2);
    if state == TCP_ESTABLISHED {
        end(sk, 0);
        remember(sk, verdict::FRESH, 0, 0);
    } else if let Some(socket) = SOCKETS.get_ptr_mut(&sk) {
        if sock::is_shut(sk) {
            end(sk, 0);
        } else if state == TCP_CLOSE {
            // Reset by the peer; what has arrived before may still be read.
            // SAFETY: a plain write to an entry that was found.
            unsafe { (*socket).conn.read_failed(Some(true)) };
        }
    }
}

#[inline(always)]
fn called(sk: u64, result: i32, call_flags: u32, direction: Direction) {
    let waits = result == EAGAIN;
    if result == ERESTARTSYS || waits && direction as u32 == Direction::Read as u32 {
        return;
    }
    if !selected() || call_flags & (MSG_PEEK | MSG_NOT_OF_THE_STREAM) != 0 {
        return;
    }
    if result <= 0 && !waits {
        return failed(sk, result, direction);
    }
    let found = match SOCKETS.get_ptr_mut(&sk) {
        Some(socket) => Some(socket),
        None => met(sk),
    };
    let Some(socket) = found else { return };
    // SAFETY: found just now. Two threads that write, or read, one stream at once don't know the order
    // of its bytes themselves; a reader and a writer touch different fields but for counters.
    let socket = unsafe { &mut *socket };
    if socket.conn.verdict == verdict::IGNORE {
        if socket.traits & traits::TLS != 0 {
            carrier::used(sk, socket, direction, result);
        }
        return;
    }
    if waits {
        return;
    }
    if socket.traits & traits::UNIX != 0 && socket.inode_or_ssl != sock::inode(sk) {
        // Another socket at the address of one that is gone.
        end(sk, 0);
        return;
    }
    if socket.conn.verdict != verdict::CAPTURE && carrier::is_inside(sk, socket) {
        // What a TLS library writes is either ciphertext or, with TLS in the kernel, seen already.
        socket.conn.verdict = verdict::IGNORE;
        socket.traits |= traits::TLS;
        return;
    }
    let from = if call_flags & MSG_TRUNC != 0 { Source { at: 0, vectors: 0, fd: 0 } } else { source(result as u32) };
    transferred(sk, socket, direction, from, result as u64);
}

/// Accounts for a call that moved `len` bytes, and copies them if they are wanted.
#[inline(always)]
fn transferred(sk: u64, socket: &mut Socket, direction: Direction, from: Source, len: u64) {
    let conn = &mut socket.conn;
    if conn.id == 0 {
        conn.home = this_cpu();
        conn.id = next_conn_id(conn.home);
        conn.tgid = pid::tgid();
    }
    let way = (direction as usize) & 1;
    let offset = conn.offset[way];
    conn.offset[way] = offset + len;
    conn.calls = conn.calls.wrapping_add(1);
    if way == Direction::Read as usize {
        conn.read_data();
    }
    let now = now_ns();
    if conn.verdict != verdict::CAPTURE && !decide(sk, socket, direction, &from, len) {
        return;
    }
    if given_up(&mut socket.conn) {
        return;
    }
    let mut header = header(&socket.conn, Kind::Data, direction, now);
    header.offset = offset;
    copy(socket.conn.home, &header, &from, len);
}

/// A walk over the buffers of a call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Walk {
    header: RecordHeader,
    /// Offset in the stream of the next byte.
    offset: u64,
    /// Address of the next entry of the array, or 0 when there is none.
    entries: u64,
    /// Entries to go.
    count: u64,
    /// Address of the next byte.
    buffer: u64,
    /// Bytes to go in this buffer.
    here: u64,
    /// Bytes to go in all.
    left: u64,
    /// Bytes captured so far.
    captured: u64,
    home: u64,
}

/// The walk of each direction's program, which doesn't run inside itself. It lies in a map because the
/// verifier follows every value on the stack through every step, but not those in maps.
#[btf_map]
static WALKS: PerCpuArray<Walk, 2> = PerCpuArray::new();

#[inline(always)]
fn walk_of(way: u32) -> Option<&'static mut Walk> {
    // SAFETY: this CPU's slot, which only the program of this direction uses.
    WALKS.get_ptr_mut(way).map(|walk| unsafe { &mut *walk })
}

/// Copies the `len` bytes of a call; what can't be seen is told.
#[inline(never)]
fn copy(home: u32, header: &RecordHeader, from: &Source, len: u64) {
    let single = from.vectors == 0;
    let mut way = header.direction as u32 & 1;
    let Some(walk) = walk_of(way) else { return };
    *walk = Walk {
        header: *header,
        offset: header.offset,
        entries: if single { 0 } else { from.at },
        count: from.vectors as u64,
        buffer: from.at,
        here: if single { len } else { 0 },
        left: len,
        captured: 0,
        home: home as u64,
    };
    if from.at != 0 {
        // SAFETY: the callback gets a number on the stack, which lives until the helper returns.
        unsafe { bpf_loop(STEPS_MAX, step as *mut c_void, (&raw mut way).cast(), 0) };
    }
    if walk.left != 0 {
        walk.header.flags = flags::FAULT;
        count_drop(DropCause::SocketUnseen, walk.left);
        left_out(walk);
    }
}

/// One record or one entry of the array; 1 ends the walk.
#[inline(never)]
extern "C" fn step(_: u64, way: *mut u32) -> c_long {
    const HALF: u64 = CALL_BYTES_MAX / 2;
    // SAFETY: `copy` passes its own.
    let Some(walk) = walk_of(unsafe { *way } & 1) else { return 1 };
    if walk.here == 0 {
        if walk.count == 0 || walk.entries == 0 {
            return 1;
        }
        // SAFETY: the helper copes with any address.
        let Ok([base, size]) = (unsafe { bpf_probe_read_user::<[u64; 2]>(walk.entries as *const [u64; 2]) }) else {
            return 1;
        };
        walk.entries += 16;
        walk.count -= 1;
        walk.buffer = base;
        walk.here = if size < walk.left { size } else { walk.left };
        return 0;
    }
    let Some(ring) = RINGS.get(walk.home as u32) else {
        count_drop(DropCause::RingMissing, walk.left);
        walk.left = 0;
        return 1;
    };
    walk.header.offset = walk.offset;
    walk.header.lost = 0;
    walk.header.flags = 0;
    // The head and the tail of a large call are kept.
    let over = if walk.captured >= HALF && walk.left > HALF { walk.left - HALF } else { 0 };
    let len = if over != 0 {
        let len = if over < walk.here { over } else { walk.here };
        walk.header.flags = flags::BUDGET;
        walk.header.lost = len;
        walk.header.len = 0;
        count_drop(DropCause::CallBudget, len);
        emit::bare(ring, &walk.header);
        len
    } else {
        let len = if walk.here < PIECE_BYTES as u64 { walk.here } else { PIECE_BYTES as u64 };
        emit::sized(ring, &mut walk.header, walk.buffer, len as u32);
        walk.captured += len;
        len
    };
    walk.offset += len;
    walk.buffer += len;
    walk.here -= len;
    walk.left -= len;
    (walk.left == 0) as c_long
}

/// Tells of the rest of a call, which is not seen.
#[inline(always)]
fn left_out(walk: &mut Walk) {
    walk.header.offset = walk.offset;
    walk.header.lost = walk.left;
    walk.header.len = 0;
    match RINGS.get(walk.home as u32) {
        Some(ring) => emit::bare(ring, &walk.header),
        None => count_drop(DropCause::RingMissing, walk.left),
    }
}

/// Looks at the first bytes of a call on a socket without a verdict; true when it is to be captured
/// from this call on.
#[inline(never)]
fn decide(sk: u64, socket: &mut Socket, direction: Direction, from: &Source, len: u64) -> bool {
    let fresh = socket.conn.verdict == verdict::FRESH;
    let mut buffer = from.at;
    let mut first_len = len;
    if from.vectors != 0 {
        // SAFETY: the helper copes with any address.
        let entry = unsafe { bpf_probe_read_user::<[u64; 2]>(from.at as *const [u64; 2]) }.unwrap_or([0; 2]);
        buffer = entry[0];
        first_len = if entry[1] < len { entry[1] } else { len };
    }
    let mut bytes = [0u8; LOOKED_AT];
    let looked_at = if buffer == 0 { None } else { peek(&mut bytes, buffer, first_len) };
    let Some(looked_at) = looked_at else {
        // Unknown bytes decide nothing; the next call may.
        socket.conn.verdict = verdict::MIDWAY;
        return false;
    };
    if is_tls_record(&bytes, looked_at) {
        socket.traits |= traits::TLS;
        socket.conn.verdict = verdict::IGNORE;
        if direction as u32 == Direction::Write as u32 && socket.traits & traits::UNIX == 0 {
            carrier::met(sk, socket, from);
        }
        return false;
    }
    let seen = first_bytes(&bytes, looked_at);
    let believed = match seen {
        FirstBytes::Other => false,
        FirstBytes::Frame => fresh || is_certain_frame(&bytes, buffer, first_len),
        _ => fresh || is_certain_head(&bytes, looked_at),
    };
    if !believed || !sock::is_descriptor(sk, from.fd) {
        if fresh || socket.conn.calls >= MIDWAY_LOOKS_MAX {
            socket.conn.verdict = verdict::IGNORE;
            count(Total::ConnsIgnored, 0);
        }
        return false;
    }
    if seen.is_unwanted(direction, fresh, config().unwanted) {
        socket.conn.verdict = verdict::IGNORE;
        count(Total::ConnsIgnored, 0);
        return false;
    }
    socket.conn.verdict = verdict::CAPTURE;
    count(Total::ConnsOpened, 0);
    socket.traits |= traits::COUNTED;
    let are_requests = matches!(seen, FirstBytes::Request | FirstBytes::Preface);
    if are_requests == (direction as u32 == Direction::Write as u32) {
        socket.traits |= traits::CLIENT;
    }
    open(sk, socket, direction, now_ns(), if fresh { 0 } else { flags::MIDWAY });
    true
}

/// What may be a frame on a socket that was met in the middle may be ciphertext; it is believed when it
/// ends with the call, or another frame follows.
#[inline(always)]
fn is_certain_frame(bytes: &[u8; LOOKED_AT], buffer: u64, len: u64) -> bool {
    let end = 9 + ((bytes[0] as u64) << 16 | (bytes[1] as u64) << 8 | bytes[2] as u64);
    if end >= len {
        return end == len;
    }
    let mut next = [0u8; LOOKED_AT];
    peek(&mut next, buffer + end, len - end).is_some_and(|looked_at| looked_at >= 9 && is_frame(&next))
}

/// Tells the engine of a connection that is captured from here on.
#[inline(never)]
fn open(sk: u64, socket: &Socket, direction: Direction, now: u64, open_flags: u16) {
    let Some(ring) = RINGS.get(socket.conn.home) else { return };
    let mut header = header(&socket.conn, Kind::Open, direction, now);
    header.flags = open_flags;
    if socket.traits & traits::UNIX != 0 {
        header.len = size_of::<UnixOpenInfo>() as u32;
        return emit::in_place::<UnixOpenInfo>(ring, &header, |place| {
            // SAFETY: the slot's memory, each part of which is written.
            unsafe {
                conn::write_open_info(&raw mut (*place).info, transport::UNIX);
                sock::endpoints(sk, AF_UNIX, &raw mut (*place).info.endpoints);
                sock::unix_path(sk, &raw mut (*place).path);
            }
        });
    }
    header.len = size_of::<OpenInfo>() as u32;
    let family = sock::stream_family(sk).unwrap_or(0);
    emit::in_place::<OpenInfo>(ring, &header, |place| {
        // SAFETY: as above.
        unsafe {
            conn::write_open_info(place, transport::INET);
            sock::endpoints(sk, family, &raw mut (*place).endpoints);
        }
    });
}

/// A call that moved nothing: the end of what the peer sends, or an error.
#[inline(always)]
fn failed(sk: u64, result: i32, direction: Direction) {
    batch_failed();
    let Some(socket) = SOCKETS.get_ptr_mut(&sk) else { return };
    // SAFETY: as in `called`.
    let socket = unsafe { &mut *socket };
    if socket.conn.verdict != verdict::CAPTURE {
        return;
    }
    let is_read = direction as u32 == Direction::Read as u32;
    if is_read || result == EPIPE {
        socket.conn.read_failed(Some(true));
    }
    // Nothing more is to come: of a TCP socket that was reset before the process closed it, or of a
    // UNIX socket's answer, because nothing else tells that it is closed.
    let over = if socket.traits & traits::UNIX != 0 {
        is_read && socket.traits & traits::CLIENT != 0
    } else {
        sock::is_over(sk)
    };
    if over {
        end(sk, 0);
    }
}

/// A socket that isn't known: remembered as met in the middle when it is a stream.
#[inline(always)]
fn met(sk: u64) -> Option<*mut Socket> {
    let family = sock::stream_family(sk)?;
    if family == AF_UNIX {
        remember(sk, verdict::MIDWAY, sock::inode(sk), traits::UNIX);
    } else {
        remember(sk, verdict::MIDWAY, 0, 0);
    }
    SOCKETS.get_ptr_mut(&sk)
}

#[inline(never)]
fn remember(sk: u64, verdict: u32, inode_or_ssl: u64, traits: u32) {
    let conn = Conn {
        id: 0,
        offset: [0; 2],
        accounted_ns: [0; 2],
        home: 0,
        calls: 0,
        verdict,
        failed_reads: 0,
        reads: 0,
        carrier: 0,
        tgid: 0,
    };
    if SOCKETS.insert(&sk, &Socket { conn, inode_or_ssl, traits, pad: 0 }, BPF_ANY as u64).is_err() {
        count_drop(DropCause::ConnMapFull, 0);
    }
}

/// Tells the end of a connection and forgets its socket.
#[inline(never)]
fn end(sk: u64, reason: u16) {
    let Some(socket) = SOCKETS.get_ptr(&sk) else { return };
    // SAFETY: read at once.
    let socket = unsafe { *socket };
    if SOCKETS.remove(&sk).is_err() {
        return;
    }
    if socket.traits & traits::COUNTED != 0 {
        count(Total::ConnsClosed, 0);
    }
    if socket.conn.verdict == verdict::CAPTURE {
        conn::closed(&socket.conn, reason);
    }
}
