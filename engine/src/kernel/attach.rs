//! Which files the probes are on: each inode once, as long as something maps it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::{self, File, Metadata},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Error, Kernel,
    families::{self, Effort, Finding},
    findings::{Findings, Identity},
    image::{self, examine},
    placing::cheaper,
    study::{Studied, Study, Subject, is_worthwhile, study},
    uprobes::{self, Link},
};
use crate::sys::{
    process::{self, MappedFile},
    wait::Waker,
};

/// A file that nothing maps any more keeps its probes for so long: the next start of a short-lived
/// program then finds them in place.
const LINGER: Duration = Duration::from_secs(30);

/// Files that were looked at and have nothing to probe; beyond it they are looked at again.
const USELESS_MAX: usize = 65_536;

/// Files with probes at once.
const TARGETS_MAX: usize = 1_024;

/// Files that wait to be studied.
const BACKLOG_MAX: usize = 4_096;

/// Those of them that are kept open.
const BACKLOG_OPEN_MAX: usize = 64;

/// A file, as mappings name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileId {
    device: (u32, u32),
    inode: u64,
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        let device = metadata.dev();
        Self { device: (libc::major(device), libc::minor(device)), inode: metadata.ino() }
    }
}

struct Target {
    path: PathBuf,
    /// Functions that probes are on; none while the file waits to be studied.
    functions: usize,
    links: Vec<Link>,
    users: HashSet<u32>,
    /// When it was met.
    since: Instant,
    /// Chosen by the user or a system library: stays attached without users.
    pinned: bool,
    unused_since: Option<Instant>,
}

/// A file that waits to be studied.
struct Waiting {
    id: FileId,
    file: MappedFile,
    /// It is kept open, because the program may have ended by then and will be started again.
    reached: Option<(PathBuf, File)>,
}

/// What became of a file.
#[derive(Debug)]
pub enum Attached {
    /// Probes are on it now.
    New {
        /// Path as it was found.
        path: PathBuf,
        /// How many functions were found.
        functions: usize,
        /// How long a process had mapped it by then, as far as was noticed; what that said meanwhile was not seen.
        unseen: Duration,
        /// Something that the user should know of them.
        remark: Option<String>,
    },
    /// What is in it can't be told for certain, so nothing was put on it.
    Unclear {
        /// Path as it was found.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What is in it takes time to find out.
    Later,
    /// They were there already.
    Already,
    /// It has no TLS functions.
    Useless,
    /// There are too many files with probes.
    TooMany {
        /// Path as it was found.
        path: PathBuf,
    },
    /// It couldn't be read, or the kernel refused a probe.
    Failed {
        /// Path as it was found.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// The table of files with probes.
pub struct Attacher {
    targets: HashMap<FileId, Target>,
    useless: HashSet<FileId>,
    /// This program, which is never captured, and which names what it looks for in others.
    own: Option<FileId>,
    study: Study<FileId>,
    /// What was found in files before.
    findings: Findings,
    /// Files that wait for the one that is being studied.
    backlog: VecDeque<Waiting>,
    studying: bool,
}

impl Attacher {
    /// An empty table; `waker` is used when [`Self::studied`] has something to do. `findings` is what is
    /// known of files already.
    ///
    /// # Errors
    /// When there can be no thread that studies.
    pub fn new(waker: Waker, findings: Findings) -> Result<Self, Error> {
        Ok(Self {
            targets: HashMap::new(),
            useless: HashSet::new(),
            own: fs::metadata("/proc/self/exe").ok().map(|metadata| FileId::of(&metadata)),
            study: Study::start(waker)?,
            findings,
            backlog: VecDeque::new(),
            studying: false,
        })
    }

    /// Sees to a file that process `pid` has mapped.
    pub fn mapped(&mut self, kernel: &mut Kernel, pid: u32, file: &MappedFile) -> Attached {
        let id = FileId { device: file.device, inode: file.inode };
        if self.useless.contains(&id) || self.own == Some(id) {
            return Attached::Useless;
        }
        if let Some(target) = self.targets.get_mut(&id) {
            target.users.insert(pid);
            target.unused_since = None;
            return Attached::Already;
        }
        let Some((reachable, opened)) = reach(pid, file) else {
            return Attached::Failed { path: file.path.clone(), why: "the process or the file is gone".into() };
        };
        let (found, unknown) = match self.glance(id, &opened) {
            Ok(glanced) => glanced,
            Err(error) => return self.unreadable(id, reachable, &error),
        };
        self.targets.insert(id, Target::new(file.path.clone(), Some(pid)));
        let study = unknown && self.backlog.len() < BACKLOG_MAX;
        if study {
            let keep = self.backlog.len() < BACKLOG_OPEN_MAX;
            let reached = keep.then(|| opened.try_clone().ok()).flatten().map(|opened| (reachable, opened));
            self.backlog.push_back(Waiting { id, file: file.clone(), reached });
        }
        let attached = self.attach(kernel, id, &opened, found, !study);
        self.study_next();
        attached
    }

    /// Puts probes on a file whether or not something maps it, and keeps them. Takes as long as it
    /// takes to find them.
    pub fn pin(&mut self, kernel: &mut Kernel, path: &Path) -> Attached {
        let failed = |why: std::io::Error| Attached::Failed { path: path.to_owned(), why: why.to_string() };
        let opened = match File::open(path) {
            Ok(opened) => opened,
            Err(error) => return failed(error),
        };
        let id = match opened.metadata() {
            Ok(metadata) => FileId::of(&metadata),
            Err(error) => return failed(error),
        };
        if let Some(target) = self.targets.get_mut(&id) {
            target.pinned = true;
            return Attached::Already;
        }
        let found = self.glance(id, &opened).and_then(|(found, unknown)| {
            if !unknown {
                return Ok(found);
            }
            let before = Identity::of(id.device, &opened);
            let studied = study(&opened)?;
            self.learn(before, id, &opened, &studied);
            Ok(found.and(studied.finding))
        });
        match found {
            Ok(found) => {
                self.targets.insert(id, Target::new(path.to_owned(), None));
                self.attach(kernel, id, &opened, found, true)
            }
            Err(error) => self.unreadable(id, path.to_owned(), &error),
        }
    }

    /// What can be told of a file at once, and whether it has to be studied for more.
    fn glance(&mut self, id: FileId, opened: &File) -> Result<(Finding, bool), image::Error> {
        let (found, build_id) = examine(opened, |image| {
            let build_id: Option<Box<[u8]>> = image.build_id().map(Box::from);
            Ok((families::find(image, Effort::Glance)?, build_id))
        })?;
        if !is_worthwhile(opened) {
            return Ok((found, false));
        }
        let identity = Identity::of(id.device, opened);
        Ok(match identity.and_then(|identity| self.findings.of(&identity, build_id.as_deref(), opened)) {
            Some(known) => (found.and(known), false),
            None => (found, true),
        })
    }

    /// Remembers what was found in a file, unless it has changed since `before`.
    fn learn(&mut self, before: Option<Identity>, id: FileId, opened: &File, studied: &Studied) {
        if let Some(identity) = before.filter(|before| Identity::of(id.device, opened) == Some(*before)) {
            self.findings.learn(identity, studied.build_id.as_deref(), opened, &studied.finding);
        }
    }

    /// Sees to the files that have been studied since the last time.
    pub fn studied(&mut self, kernel: &mut Kernel) -> Vec<Attached> {
        let mut attached = Vec::new();
        while let Some((subject, found)) = self.study.result() {
            self.studying = false;
            if let Ok(studied) = &found {
                self.learn(Some(subject.identity), subject.id, &subject.file, studied);
            }
            // Nothing may map it any more.
            if self.targets.contains_key(&subject.id) {
                attached.push(match found {
                    Ok(found) => self.attach(kernel, subject.id, &subject.file, found.finding, true),
                    Err(error) => self.unreadable(subject.id, subject.path, &error),
                });
            }
            self.study_next();
        }
        if !self.studying
            && let Some((folder, text)) = self.findings.to_save()
        {
            self.study.save(folder, text);
        }
        attached
    }

    /// Files wait to be studied.
    pub fn is_studying(&self) -> bool {
        self.studying
    }

    /// Has the next file studied that can still be reached.
    fn study_next(&mut self) {
        while !self.studying
            && let Some(Waiting { id, file, reached }) = self.backlog.pop_front()
        {
            let Some(target) = self.targets.get(&id) else { continue };
            let reached = reached.or_else(|| target.users.iter().find_map(|&pid| reach(pid, &file)));
            let identified = reached.and_then(|(path, opened)| Some((path, Identity::of(id.device, &opened)?, opened)));
            let Some((path, identity, file)) = identified else {
                // It is looked at again when something maps it again.
                if target.functions == 0 {
                    self.targets.remove(&id);
                }
                continue;
            };
            self.studying = self.study.ask(Subject { id, file, identity, path });
        }
    }

    /// Puts what was found in a file on it; `last` when nothing more can be found in it.
    fn attach(&mut self, kernel: &mut Kernel, id: FileId, opened: &File, found: Finding, last: bool) -> Attached {
        let with_probes = self.with_probes();
        let Some(target) = self.targets.get_mut(&id) else { return Attached::Useless };
        let path = target.path.clone();
        let attached = if found.placements.is_empty() {
            match found.remark {
                Some(why) => Attached::Unclear { path, why },
                None if last => Attached::Useless,
                None => Attached::Later,
            }
        } else if with_probes >= TARGETS_MAX && target.functions == 0 {
            Attached::TooMany { path }
        } else {
            match kernel.attach(opened, &cheaper(opened, found.placements)) {
                Ok(links) => {
                    target.links.extend(links);
                    target.functions += found.functions;
                    Attached::New {
                        path,
                        functions: found.functions,
                        unseen: if target.pinned { Duration::ZERO } else { target.since.elapsed() },
                        remark: found.remark,
                    }
                }
                Err(error) => Attached::Failed { path, why: error.to_string() },
            }
        };
        if last && target.functions == 0 {
            self.targets.remove(&id);
            if matches!(attached, Attached::Useless | Attached::Unclear { .. }) {
                self.set_useless(id);
            }
        }
        attached
    }

    fn unreadable(&mut self, id: FileId, path: PathBuf, error: &image::Error) -> Attached {
        if self.targets.get(&id).is_some_and(|target| target.functions == 0) {
            self.targets.remove(&id);
        }
        // What is no ELF file doesn't become one.
        if matches!(error, image::Error::Elf(_)) {
            self.set_useless(id);
            return Attached::Useless;
        }
        Attached::Failed { path, why: error.to_string() }
    }

    fn set_useless(&mut self, id: FileId) {
        if self.useless.len() >= USELESS_MAX {
            self.useless.clear();
        }
        self.useless.insert(id);
    }

    fn with_probes(&self) -> usize {
        self.targets.values().filter(|target| target.functions > 0).count()
    }

    /// Process `pid` ended or became another program: its mappings are gone. True when a file with
    /// probes was among them.
    pub fn unmapped(&mut self, pid: u32, now: Instant) -> bool {
        let mut any = false;
        for target in self.targets.values_mut() {
            if target.users.remove(&pid) {
                any |= target.functions > 0;
                if target.users.is_empty() {
                    target.unused_since = Some(now);
                }
            }
        }
        any
    }

    /// Takes the probes off files that nothing has mapped for a while. Returns their paths.
    pub fn detach_unused(&mut self, now: Instant) -> Vec<PathBuf> {
        let (mut detached, mut links) = (Vec::new(), Vec::new());
        self.targets.retain(|id, target| {
            let unused = target.unused_since.is_some_and(|since| now.duration_since(since) >= LINGER);
            // Events may have been lost, so the table is not believed without a look.
            let keep = target.pinned || !unused || {
                target.users = users_of(*id);
                target.unused_since = target.users.is_empty().then_some(now - LINGER);
                !target.users.is_empty()
            };
            if !keep && target.functions > 0 {
                detached.push(target.path.clone());
                links.append(&mut target.links);
            }
            keep
        });
        uprobes::detach_beside(links);
        detached
    }

    /// Files with probes: path, functions found, processes that map it.
    pub fn targets(&self) -> impl Iterator<Item = (&Path, usize, usize)> {
        let with_probes = self.targets.values().filter(|target| target.functions > 0);
        with_probes.map(|target| (target.path.as_path(), target.functions, target.users.len()))
    }

    /// Takes all probes off.
    pub fn detach_all(&mut self) {
        uprobes::detach(self.targets.drain().flat_map(|(_, target)| target.links).collect());
        self.backlog.clear();
    }
}

impl Target {
    fn new(path: PathBuf, user: Option<u32>) -> Self {
        let pinned = user.is_none();
        let users = user.into_iter().collect();
        Self { path, functions: 0, links: Vec::new(), users, since: Instant::now(), pinned, unused_since: None }
    }
}

/// Opens the very file that process `pid` has mapped. Its path may lead to another file by now; then
/// the mapping itself still leads there.
fn reach(pid: u32, file: &MappedFile) -> Option<(PathBuf, File)> {
    let through_process = file.reachable_as(pid).into_iter().find_map(|path| {
        let opened = open(&path)?;
        (opened.metadata().ok()?.ino() == file.inode).then_some((path, opened))
    });
    // A process that lives for some milliseconds is gone by now, but its program will be started again. Where
    // its files were this one's too, the path still leads there.
    through_process.or_else(|| {
        let opened = open(&file.path)?;
        let wanted = FileId { device: file.device, inode: file.inode };
        (FileId::of(&opened.metadata().ok()?) == wanted).then(|| (file.path.clone(), opened))
    })
}

/// Opens what a process says that it has mapped, without waiting for a writer should it be a pipe by now.
fn open(path: &Path) -> Option<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()
}

fn users_of(id: FileId) -> HashSet<u32> {
    process::all()
        .unwrap_or_default()
        .into_iter()
        .filter(|&pid| {
            process::executable_mappings(pid).iter().any(|file| FileId { device: file.device, inode: file.inode } == id)
        })
        .collect()
}

/// What files of TLS libraries are called; others are found when something maps them.
const LIBRARIES: [&str; 4] = ["/libssl.so.", "/libgnutls.so.", "/libssl3.so", "/libnspr4.so"];

/// TLS libraries that the system's programs load: those that the dynamic linker knows. Probing them
/// before anything maps them lets a program that starts later be seen from its first byte.
pub fn system_libraries() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read("/etc/ld.so.cache")
        .map(|cache| {
            cache
                .split(|&byte| byte == 0)
                .filter_map(|text| std::str::from_utf8(text).ok())
                .filter(|text| text.starts_with('/') && LIBRARIES.iter().any(|name| text.contains(name)))
                .filter_map(|text| std::fs::canonicalize(text).ok())
                .collect()
        })
        .unwrap_or_default();
    found.sort();
    found.dedup();
    found
}
