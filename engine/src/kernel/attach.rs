//! Which files the probes are on: each inode once, as long as something maps it.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::programs::uprobe::{UProbeLink, UProbeScope};

use super::{Error, HOOKS, Kernel, elf};
use crate::sys::process::{self, MappedFile};

/// A file that nothing maps any more keeps its probes for so long: the next start of a short-lived
/// program then finds them in place.
const LINGER: Duration = Duration::from_secs(30);

/// Files that were looked at and have nothing to probe; beyond it they are looked at again.
const USELESS_MAX: usize = 65_536;

/// Files with probes at once.
const TARGETS_MAX: usize = 1_024;

/// A file, as mappings name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FileId {
    device: (u32, u32),
    inode: u64,
}

struct Target {
    path: PathBuf,
    functions: usize,
    /// Detach when dropped.
    _links: Vec<UProbeLink>,
    users: HashSet<u32>,
    /// Chosen by the user or a system library: stays attached without users.
    pinned: bool,
    unused_since: Option<Instant>,
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
    },
    /// They were there already.
    Already,
    /// It has no TLS functions.
    Useless,
    /// There are too many files with probes.
    TooMany,
    /// It couldn't be read, or the kernel refused a probe.
    Failed {
        /// Path as it was found.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// The table of files with probes.
#[derive(Default)]
pub struct Attacher {
    targets: HashMap<FileId, Target>,
    useless: HashSet<FileId>,
}

impl Attacher {
    /// Sees to a file that process `pid` has mapped.
    pub fn mapped(&mut self, kernel: &mut Kernel, pid: u32, file: &MappedFile) -> Attached {
        let id = FileId { device: file.device, inode: file.inode };
        if self.useless.contains(&id) {
            return Attached::Useless;
        }
        if let Some(target) = self.targets.get_mut(&id) {
            target.users.insert(pid);
            target.unused_since = None;
            return Attached::Already;
        }
        // The path may lead to another file by now; then the mapping itself still leads there.
        let reached = file.reachable_as(pid).into_iter().find_map(|path| {
            let opened = File::open(&path).ok()?;
            (opened.metadata().ok()?.ino() == file.inode).then_some((path, opened))
        });
        let Some((reachable, opened)) = reached else {
            return Attached::Failed { path: file.path.clone(), why: "the process or the file is gone".into() };
        };
        self.attach(kernel, id, &file.path, &reachable, &opened, Some(pid))
    }

    /// Puts probes on a file whether or not something maps it, and keeps them.
    pub fn pin(&mut self, kernel: &mut Kernel, path: &Path) -> Attached {
        let failed = |why: std::io::Error| Attached::Failed { path: path.to_owned(), why: why.to_string() };
        let opened = match File::open(path) {
            Ok(opened) => opened,
            Err(error) => return failed(error),
        };
        let id = match opened.metadata() {
            Ok(metadata) => {
                let device = metadata.dev();
                FileId { device: (libc::major(device), libc::minor(device)), inode: metadata.ino() }
            }
            Err(error) => return failed(error),
        };
        if let Some(target) = self.targets.get_mut(&id) {
            target.pinned = true;
            return Attached::Already;
        }
        self.attach(kernel, id, path, path, &opened, None)
    }

    fn attach(
        &mut self,
        kernel: &mut Kernel,
        id: FileId,
        path: &Path,
        reachable: &Path,
        opened: &File,
        user: Option<u32>,
    ) -> Attached {
        let names: Vec<&str> = HOOKS.iter().map(|(function, ..)| *function).collect();
        let offsets = if elf::mentions(opened, "SSL_write") {
            match elf::function_offsets(opened, &names) {
                Ok(offsets) => offsets,
                Err(error) => return Attached::Failed { path: path.to_owned(), why: error.to_string() },
            }
        } else {
            Vec::new()
        };
        // Both have to be there: a library that merely wraps one of them isn't TLS.
        if !matches!(offsets[..], [Some(_), Some(_), ..]) {
            if self.useless.len() >= USELESS_MAX {
                self.useless.clear();
            }
            self.useless.insert(id);
            return Attached::Useless;
        }
        if self.targets.len() >= TARGETS_MAX {
            return Attached::TooMany;
        }
        // The descriptor names the very file that was looked at, whatever its path leads to now.
        let exact = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        let links = match links(kernel, &exact, &offsets) {
            Ok(links) => links,
            Err(error) => return Attached::Failed { path: reachable.to_owned(), why: error.to_string() },
        };
        let functions = offsets.iter().flatten().count();
        self.targets.insert(
            id,
            Target {
                path: path.to_owned(),
                functions,
                _links: links,
                users: user.into_iter().collect(),
                pinned: user.is_none(),
                unused_since: None,
            },
        );
        Attached::New { path: path.to_owned(), functions }
    }

    /// Process `pid` ended or became another program: its mappings are gone. True when a file with
    /// probes was among them.
    pub fn unmapped(&mut self, pid: u32, now: Instant) -> bool {
        let mut any = false;
        for target in self.targets.values_mut() {
            if target.users.remove(&pid) {
                any = true;
                if target.users.is_empty() {
                    target.unused_since = Some(now);
                }
            }
        }
        any
    }

    /// Takes the probes off files that nothing has mapped for a while. Returns their paths.
    pub fn detach_unused(&mut self, now: Instant) -> Vec<PathBuf> {
        let mut detached = Vec::new();
        self.targets.retain(|id, target| {
            let unused = target.unused_since.is_some_and(|since| now.duration_since(since) >= LINGER);
            // Events may have been lost, so the table is not believed without a look.
            let keep = target.pinned || !unused || {
                target.users = users_of(*id);
                target.unused_since = target.users.is_empty().then_some(now - LINGER);
                !target.users.is_empty()
            };
            if !keep {
                detached.push(target.path.clone());
            }
            keep
        });
        detached
    }

    /// Files with probes: path, functions found, processes that map it.
    pub fn targets(&self) -> impl Iterator<Item = (&Path, usize, usize)> {
        self.targets.values().map(|target| (target.path.as_path(), target.functions, target.users.len()))
    }
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

/// Returns before entries, so that no call is seen entering which can't be seen returning.
fn links(kernel: &mut Kernel, path: &Path, offsets: &[Option<u64>]) -> Result<Vec<UProbeLink>, Error> {
    let mut links = Vec::new();
    for (&(_, entry, ret), offset) in HOOKS.iter().zip(offsets) {
        let Some(offset) = *offset else { continue };
        for program in [ret, entry].into_iter().flatten() {
            let program = kernel.uprobe(program)?;
            let id = program.attach(offset, path, UProbeScope::AllProcesses)?;
            links.push(program.take_link(id)?);
        }
    }
    Ok(links)
}

/// TLS libraries that the system's programs load: those that the dynamic linker knows. Probing them
/// before anything maps them lets a program that starts later be seen from its first byte.
pub fn system_libraries() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read("/etc/ld.so.cache")
        .map(|cache| {
            cache
                .split(|&byte| byte == 0)
                .filter_map(|text| std::str::from_utf8(text).ok())
                .filter(|text| text.starts_with('/') && text.contains("/libssl.so."))
                .filter_map(|text| std::fs::canonicalize(text).ok())
                .collect()
        })
        .unwrap_or_default();
    found.sort();
    found.dedup();
    found
}
