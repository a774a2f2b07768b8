//! What a symbol of a Rust program says of a function of rustls, in both ways of mangling: the older one
//! spells paths with `..` and ends with a hash (`17h…E`), the newer (RFC 2603) counts the letters of each
//! name and has no hash at the end.

use super::Version;

/// What a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `MessageEncrypter::encrypt` of a cipher.
    Encrypt,
    /// `MessageDecrypter::decrypt` of a cipher.
    Decrypt(Version),
    /// What makes one of them.
    Make(Version),
    /// Drops a record layer, or what begins with one.
    Drop,
}

/// Methods of traits: the end of the older name before the hash, and that of the newer one.
const METHODS: [(&[u8], &[u8], Method); 6] = [
    (b"..MessageEncrypter$GT$7encrypt", b"16MessageEncrypter7encrypt", Method::Encrypt),
    (b"..MessageDecrypter$GT$7decrypt", b"16MessageDecrypter7decrypt", Method::Decrypt),
    (b"..Tls13AeadAlgorithm$GT$9encrypter", b"18Tls13AeadAlgorithm9encrypter", Method::Make(Version::Tls13)),
    (b"..Tls13AeadAlgorithm$GT$9decrypter", b"18Tls13AeadAlgorithm9decrypter", Method::Make(Version::Tls13)),
    (b"..Tls12AeadAlgorithm$GT$9encrypter", b"18Tls12AeadAlgorithm9encrypter", Method::Make(Version::Tls12)),
    (b"..Tls12AeadAlgorithm$GT$9decrypter", b"18Tls12AeadAlgorithm9decrypter", Method::Make(Version::Tls12)),
];

#[derive(Clone, Copy)]
enum Method {
    Encrypt,
    Decrypt,
    Make(Version),
}

/// Types whose `drop_in_place` ends a connection, in both ways.
const DROPS: [(&[u8], &[u8]); 3] = [
    (b"drop_in_place$LT$rustls..record_layer..RecordLayer$GT$", b"6rustls12record_layer11RecordLayer"),
    (b"drop_in_place$LT$rustls..common_state..CommonState$GT$", b"6rustls12common_state11CommonState"),
    (b"drop_in_place$LT$rustls..conn..ConnectionCommon$LT$", b"6rustls4conn16ConnectionCommon"),
];

/// What the function called `name` does, if it is one of rustls with the ciphers of ring or aws-lc-rs.
pub fn role(name: &[u8]) -> Option<Role> {
    let name = without_suffix(name);
    if let Some(dropped) = drops(name) {
        return dropped.then_some(Role::Drop);
    }
    let method = match without_hash(name) {
        Some(path) => METHODS.iter().find(|(older, ..)| path.ends_with(older)),
        None => METHODS.iter().find(|(_, newer, _)| name.starts_with(b"_R") && name.ends_with(newer)),
    }?;
    let says = |part: &[u8]| memchr::memmem::find(name, part).is_some();
    let of_rustls = says(b"rustls..crypto..ring..")
        || says(b"rustls..crypto..aws_lc_rs..")
        || says(b"6rustls6crypto4ring")
        || says(b"6rustls6crypto9aws_lc_rs");
    // The objects of TLS 1.3 are in a module of that name, and those of TLS 1.2 in one of theirs.
    let version = match (says(b"..tls13..") || says(b"5tls13"), says(b"..tls12..") || says(b"5tls12")) {
        (true, false) => Version::Tls13,
        (false, true) => Version::Tls12,
        _ => return None,
    };
    of_rustls.then_some(match method.2 {
        Method::Encrypt => Role::Encrypt,
        Method::Decrypt => Role::Decrypt(version),
        Method::Make(version) => Role::Make(version),
    })
}

/// Whether it is `drop_in_place` of a type that ends a connection; none for other functions.
fn drops(name: &[u8]) -> Option<bool> {
    let says = |part: &[u8]| memchr::memmem::find(name, part);
    if let Some(at) = says(b"drop_in_place$LT$") {
        return Some(DROPS.iter().any(|(older, _)| name[at..].starts_with(older)));
    }
    // `…3ptr13drop_in_placeNtNtCs…_6rustls…`: the type is what follows, and may be one that holds another.
    let at = says(b"13drop_in_place").filter(|_| name.starts_with(b"_R"))? + b"13drop_in_place".len();
    Some(DROPS.iter().any(|(_, newer)| {
        memchr::memmem::find(&name[at..], newer).is_some_and(|before| is_plain_path(&name[at..at + before]))
    }))
}

/// Whether it leads from a type's beginning to its crate without another type around: namespaces, the
/// start of generic arguments, and a crate's disambiguator.
fn is_plain_path(path: &[u8]) -> bool {
    let start = path.iter().position(|&byte| byte == b'C').unwrap_or(path.len());
    let (namespaces, root) = path.split_at(start);
    namespaces.iter().all(|byte| b"INt".contains(byte))
        && (root == b"C" || root.starts_with(b"Cs") && root.ends_with(b"_"))
        && root[..root.len() - 1].iter().all(u8::is_ascii_alphanumeric)
}

/// The older name without `17h`, 16 digits and `E`.
fn without_hash(name: &[u8]) -> Option<&[u8]> {
    const HASH_BYTES: usize = 3 + 16 + 1;
    let (path, hash) = name.split_at_checked(name.len().checked_sub(HASH_BYTES)?)?;
    (name.starts_with(b"_ZN") && hash.starts_with(b"17h") && hash.ends_with(b"E")).then_some(path)
}

/// LLVM puts `.llvm.` and a number behind names that it has to tell apart.
fn without_suffix(name: &[u8]) -> &[u8] {
    &name[..memchr::memmem::find(name, b".llvm.").unwrap_or(name.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<Role>) {
        assert_eq!(role(name.as_bytes()), expected, "{name}");
    }

    #[test]
    fn older_names_tell_what_functions_do() {
        let ring = "_ZN102_$LT$rustls..crypto..ring..tls13..Tls13MessageEncrypter$u20$as$u20$rustls..crypto..cipher..";
        let hash = "17h47b603b87bda0f08E";
        check(&format!("{ring}MessageEncrypter$GT$7encrypt{hash}"), Some(Role::Encrypt));
        check(&format!("{ring}MessageEncrypter$GT$7encrypt{hash}.llvm.15055343826940896186"), Some(Role::Encrypt));
        check(&format!("{ring}MessageEncrypter$GT$21encrypted_payload_len{hash}"), None);
        check(&format!("{ring}MessageEncrypter$GT$7encrypt28_$u7b$$u7b$closure$u7d$$u7d${hash}"), None);
        let aws =
            "_ZN108_$LT$rustls..crypto..aws_lc_rs..tls12..GcmMessageDecrypter$u20$as$u20$rustls..crypto..cipher..";
        check(&format!("{aws}MessageDecrypter$GT$7decrypt{hash}"), Some(Role::Decrypt(Version::Tls12)));
        let made = "_ZN105_$LT$rustls..crypto..ring..tls13..Aes128GcmAead$u20$as$u20$rustls..crypto..cipher..";
        check(&format!("{made}Tls13AeadAlgorithm$GT$9encrypter{hash}"), Some(Role::Make(Version::Tls13)));
        check(
            &format!(
                "_ZN108_$LT$rustls..crypto..cipher..InvalidMessageEncrypter$u20$as$u20$rustls..crypto..cipher..\
                 MessageEncrypter$GT$7encrypt{hash}"
            ),
            None,
        );
        check(&format!("_ZN4core3ptr56drop_in_place$LT$rustls..record_layer..RecordLayer$GT${hash}"), Some(Role::Drop));
        check(
            &format!(
                "_ZN4core3ptr99drop_in_place$LT$alloc..boxed..Box$LT$rustls..common_state..CommonState$GT$$GT${hash}"
            ),
            None,
        );
        check("SSL_read", None);
    }

    #[test]
    fn newer_names_tell_what_functions_do() {
        let of = "_RNvXs2_NtNtNtCs7g3bqZ_6rustls6crypto4ring5tls13NtB5_";
        check(&format!("{of}21Tls13MessageEncrypterNtNtB9_6cipher16MessageEncrypter7encrypt"), Some(Role::Encrypt));
        check(
            &format!("{of}21Tls13MessageDecrypterNtNtB9_6cipher16MessageDecrypter7decrypt"),
            Some(Role::Decrypt(Version::Tls13)),
        );
        check(
            &format!("{of}13Aes128GcmAeadNtNtB9_6cipher18Tls13AeadAlgorithm9decrypter"),
            Some(Role::Make(Version::Tls13)),
        );
        check(&format!("{of}21Tls13MessageEncrypterNtNtB9_6cipher16MessageEncrypter21encrypted_payload_len"), None);
        check(
            "_RINvNtCs5x_4core3ptr13drop_in_placeNtNtCs7g3bqZ_6rustls12record_layer11RecordLayerEB4_",
            Some(Role::Drop),
        );
        check(
            "_RINvNtCs5x_4core3ptr13drop_in_placeINtNtCs9_5alloc5boxed3BoxNtNtCs7g3bqZ_6rustls12record_layer11RecordLayerEEB4_",
            None,
        );
    }
}
