//! The kernel's bound on the stack of a program and all that it calls, held without a kernel.
//!
//! Linux gives each program's calls stacks of their own since 6.13 (x86_64) and 6.17 (aarch64). Before,
//! the frames of a chain of calls have to fit into one stack together, so that a newer kernel takes what
//! an older one refuses.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::Path,
};

use aya_obj::{Object, generated::bpf_insn};

/// `MAX_BPF_STACK` of linux/filter.h.
const STACK_BYTES_MAX: u64 = 512;

/// What a frame is rounded up to (`check_max_stack_depth` in kernel/bpf/verifier.c).
const FRAME_BYTES_UNIT: u64 = 32;

/// The register that points to the upper end of a function's frame.
const FRAME: u8 = 10;

/// Bits of an instruction's code, and codes, from linux/bpf_common.h and linux/bpf.h.
const CLASS: u8 = 0x07;
const LOAD: u8 = 0x01;
const STORE: u8 = 0x02;
const STORE_REGISTER: u8 = 0x03;
const JUMP: u8 = 0x05;
const JUMP32: u8 = 0x06;
const COPY: u8 = 0xbf;
const ADD: u8 = 0x07;
const GO: u8 = 0x05;
const EXIT: u8 = 0x95;
const CALL: u8 = 0x85;
const CALL_WITHIN: u8 = 1;
const LOAD_WIDE: u8 = 0x18;
const OF_FUNCTION: u8 = 4;

/// The function from instruction `start` up to the next of `starts`: the bytes of its frame, and where
/// the functions that it calls begin.
fn function(code: &[bpf_insn], start: usize, starts: &BTreeSet<usize>) -> (u64, Vec<usize>) {
    let end = starts.range(start + 1..).next().copied().unwrap_or(code.len());
    // Registers that point into the frame, by their distance from its upper end.
    let mut none = [None; 11];
    none[usize::from(FRAME)] = Some(0);
    let mut pointers = none;
    let (mut deepest, mut calls) = (0_i64, vec![]);
    for (at, instruction) in code.iter().enumerate().take(end).skip(start) {
        let (to, from) = (usize::from(instruction.dst_reg()), usize::from(instruction.src_reg()));
        let reaches = match (instruction.code, instruction.code & CLASS) {
            (_, LOAD) => pointers[from].map(|place: i64| place + i64::from(instruction.off)),
            (_, STORE | STORE_REGISTER) => pointers[to].map(|place| place + i64::from(instruction.off)),
            (ADD, _) => pointers[to].map(|place| place + i64::from(instruction.imm)),
            _ => None,
        };
        deepest = reaches.unwrap_or(0).min(deepest);
        match (instruction.code, instruction.code & CLASS) {
            (COPY, _) => pointers[to] = pointers[from],
            (ADD, _) => pointers[to] = reaches,
            // What follows is reached from elsewhere.
            (GO | EXIT, _) => pointers = none,
            (CALL, _) => {
                pointers[..=5].fill(None);
                calls.extend(callee(at, instruction));
            }
            // The kernel calls it back: a loop's step.
            (LOAD_WIDE, _) => {
                pointers[to] = None;
                calls.extend(callee(at, instruction));
            }
            (_, STORE | STORE_REGISTER | JUMP | JUMP32) => {}
            _ => pointers[to] = None,
        }
    }
    (deepest.unsigned_abs(), calls)
}

/// Where the function begins that an instruction calls, or has the kernel call.
fn callee(at: usize, instruction: &bpf_insn) -> Option<usize> {
    let calls = matches!((instruction.code, instruction.src_reg()), (CALL, CALL_WITHIN) | (LOAD_WIDE, OF_FUNCTION));
    let place = at as i64 + 1 + i64::from(instruction.imm);
    calls.then(|| usize::try_from(place).expect("a function within the program"))
}

/// What the function at `start` and the worst chain of calls from it take.
fn stack_bytes(code: &[bpf_insn], start: usize, starts: &BTreeSet<usize>) -> u64 {
    let (frame, calls) = function(code, start, starts);
    let own = frame.max(1).next_multiple_of(FRAME_BYTES_UNIT);
    own + calls.into_iter().map(|callee| stack_bytes(code, callee, starts)).max().unwrap_or(0)
}

#[test]
fn every_program_fits_the_one_stack_of_older_kernels() {
    for machine in ["x86_64", "aarch64"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ebpf/prebuilt").join(format!("{machine}.o"));
        let mut object = Object::parse(&fs::read(file).unwrap()).unwrap();
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_calls(&sections).unwrap();
        let mut deepest = 0;
        for (name, program) in &object.programs {
            let code = &object.functions[&program.function_key()].instructions;
            let called = code.iter().enumerate().filter_map(|(at, instruction)| callee(at, instruction));
            let starts: BTreeSet<usize> = called.chain([0]).collect();
            let bytes = stack_bytes(code, 0, &starts);
            assert!(bytes <= STACK_BYTES_MAX, "{machine}: {name} and what it calls take {bytes} bytes of stack");
            deepest = deepest.max(bytes);
        }
        // Calls were followed: no single function takes that much.
        assert!(deepest > 300, "{machine}: {deepest}");
    }
}
