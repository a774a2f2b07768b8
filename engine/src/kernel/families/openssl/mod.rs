//! OpenSSL's API, as OpenSSL, LibreSSL and BoringSSL define it, wherever there are symbols: shared
//! libraries of any name, and executables that have a library inside. Where there are none, [`stripped`].

mod stripped;

pub use stripped::FAMILY as STRIPPED;

use super::{Effort, Family, Finding, Hook, by_symbols};
use crate::kernel::image::{Error, Image};

/// The family.
pub const FAMILY: Family = Family { name: "OpenSSL", effort: Effort::Glance, find };

/// Without both of them a file isn't TLS.
const NEEDED: &[&str] = &["SSL_read", "SSL_write"];

const HOOKS: &[Hook] = &[
    ("SSL_write", Some("ssl_write"), Some("ssl_return")),
    ("SSL_read", Some("ssl_read"), Some("ssl_return")),
    ("SSL_write_ex", Some("ssl_write_ex"), Some("ssl_return")),
    ("SSL_read_ex", Some("ssl_read_ex"), Some("ssl_return")),
    // OpenSSL 3.3.
    ("SSL_write_ex2", Some("ssl_write_ex2"), Some("ssl_return")),
    // OpenSSL 3.0, with kernel TLS.
    ("SSL_sendfile", Some("ssl_sendfile"), Some("ssl_return")),
    ("SSL_get_error", Some("ssl_get_error"), Some("ssl_get_error_return")),
    ("SSL_new", None, Some("ssl_new_return")),
    ("SSL_clear", Some("ssl_clear"), None),
    // BoringSSL: early data was rejected, and all that was written is written again.
    ("SSL_reset_early_data_reject", Some("ssl_clear"), None),
    ("SSL_free", Some("ssl_free"), None),
];

fn find(image: &Image<'_>) -> Result<Finding, Error> {
    by_symbols(image, NEEDED, HOOKS)
}

/// Whether symbols tell where the functions are.
///
/// # Errors
/// When the symbols contradict themselves.
pub fn has_symbols(image: &Image<'_>) -> Result<bool, Error> {
    Ok(!find(image)?.placements.is_empty())
}
