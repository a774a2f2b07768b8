//! How far batches are done: one number in a file, written in two places by turns, so that a write
//! that is cut off leaves the one before.

use std::{fs::File, io, os::unix::fs::FileExt as _};

const SLOT_BYTES: usize = 24;
/// Apart from each other, so that one torn sector doesn't take both.
const SLOT_OFFSETS: [u64; 2] = [0, 4096];

/// Batches below this are done.
pub(super) struct Cursor {
    file: File,
    next: u64,
    writes: u64,
}

impl Cursor {
    /// Reads it. What can't be understood counts as nothing done.
    pub fn open(file: File) -> Self {
        let slots = SLOT_OFFSETS.into_iter().filter_map(|offset| {
            let mut slot = [0; SLOT_BYTES];
            file.read_exact_at(&mut slot, offset).ok()?;
            decode(&slot)
        });
        let (writes, next) = slots.max().unwrap_or_default();
        Self { file, next, writes }
    }

    /// The id of the first batch that is not done.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Moves to `next`, unless it is beyond that already.
    ///
    /// # Errors
    /// When it can't be written. It has moved nevertheless, for this run.
    pub fn advance(&mut self, next: u64, sync: bool) -> io::Result<()> {
        if next <= self.next {
            return Ok(());
        }
        self.next = next;
        self.writes += 1;
        let offset = SLOT_OFFSETS[(self.writes % 2) as usize];
        self.file.write_all_at(&encode(self.writes, next), offset)?;
        if sync { self.file.sync_data() } else { Ok(()) }
    }
}

fn encode(writes: u64, next: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&writes.to_le_bytes());
    slot[8..16].copy_from_slice(&next.to_le_bytes());
    // Inverted, so that a slot of zeros is not a sound one.
    let crc = !crc32c::crc32c(&slot[..16]);
    slot[16..20].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(u64, u64)> {
    let number = |at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().expect("eight bytes"));
    let (writes, next) = (number(0), number(8));
    (encode(writes, next) == *slot).then_some((writes, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_leaves_the_one_before() {
        let path = std::env::temp_dir().join(format!("agentsight-cursor-{}", std::process::id()));
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let mut cursor = Cursor::open(open());
        assert_eq!(cursor.next(), 0);
        for next in [5, 3, 9] {
            cursor.advance(next, true).unwrap();
        }
        assert_eq!(Cursor::open(open()).next(), 9);
        // The second write went to the first place.
        for byte in 0..SLOT_BYTES as u64 {
            let mut was = [0];
            open().read_exact_at(&mut was, SLOT_OFFSETS[0] + byte).unwrap();
            open().write_all_at(&[!was[0]], SLOT_OFFSETS[0] + byte).unwrap();
            assert_eq!(Cursor::open(open()).next(), 5, "byte {byte}");
            open().write_all_at(&was, SLOT_OFFSETS[0] + byte).unwrap();
        }
        open().set_len(0).unwrap();
        assert_eq!(Cursor::open(open()).next(), 0);
        open().write_all_at(&[0; 8192], 0).unwrap();
        assert_eq!(Cursor::open(open()).next(), 0);
        std::fs::remove_file(&path).unwrap();
    }
}
