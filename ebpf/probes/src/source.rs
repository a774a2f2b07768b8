//! Where the system call in flight has its bytes, read off the registers that it was made with.

use agentsight_abi::socket::{Batch, Shape, shape};
use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_user,
        generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    },
};

use crate::maps::BATCHES;

/// Where bytes are.
#[derive(Clone, Copy)]
pub struct Source {
    /// Address of a buffer, or of an array of `struct iovec`; 0 when nothing is known.
    pub at: u64,
    /// Entries of the array, or 0 for a buffer.
    pub vectors: u32,
    /// The descriptor.
    pub fd: u64,
}

/// The arguments of a system call.
struct Registers {
    number: u64,
    fd: u64,
    second: u64,
    third: u64,
}

/// The source of a call that has moved `moved` bytes.
#[inline(always)]
pub fn source(moved: u32) -> Source {
    const UNSEEN: Source = Source { at: 0, vectors: 0, fd: 0 };
    let Some(registers) = registers() else { return UNSEEN };
    let fd = registers.fd;
    match shape(registers.number, cfg!(bpf_target_arch = "aarch64")) {
        Shape::Buffer => Source { at: registers.second, vectors: 0, fd },
        Shape::Vector => Source { at: registers.second, vectors: registers.third as u32, fd },
        Shape::Message => message(registers.second, fd),
        Shape::Messages => message(in_batch(registers.second, registers.third as u32, moved), fd),
        Shape::Unseen => UNSEEN,
    }
}

/// `struct msghdr` as user space has it on 64-bit machines: name, its length, vectors at 16, their
/// number at 24.
#[inline(always)]
fn message(at: u64, fd: u64) -> Source {
    // SAFETY: the helper copes with any address.
    let vectors = unsafe { bpf_probe_read_user::<[u64; 2]>((at + 16) as *const [u64; 2]) }.unwrap_or([0; 2]);
    Source { at: vectors[0], vectors: vectors[1] as u32, fd }
}

/// `struct mmsghdr` is a `msghdr` of 56 bytes and the bytes that it moved, which the kernel writes after
/// each message.
const MESSAGE_BYTES: u64 = 64;
const MESSAGE_MOVED: u64 = 56;

/// The message of a batch whose turn it is.
#[inline(always)]
fn in_batch(messages: u64, len: u32, moved: u32) -> u64 {
    if len <= 1 {
        return messages;
    }
    let thread = bpf_get_current_pid_tgid();
    let mut batch = Batch { messages, done: 0, moved: 0 };
    if let Some(known) = BATCHES.get_ptr(&thread) {
        // SAFETY: read at once; only this thread uses its key.
        let known = unsafe { *known };
        if known.messages == messages && known.done < len {
            // The call may have ended early since; then the message before doesn't tell what it moved.
            let before = messages + (known.done as u64).wrapping_sub(1) * MESSAGE_BYTES + MESSAGE_MOVED;
            // SAFETY: the helper copes with any address.
            if unsafe { bpf_probe_read_user::<u32>(before as *const u32) } == Ok(known.moved) {
                batch.done = known.done;
            }
        }
    }
    let at = messages + batch.done as u64 * MESSAGE_BYTES;
    batch.done += 1;
    batch.moved = moved;
    if batch.done >= len {
        let _ = BATCHES.remove(&thread);
    } else {
        // When the map refuses it, the next message is taken for the first of another call; its bytes
        // are then those of the wrong buffer, so nothing must be remembered at all.
        let _ = BATCHES.insert(&thread, &batch, BPF_ANY as u64);
    }
    at
}

/// A message of a batch failed, which ends the batch.
#[inline(always)]
pub fn batch_failed() {
    let _ = BATCHES.remove(&bpf_get_current_pid_tgid());
}

/// The registers of the system call that this thread is in; `None` for a thread of the kernel and for
/// a 32-bit program, whose calls have other numbers.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
fn registers() -> Option<Registers> {
    use aya_ebpf::bindings::pt_regs;
    /// `__USER32_CS`, asm/segment.h.
    const USER32_CS: u64 = 0x23;
    let regs = task_registers() as *const pt_regs;
    // SAFETY: the helper copes with any address; rdx, rsi, rdi, orig_rax, rip and cs follow each other.
    let [rdx, rsi, rdi, orig_rax, _, cs] =
        unsafe { bpf_probe_read_kernel((&raw const (*regs).rdx).cast::<[u64; 6]>()) }.ok()?;
    let cs = cs & 0xffff;
    (cs & 3 == 3 && cs != USER32_CS).then_some(Registers { number: orig_rax, fd: rdi, second: rsi, third: rdx })
}

/// The same; the first argument is where the kernel keeps it, because its register holds the result.
#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
fn registers() -> Option<Registers> {
    use aya_ebpf::bindings::user_pt_regs;
    /// `PSR_MODE32_BIT` and the mode's bits, asm/ptrace.h: user programs of 64 bits have none of them.
    const NOT_USER64: u64 = 0x1f;
    let regs = task_registers() as *const user_pt_regs;
    // SAFETY: the helper copes with any address.
    let (values, pstate, first) = unsafe {
        (
            bpf_probe_read_kernel((&raw const (*regs).regs).cast::<[u64; 9]>()).ok()?,
            bpf_probe_read_kernel(&raw const (*regs).pstate).ok()?,
            // `orig_x0` follows `struct user_pt_regs` in the kernel's own `struct pt_regs`.
            bpf_probe_read_kernel(regs.add(1).cast::<u64>()).ok()?,
        )
    };
    (pstate & NOT_USER64 == 0).then_some(Registers {
        number: values[8],
        fd: first,
        second: values[1],
        third: values[2],
    })
}

#[inline(always)]
fn task_registers() -> u64 {
    // SAFETY: the task is the calling one, as the helper wants it.
    (unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) }) as u64
}
