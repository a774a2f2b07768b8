//! The store against a list in memory: cut at every byte, changed at every byte, full, old, reopened.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};

use super::{
    Batch, Bounds, Encoding, Folder, HEADER_BYTES, Left, Losses, Settings, Stamp, Store, Sync, folder::FolderError,
};
use crate::sys::{disk::Appender, folder};

thread_local! {
    /// Seconds since the machine was started, and by how many the clock on the wall is off.
    static CLOCK: Cell<(u64, u64)> = const { Cell::new((1_000, 0)) };
}

const SECOND: u64 = 1_000_000_000;

fn clock() -> Stamp {
    let (boot, off) = CLOCK.get();
    Stamp { unix_ns: (1_700_000_000 + boot).wrapping_add(off) * SECOND, since_boot_ns: boot * SECOND, boot: 7 }
}

/// A folder that is gone when the test is.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("agentsight-spool-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings(path: &Path, bytes_max: u64) -> Settings {
    let bounds = Bounds { bytes_max, age_max: Duration::from_secs(100) };
    Settings { folder: path.to_owned(), bounds, sync: Sync::Never }
}

fn open(path: &Path, bytes_max: u64) -> Store {
    let folder = Folder::claim(path).unwrap();
    assert_eq!(folder.path(), path, "the one before is closed");
    Store::open(folder, &settings(path, bytes_max), Appender::plain(), clock).unwrap()
}

/// A batch that can't be mistaken for another, and says how many spans it has.
fn batch(id: u64, len: usize) -> Batch<Vec<u8>> {
    let body = (0..len).map(|at| (id as usize * 31 + at * 7) as u8).collect();
    Batch { id, spans: id as u32 % 5 + 1, encoding: Encoding::Protobuf, body }
}

fn put(store: &mut Store, batches: &[Batch<Vec<u8>>]) {
    let (count, result) = store.append(batches, None);
    result.unwrap();
    assert_eq!(count, batches.len());
}

/// Takes everything out, each as it was put in.
fn drain(store: &mut Store) -> Vec<(u64, usize)> {
    let mut ids = vec![];
    while let Some(front) = store.front().unwrap() {
        let expected = batch(front.id, front.body.len());
        assert!(front.body == expected.body && front.spans == expected.spans, "a wrong batch, {}", front.id);
        store.done(front.id).unwrap();
        ids.push((front.id, front.body.len()));
    }
    ids
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|name| name == "spool")).collect();
    files.sort();
    files
}

#[test]
fn batches_come_out_as_they_went_in_also_in_the_next_run() {
    let temp = Temp::new();
    let mut store = open(&temp.0, 1 << 20);
    let batches: Vec<_> = (3..20).map(|id| batch(id, id as usize * 100)).collect();
    put(&mut store, &batches[..9]);
    put(&mut store, &batches[9..]);
    let front = store.front().unwrap().unwrap();
    assert_eq!(store.front().unwrap().unwrap().id, front.id, "it stays until it is done");
    store.done(3).unwrap();
    drop(store);

    let mut store = open(&temp.0, 1 << 20);
    assert_eq!(store.next_id(), 20);
    let spans: u32 = batches[1..].iter().map(|batch| batch.spans).sum();
    assert_eq!(store.left().spans, u64::from(spans));
    // Delivered out of the order in which they are stored: nothing before it comes again.
    store.done(6).unwrap();
    put(&mut store, &[batch(20, 1)]);
    assert_eq!(drain(&mut store).iter().map(|(id, _)| *id).collect::<Vec<_>>(), (7..21).collect::<Vec<_>>());
    assert_eq!((store.left(), store.take_losses()), (Left::default(), Losses::default()));
    assert!(segments(&temp.0).is_empty(), "nothing is left of what is done");
    drop(store);
    assert_eq!(open(&temp.0, 1 << 20).next_id(), 21, "ids are never given twice");
}

#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let temp = Temp::new();
    let path = temp.0.join("a/spool");
    let mut store = open(&path, 1 << 20);
    put(&mut store, &[batch(1, 10)]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o700);
    for entry in fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    drop(store);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(Folder::claim(&path), Err(FolderError::Folder(folder::Error::NotOurs))));
}

#[test]
fn two_engines_have_a_folder_each() {
    let temp = Temp::new();
    let first = Folder::claim(&temp.0).unwrap();
    let second = Folder::claim(&temp.0).unwrap();
    assert_eq!(second.path(), temp.0.join("2"));
    assert_eq!(Folder::abandoned(&temp.0).count(), 0);
    drop(second);
    assert_eq!(
        Folder::abandoned(&temp.0).map(|folder| folder.path().to_owned()).collect::<Vec<_>>(),
        [temp.0.join("2")]
    );
    drop(first);
    assert_eq!(Folder::claim(&temp.0).unwrap().path(), temp.0);
}

/// What is in no batch: done, or counted.
fn balance(store: &mut Store, spans_in: u64, out: &[(u64, usize)]) -> Losses {
    let losses = store.take_losses();
    let delivered: u64 = out.iter().map(|&(id, len)| u64::from(batch(id, len).spans)).sum();
    assert_eq!(spans_in, delivered + losses.full + losses.expired + losses.damaged, "{losses:?}");
    losses
}

#[test]
fn the_oldest_goes_when_there_is_no_room() {
    let temp = Temp::new();
    // Sixteen segments of 64 KiB.
    let mut store = open(&temp.0, 1 << 20);
    let mut spans = 0;
    for id in 0..200 {
        put(&mut store, &[batch(id, 10_000)]);
        spans += u64::from(batch(id, 0).spans);
        assert!(store.left().bytes <= 1 << 20);
    }
    assert!(store.left().bytes > 900_000);
    let out = drain(&mut store);
    assert!(out.len() > 80 && out.last() == Some(&(199, 10_000)) && out.is_sorted(), "{out:?}");
    assert_eq!(balance(&mut store, spans, &out).full, spans - out.iter().map(|(id, _)| id % 5 + 1).sum::<u64>());

    // What is larger than all the room is counted at once, and nothing else goes for it.
    put(&mut store, &[batch(300, 100), batch(301, 2 << 20), batch(302, 100)]);
    let out = drain(&mut store);
    assert_eq!(out, [(300, 100), (302, 100)]);
    assert_eq!(store.take_losses().full, u64::from(batch(301, 0).spans));
}

#[test]
fn a_batch_on_its_way_is_counted_only_when_it_does_not_arrive() {
    for arrives in [false, true] {
        let temp = Temp::new();
        let mut store = open(&temp.0, 1 << 20);
        let mut spans = u64::from(batch(0, 0).spans);
        put(&mut store, &[batch(0, 10_000)]);
        assert_eq!(store.front().unwrap().unwrap().id, 0);
        for id in 1..200 {
            put(&mut store, &[batch(id, 10_000)]);
            spans += u64::from(batch(id, 0).spans);
        }
        if arrives {
            store.done(0).unwrap()
        } else {
            store.release()
        }
        let mut out = drain(&mut store);
        out.extend(arrives.then_some((0, 10_000)));
        balance(&mut store, spans, &out);
    }
}

#[test]
fn what_is_too_old_is_dropped_whatever_the_clock_says() {
    let temp = Temp::new();
    CLOCK.set((1_000, 0));
    let mut store = open(&temp.0, 1 << 20);
    put(&mut store, &[batch(0, 10), batch(1, 10)]);
    CLOCK.set((1_090, 0));
    put(&mut store, &[batch(2, 10)]);
    // Years forward, and back to 1970.
    for off in [900_000_000, 0_u64.wrapping_sub(1_700_000_000)] {
        CLOCK.set((1_099, off));
        store.tick().unwrap();
        assert_eq!(store.take_losses(), Losses::default());
        assert_eq!(store.left().age, Duration::from_secs(99));
    }
    CLOCK.set((1_101, 0));
    assert_eq!(store.front().unwrap().unwrap().id, 2);
    assert_eq!(store.take_losses().expired, 1 + 2);
    // On its way it doesn't age.
    CLOCK.set((2_000, 0));
    store.tick().unwrap();
    store.done(2).unwrap();
    assert_eq!(store.take_losses(), Losses::default());
}

/// Three batches and the bytes of their segment.
fn three(path: &Path) -> (PathBuf, Vec<u8>) {
    let mut store = open(path, 1 << 20);
    put(&mut store, &[batch(1, 40), batch(2, 50), batch(3, 60)]);
    drop(store);
    let file = segments(path).remove(0);
    let bytes = fs::read(&file).unwrap();
    assert_eq!(bytes.len(), 3 * HEADER_BYTES + 150);
    (file, bytes)
}

#[test]
fn a_segment_cut_at_any_byte_gives_the_batches_before_the_cut() {
    let temp = Temp::new();
    let (file, bytes) = three(&temp.0);
    let ends = [HEADER_BYTES + 40, 2 * HEADER_BYTES + 90, 3 * HEADER_BYTES + 150];
    for cut in 0..=bytes.len() {
        fs::write(temp.0.join("cursor"), b"").unwrap();
        fs::write(&file, &bytes[..cut]).unwrap();
        let mut store = open(&temp.0, 1 << 20);
        let whole = ends.iter().filter(|end| **end <= cut).count() as u64;
        // It can be appended to as if nothing had happened.
        put(&mut store, &[batch(9, 70)]);
        let ids: Vec<_> = drain(&mut store).iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (1..=whole).chain([9]).collect::<Vec<_>>(), "cut at {cut}");
        let torn = cut - ends.iter().rfind(|end| **end <= cut).unwrap_or(&0);
        let losses = store.take_losses();
        assert_eq!(losses.damaged_bytes, torn as u64, "cut at {cut}");
        let known = if torn >= HEADER_BYTES { u64::from(batch(whole + 1, 0).spans) } else { 0 };
        assert_eq!(losses.damaged, known, "cut at {cut}");
    }
}

#[test]
fn a_changed_byte_costs_the_batch_that_it_is_in() {
    let temp = Temp::new();
    let (file, bytes) = three(&temp.0);
    let starts = [0, HEADER_BYTES + 40, 2 * HEADER_BYTES + 90];
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(temp.0.join("cursor"), b"").unwrap();
        fs::write(&file, &changed).unwrap();
        let mut store = open(&temp.0, 1 << 20);
        let hit = starts.iter().filter(|start| **start <= at).count() as u64;
        let out = drain(&mut store);
        let ids: Vec<_> = out.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, (1..=3).filter(|id| *id != hit).collect::<Vec<_>>(), "changed at {at}");
        let losses = store.take_losses();
        assert!(losses.damaged_bytes > 0);
        // Only how many spans the last one has is not known when its header is gone.
        if hit < 3 || at >= starts[2] + HEADER_BYTES {
            assert_eq!(losses.damaged, u64::from(batch(hit, 0).spans), "changed at {at}");
        }
    }
}

#[test]
fn content_that_looks_like_a_record_is_not_taken_for_one() {
    let temp = Temp::new();
    let (file, bytes) = three(&temp.0);
    fs::remove_file(&file).unwrap();
    // A record of another segment, inside of a batch that is damaged.
    let mut store = open(&temp.0, 1 << 20);
    put(&mut store, &[Batch { id: 50, spans: 1, encoding: Encoding::Json, body: bytes }, batch(51, 10)]);
    drop(store);
    let file = segments(&temp.0).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[3] ^= 1;
    fs::write(&file, bytes).unwrap();
    let mut store = open(&temp.0, 1 << 20);
    assert_eq!(drain(&mut store), [(51, 10)]);
    assert_eq!(store.take_losses().damaged, 1);
}

/// What happens to a store.
#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>),
    Done,
    Release,
    Reopen,
    /// Changes a byte: which file, which byte, which bit.
    Damage(usize, usize, u8),
    /// Cuts a file.
    Cut(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let lens = || vec(prop_oneof![0..300_usize, 0..40_000_usize], 1..5);
    prop_oneof![
        4 => lens().prop_map(Step::Append),
        3 => Just(Step::Done),
        1 => Just(Step::Release),
        1 => Just(Step::Reopen),
        1 => (any::<usize>(), any::<usize>(), 0..8_u8).prop_map(|(file, at, bit)| Step::Damage(file, at, bit)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(file, at)| Step::Cut(file, at)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, what comes out was put in, in order and once; without damage nothing is
    /// missing that isn't counted.
    #[test]
    fn nothing_wrong_ever_comes_out(steps in vec(step(), 1..40)) {
        let temp = Temp::new();
        let mut store = open(&temp.0, 1 << 20);
        let (mut spans_in, mut losses, mut damaged) = (0, Losses::default(), false);
        let mut kept = std::collections::BTreeMap::new();
        let mut out: Vec<(u64, usize)> = vec![];
        let mut id = 0;
        let mut take = |store: &mut Store| {
            let more = store.take_losses();
            losses.full += more.full;
            losses.damaged += more.damaged;
            assert_eq!(more.expired, 0);
        };
        for step in steps.into_iter().chain([Step::Reopen]) {
            match step {
                Step::Append(lens) => {
                    id = id.max(store.next_id());
                    let batches: Vec<_> = lens.iter().zip(id..).map(|(len, id)| batch(id, *len)).collect();
                    id += lens.len() as u64;
                    spans_in += batches.iter().map(|batch| u64::from(batch.spans)).sum::<u64>();
                    kept.extend(batches.iter().map(|batch| (batch.id, batch.body.clone())));
                    put(&mut store, &batches);
                }
                Step::Done => if let Some(front) = store.front().unwrap() {
                    prop_assert!(kept.remove(&front.id) == Some(front.body.clone()), "not what went in");
                    prop_assert!(out.last().is_none_or(|(last, _)| *last < front.id));
                    out.push((front.id, front.body.len()));
                    store.done(front.id).unwrap();
                },
                Step::Release => {
                    let _ = store.front().unwrap();
                    store.release();
                }
                Step::Reopen => {
                    take(&mut store);
                    drop(store);
                    store = open(&temp.0, 1 << 20);
                }
                Step::Damage(file, at, bit) => if let Some((path, mut bytes)) = pick(&temp.0, file) {
                    let at = at % bytes.len();
                    bytes[at] ^= 1 << bit;
                    fs::write(path, bytes).unwrap();
                    damaged = true;
                },
                Step::Cut(file, at) => if let Some((path, bytes)) = pick(&temp.0, file) {
                    fs::write(path, &bytes[..at % bytes.len()]).unwrap();
                    damaged = true;
                },
            }
        }
        while let Some(front) = store.front().unwrap() {
            prop_assert!(kept.remove(&front.id) == Some(front.body.clone()), "not what went in");
            prop_assert!(out.last().is_none_or(|(last, _)| *last < front.id));
            out.push((front.id, front.body.len()));
            store.done(front.id).unwrap();
        }
        take(&mut store);
        let delivered: u64 = out.iter().map(|(id, len)| u64::from(batch(*id, *len).spans)).sum();
        let counted = delivered + losses.full + losses.damaged;
        // Damage that hits what was done before counts as well: nobody can tell any more.
        prop_assert!(delivered + losses.full <= spans_in && losses.damaged <= spans_in, "{delivered}, {losses:?}");
        prop_assert!(damaged || counted == spans_in, "{counted} of {spans_in}: {losses:?}");
    }
}

/// A segment's file and what is in it.
fn pick(path: &Path, index: usize) -> Option<(PathBuf, Vec<u8>)> {
    let files = segments(path);
    let path = files.get(index % files.len().max(1))?.clone();
    let bytes = fs::read(&path).unwrap();
    (!bytes.is_empty()).then_some((path, bytes))
}
