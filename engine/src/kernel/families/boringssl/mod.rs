//! BoringSSL where there are no symbols: inside bun and what bun compiles, Envoy, Electron.
//!
//! [`code`] reads machine code, [`rules`] says which functions are which. It knows x86_64; on other
//! machines nothing is looked for.

mod rules;

use self::rules::{Found, Unclear};
use super::{
    Effort, Family, Finding, Placement,
    code::{self, Text},
    openssl,
};
use crate::kernel::image::{Error, Image};

/// The family.
pub const FAMILY: Family = Family { name: "BoringSSL without symbols", effort: Effort::Study, find };

/// The source file that names are of.
const SOURCE: &str = "ssl_lib.cc";

/// The name is there once, or a few times. More often it is data of some other kind.
const NAMES_MAX: usize = 16;

fn find(image: &Image<'_>) -> Result<Finding, Error> {
    let Some(code) = code::of_machine(image) else { return Ok(Finding::default()) };
    if openssl::has_symbols(image)? {
        return Ok(Finding::default());
    }
    let names = code::names_of(image, SOURCE, NAMES_MAX + 1)?;
    if names.is_empty() || names.len() > NAMES_MAX {
        return Ok(Finding::default());
    }
    match rules::find(&Text::new(code.region.address, code.region.len, &code), &names) {
        Ok(found) => Ok(placed(image, &found)),
        // The name alone may be in any data.
        Err(Unclear::NoReference) => Ok(Finding::default()),
        Err(unclear) => Ok(Finding {
            remark: Some(format!("it has BoringSSL inside, without symbols, but {unclear}")),
            ..Finding::default()
        }),
    }
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
