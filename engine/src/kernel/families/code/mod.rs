//! Machine code of x86_64 without symbols: which instructions load an address, where functions begin,
//! who calls whom, and what a function does with its arguments. Bytes in, facts out.

mod scan;
mod segment;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

pub use self::{
    scan::Scan,
    segment::{Segment, holds, names_of, of_machine, texts},
};

/// Bytes that a function may be away from where it begins.
const FUNCTION_BYTES_MAX: u64 = 64 * 1024;

/// A function whose code is this far before is not jumped into from there.
const JUMP_BYTES_MAX: u64 = 4 * 1024;

/// Instructions that are followed of one function.
const INSTRUCTIONS_MAX: usize = 8_192;

/// Functions begin at multiples of this, as far as compilers fill up to them.
const ALIGNMENT: u64 = 16;

/// How far behind its start a function's instructions may be: as far as jumps are followed, and then on and on.
const PLACES_MAX: usize = FUNCTION_BYTES_MAX as usize + (INSTRUCTIONS_MAX + 1) * INSTRUCTION_BYTES_MAX as usize;

/// Places that are tried as the beginning of a function.
const STARTS_MAX: usize = 512;

/// Instructions that are followed altogether. Of bun it takes up to 1.4 million.
const FOLLOWED_MAX: usize = 8 * 1024 * 1024;

/// The prefixes `REX` and `REX.B`, and the operation code of `lea` (Intel SDM volume 2, section 2.2.1).
const REX: u8 = 0x40;
const REX_B: u8 = 0x41;
const LEA: u8 = 0x8d;

/// Code is looked at in windows of so many bytes, and what an instruction that begins in one has behind it.
const WINDOW_BYTES: u64 = 16 * 1024;
const INSTRUCTION_BYTES_MAX: u64 = 15;

/// Integer arguments in their order, System V ABI for AMD64, section 3.2.3.
pub const ARGUMENTS: [Register; 6] =
    [Register::RDI, Register::RSI, Register::RDX, Register::RCX, Register::R8, Register::R9];

/// Where code comes from; places are counted from its start.
pub trait Source<'a> {
    /// `len` bytes at `at`. They stay in memory.
    fn window(&self, at: u64, len: u64) -> Option<&'a [u8]>;

    /// Fills `into` with what is at `at`.
    fn read(&self, at: u64, into: &mut [u8]) -> Option<()>;
}

/// Executable bytes, and the address of the first of them.
pub struct Text<'a> {
    address: u64,
    len: u64,
    source: &'a dyn Source<'a>,
    /// The window that was looked at last, and where it is.
    window: Cell<(u64, &'a [u8])>,
}

/// A function, as far as it can be followed from its first instruction.
pub struct Function {
    /// Address of the first instruction.
    pub start: u64,
    /// Its instructions in the order of their addresses.
    instructions: Vec<Instruction>,
}

impl<'a> Text<'a> {
    /// `len` bytes of code at `address`.
    pub fn new(address: u64, len: u64, source: &'a dyn Source<'a>) -> Self {
        Self { address, len, source, window: Cell::new((u64::MAX, &[])) }
    }

    /// Bytes from `address` on: as many as an instruction there has at most, if the code goes on, or more.
    fn from(&self, address: u64) -> Option<&'a [u8]> {
        let at = address.checked_sub(self.address).filter(|at| *at < self.len)?;
        let start = at - at % WINDOW_BYTES;
        if self.window.get().0 != start {
            let len = (WINDOW_BYTES + INSTRUCTION_BYTES_MAX).min(self.len - start);
            self.window.set((start, self.source.window(start, len)?));
        }
        self.window.get().1.get((at - start) as usize..)
    }

    /// Goes over all of it, for what leads to one of `wanted`.
    pub fn scan(&self, wanted: &[u64]) -> Option<Scan> {
        Scan::of(self.source, self.address, self.len, wanted)
    }

    /// Instructions that put one of the addresses `wanted` into a register, of those that `scan` found, with
    /// the address: `mov r32, imm32` where addresses are fixed, `lea r64, [rip + …]` elsewhere.
    pub fn loads(&self, scan: &Scan, wanted: &[u64]) -> BTreeMap<u64, u64> {
        let load = |&(at, index): &(u32, usize)| {
            let target = wanted[index];
            Some((self.load_around(self.address + u64::from(at), target)?, target))
        };
        scan.hits.iter().filter_map(load).collect()
    }

    /// The instruction whose last four bytes are at `at`, if it loads `target`. Bytes before it may look
    /// like prefixes of it, so only those are taken for some that compilers write.
    fn load_around(&self, at: u64, target: u64) -> Option<u64> {
        (1..=3).rev().find_map(|before| {
            let start = at - before;
            let first = *self.from(start)?.first()?;
            let written = match before {
                1 => true,
                2 => first == REX_B || first == LEA,
                _ => (REX..REX + 16).contains(&first),
            };
            let instruction = self.decode(start).filter(|_| written)?;
            (instruction.len() as u64 == before + 4 && loaded(&instruction) == Some(target)).then(|| instruction.ip())
        })
    }

    /// The instruction at `address`.
    fn decode(&self, address: u64) -> Option<Instruction> {
        let instruction = Decoder::with_ip(64, self.from(address)?, address, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// What something calls of the places that lie a little before one of `sites`. Bytes that look like a
    /// call by chance add some that nothing does.
    pub fn called_before(&self, scan: &Scan, sites: &BTreeSet<u64>) -> BTreeSet<u64> {
        scan.called_before(&self.places(sites)).into_iter().map(|place| self.address + u64::from(place)).collect()
    }

    /// Addresses of what looks like a call of a target, or a jump to it.
    pub fn callers(&self, scan: &Scan, targets: &BTreeSet<u64>) -> BTreeSet<u64> {
        scan.sites(&self.places(targets)).into_iter().map(|place| self.address + u64::from(place)).collect()
    }

    /// The functions that call one of `callees`, or end with a jump there; `called` are addresses that
    /// something calls.
    pub fn calling(&self, scan: &Scan, called: &BTreeSet<u64>, callees: &BTreeSet<u64>) -> BTreeSet<u64> {
        let sites = self.callers(scan, callees);
        let all: BTreeSet<u64> = self.called_before(scan, &sites).union(called).copied().collect();
        let mut around = Functions::new(self, &all);
        sites.iter().filter_map(|&site| around.around(site)).collect()
    }

    /// Addresses in the code, counted from its start.
    fn places(&self, addresses: &BTreeSet<u64>) -> Vec<u32> {
        addresses.iter().filter_map(|address| u32::try_from(address.checked_sub(self.address)?).ok()).collect()
    }

    /// Places up to `bytes_max` before `inside`, and that itself, where a function may begin: something calls
    /// them, or they are where compilers put functions.
    pub fn starts_before(&self, inside: u64, bytes_max: u64, called: &BTreeSet<u64>) -> impl Iterator<Item = u64> {
        let low = inside.saturating_sub(bytes_max).max(self.address);
        (low..=inside)
            .rev()
            .filter(|at| called.contains(at) || at.is_multiple_of(ALIGNMENT) && self.is_behind_padding(*at))
    }

    /// Compilers fill up to an aligned start with `int3` or `nop`. So they do before a loop.
    fn is_behind_padding(&self, aligned: u64) -> bool {
        aligned > self.address
            && self.from(aligned - 1).and_then(<[u8]>::first).is_some_and(|before| matches!(before, 0xcc | 0x90 | 0x00))
    }

    /// Follows a function from its first instruction over all its branches.
    pub fn function(&self, start: u64, called: &BTreeSet<u64>) -> Option<Function> {
        let mut instructions = Vec::new();
        // A bit for each place that it may reach, counted from its start.
        let mut seen = vec![0_u64; PLACES_MAX / 64 + 1];
        let mut waiting = vec![start];
        while let Some(mut at) = waiting.pop() {
            while is_first(&mut seen, (at - start) as usize) {
                let instruction = self.decode(at)?;
                if instructions.len() >= INSTRUCTIONS_MAX {
                    return None;
                }
                instructions.push(instruction);
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
        instructions.sort_unstable_by_key(Instruction::ip);
        Some(Function { start, instructions })
    }
}

/// Sets the bit of a place, and tells whether it wasn't set.
fn is_first(seen: &mut [u64], place: usize) -> bool {
    let Some(bits) = seen.get_mut(place / 64) else { return false };
    let bit = 1 << (place % 64);
    let is_first = *bits & bit == 0;
    *bits |= bit;
    is_first
}

/// Finds functions by places inside of them, and remembers what it has tried.
pub struct Functions<'t, 'a> {
    text: &'t Text<'a>,
    called: &'t BTreeSet<u64>,
    /// What may be a function, by where it would begin; none where it can't be one.
    tried: HashMap<u64, Option<Tried>>,
    /// Instructions that may still be followed.
    left: usize,
}

/// What may be a function.
struct Tried {
    /// Where its instructions are, counted from its start.
    places: Vec<u32>,
    /// Whether nothing else leads into it, once that was asked.
    is_whole: Option<bool>,
}

impl<'t, 'a> Functions<'t, 'a> {
    /// Functions of `text`; `called` are the addresses that something calls, as far as they may lie
    /// before those that will be asked for.
    pub fn new(text: &'t Text<'a>, called: &'t BTreeSet<u64>) -> Self {
        Self { text, called, tried: HashMap::new(), left: FOLLOWED_MAX }
    }

    /// Where the function begins that holds the instruction at `inside`.
    pub fn around(&mut self, inside: u64) -> Option<u64> {
        let low = inside.saturating_sub(FUNCTION_BYTES_MAX).max(self.text.address);
        let (text, called) = (self.text, self.called);
        let aligned = (low.div_ceil(ALIGNMENT)..=inside / ALIGNMENT).rev().map(|place| place * ALIGNMENT);
        let mut padded = aligned.filter(|&at| text.is_behind_padding(at)).peekable();
        let mut called = called.range(low..=inside).rev().copied().peekable();
        // The nearest first; one may be both.
        let starts = std::iter::from_fn(|| {
            let next = padded.peek().max(called.peek()).copied();
            padded.next_if(|start| Some(*start) == next);
            called.next_if(|start| Some(*start) == next);
            next
        });
        starts.take(STARTS_MAX).find(|&start| self.is_around(start, inside))
    }

    /// Whether a function begins at `start`, and holds the instruction at `inside`.
    fn is_around(&mut self, start: u64, inside: u64) -> bool {
        let tried = self.tried.entry(start).or_insert_with(|| {
            if self.left == 0 {
                return None;
            }
            let followed = self.text.function(start, self.called);
            self.left = self.left.saturating_sub(followed.as_ref().map_or(INSTRUCTIONS_MAX, Function::len));
            followed.map(|function| Tried { places: function.places(), is_whole: None })
        });
        let Some(tried) = tried else { return false };
        let holds = u32::try_from(inside - start).is_ok_and(|place| tried.places.binary_search(&place).is_ok());
        holds && {
            let is_called = self.called.contains(&start);
            *tried.is_whole.get_or_insert_with(|| is_whole(self.text, start, &tried.places, is_called))
        }
    }
}

/// True unless code before a function jumps into it, which makes it the rest of one. To its very
/// beginning others may jump that end with calling it; a loop is jumped to as well.
fn is_whole(text: &Text<'_>, start: u64, places: &[u32], is_called: bool) -> bool {
    let mut at = start.saturating_sub(JUMP_BYTES_MAX).max(text.address);
    // Wherever decoding begins, it soon falls in with the instructions as they are.
    let mut falls_through = false;
    while at < start {
        let Some(code) = text.from(at) else { return false };
        let instruction = Decoder::with_ip(64, code, at, DecoderOptions::NONE).decode();
        at += instruction.len().max(1) as u64;
        let is_filling = code.iter().take(instruction.len()).all(|&byte| byte == 0);
        falls_through = match instruction.mnemonic() {
            Mnemonic::Nop => falls_through,
            // Linkers fill with zeros what lies between, which decode as additions.
            _ if is_filling || at > start => falls_through,
            // What never returns ends a function too, but so a loop may begin.
            Mnemonic::Call => !is_called,
            _ => matches!(instruction.flow_control(), FlowControl::Next | FlowControl::ConditionalBranch),
        };
        let jumps =
            matches!(instruction.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch);
        if !jumps || instruction.op0_kind() != OpKind::NearBranch64 {
            continue;
        }
        let place = instruction.near_branch_target().checked_sub(start).and_then(|place| u32::try_from(place).ok());
        let begins = place == Some(0) && is_called;
        if place.is_some_and(|place| places.binary_search(&place).is_ok()) && !begins {
            return false;
        }
    }
    !falls_through
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
    fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Where its instructions are, counted from its start. None is before it or far behind.
    fn places(&self) -> Vec<u32> {
        self.instructions.iter().map(|instruction| (instruction.ip() - self.start) as u32).collect()
    }

    /// Whether one of its instructions is at `address`.
    pub fn holds(&self, address: u64) -> bool {
        self.index_of(address).is_some()
    }

    fn index_of(&self, address: u64) -> Option<usize> {
        self.instructions.binary_search_by_key(&address, Instruction::ip).ok()
    }

    /// The error that is recorded around the instruction at `load`, which loads the file's name.
    pub fn report(&self, load: u64) -> Option<Report> {
        let index = self.index_of(load)?;
        let file = self.instructions[index].op0_register().full_register();
        let position = ARGUMENTS.iter().position(|register| *register == file)?;
        let (reason, line) = (*ARGUMENTS.get(position.checked_sub(1)?)?, *ARGUMENTS.get(position + 1)?);
        let mut values: BTreeMap<Register, u64> = BTreeMap::new();
        // Arguments are put together in one run of instructions, in any order.
        for instruction in self.instructions[..index].iter().rev().take(6) {
            if instruction.flow_control() != FlowControl::Next {
                break;
            }
            if let Some((register, value)) = constant(instruction) {
                values.entry(register).or_insert(value);
            }
        }
        for instruction in self.instructions[index + 1..].iter().take(8) {
            if instruction.flow_control() != FlowControl::Next {
                break;
            }
            if let Some((register, value)) = constant(instruction) {
                values.insert(register, value);
            }
        }
        Some(Report { reason: *values.get(&reason)?, line: *values.get(&line)? })
    }

    /// Which of its first arguments it uses: reads from their registers before anything else is put there,
    /// or leaves there for a call of one of `takers`, which use the first three.
    pub fn arguments_used(&self, takers: &BTreeSet<u64>) -> [bool; 5] {
        let mut used = [false; 5];
        let mut open = [true; 5];
        let leave = |used: &mut [bool; 5], open: &[bool; 5]| (0..3).for_each(|index| used[index] |= open[index]);
        let mut info = InstructionInfoFactory::new();
        let (mut seen, mut waiting) = (HashSet::new(), vec![self.start]);
        while let Some(mut at) = waiting.pop() {
            // Along each way the registers hold the arguments up to the first call.
            while seen.insert(at)
                && let Some(index) = self.index_of(at)
            {
                let instruction = &self.instructions[index];
                for register in info.info(instruction).used_registers() {
                    let full = register.register().full_register();
                    if let Some(index) = ARGUMENTS[..5].iter().position(|argument| *argument == full) {
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
                            leave(&mut used, &open);
                        }
                        continue;
                    }
                    FlowControl::Call if takers.contains(&instruction.near_branch_target()) => {
                        leave(&mut used, &open);
                        break;
                    }
                    _ => break,
                }
                at = instruction.next_ip();
            }
            // What another way left in a register says nothing of this one.
            open = [true; 5];
        }
        used
    }

    /// Whether it moves a span of memory on: both words of a pair at one place of an object, pointer and
    /// length, are loaded and stored.
    pub fn advances_span(&self) -> bool {
        let mut stored = HashSet::new();
        let mut loaded = HashSet::new();
        for instruction in &self.instructions {
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

    fn text_of<'a>(code: &'a &'a [u8]) -> Text<'a> {
        Text::new(BASE, code.len() as u64, code)
    }

    #[track_caller]
    fn check_loads(piece: &[u8], expected: &[u64]) {
        let bytes = code(&[(0x20, piece)]);
        let source = &bytes[..];
        let text = text_of(&source);
        let wanted = [BASE + 0x100];
        let loads = text.loads(&text.scan(&wanted).unwrap(), &wanted);
        assert_eq!(loads.keys().copied().collect::<Vec<_>>(), expected);
        assert!(loads.values().all(|target| *target == wanted[0]));
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
        let source = &bytes[..];
        let text = text_of(&source);
        let around =
            |inside: u64| Functions::new(&text, &BTreeSet::new()).around(BASE + inside).map(|start| start - BASE);
        assert_eq!(around(0x54), Some(0x40));
        assert_eq!(around(0x11), Some(0x10));
        // Behind padding, and at what is called.
        let starts: Vec<u64> =
            text.starts_before(BASE + 0x54, 0x18, &BTreeSet::from([BASE + 0x45])).map(|start| start - BASE).collect();
        assert_eq!(starts, [0x50, 0x45, 0x40]);
        let function = text.function(BASE + 0x40, &BTreeSet::new()).unwrap();
        assert_eq!(function.arguments_used(&BTreeSet::new()), [false, false, true, false, false]);
        assert!(!function.advances_span());
        // push rbx; mov rbx, rdi; call: what the callee takes was left in its registers.
        let bytes = code(&[(0x40, &[0x53, 0x48, 0x89, 0xfb, 0xe8, 0x57, 0, 0, 0, 0x5b, 0xc3])]);
        let source = &bytes[..];
        let function = text_of(&source).function(BASE + 0x40, &BTreeSet::new()).unwrap();
        assert_eq!(function.arguments_used(&BTreeSet::new()), [true, false, false, false, false]);
        assert_eq!(function.arguments_used(&BTreeSet::from([BASE + 0xa0])), [true, true, true, false, false]);
    }

    #[test]
    fn what_an_error_says_is_read_from_the_arguments() {
        // mov ecx, file; mov edi, 16; xor esi, esi; mov edx, 66; mov r8d, 931; call
        let report = [
            0x55, 0xb9, 0x00, 0x11, 0x40, 0x00, 0xbf, 16, 0, 0, 0, 0x31, 0xf6, 0xba, 66, 0, 0, 0, 0x41, 0xb8, 0xa3, 3,
            0, 0, 0xe8, 0, 0, 0, 0, 0xc3,
        ];
        let bytes = code(&[(0x40, &report)]);
        let source = &bytes[..];
        let text = text_of(&source);
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
        let source = &bytes[..];
        let text = text_of(&source);
        let advances = |at: u64| text.function(BASE + at, &BTreeSet::new()).unwrap().advances_span();
        assert!(advances(0x40) && !advances(0x80));
    }
}
