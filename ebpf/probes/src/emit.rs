//! From the application's memory into the home ring, in one copy.

use core::hint::black_box;

use agentsight_abi::{
    DropCause, RecordHeader, Total, WAKE_BYTES, flags,
    pieces::{CLASSES, PIECE_BYTES, PIECES_MAX, remainder, whole_piece},
    pressure::{self, END_BYTES},
    record::HEADER_BYTES,
};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::{bpf_probe_read_user_buf, generated::bpf_ringbuf_query},
};

use crate::maps::{PRESSURE, RINGS, Ring, count, count_drop};

/// Copies the `len` bytes at `buffer` into ring `home` as one or more records. `header` describes
/// the first of them and is used up.
#[inline(always)]
pub fn transfer(home: u32, header: &mut RecordHeader, buffer: u64, len: u64) {
    let Some(ring) = RINGS.get(home) else {
        return count_drop(DropCause::RingMissing, len);
    };
    let start = header.offset;
    let step = pressure(home, ring);
    header.flags |= (step as u16) << flags::PRESSURE_SHIFT;
    if step >= pressure::SAMPLED && !pressure::is_sampled(header.conn) {
        return count_drop(DropCause::PressureConnection, len);
    }
    if step >= pressure::HEAD_AND_TAIL && len > 2 * END_BYTES as u64 {
        return ends(ring, header, buffer, len);
    }
    for index in 0..PIECES_MAX {
        let Some((at, hole)) = whole_piece(len, index) else { break };
        header.offset = start + at;
        header.lost = hole;
        header.flags &= !(flags::FAULT | flags::BUDGET);
        if hole != 0 {
            header.flags |= flags::BUDGET;
            count_drop(DropCause::CallBudget, hole);
        }
        piece::<PIECE_BYTES>(ring, header, buffer + at, PIECE_BYTES as u32);
    }
    let (at, rest) = remainder(len);
    if rest == 0 {
        return;
    }
    header.offset = start + at;
    header.lost = 0;
    header.flags &= !(flags::FAULT | flags::BUDGET);
    sized(ring, header, buffer + at, rest as u32);
}

/// The same for what is less than any ring keeps only the ends of: one record.
#[inline(always)]
pub fn transfer_small(home: u32, header: &mut RecordHeader, buffer: u64, len: u32) {
    let Some(ring) = RINGS.get(home) else {
        return count_drop(DropCause::RingMissing, len as u64);
    };
    let step = pressure(home, ring);
    header.flags |= (step as u16) << flags::PRESSURE_SHIFT;
    if step >= pressure::SAMPLED && !pressure::is_sampled(header.conn) {
        return count_drop(DropCause::PressureConnection, len as u64);
    }
    sized(ring, header, buffer, len);
}

/// One record of up to [`PIECE_BYTES`], in the smallest class that holds it.
#[inline(always)]
pub fn sized(ring: &'static Ring, header: &mut RecordHeader, buffer: u64, rest: u32) {
    if rest <= CLASSES[0] as u32 {
        piece::<{ CLASSES[0] }>(ring, header, buffer, rest);
    } else if rest <= CLASSES[1] as u32 {
        piece::<{ CLASSES[1] }>(ring, header, buffer, rest);
    } else if rest <= CLASSES[2] as u32 {
        piece::<{ CLASSES[2] }>(ring, header, buffer, rest);
    } else if rest <= CLASSES[3] as u32 {
        piece::<{ CLASSES[3] }>(ring, header, buffer, rest);
    } else if rest <= CLASSES[4] as u32 {
        piece::<{ CLASSES[4] }>(ring, header, buffer, rest);
    } else if rest <= CLASSES[5] as u32 {
        piece::<{ CLASSES[5] }>(ring, header, buffer, rest);
    } else if rest <= CLASSES[6] as u32 {
        piece::<{ CLASSES[6] }>(ring, header, buffer, rest);
    } else if rest <= CLASSES[7] as u32 {
        piece::<{ CLASSES[7] }>(ring, header, buffer, rest);
    } else {
        piece::<{ CLASSES[8] }>(ring, header, buffer, rest);
    }
}

/// The step of `pressure` that ring `home` is at now, by how full it is.
#[inline(always)]
fn pressure(home: u32, ring: &'static Ring) -> u32 {
    let Some(step) = PRESSURE.get_ptr_mut(home) else { return pressure::NONE };
    // SAFETY: a word of an array; when several CPUs write it at once, each has just looked at the ring.
    unsafe {
        let next = pressure::next(*step, query(ring, BPF_RB_AVAIL_DATA), query(ring, BPF_RB_RING_SIZE));
        *step = next;
        next
    }
}

/// Head and tail of a call, with a hole in between that is told.
#[inline(always)]
fn ends(ring: &'static Ring, header: &mut RecordHeader, buffer: u64, len: u64) {
    let hole = len - 2 * END_BYTES as u64;
    let start = header.offset;
    header.lost = hole;
    header.flags |= flags::BUDGET;
    count_drop(DropCause::PressureMiddle, hole);
    piece::<END_BYTES>(ring, header, buffer, END_BYTES as u32);
    header.offset = start + len - END_BYTES as u64;
    header.lost = 0;
    header.flags &= !(flags::FAULT | flags::BUDGET);
    piece::<END_BYTES>(ring, header, buffer + len - END_BYTES as u64, END_BYTES as u32);
}

#[inline(always)]
fn query(ring: &'static Ring, what: u32) -> u64 {
    // SAFETY: the helper takes the map itself, which is what the reference points to.
    unsafe { bpf_ringbuf_query(core::ptr::from_ref(ring).cast_mut().cast(), what as u64) }
}

/// A record as it lies in the ring.
#[repr(C)]
struct Slot<const SIZE: usize> {
    header: RecordHeader,
    payload: [u8; SIZE],
}

/// One record of up to `SIZE` bytes, a power of two. When the memory can't be read, the record says
/// so and carries nothing: the page may not be there, and a probe must not wait for it.
#[inline(always)]
fn piece<const SIZE: usize>(ring: &'static Ring, header: &mut RecordHeader, buffer: u64, len: u32) {
    let wake = wake_flag(ring, SIZE as u64);
    let Some(mut slot) = ring.reserve_untyped::<Slot<SIZE>>(0) else {
        return count_drop(DropCause::RingFull, len as u64);
    };
    // The verifier wants to see a constant or a mask, and the compiler knows too well that `len` is
    // in bounds to leave a mask in place by itself.
    let bounded = if len as usize >= SIZE { SIZE } else { black_box(len as usize) & (SIZE - 1) };
    let slot_ptr = slot.as_mut_ptr();
    // SAFETY: the slot is ours until it is submitted, and `bounded` is at most `SIZE`.
    let copied = unsafe {
        let payload = core::slice::from_raw_parts_mut((&raw mut (*slot_ptr).payload).cast::<u8>(), bounded);
        bpf_probe_read_user_buf(buffer as *const u8, payload)
    };
    if copied.is_err() {
        slot.discard(BPF_RB_NO_WAKEUP as u64);
        count_drop(DropCause::UserFault, len as u64);
        header.flags |= flags::FAULT;
        header.lost += len as u64;
        header.len = 0;
        return bare(ring, header);
    }
    header.len = bounded as u32;
    // SAFETY: as above.
    unsafe { (&raw mut (*slot_ptr).header).write(*header) };
    slot.submit(wake);
    count(Total::Records, bounded as u64);
}

/// A record without payload.
#[inline(always)]
pub fn bare(ring: &'static Ring, header: &RecordHeader) {
    with_payload(ring, header, &());
}

/// A record with a payload of the program's own.
#[inline(always)]
pub fn with_payload<T: Copy + 'static>(ring: &'static Ring, header: &RecordHeader, payload: &T) {
    // SAFETY: `fill` gets memory for a `T`.
    in_place::<T>(ring, header, |place| unsafe { place.write(*payload) });
}

/// A record whose payload is written where it lies; `fill` has to write all of it.
#[inline(always)]
pub fn in_place<T: Copy + 'static>(ring: &'static Ring, header: &RecordHeader, fill: impl FnOnce(*mut T)) {
    let wake = wake_flag(ring, size_of::<T>() as u64);
    let Some(mut slot) = ring.reserve_untyped::<(RecordHeader, T)>(0) else {
        return count_drop(DropCause::RingFull, 0);
    };
    let slot_ptr = slot.as_mut_ptr().cast::<RecordHeader>();
    // SAFETY: the slot is ours until it is submitted; a header and then `T`, both of align 8 or less.
    unsafe {
        slot_ptr.write(*header);
        fill(slot_ptr.add(1).cast::<T>());
    }
    slot.submit(wake);
    count(Total::Records, 0);
}

/// Wakes the engine when this record takes the ring over the mark, and only then: below it the
/// engine comes by on its own, above it the engine is awake.
#[inline(always)]
fn wake_flag(ring: &'static Ring, payload: u64) -> u64 {
    let filled = query(ring, BPF_RB_AVAIL_DATA);
    let crosses = filled < WAKE_BYTES && filled + payload + HEADER_BYTES as u64 >= WAKE_BYTES;
    (if crosses { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }) as u64
}
