//! rustls without symbols, on x86_64: found by the vtables of its ciphers, which the program needs itself.
//!
//! ```text
//! what encrypts:  drop, size, alignment, encrypt, encrypted_payload_len
//! what decrypts:  drop, size, alignment, decrypt
//! a cipher suite: drop, size, alignment, encrypter, decrypter, …
//! ```
//!
//! How much encrypting adds to a record is a number that the protocol gives, so `encrypted_payload_len`
//! is one of three pieces of code of two instructions, and a frame around them where the program keeps
//! frames. `encrypter` is the function that returns such an object, with the address of its vtable; behind
//! it, in the suite's vtable, is `decrypter`, which does the same for what decrypts. What doesn't agree in
//! all of this isn't said.
//!
//! All these functions are named by vtables, so it isn't asked where others begin: a program may have no
//! tables for unwinding. What a function returns is found by following it from its first instruction. That
//! goes wrong where it ends with a call that doesn't return, as what comes next is taken for its own; then
//! it seems to return one thing too many, and is left out, unless what comes next is named as well.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::{Range, RangeInclusive},
};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register,
};

use super::{Functions, Version};

/// `lea rax, [rsi + n]` without the number, and `ret`.
const LEA_RAX_RSI: [u8; 3] = [0x48, 0x8d, 0x46];
const RET: u8 = 0xc3;

/// `push rbp; mov rbp, rsp`, and `pop rbp`.
const FRAME: [u8; 4] = [0x55, 0x48, 0x89, 0xe5];
const POP_RBP: u8 = 0x5d;

/// What is added to a plaintext: tag and type in TLS 1.3 (RFC 8446, section 5.2), tag and explicit nonce
/// with AES-GCM in TLS 1.2 (RFC 5288, section 3), tag alone with ChaCha20-Poly1305 (RFC 7905, section 2).
const ADDED: [(u8, Version); 3] = [(17, Version::Tls13), (24, Version::Tls12), (16, Version::Tls12)];

/// `lea rdx, [rip + n]`, and `mov edx, n` where addresses are fixed: the second half of a pair that is
/// returned is in that register (System V ABI for AMD64, section 3.2.3).
const LEA_RDX: [u8; 3] = [0x48, 0x8d, 0x15];
const MOV_EDX: u8 = 0xba;

/// Sizes of objects: keys of some hundred bytes.
const OBJECT_BYTES: RangeInclusive<u64> = 16..=4096;

/// Instructions between the load of a vtable's address and the return.
const TAIL_MAX: usize = 48;

/// Instructions of a function that only hands on to another.
const THUNK_MAX: usize = 6;

/// Bytes and instructions of a function that makes an object.
const MAKER_BYTES_MAX: u64 = 16 * 1024;
const MAKER_MAX: usize = 2048;

/// Instructions that are followed altogether, and words that are looked at, beyond which a file is made to
/// take endless time. Deno has 130,000 such words.
const FOLLOWED_MAX: usize = 4 * 1024 * 1024;
const POINTERS_MAX: usize = 4 * 1024 * 1024;

/// A piece of the file in memory.
pub struct Piece<'a> {
    /// Address of the first byte.
    pub address: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> Piece<'a> {
    fn at(&self, address: u64) -> Option<&'a [u8]> {
        self.bytes.get(usize::try_from(address.checked_sub(self.address)?).ok()?..)
    }
}

/// A program as it will be in memory, but for where it is loaded.
pub struct Program<'a> {
    /// The code.
    pub text: Piece<'a>,
    /// Data that the file has.
    pub data: Vec<Piece<'a>>,
    /// Words that the loader writes, by their addresses.
    pub relocated: BTreeMap<u64, u64>,
}

/// What is known of all of the code.
struct Code {
    /// Loads of a vtable's address by a function that returns it.
    returned: BTreeMap<u64, u64>,
    /// Where functions begin that are named by a word of the data.
    starts: HashSet<u64>,
    /// Instructions that may still be followed.
    left: Cell<usize>,
}

impl Program<'_> {
    /// The functions of rustls, as far as everything agrees about them; and how many ciphers there are
    /// of which it doesn't.
    pub fn find(&self) -> (Functions, usize) {
        let pointers = self.pointers();
        let encrypters = self.encrypters(&pointers);
        let mut functions = Functions::default();
        if encrypters.is_empty() {
            return (functions, 0);
        }
        let starts = pointers.iter().flat_map(|&(_, function)| [function, self.behind_thunk(function)]).collect();
        let code = Code { returned: self.returned(), starts, left: Cell::new(FOLLOWED_MAX) };
        let is_encrypter = |(_, vtable): (&u64, &u64)| encrypters.contains_key(vtable);
        let mut placed = BTreeSet::new();
        for &(place, first) in &pointers {
            // The first method, behind drop, size and alignment of a small object.
            let header = [24, 16, 8].map(|before| place.checked_sub(before).and_then(|at| self.word(at)));
            if !matches!(header, [Some(_), Some(0..=64), Some(1 | 2 | 4 | 8 | 16)]) {
                continue;
            }
            let first = self.behind_thunk(first);
            if !code.returned.range(near(first)).any(is_encrypter) {
                continue;
            }
            let Some(encrypter) = self.made(&code, first) else { continue };
            let Some(&version) = encrypters.get(&encrypter) else { continue };
            let second = place.checked_add(8).and_then(|at| self.word(at)).map(|second| self.behind_thunk(second));
            let Some(second) = second.filter(|second| *second != first) else { continue };
            let Some(decrypter) = self.made(&code, second) else { continue };
            if encrypters.contains_key(&decrypter) {
                continue;
            }
            let (Some(encrypts), Some(decrypts)) = (self.method(encrypter), self.method(decrypter)) else { continue };
            functions.encrypt.insert(encrypts);
            functions.decrypt.insert((version, decrypts));
            functions.make.extend([(version, first), (version, second)]);
            placed.insert(encrypter);
        }
        let left = encrypters.keys().filter(|vtable| !placed.contains(vtable)).count();
        (functions, left)
    }

    /// The vtables of what encrypts.
    fn encrypters(&self, pointers: &[(u64, u64)]) -> BTreeMap<u64, Version> {
        let found = pointers.iter().filter_map(|&(place, function)| {
            let added = added(self.text.at(function)?)?;
            let (_, version) = ADDED.iter().find(|(known, _)| *known == added)?;
            let start = place.checked_sub(32)?;
            self.method(start)?;
            Some((start, *version))
        });
        found.collect()
    }

    /// The first method of the vtable at `address`, if it may be that of a cipher.
    fn method(&self, address: u64) -> Option<u64> {
        let word = |index: u64| self.word(address.checked_add(8 * index)?);
        let (drop, size, align, function) = (word(0)?, word(1)?, word(2)?, word(3)?);
        let is_code = |address: u64| self.text.at(address).is_some_and(|code| !code.is_empty());
        let is_fit = (drop == 0 || is_code(drop))
            && OBJECT_BYTES.contains(&size)
            && matches!(align, 8 | 16)
            && is_code(function);
        is_fit.then_some(function)
    }

    /// Where functions load the address of a vtable to return it, with the vtable.
    fn returned(&self) -> BTreeMap<u64, u64> {
        let mut returned = BTreeMap::new();
        let bytes = self.text.bytes;
        let mut see = |at: usize, len: usize, target: u64| {
            let address = self.text.address.wrapping_add(at as u64);
            if self.method(target).is_some() && self.is_returned(address.wrapping_add(len as u64)) {
                returned.insert(address, target);
            }
        };
        for at in memchr::memmem::find_iter(bytes, &LEA_RDX) {
            let Some(&[a, b, c, d]) = bytes.get(at + 3..at + 7) else { break };
            let next = self.text.address.wrapping_add(at as u64 + 7);
            see(at, 7, next.wrapping_add_signed(i64::from(i32::from_le_bytes([a, b, c, d]))));
        }
        for at in memchr::memchr_iter(MOV_EDX, bytes) {
            let Some(&[a, b, c, d]) = bytes.get(at + 1..at + 5) else { break };
            see(at, 5, u64::from(u32::from_le_bytes([a, b, c, d])));
        }
        returned
    }

    /// The vtable of what the function at `start` makes, if it is one in all of its ways.
    fn made(&self, code: &Code, start: u64) -> Option<u64> {
        let near = near(start);
        let mut made = BTreeSet::new();
        let (mut seen, mut waiting) = (HashSet::new(), vec![start]);
        while let Some(mut at) = waiting.pop() {
            while near.contains(&at) && seen.insert(at) {
                code.left.set(code.left.get().checked_sub(1)?);
                let instruction = self.decode(at).filter(|_| seen.len() <= MAKER_MAX)?;
                made.extend(code.returned.get(&at));
                at = instruction.next_ip();
                match instruction.flow_control() {
                    FlowControl::Next => {}
                    // One that doesn't return may be the last instruction.
                    FlowControl::Call | FlowControl::IndirectCall if !code.starts.contains(&at) => {}
                    FlowControl::ConditionalBranch => waiting.push(instruction.near_branch_target()),
                    FlowControl::UnconditionalBranch => at = instruction.near_branch_target(),
                    _ => break,
                }
            }
        }
        made.pop_first().filter(|_| made.is_empty())
    }

    /// Whether the code at `address` comes to a return and leaves RDX alone.
    fn is_returned(&self, mut address: u64) -> bool {
        let mut info = InstructionInfoFactory::new();
        for _ in 0..TAIL_MAX {
            let Some(instruction) = self.decode(address) else { return false };
            let writes_rdx = info.info(&instruction).used_registers().iter().any(|used| {
                used.register().full_register() == Register::RDX && !matches!(used.access(), OpAccess::Read)
            });
            address = match instruction.flow_control() {
                FlowControl::Return => return true,
                FlowControl::Next if !writes_rdx => instruction.next_ip(),
                FlowControl::UnconditionalBranch => instruction.near_branch_target(),
                _ => return false,
            };
        }
        false
    }

    /// The function that the one at `address` hands on to, if that is all it does; otherwise itself.
    fn behind_thunk(&self, address: u64) -> u64 {
        let mut at = address;
        for _ in 0..THUNK_MAX {
            let Some(instruction) = self.decode(at) else { break };
            match instruction.flow_control() {
                FlowControl::Next
                    if matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Push | Mnemonic::Pop) =>
                {
                    at = instruction.next_ip();
                }
                FlowControl::UnconditionalBranch => return instruction.near_branch_target(),
                _ => break,
            }
        }
        address
    }

    fn decode(&self, address: u64) -> Option<Instruction> {
        let instruction = Decoder::with_ip(64, self.text.at(address)?, address, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// What will be at `address`.
    fn word(&self, address: u64) -> Option<u64> {
        if let Some(word) = self.relocated.get(&address) {
            return Some(*word);
        }
        let bytes = self.data.iter().find_map(|piece| piece.at(address)?.first_chunk())?;
        Some(u64::from_le_bytes(*bytes))
    }

    /// Words of the data that may be addresses of functions, with where they are.
    fn pointers(&self) -> Vec<(u64, u64)> {
        let range = self.text.address..self.text.address.saturating_add(self.text.bytes.len() as u64);
        let relocated = self.relocated.iter().map(|(place, word)| (*place, *word));
        // Where addresses are fixed, the loader has nothing to write.
        let fixed = self.data.iter().flat_map(|piece| {
            let skipped = piece.address.wrapping_neg() % 8;
            let words = piece.bytes.get(skipped as usize..).unwrap_or_default().chunks_exact(8).enumerate();
            let place = move |index: usize| piece.address.wrapping_add(skipped + 8 * index as u64);
            words.map(move |(index, word)| (place(index), u64::from_le_bytes(word.try_into().unwrap_or_default())))
        });
        let fixed = fixed.filter(|(place, word)| range.contains(word) && !self.relocated.contains_key(place));
        relocated.filter(|(_, word)| range.contains(word)).chain(fixed).take(POINTERS_MAX).collect()
    }
}

/// Where the code of a function is that begins at `start`.
fn near(start: u64) -> Range<u64> {
    start.saturating_sub(MAKER_BYTES_MAX)..start.saturating_add(MAKER_BYTES_MAX)
}

/// What `encrypted_payload_len` adds, if this is its code.
fn added(code: &[u8]) -> Option<u8> {
    let (code, is_framed) = code.strip_prefix(&FRAME).map_or((code, false), |framed| (framed, true));
    let (added, rest) = code.strip_prefix(&LEA_RAX_RSI)?.split_first()?;
    let end: &[u8] = if is_framed { &[POP_RBP, RET] } else { &[RET] };
    rest.starts_with(end).then_some(*added)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u64 = 0x1000;
    const DATA: u64 = 0x8000;

    /// A drop function, which vtables may share.
    const DROP: u64 = TEXT;

    /// A program that is made up: its code, and words of its data.
    struct MadeUp {
        text: Vec<u8>,
        words: Vec<u64>,
        /// Addresses are fixed, so that the loader has nothing to write.
        is_fixed: bool,
    }

    /// What a cipher suite is made of, by addresses.
    #[derive(Clone, Copy)]
    struct Cipher {
        encrypt: u64,
        decrypt: u64,
        encrypter: u64,
        decrypter: u64,
    }

    impl MadeUp {
        fn new(is_fixed: bool) -> Self {
            Self { text: vec![RET], words: vec![0], is_fixed }
        }

        /// Adds code right behind what is there.
        fn code(&mut self, code: &[u8]) -> u64 {
            let address = TEXT + self.text.len() as u64;
            self.text.extend(code);
            address
        }

        fn vtable(&mut self, words: &[u64]) -> u64 {
            let address = DATA + 8 * self.words.len() as u64;
            self.words.extend(words);
            address
        }

        /// Code that puts an address into RDX.
        fn load(&self, before: usize, target: u64) -> Vec<u8> {
            let target = u32::try_from(target).unwrap();
            let next = u32::try_from(TEXT).unwrap() + u32::try_from(self.text.len() + before + 7).unwrap();
            if self.is_fixed {
                [&[MOV_EDX][..], &target.to_le_bytes()].concat()
            } else {
                [&LEA_RDX[..], &target.wrapping_sub(next).to_le_bytes()].concat()
            }
        }

        /// A function that returns an object with this vtable.
        fn maker(&mut self, vtable: u64) -> u64 {
            // push rbx; call the next instruction; mov rbx, rax
            let head = [0x53, 0xe8, 0, 0, 0, 0, 0x48, 0x89, 0xc3];
            // mov rax, rbx; pop rbx; ret
            let load = self.load(head.len(), vtable);
            self.code(&[&head[..], &load, &[0x48, 0x89, 0xd8, 0x5b, RET]].concat())
        }

        /// The same, with a call at its end that doesn't return.
        fn maker_or_panic(&mut self, vtable: u64) -> u64 {
            // test rax, rax; je to the call, behind the load and the return
            let load = self.load(5, vtable);
            let head = [0x48, 0x85, 0xc0, 0x74, u8::try_from(load.len()).unwrap() + 1];
            self.code(&[&head[..], &load, &[RET, 0xe8, 0, 0, 0, 0]].concat())
        }

        /// What encrypts, with its vtable, and what decrypts, with its.
        fn objects(&mut self, added: u8, is_framed: bool) -> [u64; 4] {
            let (encrypt, decrypt) = (self.code(&[0x90, RET]), self.code(&[0x90, RET]));
            let body = [&LEA_RAX_RSI[..], &[added]].concat();
            let payload_len = if is_framed {
                self.code(&[&FRAME[..], &body, &[POP_RBP, RET]].concat())
            } else {
                self.code(&[&body[..], &[RET]].concat())
            };
            let encrypter = self.vtable(&[DROP, 48, 8, encrypt, payload_len]);
            let decrypter = self.vtable(&[0, 560, 16, decrypt]);
            [encrypt, encrypter, decrypt, decrypter]
        }

        /// All of a cipher, and the suite that names it.
        fn cipher(&mut self, added: u8, is_framed: bool) -> Cipher {
            let [encrypt, encrypts, decrypt, decrypts] = self.objects(added, is_framed);
            let (encrypter, decrypter) = (self.maker(encrypts), self.maker(decrypts));
            self.suite(encrypter, decrypter);
            Cipher { encrypt, decrypt, encrypter, decrypter }
        }

        fn suite(&mut self, encrypter: u64, decrypter: u64) {
            self.vtable(&[0, 8, 8, encrypter, decrypter]);
        }

        #[track_caller]
        fn check(&self, expected: &[(Version, Cipher)], left: usize) {
            let is_relocated = |word: u64| word >= TEXT && !self.is_fixed;
            let places = (DATA..).step_by(8).zip(self.words.iter().copied());
            // What the loader writes isn't in the file.
            let in_file = self.words.iter().map(|&word| if is_relocated(word) { 0 } else { word });
            let in_file: Vec<u8> = in_file.flat_map(u64::to_le_bytes).collect();
            let program = Program {
                text: Piece { address: TEXT, bytes: &self.text },
                data: vec![Piece { address: DATA, bytes: &in_file }],
                relocated: places.filter(|(_, word)| is_relocated(*word)).collect(),
            };
            let (found, told_left) = program.find();
            let of = |one: fn(&Cipher) -> u64| expected.iter().map(move |(version, cipher)| (*version, one(cipher)));
            assert_eq!(found.encrypt, of(|cipher| cipher.encrypt).map(|(_, at)| at).collect());
            assert_eq!(found.decrypt, of(|cipher| cipher.decrypt).collect());
            assert_eq!(found.make, of(|cipher| cipher.encrypter).chain(of(|cipher| cipher.decrypter)).collect());
            assert_eq!(told_left, left);
        }
    }

    #[test]
    fn ciphers_are_found_by_what_makes_them() {
        for is_fixed in [false, true] {
            for is_framed in [false, true] {
                let mut program = MadeUp::new(is_fixed);
                let expected = ADDED.map(|(added, version)| (version, program.cipher(added, is_framed)));
                program.check(&expected, 0);
            }
        }
    }

    #[test]
    fn what_only_hands_on_is_passed() {
        let mut program = MadeUp::new(false);
        let [encrypt, encrypts, decrypt, decrypts] = program.objects(17, false);
        let (encrypter, decrypter) = (program.maker(encrypts), program.maker(decrypts));
        for framed in [&[][..], &[0x55, 0x48, 0x89, 0xe5, 0x5d]] {
            let thunks = [encrypter, decrypter].map(|maker| {
                // mov rdi, [rdi]; jmp
                let head = [framed, &[0x48, 0x8b, 0x3f, 0xe9]].concat();
                let next = TEXT + (program.text.len() + head.len() + 4) as u64;
                let distance = maker.wrapping_sub(next) as u32;
                program.code(&[&head[..], &distance.to_le_bytes()].concat())
            });
            program.suite(thunks[0], thunks[1]);
        }
        program.check(&[(Version::Tls13, Cipher { encrypt, decrypt, encrypter, decrypter })], 0);
    }

    #[test]
    fn a_function_ends_where_another_begins_that_is_named() {
        for is_named in [true, false] {
            let mut program = MadeUp::new(false);
            let [encrypt, encrypts, decrypt, decrypts] = program.objects(24, true);
            let (encrypter, decrypter) = (program.maker_or_panic(encrypts), program.maker_or_panic(decrypts));
            program.suite(encrypter, decrypter);
            let other = program.vtable(&[DROP, 64, 8, DROP]);
            let next = program.maker(other);
            if is_named {
                program.vtable(&[next]);
                program.check(&[(Version::Tls12, Cipher { encrypt, decrypt, encrypter, decrypter })], 0);
            } else {
                program.check(&[], 1);
            }
        }
    }

    #[test]
    fn what_does_not_agree_is_left() {
        type Suite = fn(&mut MadeUp, [u64; 4]);
        let cases: [(&str, Suite); 6] = [
            ("nothing names what makes them", |program, [_, encrypts, _, decrypts]| {
                program.maker(encrypts);
                program.maker(decrypts);
            }),
            ("not the first of a vtable", |program, [_, encrypts, _, decrypts]| {
                let (encrypter, decrypter) = (program.maker(encrypts), program.maker(decrypts));
                program.vtable(&[0, 4096, 8, encrypter, decrypter]);
            }),
            ("one for both", |program, [_, encrypts, ..]| {
                let encrypter = program.maker(encrypts);
                program.suite(encrypter, encrypter);
            }),
            ("both encrypt", |program, [_, encrypts, ..]| {
                let (encrypter, decrypter) = (program.maker(encrypts), program.maker(encrypts));
                program.suite(encrypter, decrypter);
            }),
            ("the second makes nothing", |program, [_, encrypts, decrypt, _]| {
                let encrypter = program.maker(encrypts);
                program.suite(encrypter, decrypt);
            }),
            ("one of two", |program, [_, encrypts, _, decrypts]| {
                let decrypter = program.maker(decrypts);
                // test rax, rax; je behind the return
                let load = program.load(5, encrypts);
                let skip = u8::try_from(load.len()).unwrap() + 1;
                let encrypter = program.code(&[&[0x48, 0x85, 0xc0, 0x74, skip][..], &load, &[RET]].concat());
                program.maker(decrypts);
                program.suite(encrypter, decrypter);
            }),
        ];
        for (case, suite) in cases {
            let mut program = MadeUp::new(false);
            let objects = program.objects(17, false);
            suite(&mut program, objects);
            println!("{case}");
            program.check(&[], 1);
        }
    }

    #[test]
    fn other_vtables_are_no_ciphers() {
        // Another number than the protocol's; an object too small for a key; nothing to call.
        for (added, words) in [(18, [DROP, 48, 8, DROP]), (17, [DROP, 8, 8, DROP]), (17, [DROP, 48, 8, 0])] {
            let mut program = MadeUp::new(false);
            let payload_len = program.code(&[&LEA_RAX_RSI[..], &[added, RET]].concat());
            let encrypts = program.vtable(&[&words[..], &[payload_len]].concat());
            let decrypts = program.vtable(&[0, 560, 16, DROP]);
            let (encrypter, decrypter) = (program.maker(encrypts), program.maker(decrypts));
            program.suite(encrypter, decrypter);
            program.check(&[], 0);
        }
    }
}
