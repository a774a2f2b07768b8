//! Where a library's functions are: symbols to file offsets.

use std::{fs::File, io};

use object::{
    Endianness,
    elf::{self, FileHeader64},
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader as _, ProgramHeader as _, Sym as _},
    },
};

type Header = FileHeader64<Endianness>;

/// Why a file's functions can't be found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It isn't a 64-bit ELF file, or contradicts itself.
    #[error("not a usable ELF file: {0}")]
    Elf(#[from] object::Error),
}

/// Offsets in `file` of the functions `names` that it defines, `None` for the others. The dynamic
/// symbols are looked at first, then those for debuggers, which executables may have instead.
///
/// # Errors
/// When the file can't be read as ELF.
pub fn function_offsets(file: &File, names: &[&str]) -> Result<Vec<Option<u64>>, Error> {
    let cache = ReadCache::new(file);
    let data = &cache;
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let sections = header.sections(endian, data)?;
    let mut offsets = vec![None; names.len()];
    for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
        let symbols = sections.symbols(endian, data, kind)?;
        for symbol in symbols.iter() {
            if symbol.is_undefined(endian) || symbol.st_type() != elf::STT_FUNC {
                continue;
            }
            let Ok(name) = symbol.name(endian, symbols.strings()) else { continue };
            let Some(index) = names.iter().position(|wanted| wanted.as_bytes() == name) else { continue };
            offsets[index] = offsets[index].or(file_offset(endian, segments, symbol.st_value(endian)));
        }
        if offsets.iter().any(Option::is_some) {
            break;
        }
    }
    Ok(offsets)
}

/// A uprobe is placed at an offset of the file, a symbol is an address; the segment that is loaded
/// there says what lies between.
fn file_offset(endian: Endianness, segments: &[elf::ProgramHeader64<Endianness>], address: u64) -> Option<u64> {
    segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD).find_map(|segment| {
        let within = address.checked_sub(segment.p_vaddr(endian))?;
        (within < segment.p_filesz(endian)).then(|| segment.p_offset(endian).checked_add(within))?
    })
}

/// The names in a file's dynamic string table hold `name`: a cheap look before the symbols are read.
pub fn mentions(file: &File, name: &str) -> bool {
    let cache = ReadCache::new(file);
    let data = &cache;
    let Ok(header) = Header::parse(data) else { return false };
    let Ok(endian) = header.endian() else { return false };
    let Ok(sections) = header.sections(endian, data) else { return false };
    let terminated = [name.as_bytes(), b"\0"].concat();
    sections.iter().any(|section| {
        use object::read::elf::SectionHeader as _;
        section.sh_type(endian) == elf::SHT_STRTAB
            && section
                .file_range(endian)
                .and_then(|(offset, size)| data.read_bytes_at(offset, size).ok())
                .is_some_and(|strings| memchr::memmem::find(strings, &terminated).is_some())
    })
}
