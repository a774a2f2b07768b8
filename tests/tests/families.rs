//! Programs of this machine that aren't TLS libraries: nothing is found in them.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use agentsight::kernel::{
    families::{self, Effort},
    image::examine,
};
use agentsight_tests::gate::skip;

/// Fewer say little.
const FILES_MIN: usize = 50;
const FILES_MAX: usize = 120;
/// Where there is room for a TLS library inside, and what is read in reasonable time.
const BYTES_MIN: u64 = 512 * 1024;
const BYTES_MAX: u64 = 160 << 20;

/// What a file that has something to probe has inside, one for each family.
const MARKS: [&[u8]; 7] = [
    b"SSL_write",
    b"ssl/ssl_lib.c\0",
    b"ssl/ssl_lib.cc\0",
    b"gnutls_record_send",
    b"PR_Write",
    b"crypto/tls.(*Conn).Write",
    b"/rustls-0.",
];

/// Large executables and libraries below `folder`, each inode once.
fn gather(folder: &Path, depth: usize, found: &mut Vec<(u64, PathBuf)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let path = entry.path();
        if metadata.is_dir() && depth > 0 {
            gather(&path, depth - 1, found);
        }
        let is_code = metadata.permissions().mode() & 0o111 != 0 || path.to_string_lossy().contains(".so");
        let is_new = !found.iter().any(|(inode, _)| *inode == metadata.ino());
        if metadata.is_file() && is_code && is_new && (BYTES_MIN..BYTES_MAX).contains(&metadata.len()) {
            found.push((metadata.ino(), path));
        }
    }
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let mut files = Vec::new();
    for folder in ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/lib", "/usr/libexec"] {
        gather(Path::new(folder), 3, &mut files);
    }
    let mut looked = 0;
    for (_, path) in files {
        if looked >= FILES_MAX {
            break;
        }
        let Ok(file) = File::open(&path) else { continue };
        // What isn't ELF, or of 32 bits, is none.
        let Ok(finding) = examine(&file, |image| {
            Ok(families::find(image, Effort::Glance)?.and(families::find(image, Effort::Study)?))
        }) else {
            continue;
        };
        looked += 1;
        if !finding.placements.is_empty() || finding.remark.is_some() {
            let bytes = fs::read(&path).expect("it was read before");
            let has = |mark: &&[u8]| bytes.windows(mark.len()).any(|window| window == *mark);
            assert!(MARKS.iter().any(has), "{}: {finding:?}", path.display());
        }
    }
    if looked < FILES_MIN {
        skip(&format!("there are {looked} large executables here, not {FILES_MIN}"));
    }
}
