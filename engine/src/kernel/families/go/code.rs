//! What the machine code of a Go function tells: where it returns, and how it takes its arguments.
//!
//! A function first checks the size of its stack. When that is too small, or the scheduler wants the
//! goroutine's thread, it calls the runtime and begins again, so what stands before the check's jump may
//! run several times for one call. A call begins behind it.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, OpKind, Register};

/// Instructions at the start of a function within which it checks the size of its stack.
const PROLOGUE_INSTRUCTIONS_MAX: usize = 12;

/// Where `g.stackguard0` is in a goroutine's descriptor: behind the two ends of its stack.
const STACK_GUARD_OFFSET: u64 = 16;

/// Where arguments and results are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// In registers.
    Registers,
    /// On the stack.
    Stack,
}

/// A function as far as probes need it; places are counted from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// How it takes its arguments.
    pub convention: Convention,
    /// Where they are in place and the goroutine is known, once for each call.
    pub entry: u64,
    /// The return instructions.
    pub returns: Vec<u64>,
}

/// Reads x86_64 code. None when it isn't a whole Go function: one that checks the size of its stack
/// first and is left by returning only.
pub fn x86_64(code: &[u8]) -> Option<Body> {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let (mut convention, mut compared, mut entry, mut returns) = (None, false, None, Vec::new());
    for count in 0.. {
        if !decoder.can_decode() {
            break;
        }
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return None;
        }
        if entry.is_none() && count < PROLOGUE_INSTRUCTIONS_MAX {
            // With registers R14 is the goroutine; before, RCX is loaded with it from thread-local storage.
            let compares = |goroutine| {
                instruction.mnemonic() == Mnemonic::Cmp
                    && instruction.memory_base() == goroutine
                    && instruction.memory_displacement64() == STACK_GUARD_OFFSET
            };
            let loads = instruction.memory_segment() == Register::FS
                && instruction.mnemonic() == Mnemonic::Mov
                && instruction.op0_kind() == OpKind::Register
                && instruction.op0_register() == Register::RCX;
            if loads {
                convention = Some(Convention::Stack);
            } else if convention.is_none() && compares(Register::R14) {
                convention = Some(Convention::Registers);
                compared = true;
            } else if convention == Some(Convention::Stack) && compares(Register::RCX) {
                compared = true;
            } else if compared && instruction.mnemonic() == Mnemonic::Jbe {
                entry = Some(instruction.next_ip());
            }
        }
        match instruction.flow_control() {
            FlowControl::Return => returns.push(instruction.ip()),
            // What jumps elsewhere ends in another function, whose returns are not this one's.
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
                if instruction.near_branch_target() >= code.len() as u64 =>
            {
                return None;
            }
            FlowControl::IndirectBranch => return None,
            _ => {}
        }
    }
    let (convention, entry) = (convention?, entry?);
    (!returns.is_empty()).then_some(Body { convention, entry, returns })
}

/// Reads aarch64 code, whose instructions are words. The convention is the caller's to know: both
/// check the stack's size in the same way.
pub fn aarch64(code: &[u8], convention: Convention) -> Option<Body> {
    /// `ldr xN, [x28, #16]`; N is its lowest 5 bits.
    const LOAD_STACK_GUARD: u32 = 0xf940_0b80;
    /// `ret`, to where x30 points
    const RET: u32 = 0xd65f_03c0;
    /// `b.ls`, to anywhere.
    const JUMP_IF_LOWER: u32 = 0x5400_0009;
    const PLACE: u32 = 0x00ff_ffe0;
    let words = || code.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let mut prologue = words().enumerate().take(PROLOGUE_INSTRUCTIONS_MAX);
    prologue.find(|(_, word)| word & !0x1f == LOAD_STACK_GUARD)?;
    let (jump, _) = prologue.find(|(_, word)| word & !PLACE == JUMP_IF_LOWER)?;
    let entry = 4 * (jump as u64 + 1);
    let returns: Vec<u64> =
        words().enumerate().filter(|(_, word)| *word == RET).map(|(index, _)| 4 * index as u64).collect();
    (!returns.is_empty()).then_some(Body { convention, entry, returns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: &[u8], expected: Option<(Convention, u64, &[u64])>) {
        let expected =
            expected.map(|(convention, entry, returns)| Body { convention, entry, returns: returns.to_vec() });
        assert_eq!(x86_64(code), expected, "{code:x?}");
    }

    /// What `0xc3` is inside of another instruction (`mov eax, 0xc3`) is no return.
    const WITHIN: [u8; 5] = [0xb8, 0xc3, 0, 0, 0];
    /// `cmp rsp, [r14+0x10]`, `jbe`
    const REGISTERS: [u8; 6] = [0x49, 0x3b, 0x66, 0x10, 0x76, 0];
    /// `mov rcx, fs:[-8]`, `cmp rsp, [rcx+0x10]`, `jbe`
    const STACK: [u8; 15] = [0x64, 0x48, 0x8b, 0x0c, 0x25, 0xf8, 0xff, 0xff, 0xff, 0x48, 0x3b, 0x61, 0x10, 0x76, 0];

    #[test]
    fn returns_and_conventions_are_read() {
        let code = |parts: &[&[u8]]| parts.concat();
        check(
            &code(&[&REGISTERS, &WITHIN, &[0xc3], &WITHIN, &[0xc3, 0xcc]]),
            Some((Convention::Registers, 6, &[11, 17])),
        );
        // `lea r12, [rsp-0x80]`, `cmp r12, [r14+0x10]`, and a jump over more than 127 bytes: a large frame.
        check(
            &[0x4c, 0x8d, 0x64, 0x24, 0x80, 0x4d, 0x3b, 0x66, 0x10, 0x0f, 0x86, 0, 0, 0, 0, 0xc3],
            Some((Convention::Registers, 15, &[15])),
        );
        check(&code(&[&STACK, &[0xc3]]), Some((Convention::Stack, 15, &[15])));
        // `mov rcx, [rip+0]`, `mov rcx, fs:[rcx]`: the same in a position-independent program.
        check(
            &code(&[&[0x48, 0x8b, 0x0d, 0, 0, 0, 0, 0x64, 0x48, 0x8b, 0x09], &STACK[9..], &[0xc3]]),
            Some((Convention::Stack, 17, &[17])),
        );
    }

    #[test]
    fn what_is_no_whole_function_is_refused() {
        let code = |parts: &[&[u8]]| parts.concat();
        // No check, one without its jump, no return, invalid code, a jump out of the function, a jump to anywhere.
        check(&code(&[&WITHIN, &[0xc3]]), None);
        check(&code(&[&REGISTERS[..4], &[0xc3]]), None);
        check(&code(&[&STACK[..13], &[0xc3]]), None);
        check(&code(&[&REGISTERS, &WITHIN]), None);
        check(&code(&[&REGISTERS, &[0x06, 0xc3]]), None);
        check(&code(&[&REGISTERS, &[0xeb, 0x70, 0xc3]]), None);
        check(&code(&[&REGISTERS, &[0xff, 0xe0, 0xc3]]), None);
        check(&[], None);
    }

    #[test]
    fn words_of_aarch64_are_read() {
        let code: Vec<u8> = [0xf940_0b90_u32, 0xeb30_63ff, 0x5400_0429, 0xd65f_03c0, 0xd503_201f, 0xd65f_03c0]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let body = aarch64(&code, Convention::Registers).unwrap();
        assert_eq!(body, Body { convention: Convention::Registers, entry: 12, returns: vec![12, 20] });
        assert_eq!(aarch64(&code[4..], Convention::Registers), None);
        let without_jump = [&code[..8], &code[12..]].concat();
        assert_eq!(aarch64(&without_jump, Convention::Registers), None);
    }
}
