//! Uprobes on GnuTLS (gnutls/gnutls.h): a session is a connection, and the number that a function
//! returns is that of the bytes transferred, 0 at the end, or an error below 0.
//!
//! What is corked was accounted for when it was handed over, so what `gnutls_record_uncork` then sends
//! by calling `gnutls_record_send` itself is left out. A send that is repeated without a buffer, which
//! the library allows after GNUTLS_E_AGAIN, counts as bytes that couldn't be read: the buffer may be gone.

use agentsight_abi::{Call, CallKey, Direction, DropCause, gnutls};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};

use crate::{
    conn,
    helpers::now_ns,
    maps::{CALLS, count_drop},
    select::selected,
    ssl::{enter, stack_pointer, take_call},
};

/// `ssize_t gnutls_record_send(gnutls_session_t session, const void *data, size_t data_size)`, and
/// `gnutls_record_send2`, which has more arguments behind these.
#[uprobe]
pub fn gnutls_send(ctx: ProbeContext) -> u32 {
    let session = ctx.arg::<u64>(0).unwrap_or(0);
    if CALLS.get_ptr(&uncork_key(session)).is_some() {
        return 0;
    }
    enter(&ctx, Direction::Write, 0)
}

/// `ssize_t gnutls_record_recv(gnutls_session_t session, void *data, size_t data_size)`, and
/// `gnutls_record_recv_seq`, which has one more argument.
#[uprobe]
pub fn gnutls_recv(ctx: ProbeContext) -> u32 {
    enter(&ctx, Direction::Read, 0)
}

/// The return of any of them.
#[uretprobe]
pub fn gnutls_return(ctx: RetProbeContext) -> u32 {
    let Some(call) = take_call(&ctx) else { return 0 };
    let returned: i64 = ctx.ret();
    if returned > 0 && returned >> 48 == 0 {
        let direction = if call.direction == Direction::Write as u64 { Direction::Write } else { Direction::Read };
        conn::transferred(call.ssl, direction, call.buffer, returned as u64, call.entered_ns);
    } else if call.direction == Direction::Read as u64 {
        conn::read_failed(call.ssl, Some(gnutls::is_end(returned as i32)));
    }
    0
}

/// `int gnutls_record_uncork(gnutls_session_t session, unsigned int flags)`
#[uprobe]
pub fn gnutls_uncork(ctx: ProbeContext) -> u32 {
    let Some(session) = ctx.arg::<u64>(0) else { return 0 };
    if selected() && stash(&ctx, session, 0) {
        let call = Call { ssl: session, buffer: 0, count: 0, entered_ns: now_ns(), direction: Direction::Write as u64 };
        let _ = CALLS.insert(&uncork_key(session), &call, BPF_ANY as u64);
    }
    0
}

#[uretprobe]
pub fn gnutls_uncork_return(ctx: RetProbeContext) -> u32 {
    if let Some(call) = take_call(&ctx) {
        let _ = CALLS.remove(&uncork_key(call.ssl));
    }
    0
}

/// `int gnutls_init(gnutls_session_t *session, unsigned int flags)`
#[uprobe]
pub fn gnutls_init(ctx: ProbeContext) -> u32 {
    if let Some(place) = ctx.arg::<u64>(0)
        && selected()
    {
        stash(&ctx, 0, place);
    }
    0
}

#[uretprobe]
pub fn gnutls_init_return(ctx: RetProbeContext) -> u32 {
    let Some(call) = take_call(&ctx) else { return 0 };
    if ctx.ret::<u64>() as i32 != 0 {
        return 0;
    }
    // SAFETY: the helper copes with any address.
    if let Ok(session) = unsafe { bpf_probe_read_user(call.buffer as *const u64) }
        && session != 0
    {
        conn::made(&conn::key(session));
    }
    0
}

/// `ssize_t gnutls_record_recv_packet(gnutls_session_t session, gnutls_packet_t *packet)`
#[uprobe]
pub fn gnutls_recv_packet(ctx: ProbeContext) -> u32 {
    enter(&ctx, Direction::Read, 0)
}

/// The packet has the bytes; where they are tells `gnutls_packet_get`.
#[uretprobe]
pub fn gnutls_recv_packet_return(ctx: RetProbeContext) -> u32 {
    let Some(call) = take_call(&ctx) else { return 0 };
    let returned: i64 = ctx.ret();
    if returned <= 0 {
        conn::read_failed(call.ssl, Some(gnutls::is_end(returned as i32)));
        return 0;
    }
    // SAFETY: the helper copes with any address.
    if let Ok(packet) = unsafe { bpf_probe_read_user(call.buffer as *const u64) }
        && packet != 0
        && CALLS.insert(&packet_key(packet), &call, BPF_ANY as u64).is_err()
    {
        count_drop(DropCause::CallMapFull, returned as u64);
    }
    0
}

/// `void gnutls_packet_get(gnutls_packet_t packet, gnutls_datum_t *data, unsigned char *sequence)`
#[uprobe]
pub fn gnutls_packet_get(ctx: ProbeContext) -> u32 {
    let (Some(packet), Some(datum)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else { return 0 };
    let key = packet_key(packet);
    if let Some(received) = CALLS.get_ptr(&key) {
        // SAFETY: read at once; a packet belongs to whoever received it.
        let session = unsafe { (*received).ssl };
        // A second look at the packet brings nothing new.
        let _ = CALLS.remove(&key);
        stash(&ctx, session, datum);
    }
    0
}

/// `gnutls_datum_t` is `{ unsigned char *data; unsigned int size; }`.
#[uretprobe]
pub fn gnutls_packet_get_return(ctx: RetProbeContext) -> u32 {
    let Some(call) = take_call(&ctx) else { return 0 };
    // SAFETY: the helper copes with any address.
    let (data, size) = unsafe {
        (bpf_probe_read_user(call.buffer as *const u64), bpf_probe_read_user((call.buffer + 8) as *const u32))
    };
    if let (Ok(data), Ok(size)) = (data, size)
        && size != 0
    {
        conn::transferred(call.ssl, Direction::Read, data, size as u64, call.entered_ns);
    }
    0
}

/// Remembers a call until it returns.
#[inline(always)]
fn stash(ctx: &ProbeContext, session: u64, buffer: u64) -> bool {
    let key = CallKey { pid_tgid: bpf_get_current_pid_tgid(), stack: stack_pointer(ctx.regs) };
    let call = Call { ssl: session, buffer, count: 0, entered_ns: now_ns(), direction: Direction::Read as u64 };
    let refused = CALLS.insert(&key, &call, BPF_ANY as u64).is_err();
    if refused {
        count_drop(DropCause::CallMapFull, 0);
    }
    !refused
}

/// The key under which a thread remembers that it is uncorking. A stack pointer is even.
#[inline(always)]
fn uncork_key(session: u64) -> CallKey {
    CallKey { pid_tgid: bpf_get_current_pid_tgid(), stack: session | 1 }
}

/// The key under which a process remembers a packet. No thread's id is 0.
#[inline(always)]
fn packet_key(packet: u64) -> CallKey {
    CallKey { pid_tgid: bpf_get_current_pid_tgid() >> 32 << 32, stack: packet }
}
