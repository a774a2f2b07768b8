//! Uprobes on what rustls encrypts and decrypts records with: the methods of `MessageEncrypter` and
//! `MessageDecrypter`, which are called through vtables, so that no compiler can do away with them, and
//! those that make such objects.
//!
//! A connection is known by its two objects, because it moves about in memory and they don't. Neither
//! call names the other object, but whoever calls has the record layer at hand, which holds both: its
//! address is in a register or in the caller's frame, and what is found there is believed if it has the
//! object of the call and a vtable whose first function is the one that is being called. An object's
//! address is used again only after one has been made there, which is seen.
//!
//! Arguments are passed as C would, the place for the result first (x86_64) or in a register of its own
//! (aarch64): neither is promised, and both hold since these traits exist.

use agentsight_abi::{
    CALLS_MAX, Call, CallKey, ConnKey, Direction, DropCause, Kind,
    carrier::records,
    rustls::{
        ALERT, APPLICATION_DATA, CIPHERTEXT_BYTES_MAX, HEADER_BYTES, Outbound, Pair, Protection, SLICES_MAX, TAG_BYTES,
        Vtable, content, is_header, part, plaintext,
    },
    verdict,
};
use aya_ebpf::{
    bindings::{BPF_ANY, pt_regs},
    btf_maps::LruHashMap,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user},
    macros::{btf_map, uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};

use crate::{
    carrier, conn, emit,
    helpers::{now_ns, this_cpu},
    maps::{CALLS, CONNS, count_drop, next_conn_id},
    select::selected,
    ssl::{stack_pointer, take_call},
};

/// Connections' numbers by the process and the address of an object; 0 for one that was made and has not
/// been used.
#[btf_map]
static RUSTLS_OBJECTS: LruHashMap<ConnKey, u64, { 2 * CALLS_MAX }> = LruHashMap::new();

/// The objects by the process and the number of the connection that uses them now.
#[btf_map]
static RUSTLS_PAIRS: LruHashMap<ConnKey, Pair, CALLS_MAX> = LruHashMap::new();

/// The bit of a number whose connection was seen from its start.
const FRESH: u64 = 1 << 63;

/// Words of a caller's frame that may be the address of the record layer.
const FRAME_WORDS: u64 = 64;

/// Words that are looked at where the record layer may begin.
const LAYER_WORDS: usize = 8;

/// Where the objects of a record layer end in them at the latest.
const LAYER_STARTS: usize = LAYER_WORDS - 3;

/// `fn encrypt(&mut self, OutboundPlainMessage, seq: u64) -> Result<OutboundOpaqueMessage, Error>`
#[uprobe]
pub fn rustls_encrypt(ctx: ProbeContext) -> u32 {
    let (Some(object), Some(message)) = (argument(&ctx, 0), argument(&ctx, 1)) else { return 0 };
    if !selected() {
        return 0;
    }
    // SAFETY: the helper copes with any address.
    let Ok(message) = (unsafe { bpf_probe_read_user(message as *const Outbound) }) else { return 0 };
    match message.content() {
        content::APPLICATION_DATA => {}
        content::ALERT => return said_goodbye(object, &message),
        _ => return 0,
    }
    let Some(number) = connection(&ctx, object, true) else { return 0 };
    if conn::ignored(&conn::key(number)) {
        return 0;
    }
    if message.slices == 0 {
        transferred(number, Direction::Write as u64, message.first, message.start, message.start);
        return 0;
    }
    // What a connection is worth is seen from the first of several slices.
    if is_captured(number) {
        slices(number, &message, 0, 0);
    } else if let Some([address, len]) = slice(&message, 0) {
        let (skipped, len_here) = part(0, len, message.start, message.end);
        let record_len = message.end.saturating_sub(message.start);
        transferred(number, Direction::Write as u64, address + skipped, len_here, record_len);
        slices(number, &message, 1, len);
    }
    0
}

/// Accounts for a message of several slices, from that of number `index`; `before` bytes are in earlier ones.
/// It has a frame of its own, so that it takes nothing from what is left for [`find`].
#[inline(never)]
fn slices(number: u64, message: &Outbound, mut index: u64, mut before: u64) {
    let key = conn::key(number);
    let Some(conn) = CONNS.get_ptr_mut(&key) else { return };
    // SAFETY: a connection belongs to one thread at a time (`&mut self`), and the entry was found just now.
    let conn = unsafe { &mut *conn };
    conn.calls = conn.calls.wrapping_add(1);
    conn::given_up(conn);
    let begin = conn.offset[Direction::Write as usize];
    if index == 0 {
        carrier::wrote(conn, number, message.end.saturating_sub(message.start), records::FULL);
    }
    let mut given = 0;
    while index < SLICES_MAX as u64 && index < message.first && before < message.end {
        let Some([address, len]) = slice(message, index) else { break };
        let (skipped, len_here) = part(before, len, message.start, message.end);
        if len_here != 0 && len_here <= CIPHERTEXT_BYTES_MAX {
            if conn.verdict == verdict::CAPTURE {
                let mut header = conn::header(conn, Kind::Data, Direction::Write, now_ns());
                header.offset = begin + given;
                emit::transfer_small(conn.home, &mut header, address + skipped, len_here as u32);
            }
            given += len_here;
        }
        before += len;
        index += 1;
    }
    let from = if before > message.start { before } else { message.start };
    if from < message.end {
        // The rest is not had, but its place is kept.
        count_drop(DropCause::CallBudget, message.end - from);
        given += message.end - from;
    }
    conn.offset[Direction::Write as usize] = begin + given;
    conn.accounted_ns[Direction::Write as usize] = now_ns();
}

/// Address and length of a slice.
#[inline(always)]
fn slice(message: &Outbound, index: u64) -> Option<[u64; 2]> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_user((message.slices + index * 16) as *const [u64; 2]) }.ok()
}

#[inline(always)]
fn is_captured(number: u64) -> bool {
    // SAFETY: read at once.
    CONNS.get_ptr(&conn::key(number)).is_some_and(|conn| unsafe { (*conn).verdict } == verdict::CAPTURE)
}

/// `fn decrypt(&mut self, InboundOpaqueMessage, seq: u64) -> Result<InboundPlainMessage, Error>`, where the
/// message begins with the address and the length of its bytes, which lie behind their header and are
/// decrypted where they are; the result's slice is where they begin, or behind a nonce.
#[uprobe]
pub fn rustls_decrypt(ctx: ProbeContext) -> u32 {
    let (Some(object), Some(message)) = (argument(&ctx, 0), argument(&ctx, 1)) else { return 0 };
    if !selected() {
        return 0;
    }
    // SAFETY: the helper copes with any address.
    let Ok([buffer, len]) = (unsafe { bpf_probe_read_user(message as *const [u64; 2]) }) else { return 0 };
    // SAFETY: as above.
    let header = unsafe { bpf_probe_read_user((buffer - HEADER_BYTES) as *const [u8; HEADER_BYTES as usize]) };
    let Ok(header) = header else { return 0 };
    if !is_header(&header, len) || header[0] != APPLICATION_DATA && header[0] != ALERT {
        return 0;
    }
    let Some(number) = connection(&ctx, object, false) else { return 0 };
    if conn::ignored(&conn::key(number)) {
        return 0;
    }
    let key = CallKey { pid_tgid: bpf_get_current_pid_tgid(), stack: stack_pointer(ctx.regs) };
    let direction = len | (header[0] as u64) << TYPE_SHIFT;
    let call = Call { ssl: number, buffer, count: result(&ctx), entered_ns: now_ns(), direction };
    if CALLS.insert(&key, &call, BPF_ANY as u64).is_err() {
        count_drop(DropCause::CallMapFull, len);
    }
    0
}

/// In [`Call::direction`] a record's length is below this bit, and its type above.
const TYPE_SHIFT: u32 = 40;

#[uretprobe]
pub fn rustls_decrypt13_return(ctx: RetProbeContext) -> u32 {
    decrypted(&ctx, Protection::Inner)
}

#[uretprobe]
pub fn rustls_decrypt12_return(ctx: RetProbeContext) -> u32 {
    decrypted(&ctx, Protection::Outer)
}

#[inline(always)]
fn decrypted(ctx: &RetProbeContext, protection: Protection) -> u32 {
    let Some(call) = take_call(ctx) else { return 0 };
    let cipher_len = call.direction & (1 << TYPE_SHIFT) - 1;
    // SAFETY: the helper copes with any address.
    let Ok(words) = (unsafe { bpf_probe_read_user(call.count as *const [u64; 8]) }) else { return 0 };
    let outer = (call.direction >> TYPE_SHIFT) as u8;
    let Some((plain, len)) = plaintext(&words, call.buffer, cipher_len, protection) else {
        // What is no record of the peer's ends the connection by an alert; then too nothing was read.
        if outer == APPLICATION_DATA {
            conn::missed(&conn::key(call.ssl), Direction::Read, cipher_len - TAG_BYTES, DropCause::Undecrypted);
        }
        return 0;
    };
    let kind = match protection {
        Protection::Outer => outer,
        // SAFETY: as above.
        Protection::Inner => unsafe { bpf_probe_read_user((plain + len) as *const u8) }.unwrap_or(0),
    };
    match kind {
        APPLICATION_DATA => transferred(call.ssl, Direction::Read as u64, plain, len, 0),
        ALERT if ends(plain) => conn::read_failed(call.ssl, Some(true)),
        _ => {}
    }
    0
}

/// `fn encrypter(…) -> Box<dyn MessageEncrypter>`, and `decrypter`. What was known of the address is of an
/// object that is gone, and its connection with it, unless it has changed its keys.
#[uretprobe]
pub fn rustls_made(ctx: RetProbeContext) -> u32 {
    let object: u64 = ctx.ret();
    if object == 0 || !selected() {
        return 0;
    }
    let key = conn::key(object);
    if let Some(number) = RUSTLS_OBJECTS.get_ptr(&key) {
        // SAFETY: read at once.
        end(unsafe { *number }, object, 0);
    }
    if RUSTLS_OBJECTS.insert(&key, &0, BPF_ANY as u64).is_err() {
        count_drop(DropCause::ConnMapFull, 0);
    }
    0
}

/// `drop_in_place` of a record layer, or of what begins with one.
#[uprobe]
pub fn rustls_drop(ctx: ProbeContext) -> u32 {
    let Some(place) = ctx.arg::<u64>(0) else { return 0 };
    let Some(words) = layer(place) else { return 0 };
    let mut at = 0;
    while at < LAYER_STARTS {
        if let Some(number) = RUSTLS_OBJECTS.get_ptr(&conn::key(words[at])) {
            // SAFETY: read at once.
            end(unsafe { *number }, words[at], 0);
            return 0;
        }
        at += 1;
    }
    0
}

/// An alert is sent: the last thing, unless it is a warning.
#[inline(always)]
fn said_goodbye(object: u64, message: &Outbound) -> u32 {
    if let Some(number) = RUSTLS_OBJECTS.get_ptr(&conn::key(object))
        && message.slices == 0
        && ends(message.first)
    {
        // SAFETY: read at once.
        end(unsafe { *number }, object, 0);
    }
    0
}

/// Whether the alert at `buffer` ends a connection: `close_notify`, or one that is fatal (RFC 8446,
/// section 6).
#[inline(always)]
fn ends(buffer: u64) -> bool {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_user(buffer as *const [u8; 2]) }.is_ok_and(|[level, what]| level == 2 || what == 0)
}

/// Tells the end of a connection that `object` belongs to now.
#[inline(always)]
fn end(number: u64, object: u64, reason: u16) {
    let key = conn::key(number);
    let Some(pair) = RUSTLS_PAIRS.get_ptr(&key) else { return };
    // SAFETY: read at once.
    let pair = unsafe { *pair };
    if pair.encrypter == object || pair.decrypter == object {
        let _ = RUSTLS_PAIRS.remove(&key);
        conn::end(&key, reason);
    }
}

/// One copy of the code that copies, for each of the programs. A record that is written has `record_len`
/// bytes of plaintext in all.
#[inline(never)]
fn transferred(number: u64, direction: u64, buffer: u64, len: u64, record_len: u64) {
    let key = conn::key(number);
    if number & FRESH != 0 && CONNS.get_ptr(&key).is_none() {
        conn::remember(&key, verdict::FRESH);
    }
    let direction = if direction == Direction::Write as u64 { Direction::Write } else { Direction::Read };
    if len != 0 && len <= CIPHERTEXT_BYTES_MAX {
        conn::encrypted(number, direction, buffer, len, record_len);
    }
}

/// The number of the connection that the object of a call belongs to.
#[inline(always)]
fn connection(ctx: &ProbeContext, object: u64, encrypts: bool) -> Option<u64> {
    let key = conn::key(object);
    // SAFETY: read at once.
    let known = RUSTLS_OBJECTS.get_ptr(&key).map(|number| unsafe { *number });
    match known {
        Some(0) | None => {}
        number => return number,
    }
    let Some(pair) = find(ctx, object, encrypts as u64) else {
        count_drop(DropCause::Unpaired, 0);
        return None;
    };
    let partner = conn::key(if encrypts { pair.decrypter } else { pair.encrypter });
    // SAFETY: as above.
    let known_partner = RUSTLS_OBJECTS.get_ptr(&partner).map_or(0, |number| unsafe { *number });
    let number = match known_partner {
        0 => next_conn_id(this_cpu()) | if known.is_some() { FRESH } else { 0 },
        number => number,
    };
    let refused = RUSTLS_OBJECTS.insert(&key, &number, BPF_ANY as u64).is_err()
        || RUSTLS_OBJECTS.insert(&partner, &number, BPF_ANY as u64).is_err()
        || RUSTLS_PAIRS.insert(&conn::key(number), &pair, BPF_ANY as u64).is_err();
    if refused {
        count_drop(DropCause::ConnMapFull, 0);
    }
    Some(number)
}

/// The record layer of the caller: by the registers that it left as they were, or by its frame.
#[inline(never)]
fn find(ctx: &ProbeContext, object: u64, encrypts: u64) -> Option<Pair> {
    let function = instruction(ctx.regs);
    let mut pair = Pair { encrypter: 0, decrypter: 0 };
    for register in registers(ctx.regs) {
        if pair_at(register, object, function, encrypts, &mut pair) {
            return Some(pair);
        }
    }
    let stack = stack_pointer(ctx.regs);
    for index in 0..FRAME_WORDS {
        // SAFETY: the helper copes with any address.
        let Ok(word) = (unsafe { bpf_probe_read_user((stack + 8 * index) as *const u64) }) else { return None };
        if pair_at(word, object, function, encrypts, &mut pair) {
            return Some(pair);
        }
    }
    None
}

/// Whether `place` is where the record layer of the call begins; then its objects are put into `pair`. Once in
/// the code: copies of it would add up in the frame of [`find`]. And no `Option`, of which the verifier would
/// see the address come back.
#[inline(never)]
fn pair_at(place: u64, object: u64, function: u64, encrypts: u64, pair: &mut Pair) -> bool {
    let Some(words) = layer(place) else { return false };
    let own = if encrypts != 0 { 0 } else { 2 };
    let mut at = 0;
    while at < LAYER_STARTS {
        if words[at + own] == object {
            *pair = Pair { encrypter: words[at], decrypter: words[at + 2] };
            // One after the other, so that they are in one place of the frame.
            return cipher(words[at + own + 1]) == Some(function) && cipher(words[at + (2 - own) + 1]).is_some();
        }
        at += 1;
    }
    false
}

/// Objects are aligned, and nothing is in the first page.
#[inline(always)]
fn layer(place: u64) -> Option<[u64; LAYER_WORDS]> {
    if place & 7 != 0 || place < 4096 {
        return None;
    }
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_user(place as *const [u64; LAYER_WORDS]) }.ok()
}

/// The first function of the vtable at `place`, if it may be that of a cipher.
#[inline(always)]
fn cipher(place: u64) -> Option<u64> {
    // SAFETY: the helper copes with any address.
    let vtable = unsafe { bpf_probe_read_user(place as *const Vtable) }.ok()?;
    vtable.is_plausible().then_some(vtable.function)
}

/// Argument `index` of a function whose result is written to a place that the caller gives.
#[inline(always)]
fn argument(ctx: &ProbeContext, index: usize) -> Option<u64> {
    ctx.arg(if cfg!(bpf_target_arch = "x86_64") { index + 1 } else { index })
}

/// That place.
#[inline(always)]
fn result(ctx: &ProbeContext) -> u64 {
    #[cfg(bpf_target_arch = "x86_64")]
    {
        ctx.arg(0).unwrap_or(0)
    }
    // SAFETY: as in `registers`.
    #[cfg(bpf_target_arch = "aarch64")]
    unsafe {
        (*ctx.regs).regs[8]
    }
}

/// Where the probe is.
#[inline(always)]
fn instruction(regs: *const pt_regs) -> u64 {
    // SAFETY: as in `registers`.
    #[cfg(bpf_target_arch = "x86_64")]
    unsafe {
        (*regs).rip
    }
    // SAFETY: as in `registers`.
    #[cfg(bpf_target_arch = "aarch64")]
    unsafe {
        (*regs).pc
    }
}

/// What is in the registers that carry no argument, when a function begins.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn registers(regs: *const pt_regs) -> [u64; 11] {
    // SAFETY: the context of a uprobe is the registers, which the kernel lets a program read.
    unsafe {
        let regs = &*regs;
        [regs.rbx, regs.rbp, regs.r12, regs.r13, regs.r14, regs.r15, regs.r8, regs.r9, regs.r10, regs.r11, regs.rax]
    }
}

/// As above.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn registers(regs: *const pt_regs) -> [u64; 11] {
    // SAFETY: as above.
    unsafe {
        let regs = &(*regs).regs;
        [regs[19], regs[20], regs[21], regs[22], regs[23], regs[24], regs[25], regs[26], regs[27], regs[28], regs[9]]
    }
}
