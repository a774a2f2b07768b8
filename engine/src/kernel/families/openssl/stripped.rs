//! OpenSSL 3 without symbols: inside programs that are linked with it statically and stripped, as those of
//! Rust are with `openssl-sys`' vendored build.
//!
//! With each error OpenSSL 3 records the name of the function that it happened in, so the code that loads
//! such a name is that function (`ERR_raise` of openssl/err.h). Of what `ssl/ssl_lib.c` has, these do:
//!
//! ```text
//! ssl_read_internal(s, buf, num, &count)            what SSL_read and SSL_read_ex are made of
//! ssl_write_internal(s, buf, num, &count)           what SSL_write and SSL_write_ex are made of
//! ssl_write_internal(s, buf, num, flags, &count)    the same since 3.3, and of SSL_write_ex2
//! SSL_new, SSL_clear, SSL_shutdown
//! ```
//!
//! A compiler may have put one of the first two into its callers, which return something else: `SSL_read_ex`
//! returns 0 where `ssl_read_internal` returns less, for example. So one of them is believed only if a function
//! calls it as its callers do.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effort, Family, Finding};
use crate::kernel::{
    families::{
        Placement,
        code::{self, Function, Scan, Segment, Text},
    },
    image::{Error, Image},
    sites::wraps,
};

/// The family.
pub const FAMILY: Family = Family { name: "OpenSSL without symbols", effort: Effort::Study, find };

/// The source file that names are of.
const SOURCE: &str = "ssl_lib.c";

/// The functions' names, in the order of [`Names`].
const NAMES: [&str; 5] = ["ssl_read_internal", "ssl_write_internal", "SSL_new", "SSL_clear", "SSL_shutdown"];
const READ: usize = 0;
const WRITE: usize = 1;

/// Programs for the functions that begin and end a connection, in the order of [`NAMES`]. Nothing tells
/// SSL_free apart; who shuts a connection down is done with it.
const OTHERS: [(usize, &str); 3] = [(2, "ssl_new_return"), (3, "ssl_clear"), (4, "ssl_free")];

/// Each name is there once, or a few times. More often it is data of some other kind.
const TEXTS_MAX: usize = 8;

/// Loads of the names beyond which they aren't what they seem.
const LOADS_MAX: usize = 1_024;

/// Loads of the source's name in a library without those of functions: it has some hundred. Fewer may be a
/// program that only speaks of it.
const NAMELESS_MIN: usize = 8;

/// How far before a load its function may begin, and how many places are tried.
const FUNCTION_BYTES: u64 = 16 * 1024;
const STARTS_MAX: usize = 64;

/// Bytes that are looked at of a function that calls.
const CALLER_BYTES: u64 = 256;

/// Addresses of functions, with the programs for them.
type Placed = Vec<(u64, Vec<&'static str>)>;

/// Why the functions can't be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Unclear {
    #[error("it doesn't name its functions, as version 3 does")]
    Nameless,
    #[error("no single function has what {0} says")]
    Scattered(&'static str),
    #[error("nothing hands its arguments to {0}")]
    Uncalled(&'static str),
}

fn find(image: &Image<'_>) -> Result<Finding, Error> {
    let Some(code) = code::of_machine(image) else { return Ok(Finding::default()) };
    let sources = code::names_of(image, SOURCE, TEXTS_MAX + 1)?;
    if sources.is_empty() || sources.len() > TEXTS_MAX || super::has_symbols(image)? {
        return Ok(Finding::default());
    }
    let named = code::texts(image, &NAMES, TEXTS_MAX)?.into_iter().enumerate();
    let names: BTreeMap<u64, usize> =
        named.flat_map(|(index, places)| places.into_iter().map(move |address| (address, index))).collect();
    let look = Look { image, code: &code, text: Text::new(code.region.address, code.region.len, &code) };
    match look.find(&sources, &names) {
        None => Ok(Finding::default()),
        Some(Ok(placements)) => Ok(placed(image, &placements)),
        Some(Err(unclear)) => Ok(Finding {
            remark: Some(format!("it has OpenSSL inside, without symbols, but {unclear}")),
            ..Finding::default()
        }),
    }
}

fn placed(image: &Image<'_>, functions: &[(u64, Vec<&'static str>)]) -> Finding {
    let mut finding = Finding::default();
    for (address, programs) in functions {
        let Some(offset) = image.code_offset_of(*address) else { continue };
        finding.functions += 1;
        finding.placements.extend(programs.iter().map(|&program| Placement { offset, program }));
    }
    finding
}

struct Look<'i, 'data> {
    image: &'i Image<'data>,
    code: &'i Segment<'i, 'data>,
    text: Text<'i>,
}

impl Look<'_, '_> {
    /// The functions' addresses, with the programs for them. `sources` are the addresses of the names of
    /// `ssl_lib.c`, and `names` those of [`NAMES`]. None if no code loads the source's name: it may be in any
    /// data.
    fn find(&self, sources: &[u64], names: &BTreeMap<u64, usize>) -> Option<Result<Placed, Unclear>> {
        let wanted: Vec<u64> = sources.iter().chain(names.keys()).copied().collect();
        let scan = self.text.scan(&wanted)?;
        let loads = self.text.loads(&scan, &wanted);
        let source_loads: Vec<u64> =
            loads.iter().filter(|(_, text)| sources.contains(text)).map(|(load, _)| *load).collect();
        if loads.len() > LOADS_MAX || source_loads.is_empty() {
            return None;
        }
        let called = self.text.called_before(&scan, &loads.keys().copied().collect());
        let named = NAMES.iter().enumerate().map(|(index, name)| {
            let of_name = loads.iter().filter(|(_, text)| names.get(text) == Some(&index));
            let of_name: Vec<u64> = of_name.map(|(load, _)| *load).collect();
            match of_name.first() {
                None => Err(Unclear::Nameless),
                Some(_) => self.around(&called, &of_name, &source_loads).ok_or(Unclear::Scattered(name)),
            }
        });
        match self.tell(&scan, &named.collect::<Vec<_>>()) {
            Err(Unclear::Nameless) if source_loads.len() < NAMELESS_MIN => None,
            told => Some(told),
        }
    }

    /// The function that something calls and that has all of `loads`, which are in order, and one of
    /// `source_loads`.
    fn around(&self, called: &BTreeSet<u64>, loads: &[u64], source_loads: &[u64]) -> Option<Function> {
        let first = *loads.first()?;
        let starts = called.range(first.saturating_sub(FUNCTION_BYTES)..=first).rev().take(STARTS_MAX);
        let mut functions = starts.filter_map(|&start| self.text.function(start, called));
        functions.find(|function| {
            loads.iter().all(|load| function.holds(*load)) && source_loads.iter().any(|load| function.holds(*load))
        })
    }

    fn tell(&self, scan: &Scan, named: &[Result<Function, Unclear>]) -> Result<Placed, Unclear> {
        let of = |index: usize| named[index].as_ref().map_err(|unclear| *unclear);
        let (read, write) = (of(READ)?, of(WRITE)?);
        if self.inner(scan, read) != Some(3) {
            return Err(Unclear::Uncalled(NAMES[READ]));
        }
        let write_program = match self.inner(scan, write) {
            Some(3) => "ssl_write_ex",
            Some(_) => "ssl_write_ex2",
            None => return Err(Unclear::Uncalled(NAMES[WRITE])),
        };
        let mut placed =
            vec![(write.start, vec!["ssl_return", write_program]), (read.start, vec!["ssl_return", "ssl_read_inner"])];
        for (index, program) in OTHERS {
            if let Ok(one) = of(index)
                && placed.iter().all(|(start, _)| *start != one.start)
            {
                placed.push((one.start, vec![program]));
            }
        }
        Ok(placed)
    }

    /// Which argument of a function is the address of a count, if one that wraps it calls it.
    fn inner(&self, scan: &Scan, function: &Function) -> Option<u8> {
        let start = function.start;
        let count = match function.arguments_used(&BTreeSet::new()) {
            [true, true, true, true, false] => 3,
            [true, true, true, true, true] => 4,
            _ => return None,
        };
        let read = |address: u64| {
            let at = address.checked_sub(self.code.region.address)?;
            let len = self.code.region.len.checked_sub(at)?.min(CALLER_BYTES);
            self.image.bytes(self.code.region.offset.checked_add(at)?, len).map(<[u8]>::to_vec)
        };
        let sites = self.text.callers(scan, &BTreeSet::from([start]));
        let called = self.text.called_before(scan, &sites);
        let mut callers = sites.iter().flat_map(|&site| self.text.starts_before(site, CALLER_BYTES, &called));
        callers.any(|caller| wraps(caller, start, count, read)).then_some(count)
    }
}
