//! GnuTLS, as its shared library or inside an executable with symbols.

use super::{Effort, Family, Finding, Hook, by_symbols};
use crate::kernel::image::{Error, Image};

/// The family.
pub const FAMILY: Family = Family { name: "GnuTLS", effort: Effort::Glance, find };

/// Without both of them a file isn't GnuTLS.
const NEEDED: &[&str] = &["gnutls_record_recv", "gnutls_record_send"];

const HOOKS: &[Hook] = &[
    ("gnutls_record_send", Some("gnutls_send"), Some("gnutls_return")),
    ("gnutls_record_send2", Some("gnutls_send"), Some("gnutls_return")),
    ("gnutls_record_recv", Some("gnutls_recv"), Some("gnutls_return")),
    ("gnutls_record_recv_seq", Some("gnutls_recv"), Some("gnutls_return")),
    ("gnutls_record_recv_early_data", Some("gnutls_recv"), Some("gnutls_return")),
    ("gnutls_record_recv_packet", Some("gnutls_recv_packet"), Some("gnutls_recv_packet_return")),
    ("gnutls_packet_get", Some("gnutls_packet_get"), Some("gnutls_packet_get_return")),
    ("gnutls_record_uncork", Some("gnutls_uncork"), Some("gnutls_uncork_return")),
    ("gnutls_init", Some("gnutls_init"), Some("gnutls_init_return")),
    ("gnutls_deinit", Some("ssl_free"), None),
];

fn find(image: &Image<'_>) -> Result<Finding, Error> {
    by_symbols(image, NEEDED, HOOKS)
}
