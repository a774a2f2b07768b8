//! Uprobes on the functions of OpenSSL's API (SSL_read(3), SSL_write(3), SSL_get_error(3), SSL_new(3),
//! SSL_clear(3), SSL_free(3)), which LibreSSL and BoringSSL share.

use agentsight_abi::{
    Call, CallKey, Direction, DropCause,
    call::{DIRECTION, ZERO_ENDS},
    end_by_error, flags, verdict,
};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};

use crate::{
    carrier, conn,
    helpers::now_ns,
    maps::{CALLS, count_drop},
    select::selected,
};

#[uprobe]
pub fn ssl_write(ctx: ProbeContext) -> u32 {
    enter(&ctx, Direction::Write, 0)
}

#[uprobe]
pub fn ssl_read(ctx: ProbeContext) -> u32 {
    enter(&ctx, Direction::Read, 0)
}

/// `int SSL_write_ex(SSL *s, const void *buf, size_t num, size_t *written)`
#[uprobe]
pub fn ssl_write_ex(ctx: ProbeContext) -> u32 {
    enter(&ctx, Direction::Write, ctx.arg(3).unwrap_or(0))
}

/// `int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes)`
#[uprobe]
pub fn ssl_read_ex(ctx: ProbeContext) -> u32 {
    enter(&ctx, Direction::Read, ctx.arg(3).unwrap_or(0))
}

/// `int SSL_write_ex2(SSL *s, const void *buf, size_t num, uint64_t flags, size_t *written)`
#[uprobe]
pub fn ssl_write_ex2(ctx: ProbeContext) -> u32 {
    enter(&ctx, Direction::Write, ctx.arg(4).unwrap_or(0))
}

/// `ossl_ssize_t SSL_sendfile(SSL *s, int fd, off_t offset, size_t size, int flags)`: the kernel encrypts
/// what no buffer of the process ever holds, so the bytes count as bytes that couldn't be read.
#[uprobe]
pub fn ssl_sendfile(ctx: ProbeContext) -> u32 {
    let Some(ssl) = ctx.arg::<u64>(0) else { return 0 };
    enter_with(&ctx, ssl, 0, Direction::Write as u64, 0)
}

/// What `SSL_read` and `SSL_read_ex` are made of: the arguments of the one, and of what the other
/// returns the part that isn't a count.
#[uprobe]
pub fn ssl_read_inner(ctx: ProbeContext) -> u32 {
    let (Some(ssl), Some(buffer)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else { return 0 };
    enter_with(&ctx, ssl, buffer, Direction::Read as u64 | ZERO_ENDS, ctx.arg(3).unwrap_or(0))
}

/// The return of any of them.
#[uretprobe]
pub fn ssl_return(ctx: RetProbeContext) -> u32 {
    let Some(call) = take_call(&ctx) else { return 0 };
    // The functions return an int; only the low half of the register counts.
    let returned = ctx.ret::<u64>() as i32;
    if returned <= 0 {
        if call.direction & DIRECTION != Direction::Write as u64 {
            let tells = match returned {
                0 if call.direction & ZERO_ENDS != 0 => Some(true),
                _ if call.count == 0 => Some(returned == 0),
                _ => None,
            };
            conn::read_failed(call.ssl, tells);
        }
        return 0;
    }
    let len = if call.count == 0 {
        returned as u64
    } else {
        // SAFETY: the helper copes with any address.
        unsafe { bpf_probe_read_user(call.count as *const u64) }.unwrap_or(0)
    };
    if len == 0 || len >> 48 != 0 {
        return 0;
    }
    let direction =
        if call.direction & DIRECTION == Direction::Write as u64 { Direction::Write } else { Direction::Read };
    conn::transferred(call.ssl, direction, call.buffer, len, call.entered_ns);
    0
}

#[uretprobe]
pub fn ssl_new_return(ctx: RetProbeContext) -> u32 {
    let ssl: u64 = ctx.ret();
    if ssl != 0 && selected() {
        conn::made(&conn::key(ssl));
    }
    0
}

/// `int SSL_get_error(const SSL *ssl, int ret)`
#[uprobe]
pub fn ssl_get_error(ctx: ProbeContext) -> u32 {
    let Some(ssl) = ctx.arg::<u64>(0) else { return 0 };
    if conn::wonders(ssl) {
        let key = CallKey { pid_tgid: bpf_get_current_pid_tgid(), stack: stack_pointer(ctx.regs) };
        let call = Call { ssl, buffer: 0, count: 0, entered_ns: 0, direction: Direction::Read as u64 };
        // When the map refuses it, the order of reads has to tell.
        let _ = CALLS.insert(&key, &call, BPF_ANY as u64);
    }
    0
}

#[uretprobe]
pub fn ssl_get_error_return(ctx: RetProbeContext) -> u32 {
    let Some(call) = take_call(&ctx) else { return 0 };
    if let Some(end) = end_by_error(ctx.ret::<u64>() as i32) {
        conn::read_failed(call.ssl, Some(end));
    }
    0
}

#[uprobe]
pub fn ssl_free(ctx: ProbeContext) -> u32 {
    if let Some(ssl) = ctx.arg::<u64>(0) {
        conn::end(&conn::key(ssl), 0);
    }
    0
}

#[uprobe]
pub fn ssl_clear(ctx: ProbeContext) -> u32 {
    if let Some(ssl) = ctx.arg::<u64>(0)
        && selected()
    {
        let key = conn::key(ssl);
        conn::end(&key, flags::RESET);
        conn::remember(&key, verdict::FRESH);
    }
    0
}

/// Remembers a call of `(connection, buffer, …)` until it returns. `count` is where it reports how
/// much it transferred, or 0 when it returns that.
#[inline(always)]
pub fn enter(ctx: &ProbeContext, direction: Direction, count: u64) -> u32 {
    let (Some(ssl), Some(buffer)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else { return 0 };
    enter_with(ctx, ssl, buffer, direction as u64, count)
}

/// As [`enter`], with `direction` as [`Call::direction`] has it.
#[inline(always)]
fn enter_with(ctx: &ProbeContext, ssl: u64, buffer: u64, direction: u64, count: u64) -> u32 {
    if !selected() {
        return 0;
    }
    let way = if direction & DIRECTION == Direction::Write as u64 { Direction::Write } else { Direction::Read };
    let Some(waits) = conn::entering(&conn::key(ssl), way) else { return 0 };
    let key = CallKey { pid_tgid: bpf_get_current_pid_tgid(), stack: stack_pointer(ctx.regs) };
    let call = Call { ssl, buffer, count, entered_ns: now_ns(), direction: direction | waits };
    if CALLS.insert(&key, &call, BPF_ANY as u64).is_err() {
        count_drop(DropCause::CallMapFull, 0);
    }
    0
}

/// The call that returns here, which its entry has stashed.
#[inline(always)]
pub fn take_call(ctx: &RetProbeContext) -> Option<Call> {
    let key = CallKey { pid_tgid: bpf_get_current_pid_tgid(), stack: return_stack(ctx) };
    // SAFETY: this thread put it there and nobody else uses its key.
    let mut call = unsafe { *CALLS.get_ptr(&key)? };
    let _ = CALLS.remove(&key);
    if call.direction & carrier::WAITS != 0 {
        call.direction &= !carrier::WAITS;
        carrier::leaving();
    }
    Some(call)
}

/// What the stack pointer was when the call that returns here began.
#[inline(always)]
pub fn return_stack(ctx: &RetProbeContext) -> u64 {
    // On x86_64 `ret` has popped the return address already.
    stack_pointer(ctx.regs).wrapping_sub(if cfg!(bpf_target_arch = "x86_64") { 8 } else { 0 })
}

#[inline(always)]
pub fn stack_pointer(regs: *const aya_ebpf::bindings::pt_regs) -> u64 {
    // SAFETY: the context of a uprobe is the registers, which the kernel lets a program read.
    #[cfg(bpf_target_arch = "x86_64")]
    unsafe {
        (*regs).rsp
    }
    // SAFETY: as above.
    #[cfg(bpf_target_arch = "aarch64")]
    unsafe {
        (*regs).sp
    }
}
