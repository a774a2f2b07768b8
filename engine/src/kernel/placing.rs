//! Moves probes to where they cost less, when a file's code allows it.

use std::{fs::File, os::unix::fs::FileExt as _};

use super::{
    families::Placement,
    sites::{Inner, entry_site, is_cheap, wrapped, wrapped_ex},
};

/// Code of a function that is looked at.
const CODE_BYTES: usize = 16 * 1024;

/// How the names begin of programs at the entry of functions that are called as C has it; others may
/// read registers that C doesn't pass anything in.
const C_CALLS: [&str; 3] = ["ssl_", "gnutls_", "nspr_"];

/// A wrapper for `int`, its fellow for `size_t`, and the program for the inner function of both when
/// it reports through its fourth or fifth argument.
const WRAPPERS: &[(&str, &str, [Option<&str>; 2])] = &[
    ("ssl_write", "ssl_write_ex", [Some("ssl_write_ex"), Some("ssl_write_ex2")]),
    ("ssl_read", "ssl_read_ex", [Some("ssl_read_inner"), None]),
];

/// The same programs, or such as see the same calls, at offsets of `file` where each probe costs as
/// little as can be. What can't be read stays where it is.
pub fn cheaper(file: &File, places: Vec<Placement>) -> Vec<Placement> {
    // What other architectures' kernels carry out by themselves is too little to move for.
    if cfg!(target_arch = "x86_64") { moved(|offset| read(file, offset), places) } else { places }
}

/// Distances in the file are distances in memory within a segment, and the code of a file is one
/// segment, so offsets do for addresses.
fn read(file: &File, offset: u64) -> Option<Vec<u8>> {
    let mut code = vec![0; CODE_BYTES];
    let len = file.read_at(&mut code, offset).ok().filter(|len| *len > 0)?;
    code.truncate(len);
    Some(code)
}

fn moved(read: impl Fn(u64) -> Option<Vec<u8>>, mut places: Vec<Placement>) -> Vec<Placement> {
    for &(wrapper, fellow, programs) in WRAPPERS {
        let Some((outer, at, program)) = inner(&read, &places, wrapper, fellow, programs) else { continue };
        places.retain(|place| !outer.contains(&place.offset));
        // The return before the entry, so that no call is seen entering which can't be seen returning.
        places.extend(["ssl_return", program].map(|program| Placement { offset: at, program }));
    }
    for place in places.iter_mut().filter(|place| C_CALLS.iter().any(|name| place.program.starts_with(name))) {
        place.offset += read(place.offset).map_or(0, |code| entry_site(&code));
    }
    places
}

/// The offsets of both wrappers, that of their inner function, and the program for it, if probes cost
/// less there.
fn inner(
    read: &impl Fn(u64) -> Option<Vec<u8>>,
    places: &[Placement],
    wrapper: &str,
    fellow: &str,
    programs: [Option<&'static str>; 2],
) -> Option<([u64; 2], u64, &'static str)> {
    let only = |program: &str| {
        let mut found = places.iter().filter(|place| place.program == program).map(|place| place.offset);
        found.next().filter(|_| found.next().is_none())
    };
    let outer = [only(wrapper)?, only(fellow)?];
    let costs_less = |offset: u64| read(offset).is_some_and(|code| is_cheap(&code));
    let inner @ Inner { address, count } = wrapped(outer[0], read)?;
    // Whoever calls one of the two calls the inner function, with the same arguments.
    let agree = wrapped_ex(outer[1], read) == Some(inner);
    let gains = costs_less(address) && !outer.iter().all(|&offset| costs_less(offset));
    let program = programs.get(usize::from(count).checked_sub(3)?).copied().flatten()?;
    (agree && gains).then_some((outer, address, program))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of wrappers at 0 (for `int`) and 0x40 (for `size_t`), and what they call at 0x100.
    fn file(wrapper: &[u8], fellow: &[u8], called: &[u8]) -> Vec<u8> {
        let mut file = vec![0xcc; 0x200];
        for (at, code) in [(0, wrapper), (0x40, fellow), (0x100, called)] {
            file[at..at + code.len()].copy_from_slice(code);
        }
        file
    }

    #[track_caller]
    fn check(file: &[u8], expected: &[(u64, &'static str)]) {
        let places = STAY.iter().map(|&(offset, program)| Placement { offset, program }).collect();
        let read = |offset: u64| file.get(usize::try_from(offset).ok()?..).map(<[u8]>::to_vec);
        let moved: Vec<_> = moved(read, places).iter().map(|place| (place.offset, place.program)).collect();
        assert_eq!(moved, expected);
    }

    // sub $0x18,%rsp; mov %rsp,%rcx; movslq %edx,%rdx; call 0x100; test %eax,%eax; jle
    const WRAPPER: &[u8] =
        &[0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0xe1, 0x48, 0x63, 0xd2, 0xe8, 0xf1, 0, 0, 0, 0x85, 0xc0, 0x7e, 0];
    // sub $0x8,%rsp; call 0x100
    const FELLOW: &[u8] = &[0x48, 0x83, 0xec, 0x08, 0xe8, 0xb7, 0, 0, 0];
    const STAY: &[(u64, &str)] = &[(0, "ssl_return"), (0, "ssl_read"), (0x40, "ssl_return"), (0x40, "ssl_read_ex")];

    #[test]
    fn an_inner_function_stands_for_its_wrappers_where_it_costs_less() {
        // push %r14; and behind endbr64
        check(&file(WRAPPER, FELLOW, &[0x41, 0x56]), &[(0x100, "ssl_return"), (0x100, "ssl_read_inner")]);
        let marked = [0xf3, 0x0f, 0x1e, 0xfa, 0x55];
        check(&file(WRAPPER, FELLOW, &marked), &[(0x104, "ssl_return"), (0x104, "ssl_read_inner")]);
        // It begins with its frame as well.
        check(&file(WRAPPER, FELLOW, &[0x48, 0x83, 0xec, 0x18]), STAY);
        // The fellow calls another.
        check(&file(WRAPPER, &[0x48, 0x83, 0xec, 0x08, 0xe8, 0xc7, 0, 0, 0], &[0x41, 0x56]), STAY);
        // Nobody asks for more than 0.
        check(&file(&WRAPPER[..15], FELLOW, &[0x41, 0x56]), STAY);
    }

    #[test]
    fn probes_of_wrappers_that_are_cheap_stay() {
        let pushes = |code: &[u8], jump: u8| {
            let mut code = [&[0x53], &code[4..]].concat();
            let call = code.iter().position(|&byte| byte == 0xe8).unwrap();
            code[call + 1] = jump;
            code
        };
        check(&file(&pushes(WRAPPER, 0xf4), &pushes(FELLOW, 0xba), &[0x41, 0x56]), STAY);
    }
}
