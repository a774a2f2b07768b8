//! Where a probe costs least: the instructions that the kernel carries out by itself.
//!
//! A uprobe replaces an instruction by a trap. Afterwards the kernel either runs the instruction out
//! of line and takes a second trap behind it, or, if it is one of a few kinds, carries it out itself
//! (arch/x86/kernel/uprobes.c: `push_setup_xol_ops`, `branch_setup_xol_ops`). The second trap is half
//! of a probe's cost on bare metal and most of it in virtual machines, whose host sees each of them.
//!
//! So a probe is moved from a function's first instruction to a later one of these kinds, as long as
//! nothing that the programs read has changed by then: the stack pointer, which finds the return
//! address, and the arguments. And where a function begins with its stack frame and only wraps an
//! inner one of the same arguments, as OpenSSL's `SSL_read` does, the inner one can take its place.
//!
//! Everything here reads bytes and knows no file; an offset or address that it returns is relative
//! to what it was given.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};

/// Instructions that may stand before the one that is probed.
const STEPS_MAX: usize = 8;
/// Instructions that are read to find an inner function.
const WALK_MAX: usize = 64;

/// Whether the kernel carries out the instruction at which [`entry_site`] puts a probe.
pub fn is_cheap(code: &[u8]) -> bool {
    let at = entry_site(code);
    let instruction =
        Decoder::with_ip(64, code.get(at as usize..).unwrap_or_default(), at, DecoderOptions::NONE).decode();
    is_carried_out(code, &instruction)
}

/// Where in `code`, a function from its first byte to its last, an entry probe costs least: 0 unless
/// a later instruction is carried out by the kernel and sees the same arguments and return address.
pub fn entry_site(code: &[u8]) -> u64 {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut info = InstructionInfoFactory::new();
    for _ in 0..STEPS_MAX {
        let instruction = decoder.decode();
        if is_carried_out(code, &instruction) {
            let site = instruction.ip();
            return if site == 0 || !is_jumped_to(code, site) { site } else { 0 };
        }
        if !keeps_the_call(&instruction, &mut info) {
            break;
        }
    }
    0
}

/// The kinds that kernels since 4.16 carry out on x86_64: pushes of a register, jumps and calls to
/// a fixed place, and the one-byte nop.
fn is_carried_out(code: &[u8], instruction: &Instruction) -> bool {
    let at = instruction.ip() as usize;
    matches!(
        code.get(at..at + instruction.len()),
        Some(
            [0x50..=0x57]
                | [0x41, 0x50..=0x57]
                | [0x90]
                | [0xe8 | 0xe9, _, _, _, _]
                | [0xeb | 0x70..=0x7f, _]
                | [0x0f, 0x80..=0x8f, _, _, _, _]
        )
    )
}

/// True when control goes on behind it, and stack, arguments and memory are what they were.
fn keeps_the_call(instruction: &Instruction, info: &mut InstructionInfoFactory) -> bool {
    if instruction.is_invalid() || instruction.flow_control() != FlowControl::Next {
        return false;
    }
    let used = info.info(instruction);
    used.used_memory()
        .iter()
        .all(|memory| memory.access() == OpAccess::Read || memory.access() == OpAccess::NoMemAccess)
        && used.used_registers().iter().filter(|used| writes(used.access())).all(|used| !carries(used.register()))
}

fn writes(access: OpAccess) -> bool {
    !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
}

/// Registers that a call's arguments and return address are found by (System V ABI for AMD64, 3.2.3).
fn carries(register: Register) -> bool {
    const CALL: [Register; 7] =
        [Register::RSP, Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];
    CALL.contains(&register.full_register())
}

/// Whether the function jumps to a place behind its start and up to `site`: then what runs there is
/// not always a call that begins.
fn is_jumped_to(code: &[u8], site: u64) -> bool {
    Decoder::with_ip(64, code, 0, DecoderOptions::NONE)
        .iter()
        .any(|instruction| branch_target(&instruction).is_some_and(|target| (1..=site).contains(&target)))
}

fn branch_target(instruction: &Instruction) -> Option<u64> {
    let is_branch = matches!(instruction.op0_kind(), OpKind::NearBranch64) && instruction.op_count() == 1;
    is_branch.then(|| instruction.near_branch64())
}

/// A function to which another one hands its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Its address.
    pub address: u64,
    /// Which argument, counted from 0, is the address through which it reports a number of bytes.
    pub count: u8,
}

/// What `int f(SSL *ssl, void *buf, int num)` hands to an inner function of the arguments
/// `(ssl, buf, (size_t) num, …, &count)`, if that is how it begins. `code` is at `address`, and
/// `read` gives the code from another address on, for functions that jump on.
pub fn wrapped(address: u64, read: impl Fn(u64) -> Option<Vec<u8>>) -> Option<Inner> {
    walk(address, &read, |registers, after| {
        let handed = registers.of(0) == Value::Argument(0)
            && registers.of(1) == Value::Argument(1)
            && registers.of(2) == Value::Extended(2)
            && is_asked_for_positive(after);
        (3..5).find(|&count| registers.of(count) == Value::Local).filter(|_| handed)
    })
}

/// As [`wrapped`], of `int f(SSL *ssl, void *buf, size_t num, size_t *count)`.
pub fn wrapped_ex(address: u64, read: impl Fn(u64) -> Option<Vec<u8>>) -> Option<Inner> {
    walk(address, &read, |registers, _| {
        let handed = (0..3).all(|index| registers.of(index) == Value::Argument(index as u8));
        (3..5).find(|&count| registers.of(count) == Value::Argument(3)).filter(|_| handed)
    })
}

/// Whether the function at `address` hands its first arguments on to the one at `inner`, which reports a count
/// through argument `count`, and is of those whose own result isn't that of the inner: it takes an `int` and
/// has the count in its frame, as `SSL_read` does, or it makes 0 of what is less and hands on an argument of
/// its own, as `SSL_read_ex` does.
pub fn wraps(address: u64, inner: u64, count: u8, read: impl Fn(u64) -> Option<Vec<u8>>) -> bool {
    let handed = walk(address, &read, |registers, after| {
        let same = registers.of(0) == Value::Argument(0) && registers.of(1) == Value::Argument(1);
        let is_known = match (registers.of(2), registers.of(count.into())) {
            (Value::Extended(2), Value::Local) => true,
            (Value::Argument(2), Value::Argument(3 | 4)) => is_made_zero(after),
            _ => false,
        };
        (same && is_known).then_some(count.into())
    });
    handed.is_some_and(|handed| handed.address == inner)
}

/// Whether what is done after a call is to put something else in the place of a result below 0, or below 1.
fn is_made_zero(code: &[u8]) -> bool {
    let mut after = Decoder::new(64, code, DecoderOptions::NONE).into_iter();
    let is_test = |instruction: &Instruction| {
        instruction.code() == Code::Test_rm32_r32
            && instruction.op0_register() == Register::EAX
            && instruction.op1_register() == Register::EAX
    };
    // What it is replaced by may be made between: `xor edx,edx`.
    let tested = after.by_ref().take(3).any(|instruction| is_test(&instruction));
    tested
        && after.next().is_some_and(|next| {
            matches!(next.mnemonic(), Mnemonic::Cmovs | Mnemonic::Cmovle) && next.op0_register() == Register::EAX
        })
}

/// Whether what is done after a call is to see whether it returned more than 0: so success is that,
/// and the count is what matters then.
fn is_asked_for_positive(code: &[u8]) -> bool {
    let mut after = Decoder::new(64, code, DecoderOptions::NONE).into_iter();
    after.next().is_some_and(|test| {
        test.code() == Code::Test_rm32_r32
            && test.op0_register() == Register::EAX
            && test.op1_register() == Register::EAX
    }) && after.next().is_some_and(|next| {
        matches!(next.mnemonic(), Mnemonic::Jle | Mnemonic::Jg | Mnemonic::Cmovle | Mnemonic::Cmovg)
    })
}

/// What a register holds, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Value {
    /// An argument as it was passed.
    Argument(u8),
    /// An argument of 32 bits, widened to 64 with its sign.
    Extended(u8),
    /// An address in the function's own stack frame.
    Local,
    #[default]
    Other,
}

/// The general registers, by their number in the encoding.
#[derive(Clone, Copy)]
struct Registers([Value; 16]);

/// Integer arguments in their order, System V ABI for AMD64, 3.2.3.
const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

impl Registers {
    fn at_entry() -> Self {
        let mut registers = Self([Value::Other; 16]);
        for (index, register) in (0u8..).zip(ARGUMENTS) {
            registers.set(register, Value::Argument(index));
        }
        registers.set(Register::RSP, Value::Local);
        registers
    }

    /// The value that is passed as argument `index`.
    fn of(&self, index: usize) -> Value {
        self.get(ARGUMENTS[index])
    }

    fn get(&self, register: Register) -> Value {
        let full = register.full_register();
        if full.is_gpr64() { self.0[full.number()] } else { Value::Other }
    }

    fn set(&mut self, register: Register, value: Value) {
        let full = register.full_register();
        if full.is_gpr64() {
            self.0[full.number()] = value;
        }
    }

    /// Follows an instruction that isn't a branch.
    fn step(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let source = instruction.op1_register();
        let value = match instruction.code() {
            Code::Mov_r64_rm64 | Code::Mov_rm64_r64 if instruction.op1_kind() == OpKind::Register => self.get(source),
            Code::Movsxd_r64_rm32 if instruction.op1_kind() == OpKind::Register => match self.get(source) {
                Value::Argument(index) => Value::Extended(index),
                _ => Value::Other,
            },
            Code::Lea_r64_m => self.get(instruction.memory_base()),
            _ => Value::Other,
        };
        // An address computed from an argument is no longer the argument.
        let value = match (instruction.mnemonic(), value) {
            (Mnemonic::Lea, Value::Argument(_) | Value::Extended(_)) => Value::Other,
            (_, value) => value,
        };
        for used in info.info(instruction).used_registers() {
            // The stack pointer moves, and goes on pointing into the frame.
            if writes(used.access()) && used.register().full_register() != Register::RSP {
                self.set(used.register(), Value::Other);
            }
        }
        let destination = instruction.op0_register();
        if instruction.op0_kind() == OpKind::Register && destination.is_gpr64() && destination != Register::RSP {
            self.set(destination, value);
        }
    }
}

/// Looks on every way from `address` for the first call for which `accept` tells the argument of
/// the count. Ways end at calls, returns, and what can't be followed.
fn walk(
    address: u64,
    read: &impl Fn(u64) -> Option<Vec<u8>>,
    accept: impl Fn(&Registers, &[u8]) -> Option<usize>,
) -> Option<Inner> {
    let mut info = InstructionInfoFactory::new();
    let mut ways = vec![(address, Registers::at_entry())];
    let mut steps = 0;
    while let Some((at, mut registers)) = ways.pop() {
        let Some(code) = read(at) else { continue };
        let mut decoder = Decoder::with_ip(64, &code, at, DecoderOptions::NONE);
        while decoder.can_decode() && steps < WALK_MAX {
            steps += 1;
            let instruction = decoder.decode();
            let target = branch_target(&instruction);
            match (instruction.flow_control(), target) {
                (FlowControl::Next, _) => registers.step(&instruction, &mut info),
                (FlowControl::ConditionalBranch, Some(target)) => ways.insert(0, (target, registers)),
                (FlowControl::UnconditionalBranch, Some(target)) => {
                    // A jump to another function with the arguments in place is a call as well.
                    ways.push((target, registers));
                    break;
                }
                (FlowControl::Call, Some(address)) => {
                    if let Some(count) = accept(&registers, &code[decoder.position()..]) {
                        return Some(Inner { address, count: count as u8 });
                    }
                    break;
                }
                _ => break,
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_site(code: &[u8], expected: u64) {
        assert_eq!(entry_site(code), expected, "{code:02x?}");
    }

    #[test]
    fn probes_go_to_what_the_kernel_carries_out() {
        // push %r14
        check_site(&[0x41, 0x56, 0xc3], 0);
        // endbr64; push %rbp
        check_site(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x5d, 0xc3], 4);
        // xor %eax,%eax; test %esi,%esi; jle +1; ret; ret
        check_site(&[0x31, 0xc0, 0x85, 0xf6, 0x7e, 0x01, 0xc3, 0xc3], 4);
        // test %rdi,%rdi; je rel32
        check_site(&[0x48, 0x85, 0xff, 0x0f, 0x84, 0, 0, 0, 0, 0xc3], 3);
        // mov 0x10(%rdi),%rax; push %rbx
        check_site(&[0x48, 0x8b, 0x47, 0x10, 0x53, 0x5b, 0xc3], 4);
    }

    #[test]
    fn probes_stay_where_the_call_is_intact() {
        // sub $0x18,%rsp; push %rbx: the return address is elsewhere by then.
        check_site(&[0x48, 0x83, 0xec, 0x18, 0x53, 0xc3], 0);
        // mov %rsi,%rdi; push %rbx
        check_site(&[0x48, 0x89, 0xf7, 0x53, 0xc3], 0);
        // xor %ecx,%ecx; push %rbx
        check_site(&[0x31, 0xc9, 0x53, 0xc3], 0);
        // mov %eax,0x8(%rdi); push %rbx
        check_site(&[0x89, 0x47, 0x08, 0x53, 0xc3], 0);
        // test %eax,%eax; je +2; jmp back to the je
        check_site(&[0x85, 0xc0, 0x74, 0x02, 0xeb, 0xfc, 0xc3], 0);
        // 66-prefixed push, ret, nothing, rubbish
        check_site(&[0x66, 0x55, 0xc3], 0);
        check_site(&[0xc3], 0);
        check_site(&[], 0);
        check_site(&[0x06, 0x06, 0x55], 0);
    }

    /// OpenSSL 3.0's SSL_write as Debian builds it, at 0x980 of a file; its SSL_write_ex at 0xa10.
    const WRITE: &[u8] = &[
        0x48, 0x83, 0xec, 0x18, 0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0, 0x48, 0x89, 0x44, 0x24, 0x08, 0x31, 0xc0,
        0x85, 0xd2, 0x78, 0x2f, 0x48, 0x89, 0xe1, 0x48, 0x63, 0xd2, 0xe8, 0xfd, 0xfb, 0xff, 0xff, 0x85, 0xc0, 0x7e,
        0x03,
    ];
    const WRITE_EX: &[u8] = &[0x48, 0x83, 0xec, 0x08, 0xe8, 0x87, 0xfb, 0xff, 0xff, 0x31, 0xd2, 0x85, 0xc0];

    fn at(address: u64, code: &'static [u8]) -> impl Fn(u64) -> Option<Vec<u8>> {
        move |asked| code.get(usize::try_from(asked.checked_sub(address)?).ok()?..).map(<[u8]>::to_vec)
    }

    #[test]
    fn inner_functions_are_found_by_what_they_are_handed() {
        let inner = Some(Inner { address: 0x35_5a0, count: 3 });
        assert_eq!(wrapped(0x35_980, at(0x35_980, WRITE)), inner);
        assert_eq!(wrapped_ex(0x35_a10, at(0x35_a10, WRITE_EX)), inner);
        // Each is the other's way of calling.
        assert_eq!(wrapped_ex(0x35_980, at(0x35_980, WRITE)), None);
        // Where nobody asks for more than 0, what the inner one returns isn't known.
        assert_eq!(wrapped(0x35_980, at(0x35_980, &WRITE[..WRITE.len() - 2])), None);
        assert_eq!(wrapped(0x35_a10, at(0x35_a10, WRITE_EX)), None);
    }

    #[test]
    fn wrappers_are_told_by_what_they_make_of_a_result() {
        // test %eax,%eax; cmovs %edx,%eax; and the same with cmovle.
        let made_zero = |cmov: u8| [WRITE_EX, &[0x0f, cmov, 0xc2]].concat();
        let wraps_at = |address, count, code: &[u8]| {
            let code = code.to_vec();
            let read =
                move |asked: u64| code.get(usize::try_from(asked.checked_sub(address)?).ok()?..).map(<[u8]>::to_vec);
            wraps(address, 0x35_5a0, count, read)
        };
        assert!(wraps_at(0x35_980, 3, WRITE));
        assert!(wraps_at(0x35_a10, 3, &made_zero(0x48)) && wraps_at(0x35_a10, 3, &made_zero(0x4e)));
        // Its fifth argument is where it was, as SSL_write_ex2 has it.
        assert!(wraps_at(0x35_a10, 4, &made_zero(0x48)));
        // What it returns may be what the inner one returns; that is another function; another count.
        assert!(!wraps_at(0x35_a10, 3, WRITE_EX) && !wraps_at(0x35_a10, 3, &made_zero(0x49)));
        assert!(!wraps_at(0x35_a20, 3, &made_zero(0x48)) && !wraps_at(0x35_980, 4, WRITE));
    }

    #[test]
    fn arguments_that_move_are_followed() {
        // mov %rcx,%r8; xor %ecx,%ecx; jmp +0 | sub $8,%rsp; call +0x10: another argument in between.
        let moved: &[u8] = &[0x49, 0x89, 0xc8, 0x31, 0xc9, 0xeb, 0x00, 0x48, 0x83, 0xec, 0x08, 0xe8, 0x10, 0, 0, 0];
        assert_eq!(wrapped_ex(0, at(0, moved)), Some(Inner { address: 0x20, count: 4 }));
        // mov %rdi,%rbx; mov %rbx,%rdi; call
        let back: &[u8] = &[0x48, 0x89, 0xfb, 0x48, 0x89, 0xdf, 0xe8, 0, 0, 0, 0];
        assert_eq!(wrapped_ex(0, at(0, back)), Some(Inner { address: 0xb, count: 3 }));
        // mov (%rdi),%rdi; call: another object.
        let other: &[u8] = &[0x48, 0x8b, 0x3f, 0xe8, 0, 0, 0, 0];
        assert_eq!(wrapped_ex(0, at(0, other)), None);
        // lea 1(%rsi),%rsi; call: another buffer.
        let later: &[u8] = &[0x48, 0x8d, 0x76, 0x01, 0xe8, 0, 0, 0, 0];
        assert_eq!(wrapped_ex(0, at(0, later)), None);
        // jmp to itself ends.
        assert_eq!(wrapped_ex(0, at(0, &[0xeb, 0xfe])), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(code in proptest::collection::vec(0u8.., 0..64)) {
            let site = entry_site(&code);
            proptest::prop_assert!(site == 0 || (site as usize) < code.len());
            let read = |address: u64| code.get(usize::try_from(address).ok()?..).map(<[u8]>::to_vec);
            let _ = (wrapped(0, read), wrapped_ex(0, read));
        }
    }
}
