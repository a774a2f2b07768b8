//! Go's table of functions (`runtime.pclntab`), which every Go program carries, stripped or not: the
//! runtime needs it to walk stacks. Its four formats are told apart by their magic numbers
//! (`internal/abi/symtab.go`); all hold, in the order of the functions' addresses, where each begins
//! and where its name is.

use std::io;

use memchr::memmem::Finder;

/// Bytes of a file, read where they are asked for.
pub trait Source {
    /// Fills `into` with what is at `offset`.
    ///
    /// # Errors
    /// What reading says, also when the file ends before.
    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// What is read at once. Tables have tens of megabytes in large programs.
const WINDOW_BYTES: usize = 256 * 1024;

/// More functions than any program has; what claims more isn't believed.
const FUNCTIONS_MAX: u64 = 1 << 24;

/// Places at which a name may stand; a name is there once, and once more as the end of a longer one.
const NAME_PLACES_MAX: usize = 16;

/// Bytes of a header that are looked at.
const HEADER_BYTES: usize = 8 + 8 * 8;

/// A format, by the version of Go that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// 1.2 to 1.15: one piece, in which everything is counted from its start.
    Go12,
    /// 1.16 and 1.17: names are apart.
    Go116,
    /// From 1.18 on (1.20 has another magic, for names that are spelled another way): 4-byte offsets
    /// from the start of the program's text.
    Go118,
}

/// The table of a program.
pub struct Table<'a> {
    source: &'a dyn Source,
    offset: u64,
    len: u64,
    format: Format,
    functions: u64,
    /// Where the list of functions begins in the table; what it refers to is counted from here too.
    list: u64,
    /// Where names are.
    names: (u64, u64),
    /// The start of the text, as far as the table says it.
    text: u64,
}

/// An address as the file has it. Where the loader is to fill it in, the file may have 0, and what
/// counts is said by the relocation for `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// What the file has.
    pub value: u64,
    /// Where in the table.
    pub at: u64,
}

/// Where a function begins and the next one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Addresses.
    Absolute(Word, Word),
    /// Counted from the start of the text.
    InText(u32, u32),
}

impl<'a> Table<'a> {
    /// Reads the header of a table of `len` bytes at `offset`; none when it has no known format.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn open(source: &'a dyn Source, offset: u64, len: u64) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER_BYTES];
        if len < HEADER_BYTES as u64 {
            return Ok(None);
        }
        source.read_exact_at(offset, &mut header)?;
        let word = |index: usize| u64_at(&header[8 + 8 * index..]);
        let format = match header[..6] {
            [0xfb, 0xff, 0xff, 0xff, 0, 0] => Format::Go12,
            [0xfa, 0xff, 0xff, 0xff, 0, 0] => Format::Go116,
            [0xf0 | 0xf1, 0xff, 0xff, 0xff, 0, 0] => Format::Go118,
            _ => return Ok(None),
        };
        // The smallest instruction has 1 byte on x86_64 and 4 on arm64; a pointer has 8.
        if !matches!(header[6..8], [1 | 4, 8]) {
            return Ok(None);
        }
        let (list, names, text) = match format {
            Format::Go12 => (0, (0, len), 0),
            Format::Go116 => (word(6), (word(2), word(3)), 0),
            Format::Go118 => (word(7), (word(3), word(4)), word(2)),
        };
        let table = Self { source, offset, len, format, functions: word(0), list, names, text };
        let sound = table.functions < FUNCTIONS_MAX && names.0 <= names.1 && names.1 <= len && list < len;
        Ok(sound.then_some(table))
    }

    /// Looks for a table in the `len` bytes at `offset`, where there is more than a table, and opens it.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn search(source: &'a dyn Source, offset: u64, len: u64) -> io::Result<Option<(u64, Self)>> {
        let finder = Finder::new(&[0xff, 0xff, 0xff, 0, 0]);
        let mut buffer = vec![0; WINDOW_BYTES];
        let mut at = 0;
        while at < len {
            let held = usize::try_from(len - at).map_or(buffer.len(), |rest| rest.min(buffer.len()));
            source.read_exact_at(offset.saturating_add(at), &mut buffer[..held])?;
            for place in finder.find_iter(&buffer[..held]) {
                // The first byte of the magic differs between formats; tables are aligned.
                let Some(start) = (at + place as u64).checked_sub(1).filter(|start| start.is_multiple_of(8)) else {
                    continue;
                };
                match Self::open(source, offset.saturating_add(start), len - start)? {
                    Some(table) if table.functions > 0 => return Ok(Some((start, table))),
                    _ => {}
                }
            }
            if held <= 8 || at + held as u64 >= len {
                break;
            }
            at += (held - 8) as u64;
        }
        Ok(None)
    }

    /// The start of the text according to the header. Go 1.26 and later leave it 0, earlier ones have
    /// no such field.
    pub fn text(&self) -> Word {
        Word { value: self.text, at: 8 + 2 * 8 }
    }

    /// True when arm64 programs of this format pass arguments in registers.
    pub fn is_since_go118(&self) -> bool {
        self.format == Format::Go118
    }

    /// The functions called `names`.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn find(&self, names: &[&str]) -> io::Result<Vec<Option<Span>>> {
        let places = self.places(names)?;
        let mut found = vec![None; names.len()];
        if places.is_empty() {
            return Ok(found);
        }
        let mut list = Window::new(self);
        let mut functions = Window::new(self);
        for index in 0..self.functions {
            let Some((_, function)) = self.entry(&mut list, index)? else { break };
            // The function's description: its start again, then where its name is.
            let name = self.list_start().checked_add(function + self.word_bytes());
            let Some(name) = name.map(|at| functions.u32_at(at)).transpose()?.flatten() else { continue };
            let Some(&(_, wanted)) = places.iter().find(|(place, _)| *place == u64::from(name)) else { continue };
            let (Some((start, _)), Some((end, _))) = (self.entry(&mut list, index)?, self.entry(&mut list, index + 1)?)
            else {
                break;
            };
            found[wanted] = Some(match self.format {
                Format::Go118 => Span::InText(narrow(start.value), narrow(end.value)),
                _ => Span::Absolute(start, end),
            });
        }
        Ok(found)
    }

    /// Where the names are, as descriptions of functions refer to them.
    fn places(&self, names: &[&str]) -> io::Result<Vec<(u64, usize)>> {
        let finders: Vec<_> = names.iter().map(|name| [name.as_bytes(), b"\0"].concat()).collect();
        let finders: Vec<_> = finders.iter().map(Finder::new).collect();
        let overlap = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let mut places = Vec::new();
        let (mut at, end) = self.names;
        let mut buffer = vec![0; WINDOW_BYTES.min(usize::try_from(end - at).unwrap_or(WINDOW_BYTES))];
        while at < end {
            let len = usize::try_from(end - at).map_or(buffer.len(), |rest| rest.min(buffer.len()));
            self.source.read_exact_at(self.offset.saturating_add(at), &mut buffer[..len])?;
            for (index, finder) in finders.iter().enumerate() {
                let found = finder.find_iter(&buffer[..len]).map(|place| at + place as u64 - self.names.0);
                places.extend(found.take(NAME_PLACES_MAX).map(|place| (place, index)));
            }
            if len <= overlap || at + len as u64 >= end {
                break;
            }
            at += (len - overlap) as u64;
        }
        Ok(places)
    }

    /// The `index`th entry of the list of functions: where one begins, and where it is described. The
    /// last entry is the end of the last function.
    fn entry(&self, list: &mut Window<'_>, index: u64) -> io::Result<Option<(Word, u64)>> {
        let at = self.entries_start().saturating_add(index.saturating_mul(2 * self.word_bytes()));
        let read = |list: &mut Window<'_>, at| match self.format {
            Format::Go118 => Ok(list.u32_at(at)?.map(u64::from)),
            _ => list.u64_at(at),
        };
        let (Some(value), described) = (read(list, at)?, read(list, at.saturating_add(self.word_bytes()))?) else {
            return Ok(None);
        };
        Ok(Some((Word { value, at }, described.unwrap_or(0).min(self.len))))
    }

    /// Before 1.16 the number of functions precedes their list, and both follow 8 bytes of header.
    fn entries_start(&self) -> u64 {
        if self.format == Format::Go12 { 16 } else { self.list }
    }

    fn list_start(&self) -> u64 {
        self.list
    }

    fn word_bytes(&self) -> u64 {
        if self.format == Format::Go118 { 4 } else { 8 }
    }
}

/// A part of a table in memory, for reading forward in small steps.
struct Window<'a> {
    table: &'a Table<'a>,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(table: &'a Table<'a>) -> Self {
        Self { table, start: 0, buffer: Vec::new() }
    }

    fn u32_at(&mut self, at: u64) -> io::Result<Option<u32>> {
        let bytes = self.bytes(at, 4)?;
        Ok(bytes.map(|bytes| narrow(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))))
    }

    fn u64_at(&mut self, at: u64) -> io::Result<Option<u64>> {
        Ok(self.bytes(at, 8)?.map(u64_at))
    }

    /// `len` (a few) bytes at `at` of the table, if it has them.
    fn bytes(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if at.checked_add(len as u64).is_none_or(|end| end > self.table.len) {
            return Ok(None);
        }
        let within = |start: u64, held: usize| {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            (from + len <= held).then_some(from)
        };
        if within(self.start, self.buffer.len()).is_none() {
            let rest = usize::try_from(self.table.len - at).unwrap_or(WINDOW_BYTES);
            self.buffer.resize(rest.min(WINDOW_BYTES), 0);
            self.start = at;
            self.table.source.read_exact_at(self.table.offset.saturating_add(at), &mut self.buffer)?;
        }
        Ok(within(self.start, self.buffer.len()).map(|from| &self.buffer[from..from + len]))
    }
}

fn u64_at(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// The low half.
fn narrow(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Source for Vec<u8> {
        fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let end = start.checked_add(into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            into.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    const NAMES: [&str; 4] = ["a.A", "vendor/b.B", "b.B", "c.C"];
    const WANTED: [&str; 3] = ["c.C", "b.B", "d.D"];

    /// A table of four functions that are 0x40 apart, the first at 0x1000 or, in the text, at 0.
    fn table(magic: u8) -> Vec<u8> {
        let word = if magic < 0xfa { 4 } else { 8 };
        let number = |value: usize, bytes: usize| value.to_le_bytes()[..bytes].to_vec();
        let names = NAMES.map(|name| [name.as_bytes(), b"\0"].concat());
        let descriptions = 2 * word * NAMES.len() + word;
        let (mut list, mut described) = (Vec::new(), Vec::new());
        // Before 1.16 everything is counted from the start of the table.
        let base = if magic == 0xfb { 16 } else { 0 };
        let first_name = if magic == 0xfb { base + descriptions + (word + 4) * NAMES.len() } else { 0 };
        let start = if magic < 0xfa { 0 } else { 0x1000 };
        let mut name_at = first_name;
        for (index, name) in names.iter().enumerate() {
            list.extend(
                [number(start + 0x40 * index, word), number(base + descriptions + described.len(), word)].concat(),
            );
            described.extend([number(start + 0x40 * index, word), number(name_at, 4)].concat());
            name_at += name.len();
        }
        list.extend(number(start + 0x40 * NAMES.len(), word));
        let names = names.concat();
        let mut bytes = vec![magic, 0xff, 0xff, 0xff, 0, 0, 1, 8];
        bytes.extend(number(NAMES.len(), 8));
        match magic {
            0xfb => bytes.extend([list, described, names].concat()),
            0xfa => {
                for value in [1, 64, 64 + names.len(), 0, 0, 64 + names.len()] {
                    bytes.extend(number(value, 8));
                }
                bytes.extend([names, list, described].concat());
            }
            _ => {
                for value in [1, 0x40_1000, 72, 72 + names.len(), 0, 0, 72 + names.len()] {
                    bytes.extend(number(value, 8));
                }
                bytes.extend([names, list, described].concat());
            }
        }
        bytes
    }

    #[test]
    fn functions_are_found_in_every_format() {
        for magic in [0xfb, 0xfa, 0xf0, 0xf1] {
            let mut bytes = table(magic);
            bytes.splice(..0, [7; 100]);
            let table = Table::open(&bytes, 100, bytes.len() as u64 - 100).unwrap().unwrap();
            let found = table.find(&WANTED).unwrap();
            let span = |span: Option<Span>| match span.unwrap() {
                Span::Absolute(start, end) => (start.value, end.value),
                Span::InText(start, end) => (0x1000 + u64::from(start), 0x1000 + u64::from(end)),
            };
            assert_eq!(span(found[0]), (0x10c0, 0x1100), "{magic:x}");
            assert_eq!(span(found[1]), (0x1080, 0x10c0), "{magic:x}");
            assert_eq!(found[2], None, "{magic:x}");
            assert_eq!(table.text().value, if magic < 0xfa { 0x40_1000 } else { 0 });
        }
    }

    #[test]
    fn tables_are_found_among_other_things() {
        for before in [0, 8, WINDOW_BYTES - 8, WINDOW_BYTES, 2 * WINDOW_BYTES - 16] {
            let bytes = [vec![0xff; before], table(0xfa), vec![0; 100]].concat();
            let (start, table) = Table::search(&bytes, 0, bytes.len() as u64).unwrap().unwrap();
            assert_eq!(start, before as u64);
            assert!(table.find(&WANTED).unwrap()[0].is_some());
        }
        assert!(Table::search(&vec![0; 3 * WINDOW_BYTES], 0, 3 * WINDOW_BYTES as u64).unwrap().is_none());
    }

    #[test]
    fn other_formats_are_none() {
        for (place, value) in [(0, 0xf2), (1, 0), (5, 1), (6, 2), (7, 4)] {
            let mut bytes = table(0xf1);
            bytes[place] = value;
            assert!(Table::open(&bytes, 0, bytes.len() as u64).unwrap().is_none(), "byte {place}");
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            magic in prop::sample::select(vec![0xfb_u8, 0xfa, 0xf0, 0xf1]),
            changes in prop::collection::vec((6_usize..300, any::<u8>()), 1..8),
            cut in 0_usize..300,
        ) {
            let mut bytes = table(magic);
            for (place, value) in changes {
                let len = bytes.len();
                bytes[place % len] = value;
            }
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Ok(Some(table)) = Table::open(&bytes, 0, bytes.len() as u64) {
                let _ = table.find(&WANTED);
            }
        }
    }
}
