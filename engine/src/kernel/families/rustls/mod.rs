//! rustls, which has no C interface and is compiled into each program anew. What every compiler has to
//! leave a function is what is called through a vtable: the methods that encrypt and decrypt records, and
//! those that make the objects which do. See `ebpf/probes/src/rustls.rs` for what is read of them.
//!
//! Which functions they are is told by [`symbols`], or where there are none by [`vtables`]. How their arguments lie in memory is known of rustls
//! 0.23, so nothing is probed in a program that doesn't say that it has this version.

mod symbols;
mod vtables;

use std::collections::BTreeSet;

use self::{
    symbols::Role,
    vtables::{Piece, Program},
};
use super::{Effort, Family, Finding, Placement};
use crate::kernel::image::{Error, Image, Region};

/// The family, where there are symbols.
pub const FAMILY: Family = Family { name: "rustls", effort: Effort::Glance, find };

/// The family, where there are none.
pub const STRIPPED: Family = Family { name: "rustls without symbols", effort: Effort::Study, find: find_stripped };

/// A segment that is larger is not read, because all of it stays in memory while it is looked into.
const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// How the folder of rustls' sources is called, whose files panics name, up to the version.
const SOURCES: &[u8] = b"/rustls-0.";

/// What comes behind the version.
const AFTER_VERSION: &[u8] = b"/src/";

/// A version behind [`SOURCES`] is not longer.
const VERSION_BYTES_MAX: usize = 24;

/// How many of a segment's [`SOURCES`] are looked at.
const SOURCES_MAX: usize = 1024;

/// The version that is known.
const KNOWN: &[u8] = b"23.";

/// A name that all versions since 0.20 have in their symbols, in either mangling.
const MARK: &[u8] = b"MessageEncrypter";

/// A part of the names of functions that only versions with this module have: messages are handed over as
/// 0.23 has it.
const MODULE: [&[u8]; 2] = [b"7message8outbound", b"..message..outbound.."];

/// Which version of TLS the records are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Tls12,
    Tls13,
}

/// Addresses of a program's functions by what they do.
#[derive(Debug, Default)]
struct Functions {
    encrypt: BTreeSet<u64>,
    decrypt: BTreeSet<(Version, u64)>,
    /// What makes the objects, which tells that an address is used anew.
    make: BTreeSet<(Version, u64)>,
    drop: BTreeSet<u64>,
}

impl Functions {
    /// Both directions are there, and what makes the objects of each version that is decrypted.
    fn are_whole(&self) -> bool {
        let makes = |version: Version| self.make.iter().filter(|(of, _)| *of == version).count() >= 2;
        !self.encrypt.is_empty() && !self.decrypt.is_empty() && self.decrypt.iter().all(|&(version, _)| makes(version))
    }

    /// The programs for them; what makes objects before what uses them, and returns before entries.
    fn placed(&self, image: &Image<'_>) -> Finding {
        let decrypt_return = |version| match version {
            Version::Tls12 => "rustls_decrypt12_return",
            Version::Tls13 => "rustls_decrypt13_return",
        };
        let mut finding = Finding::default();
        let mut place = |address: u64, programs: &[&'static str]| {
            let Some(offset) = image.code_offset_of(address) else { return };
            finding.functions += 1;
            finding.placements.extend(programs.iter().map(|&program| Placement { offset, program }));
        };
        let made: BTreeSet<u64> = self.make.iter().map(|&(_, address)| address).collect();
        made.iter().for_each(|&address| place(address, &["rustls_made"]));
        self.drop.iter().for_each(|&address| place(address, &["rustls_drop"]));
        for &(version, address) in &self.decrypt {
            place(address, &[decrypt_return(version), "rustls_decrypt"]);
        }
        self.encrypt.iter().for_each(|&address| place(address, &["rustls_encrypt"]));
        finding
    }
}

fn find(image: &Image<'_>) -> Result<Finding, Error> {
    if !image.mentions_parts(&[MARK]) {
        return Ok(Finding::default());
    }
    let mut functions = Functions::default();
    let mut passes_outbound = false;
    image.each_function(|name, address| {
        passes_outbound |= MODULE.iter().any(|part| memchr::memmem::find(name, part).is_some());
        match symbols::role(name) {
            Some(Role::Encrypt) => drop(functions.encrypt.insert(address)),
            Some(Role::Decrypt(version)) => drop(functions.decrypt.insert((version, address))),
            Some(Role::Make(version)) => drop(functions.make.insert((version, address))),
            Some(Role::Drop) => drop(functions.drop.insert(address)),
            None => {}
        }
    })?;
    if functions.encrypt.is_empty() && functions.decrypt.is_empty() {
        return Ok(Finding::default());
    }
    if !passes_outbound {
        return Ok(unclear("not version 0.23, whose functions are known"));
    }
    if !functions.are_whole() {
        return Ok(unclear("its symbols don't tell all the functions that have to be seen"));
    }
    Ok(functions.placed(image))
}

fn unclear(why: &str) -> Finding {
    Finding { remark: Some(format!("it has rustls inside, but {why}")), ..Finding::default() }
}

fn find_stripped(image: &Image<'_>) -> Result<Finding, Error> {
    let with_symbols = find(image)?;
    if image.machine() != object::elf::EM_X86_64 || with_symbols != Finding::default() {
        return Ok(Finding::default());
    }
    let segments: Vec<Region> = image.segments().filter(|segment| segment.len <= SEGMENT_BYTES_MAX).collect();
    let known = versions(image, &segments)?;
    if known.is_empty() {
        return Ok(Finding::default());
    }
    if known.contains(&false) {
        return Ok(unclear("not version 0.23, whose functions are known"));
    }
    let piece = |segment: &Region| Some(Piece { address: segment.address, bytes: image.bytes_of(segment)? });
    let text = segments.iter().filter(|segment| segment.executable).max_by_key(|segment| segment.len).and_then(piece);
    let Some(text) = text else { return Ok(Finding::default()) };
    let data = segments.iter().filter(|segment| !segment.executable).filter_map(piece).collect();
    let (functions, left) = Program { text, data, relocated: image.relocations().collect() }.find();
    if !functions.are_whole() {
        return Ok(unclear("without symbols, and its ciphers can't be told"));
    }
    let mut finding = functions.placed(image);
    if left != 0 {
        finding.remark =
            Some(format!("it has rustls inside, without symbols, and {left} of its ciphers can't be told"));
    }
    Ok(finding)
}

/// Whether the versions of rustls whose sources the program names are [`KNOWN`].
fn versions(image: &Image<'_>, segments: &[Region]) -> Result<BTreeSet<bool>, Error> {
    let mut known = BTreeSet::new();
    for segment in segments.iter().filter(|segment| !segment.executable) {
        for at in image.find(segment, &[SOURCES], SOURCES_MAX)?.remove(0) {
            let start = at + SOURCES.len() as u64;
            let mut rest = [0; VERSION_BYTES_MAX + AFTER_VERSION.len()];
            let len = usize::try_from(segment.len - start).map_or(rest.len(), |len| len.min(rest.len()));
            image.read(segment.offset.saturating_add(start), &mut rest[..len])?;
            // `/rustls-0.23.46/src/conn.rs`
            let version = rest.iter().position(|&byte| byte == b'/').map(|len| rest.split_at(len));
            if let Some((version, after)) = version
                && after.starts_with(AFTER_VERSION)
            {
                known.insert(version.starts_with(KNOWN));
            }
        }
    }
    Ok(known)
}
