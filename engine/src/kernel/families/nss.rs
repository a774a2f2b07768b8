//! NSS, which is read and written through NSPR. The two are libraries of their own in distributions,
//! and one with Mozilla's programs, so each is found by itself.

use super::{Effort, Family, Finding, Hook, by_symbols};
use crate::kernel::image::{Error, Image};

/// The family.
pub const FAMILY: Family = Family { name: "NSS", effort: Effort::Glance, find };

const NSPR_NEEDED: &[&str] = &["PR_Read", "PR_Write", "PR_Recv", "PR_Send", "PR_Close"];

const NSPR: &[Hook] = &[
    ("PR_Write", Some("nspr_write"), Some("nspr_return")),
    ("PR_Send", Some("nspr_write"), Some("nspr_return")),
    ("PR_Writev", Some("nspr_writev"), Some("nspr_return")),
    ("PR_Read", Some("nspr_read"), Some("nspr_return")),
    ("PR_Recv", Some("nspr_recv"), Some("nspr_return")),
    ("PR_Close", Some("ssl_free"), None),
];

const SSL_NEEDED: &[&str] = &["SSL_ImportFD"];

/// `PRFileDesc *SSL_ImportFD(PRFileDesc *model, PRFileDesc *fd)` returns the descriptor that has TLS now.
const SSL: &[Hook] = &[("SSL_ImportFD", None, Some("ssl_new_return"))];

fn find(image: &Image<'_>) -> Result<Finding, Error> {
    Ok(by_symbols(image, NSPR_NEEDED, NSPR)?.and(by_symbols(image, SSL_NEEDED, SSL)?))
}
