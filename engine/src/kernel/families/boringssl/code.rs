//! Machine code of x86_64 without symbols: which instructions load an address, where functions begin,
//! who calls whom, and what a function does with its arguments. Bytes in, facts out.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

/// Bytes that a function may be away from where it begins.
const FUNCTION_BYTES_MAX: u64 = 64 * 1024;

/// A function whose code is this far before is not jumped into from there.
const JUMP_BYTES_MAX: u64 = 4 * 1024;

/// Instructions that are followed of one function.
const INSTRUCTIONS_MAX: usize = 8_192;

/// Places that are tried as the beginning of a function.
const STARTS_MAX: usize = 512;

/// The prefixes `REX` and `REX.B`, and the operation code of `lea` (Intel SDM volume 2, section 2.2.1).
const REX: u8 = 0x40;
const REX_B: u8 = 0x41;
const LEA: u8 = 0x8d;

/// The operation codes of `call` and `jmp` with a 32-bit distance.
const CALL: u8 = 0xe8;
const JUMP: u8 = 0xe9;

/// Integer arguments in their order, System V ABI for AMD64, section 3.2.3.
pub const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// Executable bytes and the address of the first of them.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    /// Address of the first byte.
    pub address: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// A function, as far as it can be followed from its first instruction.
pub struct Function {
    /// Address of the first instruction.
    pub start: u64,
    /// Its instructions by their addresses.
    pub instructions: BTreeMap<u64, Instruction>,
}

impl<'a> Text<'a> {
    /// The bytes from `address` on.
    pub fn from(&self, address: u64) -> Option<&'a [u8]> {
        self.bytes.get(usize::try_from(address.checked_sub(self.address)?).ok()?..)
    }

    /// Instructions that put the address `target` into a register: `mov r32, imm32` where addresses are
    /// fixed, `lea r64, [rip + …]` elsewhere. The same bytes occur by chance, so each is decoded.
    pub fn loads(&self, target: u64) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        if let Ok(absolute) = u32::try_from(target) {
            for at in memchr::memmem::find_iter(self.bytes, &absolute.to_le_bytes()) {
                found.extend(self.load_around(at, target));
            }
        }
        // A displacement is counted from the end of the instruction, which is the end of the displacement.
        let low = target.wrapping_sub(self.address).wrapping_sub(4) as u32;
        let hits = self.bytes.windows(4).enumerate().filter(|(at, window)| {
            let displacement = u32::from_le_bytes([window[0], window[1], window[2], window[3]]);
            displacement.wrapping_add(*at as u32) == low
        });
        for (at, _) in hits {
            found.extend(self.load_around(at, target));
        }
        found
    }

    /// The instruction whose last four bytes are at `at`, if it loads `target`. Bytes before it may look
    /// like prefixes of it, so only those are taken for some that compilers write.
    fn load_around(&self, at: usize, target: u64) -> Option<u64> {
        (1..=3).rev().find_map(|before| {
            let start = at.checked_sub(before)?;
            let written = match before {
                1 => true,
                2 => self.bytes[start] == REX_B || self.bytes[start] == LEA,
                _ => (REX..REX + 16).contains(&self.bytes[start]),
            };
            let instruction = self.decode(self.address + start as u64).filter(|_| written)?;
            (instruction.len() == before + 4 && loaded(&instruction) == Some(target)).then(|| instruction.ip())
        })
    }

    /// The instruction at `address`.
    pub fn decode(&self, address: u64) -> Option<Instruction> {
        let instruction = Decoder::with_ip(64, self.from(address)?, address, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// Addresses in the text that something calls, of those that `is_wanted`. Bytes that look like a
    /// call by chance add some that nothing does.
    pub fn called(&self, is_wanted: impl Fn(u64) -> bool) -> BTreeSet<u64> {
        memchr::memchr_iter(CALL, self.bytes)
            .filter_map(|at| self.branch_target(at))
            .filter(|&target| is_wanted(target))
            .collect()
    }

    /// Addresses of what looks like a call of a wanted target, or a jump to it.
    pub fn callers(&self, is_wanted: impl Fn(u64) -> bool) -> Vec<u64> {
        memchr::memchr2_iter(CALL, JUMP, self.bytes)
            .filter(|&at| self.branch_target(at).is_some_and(&is_wanted))
            .map(|at| self.address + at as u64)
            .collect()
    }

    /// Where the call or jump at `at` leads, when it is one with a 32-bit distance.
    fn branch_target(&self, at: usize) -> Option<u64> {
        let &[a, b, c, d] = self.bytes.get(at + 1..at + 5)? else { return None };
        let next = self.address + at as u64 + 5;
        Some(next.wrapping_add_signed(i64::from(i32::from_le_bytes([a, b, c, d]))))
    }

    /// The function that holds the instruction at `inside`. `called` are the addresses that something
    /// calls, as far as they lie before it.
    pub fn function_around(&self, inside: u64, called: &BTreeSet<u64>) -> Option<Function> {
        let low = inside.saturating_sub(FUNCTION_BYTES_MAX).max(self.address);
        let starts = (low..=inside).rev().filter(|&at| called.contains(&at) || self.is_behind_padding(at));
        starts.take(STARTS_MAX).find_map(|start| {
            let function =
                self.function(start, called).filter(|function| function.instructions.contains_key(&inside))?;
            self.is_whole(&function, called.contains(&start)).then_some(function)
        })
    }

    /// Compilers fill up to an aligned start with `int3` or `nop`. So they do before a loop.
    fn is_behind_padding(&self, address: u64) -> bool {
        let Some(at) = address.checked_sub(self.address).and_then(|at| usize::try_from(at).ok()) else { return false };
        address.is_multiple_of(16) && at > 0 && matches!(self.bytes[at - 1], 0xcc | 0x90 | 0x00)
    }

    /// True unless code before the function jumps into it, which makes it the rest of one. To its very
    /// beginning others may jump that end with calling it; a loop is jumped to as well.
    fn is_whole(&self, function: &Function, is_called: bool) -> bool {
        let before = function.start.saturating_sub(JUMP_BYTES_MAX).max(self.address);
        let Some(code) = self.from(before) else { return false };
        let end = function.instructions.last_key_value().map_or(function.start, |(at, _)| *at);
        // Wherever decoding begins, it soon falls in with the instructions as they are.
        let mut decoder = Decoder::with_ip(64, code, before, DecoderOptions::NONE);
        let mut falls_through = false;
        while decoder.ip() < function.start {
            let instruction = decoder.decode();
            let at = (instruction.ip() - before) as usize;
            let is_filling = code[at..].iter().take(instruction.len()).all(|&byte| byte == 0);
            falls_through = match instruction.mnemonic() {
                Mnemonic::Nop => falls_through,
                // Linkers fill with zeros what lies between, which decode as additions.
                _ if is_filling || decoder.ip() > function.start => falls_through,
                // What never returns ends a function too, but so a loop may begin.
                Mnemonic::Call => !is_called,
                _ => matches!(instruction.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch),
            };
            let jumps =
                matches!(instruction.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch);
            if !jumps || instruction.op0_kind() != OpKind::NearBranch64 {
                continue;
            }
            let target = instruction.near_branch_target();
            let begins = target == function.start && is_called;
            if (function.start..=end).contains(&target) && function.instructions.contains_key(&target) && !begins {
                return false;
            }
        }
        !falls_through
    }

    /// Follows a function from its first instruction over all its branches.
    pub fn function(&self, start: u64, called: &BTreeSet<u64>) -> Option<Function> {
        let mut instructions = BTreeMap::new();
        let mut waiting = vec![start];
        while let Some(mut at) = waiting.pop() {
            while !instructions.contains_key(&at) {
                let instruction = self.decode(at)?;
                if instructions.len() >= INSTRUCTIONS_MAX {
                    return None;
                }
                instructions.insert(at, instruction);
                let target = (instruction.op0_kind() == OpKind::NearBranch64).then(|| instruction.near_branch_target());
                // A jump to where another function begins is a call in the end.
                let within = |target: &u64| {
                    (start..start + FUNCTION_BYTES_MAX).contains(target)
                        && (*target == start || !called.contains(target))
                };
                match instruction.flow_control() {
                    FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {}
                    FlowControl::ConditionalBranch => waiting.extend(target.filter(within)),
                    FlowControl::UnconditionalBranch => {
                        waiting.extend(target.filter(within));
                        break;
                    }
                    _ => break,
                }
                at = instruction.next_ip();
            }
        }
        Some(Function { start, instructions })
    }
}

/// The address that an instruction puts into a register, if it does nothing else.
fn loaded(instruction: &Instruction) -> Option<u64> {
    match instruction.mnemonic() {
        Mnemonic::Lea if instruction.is_ip_rel_memory_operand() => Some(instruction.ip_rel_memory_address()),
        Mnemonic::Mov => constant(instruction).map(|(_, value)| value),
        _ => None,
    }
}

/// The register and the number of a `mov` of a constant.
fn constant(instruction: &Instruction) -> Option<(Register, u64)> {
    let kinds = [OpKind::Immediate32, OpKind::Immediate32to64, OpKind::Immediate64];
    let is_constant = instruction.mnemonic() == Mnemonic::Mov
        && instruction.op0_kind() == OpKind::Register
        && kinds.contains(&instruction.op1_kind());
    is_constant.then(|| (instruction.op0_register().full_register(), instruction.immediate(1)))
}

/// What a function tells of an error that it records: `ERR_put_error(library, unused, reason, file, line)`,
/// or without the unused argument where a linker could leave it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Report {
    /// `SSL_R_…` or `ERR_R_…`.
    pub reason: u64,
    /// Line of the source file.
    pub line: u64,
}

impl Function {
    /// The error that is recorded around the instruction at `load`, which loads the file's name.
    pub fn report(&self, load: u64) -> Option<Report> {
        let file = self.instructions.get(&load)?.op0_register().full_register();
        let position = ARGUMENTS.iter().position(|register| *register == file)?;
        let (reason, line) = (*ARGUMENTS.get(position.checked_sub(1)?)?, *ARGUMENTS.get(position + 1)?);
        let mut values: BTreeMap<Register, u64> = BTreeMap::new();
        // Arguments are put together in one run of instructions, in any order.
        for (_, instruction) in self.instructions.range(..load).rev().take(6) {
            if instruction.flow_control() != FlowControl::Next {
                break;
            }
            if let Some((register, value)) = constant(instruction) {
                values.entry(register).or_insert(value);
            }
        }
        for (_, instruction) in self.instructions.range(load..).skip(1).take(8) {
            if instruction.flow_control() != FlowControl::Next {
                break;
            }
            if let Some((register, value)) = constant(instruction) {
                values.insert(register, value);
            }
        }
        Some(Report { reason: *values.get(&reason)?, line: *values.get(&line)? })
    }

    /// Which of its first three arguments it uses: reads from their registers before anything else is
    /// put there, or leaves there for a call of one of `takers`, which use all three.
    pub fn arguments_used(&self, takers: &BTreeSet<u64>) -> [bool; 3] {
        let mut used = [false; 3];
        let mut open = [true; 3];
        let mut info = InstructionInfoFactory::new();
        let (mut seen, mut waiting) = (HashSet::new(), vec![self.start]);
        while let Some(mut at) = waiting.pop() {
            // Along each way the registers hold the arguments up to the first call.
            while seen.insert(at)
                && let Some(instruction) = self.instructions.get(&at)
            {
                for register in info.info(instruction).used_registers() {
                    let full = register.register().full_register();
                    if let Some(index) = ARGUMENTS[..3].iter().position(|argument| *argument == full) {
                        let reads = !matches!(register.access(), OpAccess::Write | OpAccess::CondWrite);
                        used[index] |= reads && open[index] && !is_zeroing(instruction);
                        open[index] &= reads;
                    }
                }
                match instruction.flow_control() {
                    FlowControl::Next => {}
                    FlowControl::ConditionalBranch => waiting.push(instruction.near_branch_target()),
                    FlowControl::UnconditionalBranch if instruction.op0_kind() == OpKind::NearBranch64 => {
                        at = instruction.near_branch_target();
                        if takers.contains(&at) {
                            used = [0, 1, 2].map(|index| used[index] || open[index]);
                        }
                        continue;
                    }
                    FlowControl::Call if takers.contains(&instruction.near_branch_target()) => {
                        used = [0, 1, 2].map(|index| used[index] || open[index]);
                        break;
                    }
                    _ => break,
                }
                at = instruction.next_ip();
            }
            // What another way left in a register says nothing of this one.
            open = [true; 3];
        }
        used
    }

    /// Whether it moves a span of memory on: both words of a pair at one place of an object, pointer and
    /// length, are loaded and stored.
    pub fn advances_span(&self) -> bool {
        let mut stored = HashSet::new();
        let mut loaded = HashSet::new();
        for instruction in self.instructions.values() {
            let outside = instruction.memory_index() == Register::None
                && !matches!(instruction.memory_base(), Register::RSP | Register::RBP | Register::RIP | Register::None)
                && instruction.memory_size().size() == 8;
            if !outside {
                continue;
            }
            let place = (instruction.memory_base(), instruction.memory_displacement64());
            if instruction.op0_kind() == OpKind::Memory {
                match instruction.mnemonic() {
                    // Adds to what is there: loads and stores.
                    Mnemonic::Add | Mnemonic::Sub => {
                        stored.insert(place);
                        loaded.insert(place.1);
                    }
                    Mnemonic::Mov if instruction.op1_kind() == OpKind::Register => {
                        stored.insert(place);
                    }
                    _ => {}
                }
            } else {
                loaded.insert(place.1);
            }
        }
        stored.iter().any(|&(base, at)| {
            let next = at.wrapping_add(8);
            stored.contains(&(base, next)) && loaded.contains(&at) && loaded.contains(&next)
        })
    }
}

/// `xor r, r` and `sub r, r` put 0 there whatever there was.
fn is_zeroing(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Xor | Mnemonic::Sub)
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x40_1000;

    /// Code at `BASE`: pieces at offsets, with `int3` between them.
    fn code(pieces: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0xcc; 0x200];
        for (at, piece) in pieces {
            bytes[*at..at + piece.len()].copy_from_slice(piece);
        }
        bytes
    }

    #[track_caller]
    fn check_loads(piece: &[u8], expected: &[u64]) {
        let bytes = code(&[(0x20, piece)]);
        let loads = Text { address: BASE, bytes: &bytes }.loads(BASE + 0x100);
        assert_eq!(loads.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn loads_of_an_address_are_decoded() {
        let at = BASE + 0x20;
        // mov ecx, 0x401100; mov r9d, 0x401100; lea rcx, [rip + 0xd9]
        check_loads(&[0xb9, 0x00, 0x11, 0x40, 0x00], &[at]);
        check_loads(&[0x41, 0xb9, 0x00, 0x11, 0x40, 0x00], &[at]);
        check_loads(&[0x48, 0x8d, 0x0d, 0xd9, 0, 0, 0], &[at]);
        // je with a distance that looks like a prefix, then the mov
        check_loads(&[0x74, 0x2e, 0xb9, 0x00, 0x11, 0x40, 0x00], &[at + 2]);
        // cmp ecx, 0x401100 has the number and loads nothing
        check_loads(&[0x81, 0xf9, 0x00, 0x11, 0x40, 0x00], &[]);
    }

    #[test]
    fn a_function_begins_where_nothing_leads_into_it() {
        // A function of its own; then one with a loop behind padding, to which it falls through.
        let first = [0x55, 0x5d, 0xc3];
        let head = [0x55, 0x0f, 0x1f, 0x80, 0, 0, 0, 0, 0x0f, 0x1f, 0x80, 0, 0, 0, 0, 0x90];
        // dec edx; jne to itself; mov ecx, …; pop rbp; ret
        let body = [0xff, 0xca, 0x75, 0xfc, 0xb9, 0x00, 0x11, 0x40, 0x00, 0x5d, 0xc3];
        let bytes = code(&[(0x10, &first), (0x40, &head), (0x50, &body)]);
        let text = Text { address: BASE, bytes: &bytes };
        let around =
            |inside: u64| text.function_around(BASE + inside, &BTreeSet::new()).map(|found| found.start - BASE);
        assert_eq!(around(0x54), Some(0x40));
        assert_eq!(around(0x11), Some(0x10));
        let function = text.function(BASE + 0x40, &BTreeSet::new()).unwrap();
        assert_eq!(function.arguments_used(&BTreeSet::new()), [false, false, true]);
        assert!(!function.advances_span());
        // push rbx; mov rbx, rdi; call: what the callee takes was left in its registers.
        let bytes = code(&[(0x40, &[0x53, 0x48, 0x89, 0xfb, 0xe8, 0x57, 0, 0, 0, 0x5b, 0xc3])]);
        let function = Text { address: BASE, bytes: &bytes }.function(BASE + 0x40, &BTreeSet::new()).unwrap();
        assert_eq!(function.arguments_used(&BTreeSet::new()), [true, false, false]);
        assert_eq!(function.arguments_used(&BTreeSet::from([BASE + 0xa0])), [true; 3]);
    }

    #[test]
    fn what_an_error_says_is_read_from_the_arguments() {
        // mov ecx, file; mov edi, 16; xor esi, esi; mov edx, 66; mov r8d, 931; call
        let report = [
            0x55, 0xb9, 0x00, 0x11, 0x40, 0x00, 0xbf, 16, 0, 0, 0, 0x31, 0xf6, 0xba, 66, 0, 0, 0, 0x41, 0xb8, 0xa3, 3,
            0, 0, 0xe8, 0, 0, 0, 0, 0xc3,
        ];
        let bytes = code(&[(0x40, &report)]);
        let text = Text { address: BASE, bytes: &bytes };
        let function = text.function(BASE + 0x40, &BTreeSet::new()).unwrap();
        assert_eq!(function.report(BASE + 0x41), Some(Report { reason: 66, line: 931 }));
        assert_eq!(function.report(BASE + 0x40), None);
    }

    #[test]
    fn a_span_that_moves_on_is_told_from_one_that_is_read() {
        // mov rcx,[rax+0x88]; sub rcx,rbx; add [rax+0x80],rbx; mov [rax+0x88],rcx; ret
        let moves = [
            0x48, 0x8b, 0x88, 0x88, 0, 0, 0, 0x48, 0x29, 0xd9, 0x48, 0x01, 0x98, 0x80, 0, 0, 0, 0x48, 0x89, 0x88, 0x88,
            0, 0, 0, 0xc3,
        ];
        // mov rcx,[rax+0x88]; mov rsi,[rax+0x80]; ret
        let reads = [0x48, 0x8b, 0x88, 0x88, 0, 0, 0, 0x48, 0x8b, 0xb0, 0x80, 0, 0, 0, 0xc3];
        let bytes = code(&[(0x40, &moves), (0x80, &reads)]);
        let text = Text { address: BASE, bytes: &bytes };
        let advances = |at: u64| text.function(BASE + at, &BTreeSet::new()).unwrap().advances_span();
        assert!(advances(0x40) && !advances(0x80));
    }
}
