//! What can be probed. A family is one kind of implementation: it knows how to find its functions in
//! a file, and which programs belong at which places of them. All that a new one needs is an entry
//! in [`FAMILIES`].

mod boringssl;
mod code;
mod gnutls;
mod go;
mod nss;
mod openssl;
mod rustls;

use super::image::{Error, Image};

/// Every family. A file may be of several: an executable with OpenSSL and rustls inside.
pub const FAMILIES: &[Family] = &[
    openssl::FAMILY,
    gnutls::FAMILY,
    nss::FAMILY,
    go::FAMILY,
    rustls::FAMILY,
    boringssl::FAMILY,
    openssl::STRIPPED,
    rustls::STRIPPED,
];

/// Goes up with every change of what is found by [`Effort::Study`]: what earlier versions found is then
/// looked for again.
pub const FINDER_VERSION: u32 = 4;

/// One kind of implementation.
#[derive(Debug)]
pub struct Family {
    /// Its name, for people.
    pub name: &'static str,
    /// What looking for it costs.
    pub effort: Effort,
    /// Looks for it in a file. What can't be told for certain is not placed, but remarked.
    pub find: fn(&Image<'_>) -> Result<Finding, Error>,
}

/// What looking for a family costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// About a millisecond: done as soon as a process maps the file, so that its first call is seen.
    Glance,
    /// Code has to be read: done beside the attaching of other files.
    Study,
}

/// A program at a place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// Offset in the file of the instruction that it is put on.
    pub offset: u64,
    /// Name of the program. Whether it runs there or when the function there returns is the
    /// program's own: it was compiled as a uprobe or as a uretprobe.
    pub program: &'static str,
}

/// What was found of a family in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Where programs go, in the order in which they are attached.
    pub placements: Vec<Placement>,
    /// How many functions that are.
    pub functions: usize,
    /// Something that the user should know, such as why nothing was placed although something is there.
    pub remark: Option<String>,
}

impl Finding {
    /// This one and another.
    pub fn and(mut self, other: Self) -> Self {
        self.placements.extend(other.placements);
        self.functions += other.functions;
        self.remark = match (self.remark, other.remark) {
            (Some(one), Some(other)) => Some(format!("{one}; {other}")),
            (one, other) => one.or(other),
        };
        self
    }
}

/// A function by its name, the program for its entry and the one for its return.
pub type Hook = (&'static str, Option<&'static str>, Option<&'static str>);

/// The functions of `hooks` that the symbols of a file tell, if it defines all of `needed`: a file
/// that has only some of them wraps a library and isn't one.
///
/// # Errors
/// When the symbols contradict themselves.
pub fn by_symbols(image: &Image<'_>, needed: &[&str], hooks: &[Hook]) -> Result<Finding, Error> {
    if !needed.iter().all(|name| image.mentions(&[name])) {
        return Ok(Finding::default());
    }
    let names: Vec<&str> = hooks.iter().map(|(name, ..)| *name).collect();
    let offsets = image.functions(&names)?;
    let defines = |needed: &&str| names.iter().zip(&offsets).any(|(name, at)| name == needed && !at.is_empty());
    if !needed.iter().all(defines) {
        return Ok(Finding::default());
    }
    let mut finding = Finding::default();
    for ((_, entry, ret), offsets) in hooks.iter().zip(&offsets) {
        for &offset in offsets {
            finding.functions += 1;
            // Returns before entries, so that no call is seen entering which can't be seen returning.
            let programs = [*ret, *entry].into_iter().flatten();
            finding.placements.extend(programs.map(|program| Placement { offset, program }));
        }
    }
    // Two names may be one function; a program that is there twice would count each call twice.
    let mut seen = std::collections::HashSet::new();
    finding.placements.retain(|placement| seen.insert(*placement));
    Ok(finding)
}

/// What is signed to prove who one is in TLS 1.3 begins with this (RFC 8446, section 4.4.3), so whatever speaks it has
/// these bytes.
const TLS: &[u8] = b"TLS 1.3, server CertificateVerify";

/// What to say of a file in which no family was found by [`Effort::Study`]: that it has TLS inside all the same, if so.
///
/// # Errors
/// When the file can't be read, or contradicts itself.
pub fn unknown(image: &Image<'_>) -> Result<Finding, Error> {
    if !code::holds(image, TLS)? || find(image, Effort::Glance)? != Finding::default() {
        return Ok(Finding::default());
    }
    let remark = "it has a TLS library inside that is not known, whose calls are not seen";
    Ok(Finding { remark: Some(remark.to_owned()), ..Finding::default() })
}

/// Looks for all families of this effort.
///
/// # Errors
/// Those of the first family that has one.
pub fn find(image: &Image<'_>, effort: Effort) -> Result<Finding, Error> {
    FAMILIES
        .iter()
        .filter(|family| family.effort == effort)
        .try_fold(Finding::default(), |found, family| Ok(found.and((family.find)(image)?)))
}
