//! A file with machine code, as those who look for functions in it see it: symbols, sections,
//! segments, and where in the file an address is.

use std::{collections::HashSet, fs::File, io, os::unix::fs::FileExt as _};

use object::{
    Endianness,
    elf::{self, FileHeader64, ProgramHeader64},
    read::{
        ReadCache, ReadCacheOps, ReadRef, SectionIndex,
        elf::{FileHeader as _, ProgramHeader as _, Rela as _, SectionHeader as _, SectionTable, Sym as _},
    },
};

type Header = FileHeader64<Endianness>;
type Data<'data> = &'data ReadCache<Cursor<'data>>;

/// What is searched at once; it stays in the processor's cache.
const SEARCH_BYTES: usize = 256 * 1024;

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

/// A section or segment, as it lies in memory and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Address before relocation.
    pub address: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub len: u64,
    /// It can be executed.
    pub executable: bool,
}

impl Region {
    /// Whether the region holds `address`.
    pub fn contains(&self, address: u64) -> bool {
        address.checked_sub(self.address).is_some_and(|within| within < self.len)
    }
}

/// A place in a file. A file's own is shared by all who have it open as the same, and others may look into it at the
/// same time.
struct Cursor<'f> {
    file: &'f File,
    at: u64,
}

impl ReadCacheOps for Cursor<'_> {
    fn len(&mut self) -> Result<u64, ()> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|_| ())
    }

    fn seek(&mut self, place: u64) -> Result<u64, ()> {
        self.at = place;
        Ok(place)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, ()> {
        let len = self.file.read_at(into, self.at).map_err(|_| ())?;
        self.at += len as u64;
        Ok(len)
    }

    fn read_exact(&mut self, into: &mut [u8]) -> Result<(), ()> {
        self.file.read_exact_at(into, self.at).map_err(|_| ())?;
        self.at += into.len() as u64;
        Ok(())
    }
}

/// A 64-bit ELF file. What is read of it stays in memory as long as this does.
pub struct Image<'data> {
    file: &'data File,
    data: Data<'data>,
    header: &'data Header,
    endian: Endianness,
    segments: &'data [ProgramHeader64<Endianness>],
    sections: SectionTable<'data, Header, Data<'data>>,
}

/// Opens `file` as an image for `look`.
///
/// # Errors
/// When it isn't ELF; whatever `look` returns otherwise.
pub fn examine<T>(file: &File, look: impl FnOnce(&Image<'_>) -> Result<T, Error>) -> Result<T, Error> {
    let cache = ReadCache::new(Cursor { file, at: 0 });
    look(&Image::parse(file, &cache)?)
}

impl<'data> Image<'data> {
    fn parse(file: &'data File, data: Data<'data>) -> Result<Self, Error> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        let segments = header.program_headers(endian, data)?;
        // Sections are for linkers and debuggers; a program runs without them, so damage in them is none.
        let sections = header.sections(endian, data).unwrap_or_default();
        Ok(Self { file, data, header, endian, segments, sections })
    }

    /// The kind of machine, `EM_*` of elf(5).
    pub fn machine(&self) -> u16 {
        self.header.e_machine(self.endian)
    }

    /// A string table of the file holds one of `names`: a cheap look before symbols are read.
    pub fn mentions(&self, names: &[&str]) -> bool {
        let finders: Vec<_> = names.iter().map(|name| memchr::memmem::Finder::new(name.as_bytes())).collect();
        self.sections.iter().any(|section| {
            section.sh_type(self.endian) == elf::SHT_STRTAB
                && section
                    .file_range(self.endian)
                    .and_then(|(offset, size)| self.bytes(offset, size))
                    .is_some_and(|strings| finders.iter().any(|finder| holds_name(strings, finder)))
        })
    }

    /// A string table of the file holds all of `parts` somewhere in its names.
    pub fn mentions_parts(&self, parts: &[&[u8]]) -> bool {
        self.sections.iter().any(|section| {
            section.sh_type(self.endian) == elf::SHT_STRTAB
                && section
                    .file_range(self.endian)
                    .and_then(|(offset, size)| self.bytes(offset, size))
                    .is_some_and(|strings| parts.iter().all(|part| memchr::memmem::find(strings, part).is_some()))
        })
    }

    /// Offsets in the file of the functions called `names`, for each name in the order of the file
    /// and without repetition. There may be several: two static libraries in one executable bring
    /// two local functions of one name.
    ///
    /// # Errors
    /// When a table of symbols contradicts itself.
    pub fn functions(&self, names: &[&str]) -> Result<Vec<Vec<u64>>, Error> {
        let mut offsets = vec![Vec::new(); names.len()];
        // There may be a hundred thousand others, of which two bytes tell nearly all apart.
        let ended: Vec<Vec<u8>> = names.iter().map(|name| [name.as_bytes(), b"\0"].concat()).collect();
        let firsts: HashSet<&[u8]> = ended.iter().filter_map(|name| name.get(..2)).collect();
        let firsts: Vec<&[u8]> = firsts.into_iter().collect();
        let may_be_wanted = |name: &[u8]| firsts.iter().any(|first| name.starts_with(first));
        self.each_function_of(may_be_wanted, |name, address| {
            if let Some(index) = names.iter().position(|wanted| wanted.as_bytes() == name) {
                offsets[index].extend(self.offset_of(address));
            }
        })?;
        for offsets in &mut offsets {
            offsets.sort_unstable();
            offsets.dedup();
        }
        Ok(offsets)
    }

    /// Shows `see` every name of a function that this file defines, and its address.
    ///
    /// # Errors
    /// When a table of symbols contradicts itself.
    pub fn each_function(&self, see: impl FnMut(&'data [u8], u64)) -> Result<(), Error> {
        self.each_function_of(|_| true, see)
    }

    /// The same, of those that `may_be_wanted` by what begins with the name, and goes on with others.
    fn each_function_of(
        &self,
        may_be_wanted: impl Fn(&[u8]) -> bool,
        mut see: impl FnMut(&'data [u8], u64),
    ) -> Result<(), Error> {
        for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
            let symbols = self.sections.symbols(self.endian, self.data, kind)?;
            // One by one names would be read from the file.
            let Some(strings) = self.strings(symbols.string_section()) else { continue };
            for symbol in symbols.iter() {
                if symbol.is_undefined(self.endian) || symbol.st_type() != elf::STT_FUNC {
                    continue;
                }
                let Some(name) = strings.get(symbol.st_name(self.endian) as usize..) else { continue };
                if !may_be_wanted(name) {
                    continue;
                }
                let Some(end) = memchr::memchr(0, name) else { continue };
                see(unversioned(&name[..end]), symbol.st_value(self.endian));
            }
        }
        Ok(())
    }

    /// A table of strings.
    fn strings(&self, index: SectionIndex) -> Option<&'data [u8]> {
        let (offset, size) = self.sections.section(index).ok()?.file_range(self.endian)?;
        self.bytes(offset, size)
    }

    /// The section called `name`.
    pub fn section(&self, name: &str) -> Option<Region> {
        let (_, section) = self.sections.section_by_name(self.endian, name.as_bytes())?;
        let (offset, len) = section.file_range(self.endian)?;
        let flags = section.sh_flags(self.endian);
        let executable = flags & u64::from(elf::SHF_EXECINSTR) != 0;
        Some(Region { address: section.sh_addr(self.endian), offset, len, executable })
    }

    /// What is loaded into memory.
    pub fn segments(&self) -> impl Iterator<Item = Region> {
        let loaded = self.segments.iter().filter(|segment| segment.p_type(self.endian) == elf::PT_LOAD);
        loaded.map(|segment| Region {
            address: segment.p_vaddr(self.endian),
            offset: segment.p_offset(self.endian),
            len: segment.p_filesz(self.endian),
            executable: segment.p_flags(self.endian) & elf::PF_X != 0,
        })
    }

    /// The id that the linker gave this build (`NT_GNU_BUILD_ID`), if it did.
    pub fn build_id(&self) -> Option<&'data [u8]> {
        self.segments.iter().find_map(|segment| {
            let mut notes = segment.notes(self.endian, self.data).ok()??;
            while let Ok(Some(note)) = notes.next() {
                if note.name() == elf::ELF_NOTE_GNU && note.n_type(self.endian) == elf::NT_GNU_BUILD_ID {
                    return Some(note.desc());
                }
            }
            None
        })
    }

    /// `len` bytes at `offset` of the file, if it has them.
    pub fn bytes(&self, offset: u64, len: u64) -> Option<&'data [u8]> {
        self.data.read_bytes_at(offset, len).ok()
    }

    /// All bytes of a region.
    pub fn bytes_of(&self, region: &Region) -> Option<&'data [u8]> {
        self.bytes(region.offset, region.len)
    }

    /// Where each of `texts` begins in a region, counted from the region's start: the first `count_max` places.
    /// None of it stays in memory.
    ///
    /// # Errors
    /// When the region can't be read.
    pub fn find(&self, region: &Region, texts: &[&[u8]], count_max: usize) -> io::Result<Vec<Vec<u64>>> {
        let finders: Vec<_> = texts.iter().map(memchr::memmem::Finder::new).collect();
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or_default();
        let mut buffer = vec![0; SEARCH_BYTES.max(2 * longest)];
        let (mut found, mut at) = (vec![Vec::new(); texts.len()], 0);
        while at < region.len && found.iter().any(|places| places.len() < count_max) {
            let len = usize::try_from(region.len - at).map_or(buffer.len(), |rest| rest.min(buffer.len()));
            self.read(region.offset.saturating_add(at), &mut buffer[..len])?;
            let is_last = at + len as u64 >= region.len;
            // What may begin at the end of this piece is looked for in the next one.
            let searched = if is_last { len } else { len + 1 - longest };
            for (finder, found) in finders.iter().zip(&mut found) {
                let places = finder.find_iter(&buffer[..len]).take_while(|place| *place < searched);
                found.extend(places.map(|place| at + place as u64).take(count_max - found.len()));
            }
            if is_last {
                break;
            }
            at += searched as u64;
        }
        Ok(found)
    }

    /// Fills `into` with what is at `offset` of the file. Unlike all else, it doesn't stay in memory.
    ///
    /// # Errors
    /// What reading says, also when the file ends before.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    /// What the loader puts at `address`, counted like all addresses from where the file is loaded, if
    /// a relocation says so that asks for nothing else.
    pub fn relocated(&self, address: u64) -> Option<u64> {
        self.relocations().find_map(|(place, value)| (place == address).then_some(value))
    }

    /// Addresses, and what the loader puts there, where that depends on nothing but where the file is
    /// loaded.
    pub fn relocations(&self) -> impl Iterator<Item = (u64, u64)> {
        let relative = match self.machine() {
            elf::EM_AARCH64 => elf::R_AARCH64_RELATIVE,
            _ => elf::R_X86_64_RELATIVE,
        };
        let tables = self.sections.iter().filter_map(|section| section.rela(self.endian, self.data).ok().flatten());
        tables.flat_map(|(relocations, _)| relocations).filter_map(move |relocation| {
            let is_relative = relocation.r_type(self.endian, false) == relative;
            let value = u64::try_from(relocation.r_addend(self.endian)).ok().filter(|_| is_relative)?;
            Some((relocation.r_offset(self.endian), value))
        })
    }

    /// The same as [`Self::offset_of`] for addresses of machine code only.
    pub fn code_offset_of(&self, address: u64) -> Option<u64> {
        self.segments().find(|segment| segment.contains(address) && segment.executable)?;
        self.offset_of(address)
    }

    /// A uprobe is placed at an offset of the file, a symbol is an address; the segment that is
    /// loaded there says what lies between.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let segment = self.segments().find(|segment| segment.contains(address))?;
        let offset = segment.offset.checked_add(address - segment.address)?;
        // A segment may claim more than the file has.
        self.data.len().is_ok_and(|len| offset < len).then_some(offset)
    }
}

/// Tables of symbols that weren't made for the dynamic linker have `name@VERSION` or
/// `name@@VERSION`, the default version, where the others have `name`.
fn unversioned(name: &[u8]) -> &[u8] {
    &name[..memchr::memchr(b'@', name).unwrap_or(name.len())]
}

/// A name ends with a NUL, or with what [`unversioned`] takes off. It may begin anywhere: linkers let
/// a name share the tail of a longer one.
fn holds_name(strings: &[u8], name: &memchr::memmem::Finder<'_>) -> bool {
    let len = name.needle().len();
    name.find_iter(strings).any(|at| matches!(strings.get(at + len), Some(0 | b'@')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whole() {
        let finder = memchr::memmem::Finder::new("SSL_read");
        for (strings, expected) in [
            (&b"\0SSL_read\0"[..], true),
            (b"\0SSL_read_ex\0", false),
            (b"\0SSL_read_ex\0SSL_read@@OPENSSL_3.0.0\0", true),
            (b"\0BIO_SSL_read\0", true),
            (b"\0SSL_read", false),
        ] {
            assert_eq!(holds_name(strings, &finder), expected, "{}", String::from_utf8_lossy(strings));
        }
        assert_eq!(unversioned(b"SSL_read@OPENSSL_1_1_0"), b"SSL_read");
        assert_eq!(unversioned(b"SSL_read"), b"SSL_read");
    }

    /// All of them have the same place in the file.
    #[test]
    fn several_look_into_a_file_at_once() {
        let file = File::open("/proc/self/exe").unwrap();
        let look = || examine(&file, |image| image.functions(&["main"])).unwrap();
        let alone = look();
        std::thread::scope(|scope| {
            let looking: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..20).all(|_| look() == alone))).collect();
            assert!(looking.into_iter().all(|looking| looking.join().unwrap()));
        });
    }

    #[test]
    fn this_program_is_an_image() {
        let file = File::open("/proc/self/exe").unwrap();
        let own = examine(&file, |image| {
            let text = image.section(".text").unwrap();
            assert!(text.executable && image.segments().any(|segment| segment.contains(text.address)));
            assert_eq!(image.offset_of(text.address), Some(text.offset));
            assert_eq!(image.offset_of(u64::MAX), None);
            let anywhere = Region { address: 0, offset: 0, len: file.metadata()?.len(), executable: false };
            let found = image.find(&anywhere, &[b"\x7fELF\x02", &[0; 2]], 1)?;
            assert_eq!((&found[0][..], found[1].len()), (&[0][..], 1));
            assert_eq!(image.find(&anywhere, &[&[0; 2]], 3)?[0].len(), 3);
            image.functions(&["main", "no_such_function"])
        });
        let own = own.unwrap();
        assert_eq!((own[0].len(), own[1].len()), (1, 0));
        let text = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
        assert!(examine(&text, |_| Ok(())).is_err());
    }
}
