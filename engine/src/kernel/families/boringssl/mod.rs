//! BoringSSL where there are no symbols: inside bun and what bun compiles, Envoy, Electron.
//!
//! [`code`] reads machine code, [`rules`] says which functions are which. It knows x86_64; on other
//! machines nothing is looked for.

mod code;
mod rules;
mod scan;

use self::{
    code::{Source, Text},
    rules::{Found, Unclear},
};
use super::{Effort, Family, Finding, Placement, openssl};
use crate::kernel::image::{Error, Image, Region};

/// The family.
pub const FAMILY: Family = Family { name: "BoringSSL without symbols", effort: Effort::Study, find };

/// How the name of the source file ends, whatever folder it was compiled in.
const NAME: &[u8] = b"ssl/ssl_lib.cc\0";

/// A path that is longer is none.
const NAME_BYTES_MAX: u64 = 4_096;

/// Code of less than this has no room for a TLS library and a program around it.
const CODE_BYTES_MIN: u64 = 512 * 1024;

/// More than this is not read.
const SEGMENT_BYTES_MAX: u64 = scan::CODE_BYTES_MAX as u64;

/// The name is there once, or a few times. More often it is data of some other kind.
const NAMES_MAX: usize = 16;

fn find(image: &Image<'_>) -> Result<Finding, Error> {
    if image.machine() != object::elf::EM_X86_64 || openssl::has_symbols(image)? {
        return Ok(Finding::default());
    }
    let segments: Vec<Region> = image.segments().filter(|segment| segment.len <= SEGMENT_BYTES_MAX).collect();
    let code = segments.iter().filter(|segment| segment.executable).max_by_key(|segment| segment.len);
    let Some(code) = code.filter(|code| code.len >= CODE_BYTES_MIN) else { return Ok(Finding::default()) };
    let mut names = find_names(image, segments.iter().filter(|segment| !segment.executable))?;
    // Some linkers put constants and code together.
    if names.is_empty() {
        names = find_names(image, segments.iter().filter(|segment| segment.executable))?;
    }
    if names.is_empty() || names.len() > NAMES_MAX {
        return Ok(Finding::default());
    }
    let source = Segment { image, region: *code };
    match rules::find(&Text::new(code.address, code.len, &source), &names) {
        Ok(found) => Ok(placed(image, &found)),
        // The name alone may be in any data.
        Err(Unclear::NoReference) => Ok(Finding::default()),
        Err(unclear) => Ok(Finding {
            remark: Some(format!("it has BoringSSL inside, without symbols, but {unclear}")),
            ..Finding::default()
        }),
    }
}

/// Code as it is in a file.
struct Segment<'a, 'data> {
    image: &'a Image<'data>,
    region: Region,
}

impl<'a, 'data: 'a> Source<'a> for Segment<'_, 'data> {
    fn window(&self, at: u64, len: u64) -> Option<&'a [u8]> {
        self.image.bytes(self.region.offset.checked_add(at)?, len)
    }

    fn read(&self, at: u64, into: &mut [u8]) -> Option<()> {
        self.image.read(self.region.offset.checked_add(at)?, into).ok()
    }
}

/// Addresses of the file's names in some segments.
fn find_names<'a>(image: &Image<'_>, segments: impl Iterator<Item = &'a Region>) -> Result<Vec<u64>, Error> {
    let mut names = Vec::new();
    for segment in segments {
        for end in image.find(segment, NAME, NAMES_MAX + 1)? {
            // The folder before it belongs to it.
            let mut before = vec![0; end.min(NAME_BYTES_MAX) as usize];
            image.read(segment.offset + end - before.len() as u64, &mut before)?;
            let folder = before.iter().rev().take_while(|&&byte| byte != 0).count();
            names.push(segment.address + end - folder as u64);
        }
    }
    Ok(names)
}

fn placed(image: &Image<'_>, found: &Found) -> Finding {
    let functions = [
        (Some(found.write), &["ssl_return", "ssl_write"][..]),
        (Some(found.read), &["ssl_return", "ssl_read"]),
        (found.new, &["ssl_new_return"]),
        // Nothing tells SSL_free apart. Who shuts a connection down is done with it.
        (found.shutdown, &["ssl_free"]),
    ];
    let mut finding = Finding::default();
    for (address, programs) in functions {
        let Some(offset) = address.and_then(|address| image.offset_of(address)) else { continue };
        finding.functions += 1;
        finding.placements.extend(programs.iter().map(|&program| Placement { offset, program }));
    }
    finding
}
