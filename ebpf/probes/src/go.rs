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
    CALLS_MAX, CONNS_MAX, CallKey, ConnKey, Direction, DropCause,
    carrier::records,
    go::{GoCall, STACK_END_OFFSET, ended, taken},
    verdict,
};
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_NO_COMMON_LRU, BPF_NOEXIST, pt_regs},
    btf_maps::{Array, HashMap, LruHashMap},
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated::bpf_probe_read_kernel},
    macros::{btf_map, uprobe},
    programs::ProbeContext,
};

use crate::{
    carrier, conn,
    helpers::now_ns,
    maps::{CONNS, count_drop},
    select::selected,
};

/// Calls between entry and return. A connection that waits for the peer has a read here all the time, so
/// there is room for as many as connections, on whatever CPUs they began.
#[btf_map]
static GO_CALLS: LruHashMap<CallKey, GoCall, CONNS_MAX> = LruHashMap::new();

/// The write under way on a connection, by its key in [`GO_CALLS`].
#[btf_map]
static GO_WRITES: LruHashMap<ConnKey, CallKey, CALLS_MAX, { BPF_F_NO_COMMON_LRU as usize }> = LruHashMap::new();

/// Connections whose bytes a program is accounting for. One goroutine writes while another reads, and what
/// is accounted for first has to be in the ring first: a response after its request, and each byte once.
#[btf_map]
static GO_BUSY: HashMap<ConnKey, u32, CALLS_MAX> = HashMap::new();

/// How often a program tries to be the only one at a connection; one or two milliseconds with
/// [`pause`], in which the other can copy the largest call.
const TRIES_MAX: u32 = 1024;

/// So many tries are made at once, which is enough for a call of some KiB.
const HASTY_TRIES: u32 = 32;

/// Bytes that [`pause`] copies.
const PAUSE_BYTES: usize = 16 * 1024;

/// What [`pause`] copies, onto itself.
#[btf_map]
static GO_PAUSE: Array<[u8; PAUSE_BYTES], 1> = Array::new();

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
    if conn == 0 || !selected() {
        return 0;
    }
    let known = CONNS.get_ptr_mut(&conn_key);
    // SAFETY: read at once.
    if known.is_some_and(|known| unsafe { (*known).verdict } == verdict::IGNORE) {
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
        taken: taken::NOT,
    };
    let key = call_key(regs, convention, conn, direction, stack_end);
    if GO_CALLS.insert(&key, &call, BPF_ANY as u64).is_err() {
        count_drop(DropCause::CallMapFull, 0);
        return 0;
    }
    if direction as u8 == Direction::Write as u8 {
        // Without it a response may come before its request, which user space tells as such.
        let _ = GO_WRITES.insert(&conn_key, &key, BPF_ANY as u64);
        if let Some(known) = known {
            // SAFETY: found just now; writes of a connection are made in turn.
            carrier::wrote(unsafe { &mut *known }, conn, call.len, records::GROWING);
        }
    }
    0
}

/// The return of `Write`. The bytes may have been accounted for already, by a read. While a read is at it,
/// `Write` must not return: its caller is free to use the buffer again.
#[inline(always)]
fn written(regs: *const pt_regs, convention: Convention) -> u32 {
    let Some((key, place)) = stashed(regs, convention, Direction::Write) else { return 0 };
    // SAFETY: this goroutine put it there and removes it; a read changes `taken` only.
    let call = unsafe { *place };
    let conn_key = conn::key(call.conn);
    let count = results(regs, convention).count;
    let count = if count > 0 && count as u64 <= call.len { count as u64 } else { 0 };
    let found = lock_or_copied(call.conn, place);
    if found == COPIED {
        let _ = GO_CALLS.remove(&key);
        return 0;
    }
    let (alone, taken) = (found == ALONE, taken_of(place));
    if alone {
        if taken != taken::COPIED && count != 0 {
            let buffer = call.buffer_at(stack_pointer(regs));
            transferred(call.conn, Direction::Write as u64, buffer, count, call.entered_ns);
        }
        if GO_WRITES.get_ptr(&conn_key).is_some_and(|newest| is(newest, &key)) {
            let _ = GO_WRITES.remove(&conn_key);
        }
    } else if GO_WRITES.remove(&conn_key).is_ok() {
        conn::missed(&conn_key, Direction::Write, count, DropCause::ConnBusy);
    } else {
        // The read that is copying removes the call when it finds this.
        tell(place, taken::LATE);
        return 0;
    }
    if taken == taken::CLOSED {
        conn::end(&conn_key, 0);
    }
    if alone {
        unlock(&conn_key);
    }
    let _ = GO_CALLS.remove(&key);
    0
}

/// Of [`lock_or_copied`]: nobody else is at the connection until [`unlock`].
const ALONE: u32 = 0;
/// The bytes of the write are in the ring.
const COPIED: u32 = 1;
/// Another was at the connection all the time, as when its thread isn't running.
const TIRED: u32 = 2;

/// Keeps other programs of this family away from a connection until [`unlock`], unless the write `place`
/// has been copied by a read meanwhile.
#[inline(never)]
fn lock_or_copied(conn: u64, place: *mut GoCall) -> u32 {
    let key = conn::key(conn);
    let mut tries = 0;
    while tries < TRIES_MAX {
        if taken_of(place) == taken::COPIED {
            return COPIED;
        }
        if try_lock(&key, tries) {
            return ALONE;
        }
        tries += 1;
    }
    TIRED
}

/// Keeps other programs of this family away from a connection until [`unlock`]. False when one was at it
/// all the time, as when its thread isn't running.
#[inline(never)]
fn lock(conn: u64) -> bool {
    let key = conn::key(conn);
    let mut tries = 0;
    while tries < TRIES_MAX {
        if try_lock(&key, tries) {
            return true;
        }
        tries += 1;
    }
    false
}

/// One try to be the only one, after so many before it.
#[inline(always)]
fn try_lock(key: &ConnKey, tries: u32) -> bool {
    if GO_BUSY.insert(key, &1, BPF_NOEXIST as u64).is_ok() {
        return true;
    }
    if tries >= HASTY_TRIES {
        pause();
    }
    false
}

/// Lets about a microsecond pass. A program may not sleep, and how often it may loop is bounded.
#[inline(always)]
fn pause() {
    if let Some(place) = GO_PAUSE.get_ptr_mut(0) {
        // SAFETY: a value of its own size, which nobody reads for what it holds.
        unsafe { bpf_probe_read_kernel(place.cast(), PAUSE_BYTES as u32, place.cast_const().cast()) };
    }
}

#[inline(always)]
fn unlock(key: &ConnKey) {
    let _ = GO_BUSY.remove(key);
}

#[inline(always)]
fn taken_of(place: *mut GoCall) -> u64 {
    // SAFETY: a value of `GO_CALLS`, which another program may change at any time.
    unsafe { (&raw const (*place).taken).read_volatile() }
}

#[inline(always)]
fn tell(place: *mut GoCall, taken: u64) {
    // SAFETY: as in `taken_of`.
    unsafe { (&raw mut (*place).taken).write_volatile(taken) };
}

#[inline(always)]
fn is(place: *const CallKey, key: &CallKey) -> bool {
    // SAFETY: a value of `GO_WRITES`.
    let found = unsafe { *place };
    found.pid_tgid == key.pid_tgid && found.stack == key.stack
}

/// The return of `Read`. One goroutine writes while another reads, so a response may be read before
/// the write of its request has returned: what is being written goes first.
#[inline(always)]
fn was_read(regs: *const pt_regs, convention: Convention) -> u32 {
    let Some((key, place)) = stashed(regs, convention, Direction::Read) else { return 0 };
    // SAFETY: this goroutine put it there, and nobody else changes it.
    let call = unsafe { *place };
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
            conn::missed(&conn_key, Direction::Read, results.count as u64, DropCause::ConnBusy);
        }
    }
    if results.error != 0 {
        conn::read_failed(call.conn, Some(peer_ended(results.error)));
    }
    0
}

/// The write that is under way on a connection and not accounted for. To be asked while alone.
#[inline(always)]
fn write_of(conn_key: &ConnKey) -> Option<(CallKey, *mut GoCall)> {
    // SAFETY: read at once; a slot that is reused meanwhile gives a key without a call.
    let key = unsafe { *GO_WRITES.get_ptr(conn_key)? };
    let place = GO_CALLS.get_ptr_mut(&key)?;
    // SAFETY: a value of `GO_CALLS`.
    let conn = unsafe { (*place).conn };
    let taken = taken_of(place);
    (conn == conn_key.ssl && (taken == taken::NOT || taken == taken::CLOSED)).then_some((key, place))
}

/// Accounts for the write that is under way on a connection as if it had returned. Its bytes don't
/// lie on the stack: `Write` hands them to a cipher behind an interface, so they escape to the heap.
#[inline(always)]
fn finish_write(conn_key: &ConnKey) {
    let Some((key, place)) = write_of(conn_key) else { return };
    // SAFETY: its goroutine changes it no more.
    let call = unsafe { *place };
    // Whoever removes it here accounts for it.
    if taken_of(place) == taken::CLOSED || GO_WRITES.remove(conn_key).is_err() {
        return;
    }
    transferred(call.conn, Direction::Write as u64, call.buffer, call.len, call.entered_ns);
    if taken_of(place) == taken::LATE {
        // What was copied may be of the next call already, so nothing may be made of it.
        let _ = GO_CALLS.remove(&key);
        conn::spoilt(conn_key, call.len);
    } else {
        // The write that waits for this removes the call.
        tell(place, taken::COPIED);
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

/// `func (c *Conn) Close() error`. The peer may have got all of a write and be gone before that has
/// returned; it also returns when it is this that breaks it off. It knows how much was written, so it
/// tells the end then.
#[inline(always)]
fn close(regs: *const pt_regs, convention: Convention) -> u32 {
    let conn = argument(regs, convention, 0);
    let conn_key = conn::key(conn);
    if !lock(conn) {
        conn::end(&conn_key, 0);
        return 0;
    }
    match write_of(&conn_key) {
        // Close is often called more than once.
        Some((_, place)) => tell(place, taken::CLOSED),
        None => conn::end(&conn_key, 0),
    }
    unlock(&conn_key);
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

/// The call that returns here, where its entry has stashed it, and its key.
#[inline(always)]
fn stashed(regs: *const pt_regs, convention: Convention, direction: Direction) -> Option<(CallKey, *mut GoCall)> {
    let (conn, stack_end) = match convention {
        Registers => (0, read(goroutine(regs, convention).wrapping_add(STACK_END_OFFSET))?),
        Stack => (argument(regs, convention, 0), 0),
    };
    let key = call_key(regs, convention, conn, direction, stack_end);
    Some((key, GO_CALLS.get_ptr_mut(&key)?))
}

/// With registers, a call is known by the goroutine and the place of its frame on the stack, which
/// tells a call within a call (TLS in TLS) apart. On the stack the goroutine isn't known on return, but
/// the connection still is, which does the same.
#[inline(always)]
fn call_key(regs: *const pt_regs, convention: Convention, conn: u64, direction: Direction, stack_end: u64) -> CallKey {
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
