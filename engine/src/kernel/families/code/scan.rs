//! One pass over all of the code, which may be a hundred megabytes: it is read piece by piece into memory
//! that stays in the processor's cache, and what may lead somewhere is noted.
//!
//! ```text
//! for each byte of the code
//!     this byte and the next are those of a load, and its number is a wanted address,
//!     or the distance to one                                     -> a hit, to be decoded
//!     this byte is `call` or `jmp`, and its distance stays inside -> a branch
//! ```
//!
//! Bytes that look like either by chance are noted too; who decodes knows better. The operation codes are looked
//! for in 64 bytes at once, and the few that pass are looked at one by one, however many addresses are wanted.

use std::collections::BTreeSet;

use wide::u8x16;

use super::Source;

/// The operation codes of `call` and `jmp` with a 32-bit distance, which differ in one bit.
const CALL: u8 = 0xe8;
const JUMP: u8 = 0xe9;

/// `lea` of an address at a distance: its operation code, and the bits of the byte behind it, ModRM, that say so
/// (Intel SDM volume 2, section 2.2.1.6).
const LEA: u8 = 0x8d;
const MODE_BITS: u8 = 0xc7;
const MODE_DISTANCE: u8 = 0x05;

/// `mov` of a number into a register, which is in the three lowest bits, and its longer form that has the register in
/// ModRM.
const MOV: u8 = 0xb8;
const MOV_LONG: u8 = 0xc7;
const REGISTER_BITS: u8 = 0x07;
const MODE_REGISTER: u8 = 0xc0;

/// A branch is its operation code and four bytes of distance; a load may have ModRM between.
const BRANCH_BYTES: usize = 5;
const LOAD_BYTES: usize = 6;

/// What is tested at once, and with the byte behind it.
const BLOCK_BYTES: usize = 64;
const TESTED_BYTES: usize = BLOCK_BYTES + 1;

/// What is read at once: half of what a core has as its second cache, or less.
const PIECE_BYTES: usize = 256 * 1024;

/// What code may be scanned: two bits of a site's 32 stay free.
pub const CODE_BYTES_MAX: usize = 1 << 30;

/// Hits and branches beyond which the bytes are made up. Real code has a branch in 50 bytes.
const HITS_MAX: usize = 64 * 1024;
const BRANCHES_MAX: usize = 32 * 1024 * 1024;

/// The bit of a site that says that it is a jump.
const IS_JUMP: u32 = 1 << 31;

/// How far code is looked for before a place of interest.
pub const NEAR_BYTES: u64 = 64 * 1024;

/// What leads where. Places are counted from the start of the code.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Where four bytes are one of the wanted addresses, with its index.
    pub hits: Vec<(u32, usize)>,
    /// Site and target, in the order of sites.
    branches: Vec<(u32, u32)>,
}

/// What is looked for, and where.
struct Wanted {
    /// Address and index, in the order of addresses.
    sorted: Vec<(u64, usize)>,
    /// Some are numbers of 32 bits, which code may have as they are.
    any_short: bool,
    /// Address of the code.
    address: u64,
    /// Bytes of it.
    len: usize,
}

impl Wanted {
    /// The indices of an address.
    fn indices(&self, address: u64) -> impl Iterator<Item = usize> {
        // Nearly all lie before the first or behind the last.
        let outside = self.sorted.first().is_none_or(|(first, _)| address < *first)
            || self.sorted.last().is_none_or(|(last, _)| address > *last);
        let sorted = if outside { &[][..] } else { &self.sorted };
        let start = sorted.partition_point(|(wanted, _)| *wanted < address);
        sorted[start..].iter().take_while(move |(wanted, _)| *wanted == address).map(|(_, index)| *index)
    }
}

impl Scan {
    /// Goes over `len` bytes of code that begin at `address`, for what leads to one of `wanted`. None if
    /// they can't be read, or are made to take endless memory.
    pub fn of<'a>(source: &dyn Source<'a>, address: u64, len: u64, wanted: &[u64]) -> Option<Self> {
        Self::in_pieces(source, address, len, wanted, PIECE_BYTES)
    }

    fn in_pieces<'a>(
        source: &dyn Source<'a>,
        address: u64,
        len: u64,
        wanted: &[u64],
        piece_bytes: usize,
    ) -> Option<Self> {
        let len = usize::try_from(len).ok().filter(|&len| len <= CODE_BYTES_MAX)?;
        let mut sorted: Vec<(u64, usize)> =
            wanted.iter().enumerate().map(|(index, &address)| (address, index)).collect();
        sorted.sort_unstable();
        let any_short = wanted.iter().any(|&wanted| u32::try_from(wanted).is_ok());
        let wanted = Wanted { sorted, any_short, address, len };
        let mut scan = Self::default();
        // Behind a piece lies what a test of its last bytes may read; it decides nothing.
        let mut buffer = vec![0; piece_bytes + TESTED_BYTES];
        let mut start = 0;
        while start < len {
            let held = piece_bytes.min(len - start);
            source.read(start as u64, &mut buffer[..held])?;
            buffer[held..].fill(0);
            // What isn't whole is looked at with the next piece.
            let is_last = start + held == len;
            let tested = if is_last { held } else { held - (LOAD_BYTES - 1) };
            scan.piece(&buffer, start, tested, held, &wanted);
            if scan.hits.len() > HITS_MAX || scan.branches.len() > BRANCHES_MAX {
                return None;
            }
            start += tested;
        }
        Some(scan)
    }

    /// Tests the first `tested` bytes of `held` in `buffer`, which are those from `start` on.
    fn piece(&mut self, buffer: &[u8], start: usize, tested: usize, held: usize, wanted: &Wanted) {
        let code = &buffer[..held];
        for at in (0..tested).step_by(BLOCK_BYTES) {
            let Some(bytes) = buffer[at..].first_chunk::<TESTED_BYTES>() else { return };
            let sites = |mask: u64| places(mask).map(move |place| at + place).take_while(|&site| site < tested);
            for site in sites(branches(bytes)) {
                self.branch(code, start, site, wanted.len);
            }
            for site in sites(matching(bytes, 0, !0, LEA) & matching(bytes, 1, MODE_BITS, MODE_DISTANCE)) {
                let end = wanted.address.wrapping_add((start + site + LOAD_BYTES) as u64);
                self.load(code, start, site + 2, |word| end.wrapping_add_signed(i64::from(word)), wanted);
            }
            if wanted.any_short {
                for site in sites(matching(bytes, 0, !REGISTER_BITS, MOV)) {
                    self.load(code, start, site + 1, |word| u64::from(word as u32), wanted);
                }
                let long = matching(bytes, 0, !0, MOV_LONG) & matching(bytes, 1, !REGISTER_BITS, MODE_REGISTER);
                for site in sites(long) {
                    self.load(code, start, site + 2, |word| u64::from(word as u32), wanted);
                }
            }
        }
    }

    fn branch(&mut self, code: &[u8], start: usize, site: usize, len: usize) {
        let Some(distance) = word_at(code, site + 1) else { return };
        let target = (start + site + BRANCH_BYTES) as i64 + i64::from(distance);
        if let Some(target) = u32::try_from(target).ok().filter(|&target| (target as usize) < len) {
            let is_jump = if code[site] == JUMP { IS_JUMP } else { 0 };
            self.branches.push(((start + site) as u32 | is_jump, target));
        }
    }

    /// Notes the word at `place` if what it means is wanted.
    fn load(&mut self, code: &[u8], start: usize, place: usize, target: impl Fn(i32) -> u64, wanted: &Wanted) {
        let Some(word) = word_at(code, place) else { return };
        self.hits.extend(wanted.indices(target(word)).map(|index| ((start + place) as u32, index)));
    }

    /// What something calls of the places that lie less than [`NEAR_BYTES`] before one of `sites`, which
    /// are in order.
    pub fn called_before(&self, sites: &[u32]) -> BTreeSet<u32> {
        const BLOCK: u32 = NEAR_BYTES as u32;
        // Most targets are far from any, which a table of blocks tells at once.
        let mut near = vec![false; CODE_BYTES_MAX / NEAR_BYTES as usize];
        for &site in sites {
            let block = (site / BLOCK) as usize;
            near[block.saturating_sub(1)..=block].fill(true);
        }
        let is_near = |target: u32| {
            let next = || sites.get(sites.partition_point(|site| *site < target));
            near[(target / BLOCK) as usize] && next().is_some_and(|site| site - target < BLOCK)
        };
        let calls = self.branches.iter().filter(|(site, _)| site & IS_JUMP == 0);
        let mut called: Vec<u32> = calls.map(|&(_, target)| target).filter(|&target| is_near(target)).collect();
        called.sort_unstable();
        called.dedup();
        called.into_iter().collect()
    }

    /// Where something calls one of `targets`, or jumps there, in order.
    pub fn sites(&self, targets: &[u32]) -> Vec<u32> {
        let leading = self.branches.iter().filter(|(_, target)| targets.contains(target));
        leading.map(|(site, _)| site & !IS_JUMP).collect()
    }
}

fn word_at(code: &[u8], at: usize) -> Option<i32> {
    code.get(at..)?.first_chunk().map(|bytes| i32::from_le_bytes(*bytes))
}

/// The set bits, from the lowest on.
fn places(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = (mask != 0).then(|| mask.trailing_zeros() as usize);
        mask &= mask.wrapping_sub(1);
        place
    })
}

/// A bit for each byte of a block that may begin a branch.
#[inline(always)]
fn branches(bytes: &[u8; TESTED_BYTES]) -> u64 {
    matching(bytes, 0, !(CALL ^ JUMP), CALL)
}

/// A bit for each byte of a block of which the byte `behind` it has `value` in these `bits`.
#[inline(always)]
fn matching(bytes: &[u8; TESTED_BYTES], behind: usize, bits: u8, value: u8) -> u64 {
    let (bits, value) = (u8x16::splat(bits), u8x16::splat(value));
    let (lanes, _) = bytes[behind..behind + BLOCK_BYTES].as_chunks::<16>();
    lanes.iter().enumerate().fold(0, |mask, (place, lane)| {
        mask | u64::from((u8x16::new(*lane) & bits).simd_eq(value).to_bitmask()) << (16 * place)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: u64 = 0x40_1000;

    impl<'a, 'bytes: 'a> Source<'a> for &'bytes [u8] {
        fn window(&self, at: u64, len: u64) -> Option<&'a [u8]> {
            self.get(at as usize..(at + len) as usize)
        }

        fn read(&self, at: u64, into: &mut [u8]) -> Option<()> {
            into.copy_from_slice(self.get(at as usize..at as usize + into.len())?);
            Some(())
        }
    }

    /// The same, byte by byte.
    fn slowly(code: &[u8], wanted: &[u64]) -> Scan {
        let mut scan = Scan::default();
        for at in 0..code.len() {
            let word = |at: usize| Some(u32::from_le_bytes(code.get(at..at + 4)?.try_into().unwrap()));
            let end = (ADDRESS + at as u64 + 6) as u32;
            let next = code.get(at + 1).copied().unwrap_or_default();
            let (place, leads_to) = match code[at] {
                0x8d if next & 0xc7 == 0x05 => (at + 2, word(at + 2).map(|word| end.wrapping_add(word))),
                0xb8..=0xbf => (at + 1, word(at + 1)),
                0xc7 if (0xc0..=0xc7).contains(&next) => (at + 2, word(at + 2)),
                _ => (at, None),
            };
            if let Some(leads_to) = leads_to {
                let indices = wanted.iter().enumerate().filter(|(_, wanted)| **wanted == u64::from(leads_to));
                scan.hits.extend(indices.map(|(index, _)| (place as u32, index)));
            }
            if matches!(code[at], CALL | JUMP)
                && let Some(distance) = code.get(at + 1..at + 5)
            {
                let target = at as i64 + 5 + i64::from(i32::from_le_bytes(distance.try_into().unwrap()));
                if (0..code.len() as i64).contains(&target) {
                    scan.branches.push((at as u32 | if code[at] == JUMP { IS_JUMP } else { 0 }, target as u32));
                }
            }
        }
        scan
    }

    /// Bytes with branches, and words that lead somewhere, close together.
    fn code() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            (prop_oneof![Just(CALL), Just(JUMP)], -300_i32..300).prop_map(|(kind, distance)| [
                &[kind][..],
                &distance.to_le_bytes()
            ]
            .concat()),
            (prop_oneof![Just(vec![0xb9]), Just(vec![0xc7, 0xc1]), Just(vec![0x81])], -300_i32..300)
                .prop_map(|(code, near)| [&code[..], &(ADDRESS as i32 + near).to_le_bytes()].concat()),
            (0_u8..=255, -300_i32..300).prop_map(|(mode, near)| [&[LEA, mode][..], &near.to_le_bytes()].concat()),
            (-300_i32..300).prop_map(|near| [&[LEA, 0x0d][..], &near.to_le_bytes()].concat()),
        ];
        prop::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn pieces_are_scanned_as_bytes_are(
            code in code(), piece_bytes in 8_usize..200, near in prop::collection::vec(-300_i64..300, 0..3)
        ) {
            let wanted: Vec<u64> = near.iter().map(|near| ADDRESS.wrapping_add_signed(*near)).collect();
            let mut found = Scan::in_pieces(&&code[..], ADDRESS, code.len() as u64, &wanted, piece_bytes).unwrap();
            found.hits.sort_unstable();
            prop_assert_eq!(found, slowly(&code, &wanted));
        }
    }

    #[test]
    fn what_is_called_is_told_from_what_is_jumped_to() {
        // call 0x20; jmp 0x20; call 0x30; call to before the code.
        let mut code = [0; 0x40];
        for (at, kind, distance) in [(0, CALL, 0x1b), (5, JUMP, 0x16), (10, CALL, 0x21), (15, CALL, -21)] {
            code[at] = kind;
            code[at + 1..at + 5].copy_from_slice(&i32::to_le_bytes(distance));
        }
        let scan = Scan::of(&&code[..], ADDRESS, code.len() as u64, &[]).unwrap();
        assert_eq!(scan.sites(&[0x20]), [0, 5]);
        assert_eq!(scan.called_before(&[0x2f]), BTreeSet::from([0x20]));
        assert_eq!(scan.called_before(&[0x38]), BTreeSet::from([0x20, 0x30]));
        assert_eq!(scan.called_before(&[]), BTreeSet::new());
    }

    #[test]
    fn code_that_cannot_be_read_or_is_too_much_is_not_scanned() {
        let code = [0; 64];
        assert_eq!(Scan::of(&&code[..], ADDRESS, 65, &[]), None);
        assert_eq!(Scan::of(&&code[..], ADDRESS, CODE_BYTES_MAX as u64 + 1, &[]), None);
    }
}
