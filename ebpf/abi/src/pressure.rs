//! What is given up, in which order, while a ring fills faster than it is drained.

/// Everything is captured.
pub const NONE: u32 = 0;
/// Exchanges that begin now are captured without their content (messages, instructions, tools).
pub const WITHOUT_CONTENT: u32 = 1;
/// Of large calls only head and tail: the model is named early, the usage late.
pub const HEAD_AND_TAIL: u32 = 2;
/// Only one connection of [`SAMPLED_OF`].
pub const SAMPLED: u32 = 3;

/// Bytes of a call's head that are kept, and of its tail, when only those are.
pub const END_BYTES: usize = 4 << 10;
/// Of how many connections one is kept, a power of two.
pub const SAMPLED_OF: u64 = 4;

/// The step that follows `step` when `filled` of a ring's `capacity` bytes wait to be read.
///
/// A step is taken as soon as the ring is as full as it asks for: half, three quarters, seven eighths.
/// It is undone when the ring is less than half as full as that, so that a ring at the mark doesn't go
/// to and fro.
#[inline(always)]
pub fn next(step: u32, filled: u64, capacity: u64) -> u32 {
    let eighth = capacity / 8;
    let asked = if filled >= 7 * eighth {
        SAMPLED
    } else if filled >= 6 * eighth {
        HEAD_AND_TAIL
    } else if filled >= 4 * eighth {
        WITHOUT_CONTENT
    } else {
        NONE
    };
    // Twice the fill, to be compared with the marks themselves.
    let kept = if step >= SAMPLED && 2 * filled >= 7 * eighth {
        SAMPLED
    } else if step >= HEAD_AND_TAIL && 2 * filled >= 6 * eighth {
        HEAD_AND_TAIL
    } else if step >= WITHOUT_CONTENT && 2 * filled >= 4 * eighth {
        WITHOUT_CONTENT
    } else {
        NONE
    };
    if asked > kept { asked } else { kept }
}

/// Whether a connection is among those that are kept at [`SAMPLED`]. The end of its number counts the
/// connections of a CPU, so any of them is as likely.
#[inline(always)]
pub fn is_sampled(conn: u64) -> bool {
    conn & (SAMPLED_OF - 1) == 0
}

const _: () = assert!(SAMPLED_OF.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills in eighths, and the steps that they lead to.
    fn check(fills: &[u64], expected: &[u32]) {
        let mut step = NONE;
        for (at, (&fill, &expected)) in fills.iter().zip(expected).enumerate() {
            step = next(step, fill * 1000, 8000);
            assert_eq!(step, expected, "at {at} of {fills:?}");
        }
    }

    #[test]
    fn steps_are_taken_in_order_and_undone() {
        check(&[0, 3, 4, 5, 6, 7, 8], &[0, 0, 1, 1, 2, 3, 3]);
        check(&[8, 7, 6, 5, 4, 3, 2, 1, 0], &[3, 3, 3, 3, 3, 2, 1, 0, 0]);
        check(&[8, 0], &[3, 0]);
        check(&[4, 3, 4, 2, 1], &[1, 1, 1, 1, 0]);
        check(&[6, 4, 3, 6], &[2, 2, 2, 2]);
    }

    #[test]
    fn some_connections_are_kept() {
        let kept = (1..=1000).filter(|&count| is_sampled(crate::conn_id(4711, 3, count))).count();
        assert_eq!(kept as u64, 1000 / SAMPLED_OF);
    }
}
