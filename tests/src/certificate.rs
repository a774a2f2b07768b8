//! Certificates that servers of the tests sign themselves.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The hosts that the tests' requests name.
const NAMES: [&str; 6] =
    ["localhost", "127.0.0.1", "*.openai.com", "*.anthropic.com", "*.openai.azure.com", "*.example.com"];

/// Makes a certificate for all of them; where it and its key are, as PEM files of `folder`.
pub fn make(folder: &Path, server: &str) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(NAMES.map(str::to_owned)).expect("a certificate");
    let (certificate, key) = (folder.join(format!("{server}-cert.pem")), folder.join(format!("{server}-key.pem")));
    fs::write(&certificate, made.cert.pem()).expect("the certificate is written");
    fs::write(&key, made.signing_key.serialize_pem()).expect("the key is written");
    (certificate, key)
}
