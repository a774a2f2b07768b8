//! How one call's bytes are cut into records.

/// Payload sizes that records are reserved in. The verifier wants constants; a record takes the
/// smallest class that holds it.
pub const CLASSES: [usize; 9] = [256, 512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, PIECE_BYTES];

/// Largest payload of one record.
pub const PIECE_BYTES: usize = 64 << 10;

/// What is captured of one call. More than this keeps the head and the tail, because the model is
/// named at the start of a body and the usage at its end.
pub const CALL_BYTES_MAX: u64 = 4 << 20;

/// Whole pieces in a call's budget.
pub const PIECES_MAX: u32 = (CALL_BYTES_MAX / PIECE_BYTES as u64) as u32;

const _: () = assert!(CALL_BYTES_MAX.is_multiple_of(2 * PIECE_BYTES as u64));

/// Where the `index`th whole piece of a call of `len` bytes begins, and how many bytes after it are
/// left out; `None` when only a remainder of less than a piece is left (or nothing).
#[inline(always)]
pub fn whole_piece(len: u64, index: u32) -> Option<(u64, u64)> {
    let at = index as u64 * PIECE_BYTES as u64;
    if len <= CALL_BYTES_MAX {
        return if at + PIECE_BYTES as u64 <= len { Some((at, 0)) } else { None };
    }
    if index >= PIECES_MAX {
        return None;
    }
    let hole = len - CALL_BYTES_MAX;
    if index < PIECES_MAX / 2 {
        Some((at, if index == PIECES_MAX / 2 - 1 { hole } else { 0 }))
    } else {
        Some((at + hole, 0))
    }
}

/// Where the remainder of a call of `len` bytes begins, and its length (possibly 0).
#[inline(always)]
pub fn remainder(len: u64) -> (u64, u64) {
    if len > CALL_BYTES_MAX {
        return (len, 0);
    }
    let size = len & (PIECE_BYTES as u64 - 1);
    (len - size, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a call's pieces: they must tile it in order, except for the one hole that is told.
    fn check(len: u64) {
        let (mut next, mut captured) = (0, 0);
        let mut index = 0;
        while let Some((at, hole)) = whole_piece(len, index) {
            assert_eq!(at, next, "piece {index} of {len}");
            next = at + PIECE_BYTES as u64 + hole;
            captured += PIECE_BYTES as u64;
            index += 1;
        }
        let (at, size) = remainder(len);
        assert_eq!(at, next, "remainder of {len}");
        assert_eq!(at + size, len);
        assert_eq!(captured + size, len.min(CALL_BYTES_MAX));
        assert!(index <= PIECES_MAX && size < PIECE_BYTES as u64);
    }

    #[test]
    fn pieces_tile_a_call() {
        let piece = PIECE_BYTES as u64;
        for base in [0, 1, piece, 2 * piece, CALL_BYTES_MAX - piece, CALL_BYTES_MAX, 3 * CALL_BYTES_MAX, 1 << 40] {
            for len in base.saturating_sub(2)..base + 3 {
                check(len);
            }
        }
    }
}
