//! rustls without symbols, on x86_64: found by the vtables of its ciphers, which the program needs itself.
//!
//! ```text
//! what encrypts:  drop, size, alignment, encrypt, encrypted_payload_len
//! what decrypts:  drop, size, alignment, decrypt
//! a cipher suite: drop, size, alignment, encrypter, decrypter, …
//! ```
//!
//! How much encrypting adds to a record is a number that the protocol gives, so `encrypted_payload_len`
//! is one of three pieces of code of two instructions. `encrypter` is the function that returns such an
//! object, with the address of its vtable; behind it, in the suite's vtable, is `decrypter`, which does
//! the same for what decrypts. What doesn't agree in all of this isn't said.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register,
};

use super::{Functions, Version};

/// `lea rax, [rsi + n]` without the number, and `ret`.
const LEA_RAX_RSI: [u8; 3] = [0x48, 0x8d, 0x46];
const RET: u8 = 0xc3;

/// What is added to a plaintext: tag and type in TLS 1.3 (RFC 8446, section 5.2), tag and explicit nonce
/// with AES-GCM in TLS 1.2 (RFC 5288, section 3), tag alone with ChaCha20-Poly1305 (RFC 7905, section 2).
const ADDED: [(u8, Version); 3] = [(17, Version::Tls13), (24, Version::Tls12), (16, Version::Tls12)];

/// `lea rdx, [rip + n]`, and `mov edx, n` where addresses are fixed: the second half of a pair that is
/// returned is in that register (System V ABI for AMD64, section 3.2.3).
const LEA_RDX: [u8; 3] = [0x48, 0x8d, 0x15];
const MOV_EDX: u8 = 0xba;

/// Sizes of objects: keys of some hundred bytes.
const OBJECT_BYTES: std::ops::RangeInclusive<u64> = 16..=4096;

/// Instructions between the load of a vtable's address and the return.
const TAIL_MAX: usize = 48;

/// Instructions of a function that only hands on to another.
const THUNK_MAX: usize = 4;

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
    /// Functions by their first address, with what follows their last, as the unwinder is told.
    pub functions: BTreeMap<u64, u64>,
}

/// A vtable: the object's size, and the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vtable {
    size: u64,
    align: u64,
    function: u64,
}

impl Program<'_> {
    /// The functions of rustls, as far as everything agrees about them; and how many ciphers there are
    /// of which it doesn't.
    pub fn find(&self) -> (Functions, usize) {
        let encrypters = self.encrypters();
        let returned = self.returned();
        let mut makers: BTreeMap<u64, (u64, Version)> = BTreeMap::new();
        for (&maker, vtables) in &returned {
            if let [vtable] = vtables.iter().copied().collect::<Vec<_>>()[..]
                && let Some(&version) = encrypters.get(&vtable)
            {
                makers.insert(maker, (vtable, version));
            }
        }
        let mut functions = Functions::default();
        let mut placed = BTreeSet::new();
        for (place, first) in self.pointers() {
            let first = self.behind_thunk(first);
            let Some(&(encrypter, version)) = makers.get(&first) else { continue };
            // The first method, behind drop, size and alignment of a small object.
            let header = [24, 16, 8].map(|before| place.checked_sub(before).and_then(|at| self.word(at)));
            let is_first = matches!(header, [Some(_), Some(0..=64), Some(1 | 2 | 4 | 8 | 16)]);
            let second = self.word(place + 8).map(|second| self.behind_thunk(second));
            let Some(second) = second.filter(|second| is_first && *second != first) else { continue };
            let Some(decrypter) = self.decrypter(&returned, second, &encrypters) else { continue };
            let Some(vtable) = self.vtable(encrypter) else { continue };
            functions.encrypt.insert(vtable.function);
            functions.decrypt.insert((version, decrypter.function));
            functions.make.extend([(version, first), (version, second)]);
            placed.insert(encrypter);
        }
        let left = encrypters.keys().filter(|vtable| !placed.contains(vtable)).count();
        (functions, left)
    }

    /// The vtables of what encrypts.
    fn encrypters(&self) -> BTreeMap<u64, Version> {
        let adds = |function: u64| {
            let code = self.text.at(function)?.get(..5)?;
            let (added, version) = ADDED.iter().find(|(added, _)| code[3] == *added)?;
            (code[..3] == LEA_RAX_RSI && code[3] == *added && code[4] == RET).then_some(*version)
        };
        let found = self.pointers().filter_map(|(place, function)| {
            let version = adds(function)?;
            let start = place.checked_sub(32)?;
            self.vtable(start)?;
            Some((start, version))
        });
        found.collect()
    }

    /// The vtable at `address`, if it may be that of a cipher.
    fn vtable(&self, address: u64) -> Option<Vtable> {
        let word = |index: u64| self.word(address.checked_add(8 * index)?);
        let (drop, size, align, function) = (word(0)?, word(1)?, word(2)?, word(3)?);
        let is_fit = (drop == 0 || self.is_function(drop))
            && OBJECT_BYTES.contains(&size)
            && matches!(align, 8 | 16)
            && self.is_function(function);
        is_fit.then_some(Vtable { size, align, function })
    }

    /// The vtable of what `maker` makes, if it may be what decrypts.
    fn decrypter(
        &self,
        returned: &BTreeMap<u64, BTreeSet<u64>>,
        maker: u64,
        encrypters: &BTreeMap<u64, Version>,
    ) -> Option<Vtable> {
        let vtables: Vec<u64> = returned.get(&maker)?.iter().copied().collect();
        let &[vtable] = &vtables[..] else { return None };
        (!encrypters.contains_key(&vtable)).then(|| self.vtable(vtable)).flatten()
    }

    /// The vtables of the objects that functions return, by the functions.
    fn returned(&self) -> BTreeMap<u64, BTreeSet<u64>> {
        let mut returned: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        let bytes = self.text.bytes;
        let mut see = |at: usize, len: usize, target: u64| {
            let address = self.text.address + at as u64;
            if self.vtable(target).is_some()
                && self.is_returned(address + len as u64)
                && let Some((&start, &end)) = self.functions.range(..=address).next_back()
                && address < end
            {
                returned.entry(start).or_default().insert(target);
            }
        };
        for at in memchr::memmem::find_iter(bytes, &LEA_RDX) {
            let Some(&[a, b, c, d]) = bytes.get(at + 3..at + 7) else { break };
            let next = self.text.address + at as u64 + 7;
            see(at, 7, next.wrapping_add_signed(i64::from(i32::from_le_bytes([a, b, c, d]))));
        }
        for at in memchr::memchr_iter(MOV_EDX, bytes) {
            let Some(&[a, b, c, d]) = bytes.get(at + 1..at + 5) else { break };
            see(at, 5, u64::from(u32::from_le_bytes([a, b, c, d])));
        }
        returned
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
                FlowControl::Next if instruction.mnemonic() == Mnemonic::Mov => at = instruction.next_ip(),
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

    fn is_function(&self, address: u64) -> bool {
        self.functions.contains_key(&address)
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
    fn pointers(&self) -> impl Iterator<Item = (u64, u64)> {
        let range = self.text.address..self.text.address + self.text.bytes.len() as u64;
        let relocated = self.relocated.iter().map(|(place, word)| (*place, *word));
        // Where addresses are fixed, the loader has nothing to write.
        let fixed = self.data.iter().flat_map(|piece| {
            let skipped = piece.address.next_multiple_of(8) - piece.address;
            let words = piece.bytes.get(usize::try_from(skipped).unwrap_or(0)..).unwrap_or_default().chunks_exact(8);
            let places = (piece.address + skipped..).step_by(8);
            places.zip(words.map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default())))
        });
        let in_text = move |(_, word): &(u64, u64)| range.contains(word);
        let fixed = fixed.filter(in_text.clone()).filter(|(place, _)| !self.relocated.contains_key(place));
        relocated.filter(in_text).chain(fixed)
    }
}
