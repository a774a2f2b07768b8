//! One pass over all of the code, which may be a hundred megabytes: it is read piece by piece into memory
//! that stays in the processor's cache, and what may lead somewhere is noted.
//!
//! ```text
//! for each byte of the code
//!     these four bytes are a wanted address, or the distance to one  -> a load, to be decoded
//!     this byte is `call` or `jmp`, and its distance stays inside    -> a branch
//! ```
//!
//! Bytes that look like either by chance are noted too; who decodes knows better. Both tests are made of 64
//! bytes at once, and the few that pass are looked at one by one.

use std::collections::BTreeSet;

use wide::{u8x16, u32x4};

use super::Source;

/// The operation codes of `call` and `jmp` with a 32-bit distance, which differ in one bit.
const CALL: u8 = 0xe8;
const JUMP: u8 = 0xe9;

/// A branch is its operation code and four bytes of distance.
const BRANCH_BYTES: usize = 5;

/// What is tested at once, and with the rest of a word that begins at its end.
const BLOCK_BYTES: usize = 64;
const WORDS_BYTES: usize = BLOCK_BYTES + 3;

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

/// A wanted address as code may have it.
struct Wanted {
    /// As a number, which says something where it is one of 32 bits.
    absolute: u32,
    is_short: bool,
    /// Counted from the start of the code and from the end of four bytes at that start.
    relative: u32,
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
        let wanted: Vec<Wanted> = wanted
            .iter()
            .map(|&wanted| Wanted {
                absolute: wanted as u32,
                is_short: u32::try_from(wanted).is_ok(),
                relative: wanted.wrapping_sub(address).wrapping_sub(4) as u32,
            })
            .collect();
        let len = usize::try_from(len).ok().filter(|&len| len <= CODE_BYTES_MAX)?;
        let mut scan = Self::default();
        // Behind a piece lies what a test of its last bytes may read; it decides nothing.
        let mut buffer = vec![0; piece_bytes + WORDS_BYTES];
        let mut start = 0;
        while start < len {
            let held = piece_bytes.min(len - start);
            source.read(start as u64, &mut buffer[..held])?;
            buffer[held..].fill(0);
            // A branch that isn't whole is looked at with the next piece.
            let is_last = start + held == len;
            let tested = if is_last { held } else { held - (BRANCH_BYTES - 1) };
            scan.piece(&buffer, start, tested, held, len, &wanted);
            if scan.hits.len() > HITS_MAX || scan.branches.len() > BRANCHES_MAX {
                return None;
            }
            start += tested;
        }
        Some(scan)
    }

    /// Tests the first `tested` bytes of `held` in `buffer`, which are those from `start` on of `len`.
    fn piece(&mut self, buffer: &[u8], start: usize, tested: usize, held: usize, len: usize, wanted: &[Wanted]) {
        for at in (0..tested).step_by(BLOCK_BYTES) {
            let Some(words) = buffer[at..].first_chunk::<WORDS_BYTES>() else { return };
            let first = (start + at) as u32;
            for (index, wanted) in wanted.iter().enumerate() {
                if any_leads_to(words, first, wanted) {
                    let whole = 0..BLOCK_BYTES.min(tested - at).min((held - at).saturating_sub(3));
                    let hits = whole.filter(|&place| leads_to(words, place, first, wanted));
                    self.hits.extend(hits.map(|place| (first + place as u32, index)));
                }
            }
            let mut mask = branches(words);
            while mask != 0 {
                let site = at + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                if site >= tested || site + BRANCH_BYTES > held {
                    break;
                }
                let Some(&[kind, a, b, c, d]) = buffer[site..].first_chunk() else { return };
                let target = (start + site + BRANCH_BYTES) as i64 + i64::from(i32::from_le_bytes([a, b, c, d]));
                if let Some(target) = u32::try_from(target).ok().filter(|&target| (target as usize) < len) {
                    let is_jump = if kind == JUMP { IS_JUMP } else { 0 };
                    self.branches.push(((start + site) as u32 | is_jump, target));
                }
            }
        }
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

/// Whether any four bytes that begin in a block lead to what is wanted.
#[inline(always)]
fn any_leads_to(words: &[u8; WORDS_BYTES], first: u32, wanted: &Wanted) -> bool {
    let absolute = u32x4::splat(wanted.absolute);
    // The further on, the shorter the distance.
    let start = u32x4::splat(wanted.relative.wrapping_sub(first)) - u32x4::new([0, 4, 8, 12]);
    let (mut is_absolute, mut is_relative) = (u32x4::default(), u32x4::default());
    for shift in 0..4 {
        let mut relative = start - u32x4::splat(shift as u32);
        let (lanes, _) = words[shift..shift + BLOCK_BYTES].as_chunks::<16>();
        for lane in lanes {
            let (lane, _) = lane.as_chunks::<4>();
            let lane = u32x4::new([0, 1, 2, 3].map(|word| u32::from_le_bytes(lane[word])));
            is_absolute |= lane.simd_eq(absolute);
            is_relative |= lane.simd_eq(relative);
            relative -= u32x4::splat(16);
        }
    }
    is_relative.any() || wanted.is_short && is_absolute.any()
}

#[inline(always)]
fn leads_to(words: &[u8; WORDS_BYTES], place: usize, first: u32, wanted: &Wanted) -> bool {
    let word = u32::from_le_bytes([0, 1, 2, 3].map(|byte| words[place + byte]));
    let relative = word.wrapping_add(first).wrapping_add(place as u32) == wanted.relative;
    relative || wanted.is_short && word == wanted.absolute
}

/// A bit for each byte of a block that may begin a branch.
fn branches(words: &[u8; WORDS_BYTES]) -> u64 {
    let (bits, code) = (u8x16::splat(!(CALL ^ JUMP)), u8x16::splat(CALL));
    let (lanes, _) = words[..BLOCK_BYTES].as_chunks::<16>();
    lanes.iter().enumerate().fold(0, |mask, (place, lane)| {
        mask | u64::from((u8x16::new(*lane) & bits).simd_eq(code).to_bitmask()) << (16 * place)
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
            if let Some(word) = code.get(at..at + 4) {
                let word = u32::from_le_bytes(word.try_into().unwrap());
                let end = (ADDRESS + at as u64 + 4) as u32;
                for (index, &wanted) in wanted.iter().enumerate() {
                    if u64::from(word) == wanted || end.wrapping_add(word) == wanted as u32 {
                        scan.hits.push((at as u32, index));
                    }
                }
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
            (-300_i32..300).prop_map(|near| (ADDRESS as i32 + near).to_le_bytes().to_vec()),
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
