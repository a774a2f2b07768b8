//! What is known of a connection, and what its bytes are worth.

use agentsight_abi::{
    Conn, ConnKey, Direction, DropCause, FirstBytes, Kind, OpenInfo, RecordHeader, Total, VERDICT_EVERY,
    carrier::{records, state},
    first_bytes::{LOOKED_AT, first_bytes},
    flags,
    socket::transport,
    verdict,
};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_probe_read_user_buf,
        generated::bpf_get_current_cgroup_id,
    },
};

use crate::{
    carrier, emit,
    helpers::{now_ns, this_cpu},
    maps::{CONNS, RINGS, VERDICTS, config, count, count_drop, next_conn_id, sees_sockets},
    pid,
};

/// The key of the calling process's connection `ssl`.
#[inline(always)]
pub fn key(ssl: u64) -> ConnKey {
    ConnKey { tgid: pid::tgid(), pad: 0, ssl }
}

/// True when calls on this connection are not to be looked at any more.
#[inline(always)]
pub fn ignored(key: &ConnKey) -> bool {
    verdict_of(key) == verdict::IGNORE
}

/// A call of a C library on this connection begins. `None` when it is not to be looked at, else what is to
/// be put into [`agentsight_abi::Call::direction`] beside the direction: with [`carrier::WAITS`],
/// [`carrier::leaving`] is to be called when the call returns.
#[inline(always)]
pub fn entering(key: &ConnKey, direction: Direction) -> Option<u64> {
    entering_known(CONNS.get_ptr(key), key.ssl, direction)
}

/// The same of a connection that was looked up, if it is known.
#[inline(always)]
pub fn entering_known(known: Option<*const Conn>, ssl: u64, direction: Direction) -> Option<u64> {
    // SAFETY: read at once; a slot that is reused meanwhile gives at worst one call's wrong answer.
    let (verdict, carrier) = known.map_or((verdict::MIDWAY, 0), |conn| unsafe { ((*conn).verdict, (*conn).carrier) });
    let waits = match verdict {
        verdict::IGNORE => return None,
        verdict::CAPTURE => direction as u32 == Direction::Write as u32 && carrier < state::WRITES_MAX,
        _ => true,
    };
    Some(if waits && sees_sockets() { carrier::entering(ssl) } else { 0 })
}

/// A connection that isn't known was met in the middle.
#[inline(always)]
fn verdict_of(key: &ConnKey) -> u32 {
    // SAFETY: read at once; a slot that is reused meanwhile gives at worst one call's wrong answer.
    CONNS.get_ptr(key).map_or(verdict::MIDWAY, |conn| unsafe { (*conn).verdict })
}

/// Remembers a connection; `verdict` is FRESH when it has transferred nothing yet.
#[inline(always)]
pub fn remember(key: &ConnKey, verdict: u32) {
    let home = this_cpu();
    let conn = Conn {
        id: next_conn_id(home),
        offset: [0; 2],
        accounted_ns: [0; 2],
        home,
        calls: 0,
        verdict,
        failed_reads: 0,
        reads: 0,
        carrier: 0,
        tgid: key.tgid,
    };
    match CONNS.insert(key, &conn, BPF_ANY as u64) {
        Ok(()) => count(Total::ConnsOpened, 0),
        Err(_) => count_drop(DropCause::ConnMapFull, 0),
    }
}

/// Remembers a connection that was made just now. `SSL_new` may have called `SSL_clear`, which has
/// remembered it already; anything else that is known of its address is of an object that is gone.
#[inline(always)]
pub fn made(key: &ConnKey) {
    if let Some(conn) = CONNS.get_ptr(key) {
        // SAFETY: read at once, by the thread that is making the object.
        if unsafe { (*conn).verdict } == verdict::FRESH {
            return;
        }
        end(key, 0);
    }
    remember(key, verdict::FRESH);
}

/// True while why the last read failed is open.
#[inline(always)]
pub fn wonders(ssl: u64) -> bool {
    // SAFETY: read at once.
    CONNS.get_ptr(&key(ssl)).is_some_and(|conn| unsafe { (*conn).wonders() })
}

/// Tells the end of a connection and forgets it.
#[inline(always)]
pub fn end(key: &ConnKey, reason: u16) {
    let Some(conn) = CONNS.get_ptr(key) else { return };
    // SAFETY: the object that this entry stands for is being ended by this very thread.
    let conn = unsafe { *conn };
    if CONNS.remove(key).is_ok() {
        count(Total::ConnsClosed, 0);
    }
    if conn.verdict != verdict::CAPTURE {
        return;
    }
    closed(&conn, reason);
}

/// Tells the end of a captured connection.
#[inline(always)]
pub fn closed(conn: &Conn, reason: u16) {
    let Some(ring) = RINGS.get(conn.home) else { return };
    let mut header = header(conn, Kind::Close, Direction::Write, now_ns());
    header.tgid = conn.tgid;
    header.offset = conn.offset[Direction::Read as usize];
    header.lost = conn.offset[Direction::Write as usize];
    header.flags = if conn.peer_closed() { reason | flags::PEER_CLOSED } else { reason };
    emit::bare(ring, &header);
}

/// Accounts for a call that moved `len` bytes at `buffer`, and copies them if they are wanted. What a call
/// of the same direction and connection inside of it has accounted for is left out. What was written has
/// been sent inside the call, or is sent by this thread next.
#[inline(always)]
pub fn transferred(ssl: u64, direction: Direction, buffer: u64, len: u64, entered_ns: u64) {
    let unsent = if direction as u32 == Direction::Write as u32 { len } else { 0 };
    account::<true>(ssl, direction, buffer, len, (entered_ns, entered_ns), unsent);
}

/// As [`transferred`], of the beginning of a record with `record_len` bytes of plaintext in all.
#[inline(always)]
pub fn encrypted(ssl: u64, direction: Direction, buffer: u64, len: u64, record_len: u64) {
    let now = now_ns();
    account::<false>(ssl, direction, buffer, len, (now, now), record_len);
}

/// As [`transferred`], of a library whose calls are not made of each other: another call of the direction
/// may have been accounted for since this one began, by a thread that was late to do it.
#[inline(always)]
pub fn transferred_alone(ssl: u64, direction: Direction, buffer: u64, len: u64, entered_ns: u64) {
    account::<false>(ssl, direction, buffer, len, (entered_ns, u64::MAX), 0);
}

/// `IN_CALLS`: the library itself may use the socket, so that its calls tell; otherwise what is sent tells, at once.
/// `inner_since_ns`: what was accounted for later than this holds these bytes already. `unsent` are the bytes
/// that this thread sends next.
#[inline(always)]
fn account<const IN_CALLS: bool>(
    ssl: u64,
    direction: Direction,
    buffer: u64,
    len: u64,
    (entered_ns, inner_since_ns): (u64, u64),
    unsent: u64,
) {
    let key = key(ssl);
    let found = match CONNS.get_ptr_mut(&key) {
        Some(conn) => Some(conn),
        None => {
            remember(&key, verdict::MIDWAY);
            CONNS.get_ptr_mut(&key)
        }
    };
    let Some(conn) = found else { return };
    let now = now_ns();
    // SAFETY: the entry was found just now. An `SSL` object must not be used by two threads at once
    // (SSL_new(3), threads), so nobody else changes it.
    let conn = unsafe { &mut *conn };
    let way = (direction as usize) & 1;
    // An inner call of this direction has accounted for these bytes already.
    if conn.accounted_ns[way] > inner_since_ns {
        return;
    }
    conn.accounted_ns[way] = now;
    if way == Direction::Read as usize {
        conn.read_data();
    }
    let offset = conn.offset[way];
    conn.offset[way] = offset + len;
    conn.calls = conn.calls.wrapping_add(1);
    let begun_ns = if way == Direction::Write as usize { entered_ns } else { now };
    if conn.verdict != verdict::CAPTURE {
        let decided = decide(conn, &key, direction, buffer, len, begun_ns);
        carrier::forget();
        if !decided {
            return;
        }
    } else if IN_CALLS && (conn.carrier == state::FOUND || unsent != 0 && conn.carrier < state::WRITES_MAX) {
        carrier::settle(conn, &key);
    }
    if unsent != 0 {
        carrier::wrote(conn, ssl, unsent, records::FULL);
    }
    if given_up(conn) {
        return;
    }
    let mut header = header(conn, Kind::Data, direction, begun_ns);
    header.offset = offset;
    emit::transfer(conn.home, &mut header, buffer, len);
}

/// Accounts for a call of `len` bytes that can't be looked at for this cause: they are a gap.
#[inline(always)]
pub fn missed(key: &ConnKey, direction: Direction, len: u64, cause: DropCause) {
    if let Some(conn) = CONNS.get_ptr_mut(key) {
        // SAFETY: as in `transferred`, but that another thread may be at the other fields.
        let conn = unsafe { &mut *conn };
        conn.offset[(direction as usize) & 1] += len;
        if conn.verdict == verdict::FRESH {
            conn.verdict = verdict::MIDWAY;
        }
    }
    count_drop(cause, len);
}

/// Bytes of this connection that are in the ring may be wrong: the connection is ended, and met anew.
#[inline(always)]
pub fn spoilt(key: &ConnKey, len: u64) {
    end(key, flags::SPOILT);
    count_drop(DropCause::ConnBusy, len);
}

/// Looks now and then whether the engine has given the connection up.
#[inline(always)]
pub fn given_up(conn: &mut Conn) -> bool {
    let gone = conn.calls & (VERDICT_EVERY - 1) == 0 && VERDICTS.get_ptr(&conn.id).is_some();
    if gone {
        conn.verdict = verdict::IGNORE;
    }
    gone
}

/// Accounts for a read that gave no data; `tells` is whether that was the end, when the return value
/// alone says so.
#[inline(always)]
pub fn read_failed(ssl: u64, tells: Option<bool>) {
    if let Some(conn) = CONNS.get_ptr_mut(&key(ssl)) {
        // SAFETY: as in `transferred`.
        unsafe { (*conn).read_failed(tells) };
    }
}

/// Looks at the first bytes of a call on a connection without a verdict; true when it is to be
/// captured from this call on.
#[inline(always)]
fn decide(conn: &mut Conn, key: &ConnKey, direction: Direction, buffer: u64, len: u64, now: u64) -> bool {
    if conn.verdict == verdict::IGNORE {
        return false;
    }
    let fresh = conn.verdict == verdict::FRESH;
    let mut bytes = [0u8; LOOKED_AT];
    let Some(looked_at) = peek(&mut bytes, buffer, len) else {
        // Unknown bytes decide nothing; the next call may.
        conn.verdict = verdict::MIDWAY;
        count_drop(DropCause::UserFault, len);
        return false;
    };
    let seen = first_bytes(&bytes, looked_at);
    if !(seen.is_head() || seen == FirstBytes::Frame) {
        if fresh {
            conn.verdict = verdict::IGNORE;
            count(Total::ConnsIgnored, 0);
        }
        return false;
    }
    if seen.is_unwanted(direction, fresh, config().unwanted) {
        conn.verdict = verdict::IGNORE;
        count(Total::ConnsIgnored, 0);
        return false;
    }
    if let Some(ring) = RINGS.get(conn.home) {
        let mut header = header(conn, Kind::Open, direction, now);
        header.len = size_of::<OpenInfo>() as u32;
        header.flags = if fresh { 0 } else { flags::MIDWAY };
        let ends = carrier::untold(conn, key);
        emit::in_place::<OpenInfo>(ring, &header, |place| {
            // SAFETY: the slot's memory, each part of which is written.
            unsafe {
                write_open_info(place, transport::TLS);
                carrier::write_ends(&raw mut (*place).endpoints, ends);
            }
        });
        if !ends.is_null() {
            carrier::told(conn, key);
        }
    }
    // Only now: where one thread reads while another writes (Go), the other's record must not come
    // before. Both may find the connection undecided; user space takes the first opening.
    conn.verdict = verdict::CAPTURE;
    true
}

/// Reads a call's first bytes, in steps that the verifier can bound; a few bytes less than there are
/// change no decision. `None` when they can't be read.
#[inline(always)]
pub fn peek(bytes: &mut [u8; LOOKED_AT], buffer: u64, len: u64) -> Option<usize> {
    let looked_at = match len {
        0..16 => core::hint::black_box(len as usize) & 15,
        16..24 => 16,
        _ => LOOKED_AT,
    };
    // SAFETY: `looked_at` is at most the buffer's length.
    let read = unsafe { bpf_probe_read_user_buf(buffer as *const u8, bytes.get_unchecked_mut(..looked_at)) };
    read.is_ok().then_some(looked_at)
}

/// Writes what is told of a connection when it is captured, but for its ends.
///
/// # Safety
/// `place` is memory for an [`OpenInfo`].
#[inline(always)]
pub unsafe fn write_open_info(place: *mut OpenInfo, transport: u32) {
    // SAFETY: as promised; a helper without arguments.
    unsafe {
        (*place).comm = bpf_get_current_comm().unwrap_or_default();
        (*place).cgroup = bpf_get_current_cgroup_id();
        (*place).uid = bpf_get_current_uid_gid() as u32;
        (*place).transport = transport;
    }
}

/// A header for a record of this connection by the calling thread.
#[inline(always)]
pub fn header(conn: &Conn, kind: Kind, direction: Direction, ktime_ns: u64) -> RecordHeader {
    RecordHeader {
        conn: conn.id,
        ktime_ns,
        offset: 0,
        lost: 0,
        tgid: pid::tgid(),
        tid: bpf_get_current_pid_tgid() as u32,
        len: 0,
        kind: kind as u8,
        direction: direction as u8,
        flags: 0,
    }
}
