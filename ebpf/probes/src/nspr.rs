//! Uprobes on NSPR (prio.h), through which NSS is read and written: an SSL socket is a layer that
//! `SSL_ImportFD` pushes onto a plain one, so the functions that carry files and plain sockets carry
//! plaintext too.
//!
//! Only layered descriptors are looked at: the bottom of a stack has ciphertext, or has no TLS at all.
//! A layer may call these functions for the layer below it, so within a call of a thread all further
//! ones are left out: the outermost has the plaintext.

use agentsight_abi::{Call, CallKey, Direction, DropCause};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};

use crate::{
    carrier, conn,
    helpers::now_ns,
    maps::{CALLS, CONNS, count_drop},
    select::selected,
    ssl::{return_stack, stack_pointer},
};

/// `PR_MSG_PEEK` of prio.h: what is read so is read again.
const PEEK: i32 = 2;

/// Offset of `lower` in `struct PRFileDesc { methods, secret, lower, … }` of prio.h.
const LOWER: u64 = 16;

/// `PRInt32 PR_Write(PRFileDesc *fd, const void *buf, PRInt32 amount)`, and `PR_Send`, which has more
/// arguments behind these.
#[uprobe]
pub fn nspr_write(ctx: ProbeContext) -> u32 {
    enter(&ctx, Direction::Write, ctx.arg(1).unwrap_or(0))
}

/// `PRInt32 PR_Read(PRFileDesc *fd, void *buf, PRInt32 amount)`
#[uprobe]
pub fn nspr_read(ctx: ProbeContext) -> u32 {
    enter(&ctx, Direction::Read, ctx.arg(1).unwrap_or(0))
}

/// `PRInt32 PR_Recv(PRFileDesc *fd, void *buf, PRInt32 amount, PRIntn flags, PRIntervalTime timeout)`
#[uprobe]
pub fn nspr_recv(ctx: ProbeContext) -> u32 {
    if ctx.arg::<u64>(3).unwrap_or(0) as i32 & PEEK != 0 {
        return 0;
    }
    enter(&ctx, Direction::Read, ctx.arg(1).unwrap_or(0))
}

/// `PRInt32 PR_Writev(PRFileDesc *fd, const PRIOVec *iov, PRInt32 iov_size, PRIntervalTime timeout)`,
/// where `PRIOVec` is `{ char *iov_base; int iov_len; }`. Of several parts the bytes count as not read.
#[uprobe]
pub fn nspr_writev(ctx: ProbeContext) -> u32 {
    let parts = ctx.arg::<u64>(2).unwrap_or(0) as i32;
    // SAFETY: the helper copes with any address.
    let first = unsafe { bpf_probe_read_user(ctx.arg::<u64>(1).unwrap_or(0) as *const u64) };
    enter(&ctx, Direction::Write, if parts == 1 { first.unwrap_or(0) } else { 0 })
}

/// The return of any of them.
#[uretprobe]
pub fn nspr_return(ctx: RetProbeContext) -> u32 {
    let key = thread_key();
    let Some(call) = CALLS.get_ptr(&key) else { return 0 };
    // SAFETY: this thread put it there and nobody else uses its key.
    let mut call = unsafe { *call };
    if call.count != return_stack(&ctx) {
        return 0;
    }
    let _ = CALLS.remove(&key);
    if call.direction & carrier::WAITS != 0 {
        call.direction &= !carrier::WAITS;
        carrier::leaving();
    }
    let returned = ctx.ret::<u64>() as i32;
    if returned > 0 {
        let direction = if call.direction == Direction::Write as u64 { Direction::Write } else { Direction::Read };
        conn::transferred(call.ssl, direction, call.buffer, returned as u64, call.entered_ns);
    } else if call.direction == Direction::Read as u64 {
        conn::read_failed(call.ssl, Some(returned == 0));
    }
    0
}

/// Remembers the outermost call of a thread; in [`Call::count`] is its stack pointer.
#[inline(always)]
fn enter(ctx: &ProbeContext, direction: Direction, buffer: u64) -> u32 {
    let Some(fd) = ctx.arg::<u64>(0) else { return 0 };
    if !selected() {
        return 0;
    }
    let (key, stack) = (thread_key(), stack_pointer(ctx.regs));
    if let Some(outer) = CALLS.get_ptr(&key) {
        // The stack grows down. A call that began below this one was left without returning.
        // SAFETY: as in `nspr_return`.
        if unsafe { (*outer).count } > stack {
            return 0;
        }
    }
    let Some(waits) = begin(fd, direction) else { return 0 };
    let direction = direction as u64 | waits;
    let call = Call { ssl: fd, buffer, count: stack, entered_ns: now_ns(), direction };
    if CALLS.insert(&key, &call, BPF_ANY as u64).is_err() {
        count_drop(DropCause::CallMapFull, 0);
    }
    0
}

/// As [`conn::entering`], of a descriptor that NSS was told of, or that one can't tell from it.
#[inline(always)]
fn begin(fd: u64, direction: Direction) -> Option<u64> {
    let known = CONNS.get_ptr(&conn::key(fd));
    // SAFETY: the helper copes with any address.
    if known.is_none() && unsafe { bpf_probe_read_user((fd + LOWER) as *const u64) }.unwrap_or(0) == 0 {
        return None;
    }
    conn::entering_known(known, fd, direction)
}

/// One call for each thread. A stack pointer is even.
#[inline(always)]
fn thread_key() -> CallKey {
    CallKey { pid_tgid: bpf_get_current_pid_tgid(), stack: 1 }
}
