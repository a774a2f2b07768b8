//! Which socket carries a TLS connection, as `agentsight_abi::carrier` tells it: seen from the calls of TLS
//! libraries, and from the sockets that a thread sends on.

use core::ffi::{c_long, c_void};

use agentsight_abi::{
    Conn, ConnKey, Direction, Kind,
    carrier::{
        RECORD_HEADER_BYTES, RECORDS_MAX, THREADS_MAX, Thread, Write, Writes, data_bytes, inside, is_record,
        record_bytes, state,
    },
    socket::{AF_UNIX, Endpoints, Socket, traits},
    verdict,
};
use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::{LruHashMap, PerCpuArray},
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated::bpf_loop},
    macros::btf_map,
};

use crate::{
    conn, emit,
    helpers::now_ns,
    maps::{CONNS, RINGS, THREADS, sees_sockets},
    sock,
    source::{Source, source},
};

/// The ends of connections whose state is [`state::FOUND`].
#[btf_map]
static ENDS: LruHashMap<ConnKey, Endpoints, THREADS_MAX> = LruHashMap::new();

/// Bit of [`agentsight_abi::Call::direction`] of a call that waits to be told its socket.
pub const WAITS: u64 = 1 << 32;

const UNKNOWN: Endpoints = Endpoints { family: 0, local_port: 0, peer_port: 0, pad: 0, local: [0; 16], peer: [0; 16] };

/// What is known of a thread at first.
static NEW: Thread = Thread { ends: UNKNOWN, ssl: 0, inside: inside::NO, writes: Writes::NONE };

/// What is known of the calling thread; `None` when the map refuses it.
#[inline(always)]
fn this_thread() -> Option<&'static mut Thread> {
    let id = bpf_get_current_pid_tgid();
    let found = match THREADS.get_ptr_mut(&id) {
        Some(known) => Some(known),
        None => {
            let _ = THREADS.insert(&id, &NEW, BPF_ANY as u64);
            THREADS.get_ptr_mut(&id)
        }
    };
    // SAFETY: only this thread uses its key, and programs hold no other reference at once.
    found.map(|known| unsafe { &mut *known })
}

/// A call on connection `ssl` begins: the socket that this thread uses inside is taken for the connection's.
/// [`WAITS`], for [`leaving`] to be called when it returns, or 0.
#[inline(always)]
pub fn entering(ssl: u64) -> u64 {
    let Some(thread) = this_thread() else { return 0 };
    thread.ends.family = 0;
    thread.ssl = ssl;
    thread.inside = inside::YES;
    WAITS
}

/// The call has returned: what this thread uses from here on has nothing to do with it.
#[inline(always)]
pub fn leaving() {
    set_inside(inside::RETURNED);
}

/// What the call was told is of no more use.
#[inline(always)]
pub fn forget() {
    if sees_sockets() {
        set_inside(inside::NO);
    }
}

#[inline(always)]
fn set_inside(inside: u64) {
    if let Some(thread) = THREADS.get_ptr_mut(&bpf_get_current_pid_tgid()) {
        // SAFETY: as in `this_thread`.
        unsafe { (*thread).inside = inside };
    }
}

/// The ends of the socket that carries a connection, where they are known and the engine isn't told yet; else
/// null, and not `None`: of that a compiler keeps a pointer which nobody has written, and the verifier refuses it.
#[inline(always)]
pub fn untold(conn: &Conn, key: &ConnKey) -> *const Endpoints {
    const NONE: *const Endpoints = core::ptr::null();
    if !sees_sockets() {
        return NONE;
    }
    if conn.carrier == state::FOUND {
        return ENDS.get_ptr(key).unwrap_or(NONE);
    }
    let Some(thread) = THREADS.get_ptr(&bpf_get_current_pid_tgid()) else { return NONE };
    // SAFETY: as in `this_thread`.
    let thread = unsafe { &*thread };
    let was_told = thread.inside == inside::RETURNED && thread.ssl == key.ssl && thread.ends.family != 0;
    if was_told { &raw const thread.ends } else { NONE }
}

/// The engine is told.
#[inline(always)]
pub fn told(conn: &mut Conn, key: &ConnKey) {
    if conn.carrier == state::FOUND {
        let _ = ENDS.remove(key);
    }
    conn.carrier = state::TOLD;
}

/// Writes the ends that were [`untold`]; of family 0 when they aren't known.
#[inline(always)]
pub fn write_ends(place: *mut Endpoints, found: *const Endpoints) {
    // SAFETY: null or a value of a map, and the caller's memory.
    unsafe { place.write(if found.is_null() { UNKNOWN } else { *found }) };
}

/// Tells the engine of the socket of a connection that was captured without, if it is known by now.
#[inline(never)]
pub fn settle(conn: &mut Conn, key: &ConnKey) {
    // It goes from the map into the ring: what lies on the stack counts against the calls around this one.
    let found = untold(conn, key);
    if !found.is_null()
        && let Some(ring) = RINGS.get(conn.home)
    {
        // SAFETY: a value of a map.
        emit::with_payload(ring, &header(conn), unsafe { &*found });
        told(conn, key);
    }
    forget();
}

#[inline(always)]
fn header(conn: &Conn) -> agentsight_abi::RecordHeader {
    let mut header = conn::header(conn, Kind::Ends, Direction::Write, now_ns());
    header.len = size_of::<Endpoints>() as u32;
    header
}

/// `len` bytes of plaintext were written, or are being written, to a connection whose socket isn't known:
/// this thread sends them next.
#[inline(always)]
pub fn wrote(conn: &mut Conn, ssl: u64, len: u64, records: u32) {
    if conn.carrier < state::WRITES_MAX && sees_sockets() {
        conn.carrier += 1;
        remember(ssl, conn.id, len, records as u64);
    }
}

#[inline(never)]
fn remember(ssl: u64, conn: u64, len: u64, records: u64) {
    let Some(thread) = this_thread() else { return };
    let len = if len < u32::MAX as u64 { len as u32 } else { u32::MAX };
    thread.writes.add(&Write { ssl, conn, at_ns: now_ns(), len, records: records as u32 });
}

/// Whether the calling thread uses a socket inside a TLS call that waits for it, which is then told.
#[inline(always)]
pub fn is_inside(sk: u64, socket: &mut Socket) -> bool {
    // SAFETY: as in `this_thread`.
    THREADS
        .get_ptr_mut(&bpf_get_current_pid_tgid())
        .is_some_and(|thread| unsafe { (*thread).inside == inside::YES && tell(sk, socket, &mut *thread) })
}

#[inline(always)]
fn tell(sk: u64, socket: &mut Socket, thread: &mut Thread) -> bool {
    let Some(family) = sock::stream_family(sk) else { return false };
    sock::endpoints(sk, family, &raw mut thread.ends);
    if socket.traits & traits::UNIX == 0 && socket.inode_or_ssl == 0 {
        socket.inode_or_ssl = thread.ssl;
    }
    true
}

/// The calling thread uses a socket with TLS; `moved` bytes, or it has to wait.
#[inline(always)]
pub fn used(sk: u64, socket: &mut Socket, direction: Direction, moved: i32) {
    let Some(thread) = THREADS.get_ptr_mut(&bpf_get_current_pid_tgid()) else { return };
    // SAFETY: as in `this_thread`.
    let thread = unsafe { &mut *thread };
    if thread.inside == inside::YES {
        tell(sk, socket, thread);
    } else if direction as u32 == Direction::Write as u32 && may_carry(socket, &thread.writes) {
        let moved = if moved > 0 { moved as u32 } else { 0 };
        sent(sk, socket, &source(moved));
    }
}

/// As [`used`], of the call that has shown that a socket has TLS.
#[inline(always)]
pub fn met(sk: u64, socket: &mut Socket, from: &Source) {
    if let Some(thread) = THREADS.get_ptr_mut(&bpf_get_current_pid_tgid()) {
        // SAFETY: as in `this_thread`.
        if may_carry(socket, unsafe { &(*thread).writes }) {
            sent(sk, socket, from);
        }
    }
}

/// A socket carries one connection, which may have been met anew.
#[inline(always)]
fn may_carry(socket: &Socket, writes: &Writes) -> bool {
    writes.any() && (socket.inode_or_ssl == 0 || writes.has(socket.inode_or_ssl))
}

/// A walk over the records at the start of what is sent.
#[repr(C)]
#[derive(Clone, Copy)]
struct Walk {
    /// Address of the next entry of the array of buffers.
    entries: u64,
    /// Entries to go.
    count: u64,
    /// Address of the next record.
    at: u64,
    /// Bytes to go in this buffer.
    here: u64,
    /// The write that the records are of, once it is found.
    found: Write,
}

/// It lies in a map as that of `socket` does, and only the program for what is sent uses it.
#[btf_map]
static RECORDS: PerCpuArray<Walk, 1> = PerCpuArray::new();

#[inline(always)]
fn this_walk() -> Option<&'static mut Walk> {
    // SAFETY: this CPU's slot.
    RECORDS.get_ptr_mut(0).map(|walk| unsafe { &mut *walk })
}

/// Looks whether the first records of what is sent are those of a write that is on its way.
#[inline(never)]
fn sent(sk: u64, socket: &mut Socket, from: &Source) {
    let Some(walk) = this_walk() else { return };
    // How much a single buffer has doesn't matter.
    let (count, here) = if from.vectors == 0 { (0, u64::MAX) } else { (from.vectors as u64, 0) };
    *walk = Walk { entries: from.at, count, at: from.at, here, found: Write::default() };
    // SAFETY: the callback takes no context.
    unsafe { bpf_loop(2 * RECORDS_MAX, step as *mut c_void, core::ptr::null_mut(), 0) };
    if walk.found.conn != 0 {
        bind(sk, socket, &walk.found, from.fd);
    }
}

/// One record, or one entry of the array; 1 ends the walk.
#[inline(never)]
extern "C" fn step(_: u64, _: *mut c_void) -> c_long {
    let (Some(walk), Some(thread)) = (this_walk(), THREADS.get_ptr_mut(&bpf_get_current_pid_tgid())) else { return 1 };
    if walk.here == 0 {
        if walk.count == 0 {
            return 1;
        }
        // SAFETY: the helper copes with any address.
        let Ok(entry) = (unsafe { bpf_probe_read_user(walk.entries as *const [u64; 2]) }) else { return 1 };
        [walk.at, walk.here] = entry;
        walk.entries += 16;
        walk.count -= 1;
        return 0;
    }
    // SAFETY: as above.
    let Ok(record) = (unsafe { bpf_probe_read_user(walk.at as *const [u8; RECORD_HEADER_BYTES]) }) else { return 1 };
    let whole = RECORD_HEADER_BYTES as u64 + record_bytes(&record) as u64;
    if walk.here < RECORD_HEADER_BYTES as u64 || !is_record(&record) {
        return 1;
    }
    if let Some(len) = data_bytes(&record) {
        // SAFETY: as in `this_thread`.
        if let Some(write) = unsafe { (*thread).writes.take(len, now_ns()) } {
            walk.found = write;
            return 1;
        }
    }
    if walk.here < whole {
        return 1;
    }
    walk.at += whole;
    walk.here -= whole;
    0
}

/// The socket carries the connection that the write was made to.
#[inline(never)]
fn bind(sk: u64, socket: &mut Socket, write: &Write, fd: u64) {
    let known = socket.inode_or_ssl;
    if write.conn == 0 || known != 0 && known != write.ssl || !sock::is_descriptor(sk, fd) {
        return;
    }
    let Some(family) = sock::stream_family(sk) else { return };
    let key = conn::key(write.ssl);
    let Some(conn) = CONNS.get_ptr_mut(&key) else { return };
    // SAFETY: found just now; nobody else changes the field while its socket isn't known.
    let conn = unsafe { &mut *conn };
    if family == AF_UNIX || conn.id != write.conn || conn.carrier >= state::FOUND {
        return;
    }
    socket.inode_or_ssl = write.ssl;
    if conn.verdict == verdict::CAPTURE {
        conn.carrier = state::TOLD;
        if let Some(ring) = RINGS.get(conn.home) {
            emit::in_place::<Endpoints>(ring, &header(conn), |place| sock::endpoints(sk, family, place));
        }
        return;
    }
    let mut ends = UNKNOWN;
    sock::endpoints(sk, family, &raw mut ends);
    if ENDS.insert(&key, &ends, BPF_ANY as u64).is_ok() {
        conn.carrier = state::FOUND;
    }
}
