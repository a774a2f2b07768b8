//! What a fuzzer does with the files that processes map.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    path::Path,
};

use super::{
    families::{self, Effort},
    image,
};

/// A file with these bytes is looked into. Panics when that does, or when a program is placed outside of it.
pub fn image(data: &[u8]) {
    // In memory where that is to be had; its name goes at once.
    let shm = Path::new("/dev/shm");
    let place = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    let path = place.join(format!("agentsight-fuzz-image-{}", std::process::id()));
    let Ok(mut file) = File::options().read(true).write(true).create(true).truncate(true).open(&path) else { return };
    let _ = std::fs::remove_file(&path);
    if file.write_all(data).and_then(|()| file.rewind()).is_err() {
        return;
    }
    for effort in [Effort::Glance, Effort::Study] {
        if let Ok(found) = image::examine(&file, |image| families::find(image, effort)) {
            assert!(found.placements.iter().all(|placement| placement.offset < data.len() as u64), "{found:?}");
        }
    }
}

#[cfg(test)]
#[test]
fn the_seeds_of_the_fuzzer() {
    crate::wire::exercise::replay("image", image, 18);
}
