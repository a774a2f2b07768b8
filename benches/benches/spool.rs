//! Keeping encoded batches on disk: the spool, with its headers, checksums and bounds, against
//! nothing but write(2) and fdatasync(2), at the same durability.

use std::{
    fs::{self, File},
    hint::black_box,
    io::Write as _,
    path::{Path, PathBuf},
};

use agentsight::{
    spool::{Batch, Bounds, Encoding, Folder, Settings, Stamp, Store, Sync},
    sys::disk::Appender,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Batches that are kept together: what is encoded while the disk is busy with those before.
const GROUP: usize = 8;
/// As large as the file of a segment.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
const SPOOL_BYTES_MAX: u64 = 16 * FILE_BYTES_MAX;

/// A folder on the disk that the build is on.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("spool-{name}-{}", std::process::id()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        Self(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn batches(bytes: usize) -> Vec<Batch<Vec<u8>>> {
    let body = |seed: usize| (0..bytes).map(|at| (at * 31 + seed) as u8).collect();
    (0..GROUP).map(|seed| Batch { id: 0, spans: 512, encoding: Encoding::Protobuf, body: body(seed) }).collect()
}

/// Appends groups to a spool, which drops its oldest segments when it is full.
fn spool(bencher: &mut criterion::Bencher<'_>, appender: Appender, sync: Sync, mut batches: Vec<Batch<Vec<u8>>>) {
    let temp = Temp::new(appender.backend());
    let bounds = Bounds { bytes_max: SPOOL_BYTES_MAX, ..Bounds::default() };
    let settings = Settings { folder: temp.0.clone(), bounds, sync };
    let mut store = Store::open(Folder::claim(&temp.0).unwrap(), &settings, appender, Stamp::now).unwrap();
    bencher.iter(|| {
        let first = store.next_id();
        batches.iter_mut().zip(first..).for_each(|(batch, id)| batch.id = id);
        let (kept, result) = store.append(black_box(&batches), None);
        result.unwrap();
        assert_eq!(kept, GROUP);
    });
    let front = store.front().unwrap().unwrap();
    assert!(batches.iter().any(|batch| batch.body == front.body), "what is kept can be read");
}

/// Appends groups to files, the oldest of which is removed when there are sixteen.
fn plain(
    bencher: &mut criterion::Bencher<'_>,
    name: &str,
    sync_each: bool,
    sync_group: bool,
    batches: &[Batch<Vec<u8>>],
) {
    let temp = Temp::new(name);
    fs::create_dir(&temp.0).unwrap();
    let (mut number, mut len) = (0_u64, 0);
    let open = |number: u64| File::create(temp.0.join(number.to_string())).unwrap();
    let mut file = open(number);
    bencher.iter(|| {
        if len >= FILE_BYTES_MAX {
            number += 1;
            (file, len) = (open(number), 0);
            let _ = fs::remove_file(temp.0.join(number.saturating_sub(16).to_string()));
        }
        for batch in black_box(batches) {
            file.write_all(&batch.body).unwrap();
            len += batch.body.len() as u64;
            if sync_each {
                file.sync_data().unwrap();
            }
        }
        if sync_group {
            file.sync_data().unwrap();
        }
    });
}

fn append(criterion: &mut Criterion) {
    for (label, bytes) in [("64 KiB", 64 * 1024), ("512 KiB", 512 * 1024)] {
        let mut group = criterion.benchmark_group(format!("spool/{label}"));
        group.throughput(Throughput::Bytes((GROUP * bytes) as u64)).sample_size(20);
        let batches = batches(bytes);
        let ours = Appender::new().backend();
        group.bench_function(format!("spool by {ours}, fdatasync for each group"), |bencher| {
            spool(bencher, Appender::new(), Sync::Always, batches.clone());
        });
        group.bench_function("spool by pwrite, fdatasync for each group", |bencher| {
            spool(bencher, Appender::plain(), Sync::Always, batches.clone());
        });
        group.bench_function("write, fdatasync for each group", |bencher| {
            plain(bencher, "group", false, true, &batches);
        });
        group.bench_function("write, fdatasync for each batch", |bencher| {
            plain(bencher, "each", true, false, &batches);
        });
        group.bench_function(format!("spool by {ours}, no sync"), |bencher| {
            spool(bencher, Appender::new(), Sync::Never, batches.clone());
        });
        group.bench_function("write, no sync", |bencher| plain(bencher, "none", false, false, &batches));
        group.finish();
    }
}

criterion_group!(benches, append);
criterion_main!(benches);
