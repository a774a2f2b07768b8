//! Uprobes on Go's `crypto/tls`: `(*Conn).Write`, `Read`, `Close` and the handshakes.
//!
//! Go's stacks move, so nothing may be left on them, and a uretprobe would leave its return address
//! there: the programs for returns are put on the return instructions instead. The programs for entries
//! are behind the check of the stack's size, because a function whose stack is too small, or whose
//! goroutine is to give way, begins again; then one call would be seen as two.
//!
//! Two conventions: since Go 1.17 (amd64) and 1.18 (arm64) arguments and results are in registers
//! (go.dev/s/regabi), before they are on the stack above the return address.

use agentsight_abi::{
    CALLS_MAX, CallKey, ConnKey, Direction, DropCause,
    go::{GoCall, STACK_END_OFFSET, ended},
};
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_NO_COMMON_LRU, BPF_NOEXIST, pt_regs},
    btf_maps::{HashMap, LruHashMap},
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::{btf_map, uprobe},
    programs::ProbeContext,
};

use crate::{conn, helpers::now_ns, maps::count_drop, select::selected};

/// Calls between entry and return.
#[btf_map]
static GO_CALLS: LruHashMap<CallKey, GoCall, CALLS_MAX, { BPF_F_NO_COMMON_LRU as usize }> = LruHashMap::new();

/// The write under way on a connection, by its key in [`GO_CALLS`].
#[btf_map]
static GO_WRITES: LruHashMap<ConnKey, CallKey, CALLS_MAX, { BPF_F_NO_COMMON_LRU as usize }> = LruHashMap::new();

/// Connections whose bytes a program is accounting for. One goroutine writes while another reads, and what
/// is accounted for first has to be in the ring first: a response after its request, and each byte once.
#[btf_map]
static GO_BUSY: HashMap<ConnKey, u32, CALLS_MAX> = HashMap::new();

/// How often a program tries to be the only one at a connection; about 50 microseconds.
const TRIES_MAX: u32 = 256;

/// Where arguments and results are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Convention {
    Registers,
    Stack,
}
use Convention::{Registers, Stack};

/// What is left of an `error` once its type is put aside: an address, 0 for nil.
struct Results {
    count: i64,
    error: u64,
}

#[uprobe]
pub fn go_write(ctx: ProbeContext) -> u32 {
    enter(ctx.regs, Registers, Direction::Write)
}

#[uprobe]
pub fn go_read(ctx: ProbeContext) -> u32 {
    enter(ctx.regs, Registers, Direction::Read)
}

#[uprobe]
pub fn go_write_return(ctx: ProbeContext) -> u32 {
    written(ctx.regs, Registers)
}

#[uprobe]
pub fn go_read_return(ctx: ProbeContext) -> u32 {
    was_read(ctx.regs, Registers)
}

#[uprobe]
pub fn go_close(ctx: ProbeContext) -> u32 {
    close(ctx.regs, Registers)
}

#[uprobe]
pub fn go_handshake(ctx: ProbeContext) -> u32 {
    handshake(ctx.regs, Registers)
}

#[uprobe]
pub fn go_stack_write(ctx: ProbeContext) -> u32 {
    enter(ctx.regs, Stack, Direction::Write)
}

#[uprobe]
pub fn go_stack_read(ctx: ProbeContext) -> u32 {
    enter(ctx.regs, Stack, Direction::Read)
}

#[uprobe]
pub fn go_stack_write_return(ctx: ProbeContext) -> u32 {
    written(ctx.regs, Stack)
}

#[uprobe]
pub fn go_stack_read_return(ctx: ProbeContext) -> u32 {
    was_read(ctx.regs, Stack)
}

#[uprobe]
pub fn go_stack_close(ctx: ProbeContext) -> u32 {
    close(ctx.regs, Stack)
}

#[uprobe]
pub fn go_stack_handshake(ctx: ProbeContext) -> u32 {
    handshake(ctx.regs, Stack)
}

/// `func (c *Conn) Write(b []byte) (int, error)`, and `Read`.
#[inline(always)]
fn enter(regs: *const pt_regs, convention: Convention, direction: Direction) -> u32 {
    let conn = argument(regs, convention, 0);
    let conn_key = conn::key(conn);
    if conn == 0 || !selected() || conn::ignored(&conn_key) {
        return 0;
    }
    // On entry the goroutine is known in either convention.
    let Some(stack_end) = read(goroutine(regs, convention).wrapping_add(STACK_END_OFFSET)) else { return 0 };
    let stack = stack_pointer(regs);
    let call = GoCall {
        conn,
        buffer: argument(regs, convention, 1),
        len: argument(regs, convention, 2),
        entered_ns: now_ns(),
        stack_end,
        stack,
    };
    let key = call_key(regs, convention, conn, direction, stack_end);
    if GO_CALLS.insert(&key, &call, BPF_ANY as u64).is_err() {
        count_drop(DropCause::CallMapFull, 0);
        return 0;
    }
    if direction as u8 == Direction::Write as u8 {
        // Without it a response may come before its request, which user space tells as such.
        let _ = GO_WRITES.insert(&conn_key, &key, BPF_ANY as u64);
    }
    0
}

/// The return of `Write`. The bytes may have been accounted for already, by a read; one that is still at it
/// is waited for by whatever this connection does next.
#[inline(always)]
fn written(regs: *const pt_regs, convention: Convention) -> u32 {
    let Some((key, call)) = stashed(regs, convention, Direction::Write) else { return 0 };
    let conn_key = conn::key(call.conn);
    let alone = lock(call.conn);
    if GO_CALLS.remove(&key).is_ok() {
        let _ = GO_WRITES.remove(&conn_key);
        let count = results(regs, convention).count;
        if count > 0 && count as u64 <= call.len {
            if alone {
                let buffer = call.buffer_at(stack_pointer(regs));
                transferred(call.conn, Direction::Write as u64, buffer, count as u64, call.entered_ns);
            } else {
                conn::missed(&conn_key, Direction::Write, count as u64);
            }
        }
    }
    if alone {
        unlock(&conn_key);
    }
    0
}

/// Keeps other programs of this family away from a connection until [`unlock`]. False when one was at it
/// all the time, as when its thread isn't running.
#[inline(never)]
fn lock(conn: u64) -> bool {
    let key = conn::key(conn);
    let mut tries = 0;
    while tries < TRIES_MAX {
        if GO_BUSY.insert(&key, &1, BPF_NOEXIST as u64).is_ok() {
            return true;
        }
        tries += 1;
    }
    false
}

#[inline(always)]
fn unlock(key: &ConnKey) {
    let _ = GO_BUSY.remove(key);
}

/// The return of `Read`. One goroutine writes while another reads, so a response may be read before
/// the write of its request has returned: what is being written goes first.
#[inline(always)]
fn was_read(regs: *const pt_regs, convention: Convention) -> u32 {
    let Some((key, call)) = stashed(regs, convention, Direction::Read) else { return 0 };
    if GO_CALLS.remove(&key).is_err() {
        return 0;
    }
    let results = results(regs, convention);
    if results.count > 0 && results.count as u64 <= call.len {
        let conn_key = conn::key(call.conn);
        if lock(call.conn) {
            finish_write(&conn_key);
            let buffer = call.buffer_at(stack_pointer(regs));
            transferred(call.conn, Direction::Read as u64, buffer, results.count as u64, call.entered_ns);
            unlock(&conn_key);
        } else {
            conn::missed(&conn_key, Direction::Read, results.count as u64);
        }
    }
    if results.error != 0 {
        conn::read_failed(call.conn, Some(peer_ended(results.error)));
    }
    0
}

/// Accounts for the write that is under way on a connection as if it had returned. Its bytes don't
/// lie on the stack: `Write` hands them to a cipher behind an interface, so they escape to the heap.
#[inline(always)]
fn finish_write(conn_key: &ConnKey) {
    let Some(key) = GO_WRITES.get_ptr(conn_key) else { return };
    // SAFETY: read at once; a slot that is reused meanwhile gives a key without a call.
    let key = unsafe { *key };
    let Some(call) = GO_CALLS.get_ptr(&key) else { return };
    // SAFETY: as above.
    let call = unsafe { *call };
    // Whoever removes the call accounts for it.
    if call.conn == conn_key.ssl && GO_CALLS.remove(&key).is_ok() {
        transferred(call.conn, Direction::Write as u64, call.buffer, call.len, call.entered_ns);
    }
}

/// One copy of the code that copies, for each of the programs.
#[inline(never)]
fn transferred(conn: u64, direction: u64, buffer: u64, len: u64, entered_ns: u64) {
    let direction = if direction == Direction::Write as u64 { Direction::Write } else { Direction::Read };
    if len != 0 && len >> 48 == 0 {
        conn::transferred_alone(conn, direction, buffer, len, entered_ns);
    }
}

/// `func (c *Conn) Close() error`
#[inline(always)]
fn close(regs: *const pt_regs, convention: Convention) -> u32 {
    let conn = argument(regs, convention, 0);
    let conn_key = conn::key(conn);
    let alone = lock(conn);
    conn::end(&conn_key, 0);
    if alone {
        unlock(&conn_key);
    }
    0
}

/// `func (c *Conn) clientHandshake(…)` or `serverHandshake`: nothing has been transferred yet. What is
/// known of the address is of a connection that was collected without having been closed.
#[inline(always)]
fn handshake(regs: *const pt_regs, convention: Convention) -> u32 {
    let conn = argument(regs, convention, 0);
    if conn != 0 && selected() {
        conn::made(&conn::key(conn));
    }
    0
}

/// The call that returns here, which its entry has stashed, and its key. Who removes it accounts for it.
#[inline(always)]
fn stashed(regs: *const pt_regs, convention: Convention, direction: Direction) -> Option<(CallKey, GoCall)> {
    let (conn, stack_end) = match convention {
        Registers => (0, read(goroutine(regs, convention).wrapping_add(STACK_END_OFFSET))?),
        Stack => (argument(regs, convention, 0), 0),
    };
    let key = call_key(regs, convention, conn, direction, stack_end);
    // SAFETY: this goroutine put it there; another only takes it.
    let call = unsafe { *GO_CALLS.get_ptr(&key)? };
    Some((key, call))
}

/// With registers, a call is known by the goroutine and the place of its frame on the stack, which
/// tells a call within a call (TLS in TLS) apart. On the stack the goroutine isn't known on return, but
/// the connection still is, which does the same.
#[inline(always)]
fn call_key(
    regs: *const pt_regs,
    convention: Convention,
    conn: u64,
    direction: Direction,
    stack_end: u64,
) -> CallKey {
    let process = bpf_get_current_pid_tgid() & !0xffff_ffff;
    match convention {
        Registers => {
            let depth = GoCall::depth(stack_end, stack_pointer(regs));
            CallKey { pid_tgid: process | depth as u64, stack: goroutine(regs, convention) }
        }
        Stack => CallKey { pid_tgid: process | direction as u64, stack: conn },
    }
}

/// `(n int, err error)`; an interface is the address of a type and that of a value.
#[inline(always)]
fn results(regs: *const pt_regs, convention: Convention) -> Results {
    match convention {
        Registers => Results { count: register(regs, 0) as i64, error: register(regs, 2) },
        // After the receiver and the slice's three words.
        Stack => Results { count: on_stack(regs, 4) as i64, error: on_stack(regs, 6) },
    }
}

#[inline(always)]
fn argument(regs: *const pt_regs, convention: Convention, index: usize) -> u64 {
    match convention {
        Registers => register(regs, index),
        Stack => on_stack(regs, index as u64),
    }
}

/// The word above the return address (x86_64), or above the place where the callee saves it (aarch64).
#[inline(always)]
fn on_stack(regs: *const pt_regs, index: u64) -> u64 {
    read(stack_pointer(regs).wrapping_add(8 + 8 * index)).unwrap_or(0)
}

/// Whether an error says that the peer has ended the connection: `address` is that of an
/// `errors.errorString` or a `net.OpError`, both of which begin with a string.
#[inline(never)]
fn peer_ended(address: u64) -> bool {
    if text_is(address, ended::EOF) || text_is(address, ended::UNEXPECTED_EOF) || text_is(address, ended::ALERT) {
        return true;
    }
    text_is(address, ended::READ)
        && read(address.wrapping_add(ended::OP_ERROR_ERR)).is_some_and(|refused| {
            text_is(refused, ended::READ)
                && read(refused.wrapping_add(ended::SYSCALL_ERROR_ERR)).and_then(read) == Some(ended::ECONNRESET)
        })
}

/// Whether the `string` at `address` is `expected`.
#[inline(always)]
fn text_is<const LEN: usize>(address: u64, expected: &[u8; LEN]) -> bool {
    let (Some(text), Some(len)) = (read(address), read(address.wrapping_add(8))) else { return false };
    if len != LEN as u64 {
        return false;
    }
    // SAFETY: the helper copes with any address.
    let Ok(found) = (unsafe { bpf_probe_read_user(text as *const [u8; LEN]) }) else { return false };
    let mut index = 0;
    while index < LEN {
        if found[index] != expected[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[inline(always)]
fn read(address: u64) -> Option<u64> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}

#[inline(always)]
fn register(regs: *const pt_regs, index: usize) -> u64 {
    // SAFETY: the context of a uprobe is the registers, which the kernel lets a program read.
    #[cfg(bpf_target_arch = "x86_64")]
    unsafe {
        match index {
            0 => (*regs).rax,
            1 => (*regs).rbx,
            _ => (*regs).rcx,
        }
    }
    // SAFETY: as above.
    #[cfg(bpf_target_arch = "aarch64")]
    unsafe {
        match index {
            0 => (*regs).regs[0],
            1 => (*regs).regs[1],
            _ => (*regs).regs[2],
        }
    }
}

/// The descriptor of the running goroutine. Where arguments are on the stack it is known on entry
/// only, on x86_64 from the check of the stack's size.
#[inline(always)]
fn goroutine(regs: *const pt_regs, convention: Convention) -> u64 {
    // SAFETY: as in `register`.
    #[cfg(bpf_target_arch = "x86_64")]
    unsafe {
        match convention {
            Registers => (*regs).r14,
            Stack => (*regs).rcx,
        }
    }
    // SAFETY: as in `register`.
    #[cfg(bpf_target_arch = "aarch64")]
    unsafe {
        let _ = convention;
        (*regs).regs[28]
    }
}

#[inline(always)]
fn stack_pointer(regs: *const pt_regs) -> u64 {
    // SAFETY: as in `register`.
    #[cfg(bpf_target_arch = "x86_64")]
    unsafe {
        (*regs).rsp
    }
    // SAFETY: as in `register`.
    #[cfg(bpf_target_arch = "aarch64")]
    unsafe {
        (*regs).sp
    }
}
