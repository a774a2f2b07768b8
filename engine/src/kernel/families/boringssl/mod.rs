//! BoringSSL where there are no symbols: inside bun and what bun compiles, Envoy, Electron.
//!
//! [`code`] reads machine code, [`rules`] says which functions are which. It knows x86_64; on other
//! machines nothing is looked for.

mod code;
mod rules;

use self::{
    code::Text,
    rules::{Found, Unclear},
};
use super::{Effort, Family, Finding, Placement, openssl};
use crate::kernel::image::{Error, Image, Region};

/// The family.
pub const FAMILY: Family = Family { name: "BoringSSL without symbols", effort: Effort::Study, find };

/// How the name of the source file ends, whatever folder it was compiled in.
const NAME: &[u8] = b"ssl/ssl_lib.cc\0";

/// A path that is longer is none.
const NAME_BYTES_MAX: usize = 4_096;

/// Code of less than this has no room for a TLS library and a program around it.
const CODE_BYTES_MIN: u64 = 512 * 1024;

/// More than this is not read.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

fn find(image: &Image<'_>) -> Result<Finding, Error> {
    if image.machine() != object::elf::EM_X86_64 || openssl::has_symbols(image)? {
        return Ok(Finding::default());
    }
    let segments: Vec<Region> = image.segments().filter(|segment| segment.len <= SEGMENT_BYTES_MAX).collect();
    let code = segments.iter().filter(|segment| segment.executable).max_by_key(|segment| segment.len);
    let Some(code) = code.filter(|code| code.len >= CODE_BYTES_MIN) else { return Ok(Finding::default()) };
    let names: Vec<u64> = segments.iter().flat_map(|segment| names(image, segment)).collect();
    if names.is_empty() {
        return Ok(Finding::default());
    }
    let Some(bytes) = image.bytes_of(code) else { return Ok(Finding::default()) };
    match rules::find(&Text { address: code.address, bytes }, &names) {
        Ok(found) => Ok(placed(image, &found)),
        // The name alone may be in any data.
        Err(Unclear::NoReference) => Ok(Finding::default()),
        Err(unclear) => Ok(Finding {
            remark: Some(format!("it has BoringSSL inside, without symbols, but {unclear}")),
            ..Finding::default()
        }),
    }
}

/// Addresses of the file's names in a segment.
fn names(image: &Image<'_>, segment: &Region) -> Vec<u64> {
    let Some(bytes) = image.bytes_of(segment) else { return Vec::new() };
    let begin = |end: usize| {
        let window = &bytes[end.saturating_sub(NAME_BYTES_MAX)..end];
        end - window.iter().rev().take_while(|&&byte| byte != 0).count()
    };
    memchr::memmem::find_iter(bytes, NAME).map(|at| segment.address + begin(at) as u64).collect()
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
