//! Large executables of this machine: nothing is found in them that isn't there.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use agentsight::kernel::{
    families::{Effort, find},
    image::examine,
};

const BYTES_MIN: u64 = 1 << 20;
const FILES_MIN: usize = 50;
const FILES_MAX: usize = 120;

/// Executables and libraries below `folder`, each inode once.
fn gather(folder: &Path, depth: usize, seen: &mut BTreeSet<(u64, u64)>, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() && depth > 0 {
            gather(&path, depth - 1, seen, files);
        } else if metadata.is_file() && metadata.len() >= BYTES_MIN && seen.insert((metadata.dev(), metadata.ino())) {
            let is_image = File::open(&path).is_ok_and(|file| examine(&file, |_| Ok(())).is_ok());
            files.extend(is_image.then_some(path));
        }
    }
}

fn mentions(path: &Path, text: &[u8]) -> bool {
    fs::read(path).is_ok_and(|bytes| memchr::memmem::find(&bytes, text).is_some())
}

#[test]
fn nothing_is_found_where_there_is_nothing() {
    let (mut files, mut seen) = (vec![], BTreeSet::new());
    for (folder, depth) in [("/usr/bin", 0), ("/usr/lib", 3), ("/usr/local", 3), ("/usr/libexec", 2), ("/opt", 3)] {
        gather(Path::new(folder), depth, &mut seen, &mut files);
    }
    files.extend(std::env::current_exe());
    // Those of all folders and sizes, not only the first ones of one.
    let step = files.len().div_ceil(FILES_MAX).max(1);
    let files: Vec<_> = files.into_iter().step_by(step).collect();
    if files.len() < FILES_MIN {
        assert!(std::env::var_os("CI").is_none(), "CI must have {FILES_MIN} large executables, not {}", files.len());
        println!("skipped: this machine has only {} large executables", files.len());
        return;
    }
    let wrong = |path: &&PathBuf| {
        let file = File::open(path).unwrap();
        let Ok(found) = examine(&file, |image| find(image, Effort::Study)) else { return false };
        let functions = found.placements.iter().any(|placement| placement.program.starts_with("ssl_"));
        functions && !mentions(path, b"ssl/ssl_lib.cc\0")
    };
    let wrong: Vec<_> = files.iter().filter(wrong).collect();
    assert!(wrong.is_empty(), "in {wrong:?}");
}
