//! What was found by reading the code of files, kept for when one of them is met again: in this run, and
//! in a file for later ones.
//!
//! A build-id is what a file says of itself, and anybody can write that of another program into a file of
//! their own. So a file is known by what the file system says of it: device, inode, size, and when it
//! changed last, which can't be set. The build-id has to agree, and before anything is used, so do the
//! bytes at the places where probes would go.
//!
//! ```text
//! agentsight findings 1 0.1.0
//! CRC32C IDENTITY BUILD-ID FUNCTIONS SUM OFFSET:PROGRAM,… REMARK
//! ```
//!
//! A line whose checksum is wrong isn't believed; of a file that another user could have written nothing is.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    families::{FINDER_VERSION, Finding, Placement},
    program_name,
};
use crate::sys::{folder, process::effective_user};

/// The file's name.
const NAME: &str = "findings";

/// Files that are remembered.
const ENTRIES_MAX: usize = 4_096;

/// A longer file isn't read. An entry has some 200 bytes.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Bytes that must be the same at each place of a probe.
const PLACE_BYTES: u64 = 32;

/// A file, as the file system knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
    len: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    /// Of an open file, on a device as mappings name it.
    pub fn of(device: (u32, u32), file: &File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        Some(Self {
            device,
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn text(&self) -> String {
        let Self { device, inode, len, modified, changed } = self;
        let (major, minor) = device;
        format!("{major}:{minor}:{inode}:{len}:{}:{}:{}:{}", modified.0, modified.1, changed.0, changed.1)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let mut next = || parts.next();
        let identity = Self {
            device: (next()?.parse().ok()?, next()?.parse().ok()?),
            inode: next()?.parse().ok()?,
            len: next()?.parse().ok()?,
            modified: (next()?.parse().ok()?, next()?.parse().ok()?),
            changed: (next()?.parse().ok()?, next()?.parse().ok()?),
        };
        next().is_none().then_some(identity)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    build_id: Option<Box<[u8]>>,
    finding: Finding,
    /// Of the bytes at the finding's places.
    sum: u32,
    /// In this run.
    is_used: bool,
}

/// What is known of files.
pub struct Findings {
    known: HashMap<Identity, Entry>,
    folder: Option<PathBuf>,
    is_changed: bool,
}

impl Findings {
    /// What earlier runs left in `folder`, if it can be trusted; it is made when it isn't there. Without a
    /// folder, or when it can't be used, which is then told, things are remembered in this run only.
    pub fn open(folder: Option<PathBuf>) -> (Self, Option<String>) {
        let mut findings = Self { known: HashMap::new(), folder: None, is_changed: false };
        let Some(folder) = folder else { return (findings, None) };
        match folder::make(&folder).map_err(io::Error::other).and_then(|()| read(&folder.join(NAME))) {
            Ok(text) => {
                findings.known = parse(&text);
                findings.folder = Some(folder);
                (findings, None)
            }
            Err(error) => {
                let folder = folder.display();
                (findings, Some(format!("what is found in files is not kept for the next run, in {folder}: {error}")))
            }
        }
    }

    /// What was found in a file that is the same as then.
    pub fn of(&mut self, identity: &Identity, build_id: Option<&[u8]>, file: &File) -> Option<Finding> {
        let entry = self.known.get_mut(identity)?;
        if entry.build_id.as_deref() != build_id || sum(file, &entry.finding) != Some(entry.sum) {
            self.known.remove(identity);
            return None;
        }
        entry.is_used = true;
        Some(entry.finding.clone())
    }

    /// Remembers what was found in a file.
    pub fn learn(&mut self, identity: Identity, build_id: Option<&[u8]>, file: &File, finding: &Finding) {
        let Some(sum) = sum(file, finding) else { return };
        if self.known.len() >= ENTRIES_MAX {
            self.known.retain(|_, entry| entry.is_used);
        }
        if self.known.len() >= ENTRIES_MAX {
            self.known.clear();
        }
        let build_id = build_id.map(Box::from);
        self.known.insert(identity, Entry { build_id, finding: finding.clone(), sum, is_used: true });
        self.is_changed = true;
    }

    /// What is to be written, and into which folder, when something was learnt since the last time.
    pub fn to_save(&mut self) -> Option<(PathBuf, String)> {
        let folder = self.folder.clone()?;
        std::mem::take(&mut self.is_changed).then(|| (folder, text(&self.known)))
    }
}

/// Writes what is to be saved, all of it or nothing.
///
/// # Errors
/// Why it can't be written.
pub fn save(folder: &Path, text: &str) -> io::Result<()> {
    let new = folder.join(format!("{NAME}.{}", std::process::id()));
    // An earlier process of this number may have ended in the middle.
    let _ = fs::remove_file(&new);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&new)?;
    file.write_all(text.as_bytes()).and_then(|()| fs::rename(&new, folder.join(NAME))).inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

fn header() -> String {
    format!("agentsight findings {FINDER_VERSION} {}", env!("CARGO_PKG_VERSION"))
}

fn read(path: &Path) -> io::Result<String> {
    let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    let is_ours = metadata.uid() == effective_user() && metadata.permissions().mode() & 0o022 == 0;
    if !metadata.is_file() || !is_ours {
        return Err(io::Error::other("it belongs to another user, or others may write to it"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Ok(String::new());
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    // What is damaged is in lines whose checksums say so.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn parse(text: &str) -> HashMap<Identity, Entry> {
    let mut lines = text.lines();
    if lines.next() != Some(&header()) {
        return HashMap::new();
    }
    let mut programs = HashMap::new();
    lines.filter_map(|line| entry(line, &mut programs)).take(ENTRIES_MAX).collect()
}

fn entry<'a>(line: &'a str, programs: &mut HashMap<&'a str, Option<&'static str>>) -> Option<(Identity, Entry)> {
    let (crc, rest) = line.split_once(' ')?;
    if u32::from_str_radix(crc, 16) != Ok(crc32c::crc32c(rest.as_bytes())) {
        return None;
    }
    let mut words = rest.splitn(6, ' ');
    let mut word = || words.next();
    let identity = Identity::parse(word()?)?;
    let build_id = match word()? {
        "-" => None,
        hex => Some(unhex(hex)?),
    };
    let functions = word()?.parse().ok()?;
    let sum = u32::from_str_radix(word()?, 16).ok()?;
    let placement = |text: &'a str| {
        let (offset, program) = text.split_once(':')?;
        let offset = u64::from_str_radix(offset, 16).ok()?;
        let program = *programs.entry(program).or_insert_with(|| program_name(program));
        Some(Placement { offset, program: program? })
    };
    let placements = match word()? {
        "-" => Vec::new(),
        list => list.split(',').map(placement).collect::<Option<_>>()?,
    };
    let remark = Some(word()?.to_owned()).filter(|remark| !remark.is_empty());
    let finding = Finding { placements, functions, remark };
    Some((identity, Entry { build_id, finding, sum, is_used: false }))
}

fn text(known: &HashMap<Identity, Entry>) -> String {
    let mut text = header() + "\n";
    for (identity, Entry { build_id, finding, sum, .. }) in known {
        let build_id = build_id.as_deref().map_or_else(|| "-".to_owned(), hex);
        let places = finding.placements.iter().map(|place| format!("{:x}:{}", place.offset, place.program));
        let places = if finding.placements.is_empty() { "-".to_owned() } else { places.collect::<Vec<_>>().join(",") };
        let remark = finding.remark.as_deref().unwrap_or_default().replace('\n', " ");
        let line = format!("{} {build_id} {} {sum:x} {places} {remark}", identity.text(), finding.functions);
        let _ = writeln!(text, "{:08x} {line}", crc32c::crc32c(line.as_bytes()));
    }
    text
}

/// Of the bytes where a finding's probes go; none when the file doesn't have them.
fn sum(file: &File, finding: &Finding) -> Option<u32> {
    finding.placements.iter().try_fold(0, |sum, placement| {
        let mut bytes = [0; PLACE_BYTES as usize];
        file.read_exact_at(&mut bytes, placement.offset).ok()?;
        Some(crc32c::crc32c_append(sum, &bytes))
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Box<[u8]>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is gone when the test is, and a program in it.
    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("agentsight-findings-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            fs::write(path.join("program"), [7; 4096]).unwrap();
            Self(path)
        }

        fn program(&self) -> (Identity, File) {
            let file = File::open(self.0.join("program")).unwrap();
            (Identity::of((8, 1), &file).unwrap(), file)
        }

        fn cache(&self) -> PathBuf {
            self.0.join("cache")
        }

        fn open(&self) -> Findings {
            Findings::open(Some(self.cache())).0
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn found() -> Finding {
        let place = |offset, program| Placement { offset, program: program_name(program).unwrap() };
        Finding {
            placements: vec![place(0x40, "ssl_return"), place(0x40, "ssl_write"), place(0x800, "ssl_read")],
            functions: 2,
            remark: Some("something to know".to_owned()),
        }
    }

    /// A run that learns what is in the program, and ends.
    fn learnt(temp: &Temp, finding: &Finding) {
        let (identity, file) = temp.program();
        let mut findings = temp.open();
        findings.learn(identity, Some(&[0xab, 0x0c]), &file, finding);
        let (folder, text) = findings.to_save().unwrap();
        save(&folder, &text).unwrap();
        assert_eq!(findings.to_save(), None);
    }

    fn known(temp: &Temp, build_id: Option<&[u8]>) -> Option<Finding> {
        let (identity, file) = temp.program();
        temp.open().of(&identity, build_id, &file)
    }

    #[test]
    fn the_next_run_knows_what_was_found() {
        let temp = Temp::new("next");
        for finding in [found(), Finding::default()] {
            learnt(&temp, &finding);
            assert_eq!(known(&temp, Some(&[0xab, 0x0c])), Some(finding));
            assert_eq!(known(&temp, Some(&[0xab])), None);
            assert_eq!(known(&temp, None), None);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&temp.cache()), mode(&temp.cache().join(NAME))), (0o700, 0o600));
        assert_eq!(fs::read_dir(temp.cache()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_changed_is_another() {
        let temp = Temp::new("changed");
        learnt(&temp, &found());
        let (then, file) = temp.program();
        // The clock of file systems is coarse, so that what was changed at once may look the same.
        let same_time = |temp: &Temp| temp.open().of(&then, Some(&[0xab, 0x0c]), &file);
        assert!(same_time(&temp).is_some());
        OpenOptions::new().write(true).open(temp.0.join("program")).unwrap().write_all_at(&[8], 0x801).unwrap();
        assert_eq!(same_time(&temp), None);
        std::thread::sleep(std::time::Duration::from_millis(20));
        OpenOptions::new().write(true).open(temp.0.join("program")).unwrap().write_all_at(&[7], 0x801).unwrap();
        assert_eq!(known(&temp, Some(&[0xab, 0x0c])), None);
        fs::write(temp.0.join("program"), [7; 64]).unwrap();
        assert_eq!(same_time(&temp), None);
    }

    #[test]
    fn damage_is_not_believed() {
        let temp = Temp::new("damage");
        learnt(&temp, &found());
        let path = temp.cache().join(NAME);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(known(&temp, Some(&[0xab, 0x0c])), None, "cut at {at}");
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(known(&temp, Some(&[0xab, 0x0c])), None, "changed at {at}");
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(known(&temp, Some(&[0xab, 0x0c])), Some(found()));
    }

    #[test]
    fn what_others_may_write_is_not_read() {
        let temp = Temp::new("others");
        learnt(&temp, &found());
        let path = temp.cache().join(NAME);
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for (path, mode) in [(&path, 0o600), (&temp.cache(), 0o700)] {
            set(path, mode | 0o020);
            let (mut findings, remark) = Findings::open(Some(temp.cache()));
            assert!(remark.is_some());
            let (identity, file) = temp.program();
            assert_eq!(findings.of(&identity, Some(&[0xab, 0x0c]), &file), None);
            findings.learn(identity, None, &file, &found());
            assert_eq!(findings.of(&identity, None, &file), Some(found()));
            assert_eq!(findings.to_save(), None);
            set(path, mode);
        }
        let target = temp.0.join("elsewhere");
        fs::rename(&path, &target).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(Findings::open(Some(temp.cache())).1.is_some());
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let temp = Temp::new("many");
        let (mut identity, file) = temp.program();
        let mut findings = Findings::open(None).0;
        for inode in 0..ENTRIES_MAX as u64 + 10 {
            identity.inode = inode;
            findings.learn(identity, None, &file, &Finding::default());
            assert!(findings.known.len() <= ENTRIES_MAX);
        }
        assert_eq!(findings.of(&identity, None, &file), Some(Finding::default()));
    }
}
