//! The code of a file, and the texts that it has beside.

use super::{Source, scan::CODE_BYTES_MAX};
use crate::kernel::image::{Error, Image, Region};

/// Code of less than this has no room for a TLS library and a program around it.
const CODE_BYTES_MIN: u64 = 512 * 1024;

/// A text that is longer is none.
const NAME_BYTES_MAX: u64 = 4_096;

/// Code as it is in a file.
pub struct Segment<'i, 'data> {
    image: &'i Image<'data>,
    /// Where it is.
    pub region: Region,
}

/// The largest piece of code of a file for x86_64, if it may have a TLS library inside.
pub fn of_machine<'i, 'data>(image: &'i Image<'data>) -> Option<Segment<'i, 'data>> {
    let is_known = image.machine() == object::elf::EM_X86_64;
    let code = segments(image).filter(|segment| segment.executable && is_known).max_by_key(|segment| segment.len)?;
    (code.len >= CODE_BYTES_MIN).then_some(Segment { image, region: code })
}

/// More than this is not read.
fn segments(image: &Image<'_>) -> impl Iterator<Item = Region> {
    image.segments().filter(|segment| segment.len <= CODE_BYTES_MAX as u64)
}

impl<'a, 'data: 'a> Source<'a> for Segment<'_, 'data> {
    fn window(&self, at: u64, len: u64) -> Option<&'a [u8]> {
        self.image.bytes(self.region.offset.checked_add(at)?, len)
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Option<()> {
        self.image.read(self.region.offset.checked_add(at)?, into).ok()
    }
}

/// Addresses of the names of a source file, whatever folder it was compiled in: the first `count_max` of a segment.
///
/// # Errors
/// When the file can't be read.
pub fn names_of(image: &Image<'_>, source: &str, count_max: usize) -> Result<Vec<u64>, Error> {
    let [found] = find(image, &[source], "", count_max, |segment, at| {
        // What is before it up to a NUL belongs to it.
        let mut before = vec![0; at.min(NAME_BYTES_MAX) as usize];
        image.read(segment.offset + at - before.len() as u64, &mut before)?;
        let folder = before.iter().rev().take_while(|&&byte| byte != 0).count();
        let is_whole = folder == 0 || before.ends_with(b"/");
        Ok(is_whole.then_some(at - folder as u64))
    })?;
    Ok(found)
}

/// Addresses of each of `texts`, with nothing before or behind it: the first `count_max` of a segment.
///
/// # Errors
/// When the file can't be read.
pub fn texts<const N: usize>(image: &Image<'_>, texts: &[&str; N], count_max: usize) -> Result<[Vec<u64>; N], Error> {
    find(image, texts, "\0", count_max, |_, at| Ok(Some(at + 1)))
}

/// Whether the constants of a file have these bytes somewhere.
///
/// # Errors
/// When the file can't be read.
pub fn holds(image: &Image<'_>, bytes: &[u8]) -> Result<bool, Error> {
    for segment in [false, true].into_iter().flat_map(|executable| constants(image, executable)) {
        if !image.find(&segment, &[bytes], 1)?[0].is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Segments where constants may be, among those that can be executed or those that can't. Some linkers put constants
/// and code together.
fn constants(image: &Image<'_>, executable: bool) -> impl Iterator<Item = Region> {
    let section = image.section(".rodata");
    let are_apart = section
        .is_some_and(|section| segments(image).any(|segment| !segment.executable && segment.contains(section.address)));
    segments(image).filter(move |segment| segment.executable == executable && !(executable && are_apart))
}

/// Where `texts` are with `before` before them and a NUL behind, as far as `start` tells where one begins. What isn't
/// found elsewhere is looked for among code.
fn find<const N: usize>(
    image: &Image<'_>,
    texts: &[&str; N],
    before: &str,
    count_max: usize,
    start: impl Fn(&Region, u64) -> Result<Option<u64>, Error>,
) -> Result<[Vec<u64>; N], Error> {
    let patterns = texts.map(|text| format!("{before}{text}\0"));
    let mut found = [const { Vec::new() }; N];
    for executable in [false, true] {
        let sought: Vec<usize> = (0..N).filter(|&index| found[index].is_empty()).collect();
        let patterns: Vec<&[u8]> = sought.iter().map(|&index| patterns[index].as_bytes()).collect();
        for segment in constants(image, executable) {
            for (index, places) in sought.iter().zip(image.find(&segment, &patterns, count_max)?) {
                for at in places {
                    found[*index].extend(start(&segment, at)?.map(|at| segment.address.saturating_add(at)));
                }
            }
        }
    }
    Ok(found)
}
