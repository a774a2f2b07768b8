//! Go's crypto/tls, in programs with and without symbols: the functions are found by the table that
//! Go's runtime needs itself, and their returns by reading their code, because a probe that puts its
//! own return address on a stack that moves would crash the program.

mod code;
mod pclntab;

use std::io;

use object::elf::{EM_AARCH64, EM_X86_64};

use self::{
    code::{Body, Convention},
    pclntab::{Source, Span, Table, Word},
};
use super::{Effort, Family, Finding, Placement};
use crate::kernel::image::{Error, Image, Region};

/// The family.
pub const FAMILY: Family = Family { name: "Go crypto/tls", effort: Effort::Glance, find };

/// A function, and the programs for its entry and its returns, each for arguments in registers and
/// on the stack.
struct Hook {
    name: &'static str,
    needed: bool,
    entry: [&'static str; 2],
    returns: Option<[&'static str; 2]>,
}

const HOOKS: [Hook; 5] = [
    Hook {
        name: "crypto/tls.(*Conn).Write",
        needed: true,
        entry: ["go_write", "go_stack_write"],
        returns: Some(["go_write_return", "go_stack_write_return"]),
    },
    Hook {
        name: "crypto/tls.(*Conn).Read",
        needed: true,
        entry: ["go_read", "go_stack_read"],
        returns: Some(["go_read_return", "go_stack_read_return"]),
    },
    Hook { name: "crypto/tls.(*Conn).Close", needed: true, entry: ["go_close", "go_stack_close"], returns: None },
    Hook {
        name: "crypto/tls.(*Conn).clientHandshake",
        needed: false,
        entry: ["go_handshake", "go_stack_handshake"],
        returns: None,
    },
    Hook {
        name: "crypto/tls.(*Conn).serverHandshake",
        needed: false,
        entry: ["go_handshake", "go_stack_handshake"],
        returns: None,
    },
];

/// Where Go's linker puts the table of functions; in position-independent programs of some versions it
/// is among what the loader fills in.
const TABLE_SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];

/// Where it then is when the system's linker has put such sections together.
const RELOCATED_SECTION: &str = ".data.rel.ro";

/// One of them is in every program of Go.
const GO_SECTIONS: [&str; 2] = [".go.buildinfo", ".note.go.buildid"];

/// Where Go 1.26 and later keep what the runtime knows of the program: first the address of the table,
/// and as its 23rd word the start of the text (`runtime.moduledata`).
const MODULE_SECTION: &str = ".go.module";
const MODULE_TEXT_OFFSET: u64 = 22 * 8;

/// A function is not longer. `Write`, the longest, has about 2 KiB.
const FUNCTION_BYTES_MAX: u64 = 64 * 1024;

/// What crypto/tls says of a peer that doesn't speak TLS: a text that only programs with it, or with a
/// copy of it, have.
const MARK: &[u8] = b"first record does not look like a TLS handshake";

impl Source for Image<'_> {
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.read(offset, into)
    }
}

fn find(image: &Image<'_>) -> Result<Finding, Error> {
    let of_go = |names: &[&str]| names.iter().find_map(|name| image.section(name));
    if of_go(&GO_SECTIONS).or(of_go(&TABLE_SECTIONS)).is_none() {
        return Ok(Finding::default());
    }
    let Some((region, table)) = open_table(image)? else {
        return Ok(unclear("a Go program with a table of functions of an unknown format: obfuscated, or too new"));
    };
    let spans = table.find(&HOOKS.each_ref().map(|hook| hook.name))?;
    if HOOKS.iter().zip(&spans).any(|(hook, span)| hook.needed && span.is_none()) {
        return Ok(match has_mark(image)? {
            true => unclear(
                "a Go program with TLS, but its functions aren't those of crypto/tls: obfuscated, or a copy of the package",
            ),
            false => Finding::default(),
        });
    }
    // Where several places could be the start of the text, the right one has the functions' code.
    let found = text_starts(image, &region, &table).into_iter().find_map(|text| {
        let starts = |word: Word| resolve(image, &region, word);
        let placed = HOOKS.iter().zip(&spans).map(|(hook, span)| match span {
            None => Some(Vec::new()),
            Some(Span::Absolute(start, end)) => placements(image, &table, hook, starts(*start)?, starts(*end)?),
            Some(Span::InText(start, end)) => {
                placements(image, &table, hook, text.checked_add((*start).into())?, text.checked_add((*end).into())?)
            }
        });
        placed.collect::<Option<Vec<_>>>()
    });
    Ok(match found {
        None => unclear("a Go program with crypto/tls whose code is not understood"),
        Some(placed) => Finding {
            functions: placed.iter().filter(|placed| !placed.is_empty()).count(),
            placements: placed.concat(),
            remark: None,
        },
    })
}

/// The table of functions, and where it is.
fn open_table<'a>(image: &'a Image<'_>) -> Result<Option<(Region, Table<'a>)>, Error> {
    if let Some(region) = TABLE_SECTIONS.iter().find_map(|name| image.section(name)) {
        return Ok(Table::open(image, region.offset, region.len)?.map(|table| (region, table)));
    }
    let Some(mixed) = image.section(RELOCATED_SECTION) else { return Ok(None) };
    let found = Table::search(image, mixed.offset, mixed.len)?;
    Ok(found.map(|(start, table)| {
        let (address, offset) = (mixed.address.saturating_add(start), mixed.offset.saturating_add(start));
        (Region { address, offset, len: mixed.len - start, ..mixed }, table)
    }))
}

fn unclear(why: &str) -> Finding {
    Finding { remark: Some(why.to_owned()), ..Finding::default() }
}

/// What the loader makes of a word of the table.
fn resolve(image: &Image<'_>, region: &Region, word: Word) -> Option<u64> {
    if word.value != 0 { Some(word.value) } else { image.relocated(region.address.checked_add(word.at)?) }
}

/// Addresses that may be the start of the program's text. Code of C may come before Go's own in the
/// section, so that the section's start is not always right.
fn text_starts(image: &Image<'_>, region: &Region, table: &Table<'_>) -> Vec<u64> {
    let word = |address: u64| {
        let mut bytes = [0; 8];
        image.read(image.offset_of(address)?, &mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes)).filter(|value| *value != 0).or_else(|| image.relocated(address))
    };
    let of_module = image.section(MODULE_SECTION).and_then(|module| {
        let is_of_table = word(module.address)? == region.address;
        is_of_table.then(|| word(module.address.checked_add(MODULE_TEXT_OFFSET)?)).flatten()
    });
    let of_section = image.section(".text").map(|section| section.address);
    [resolve(image, region, table.text()), of_module, of_section].into_iter().flatten().collect()
}

/// The programs for the function from `start` to `end`; none when that isn't a function of Go.
fn placements(image: &Image<'_>, table: &Table<'_>, hook: &Hook, start: u64, end: u64) -> Option<Vec<Placement>> {
    let len = end.checked_sub(start).filter(|len| (1..=FUNCTION_BYTES_MAX).contains(len))?;
    let offset = image.code_offset_of(start)?;
    let mut code = vec![0; usize::try_from(len).ok()?];
    image.read(offset, &mut code).ok()?;
    let Body { convention, entry, returns } = match image.machine() {
        EM_X86_64 => code::x86_64(&code)?,
        // The same version of Go that changed the table for good brought registers to arm64.
        EM_AARCH64 if table.is_since_go118() => code::aarch64(&code, Convention::Registers)?,
        EM_AARCH64 => code::aarch64(&code, Convention::Stack)?,
        _ => return None,
    };
    let of_convention = |programs: [&'static str; 2]| match convention {
        Convention::Registers => programs[0],
        Convention::Stack => programs[1],
    };
    // Returns before entries, so that no call is seen entering which can't be seen returning.
    let of_returns = hook.returns.into_iter().flat_map(|programs| {
        returns.iter().map(move |within| Placement { offset: offset + within, program: of_convention(programs) })
    });
    let of_entry = Placement { offset: offset + entry, program: of_convention(hook.entry) };
    Some(of_returns.chain([of_entry]).collect())
}

/// Whether the program's constants hold [`MARK`].
fn has_mark(image: &Image<'_>) -> Result<bool, Error> {
    let Some(constants) = image.section(".rodata") else { return Ok(false) };
    Ok(!image.find(&constants, &[MARK], 1)?[0].is_empty())
}
