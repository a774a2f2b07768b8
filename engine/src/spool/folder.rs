//! The folder of a spool: made for its owner alone, and used by one engine at a time.

use std::{
    env,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::sys::process::effective_user;

/// Engines that can have a spool in one folder at the same time.
const SHARES_MAX: u32 = 16;

/// A folder that nobody else uses as long as this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Locked.
    _lock: File,
}

/// Why a folder can't be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// It can't be made or opened.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Others could put files there that would be sent, or take away what is kept.
    #[error("it belongs to another user, or others may write to it: use a folder of mode 0700")]
    NotOurs,
    /// Every share of it is in use.
    #[error("{SHARES_MAX} engines use it already")]
    InUse,
}

impl Folder {
    /// Takes `path`, or when another engine has it, a folder in it that nobody has.
    pub fn claim(path: &Path) -> Result<Self, FolderError> {
        make(path)?;
        for share in 1..=SHARES_MAX {
            if let Some(folder) = Self::lock(share_path(path, share))? {
                return Ok(folder);
            }
        }
        Err(FolderError::InUse)
    }

    /// Folders in `path` that an engine used that is gone, and where it may have left something.
    pub fn abandoned(path: &Path) -> impl Iterator<Item = Self> {
        let shares = (2..=SHARES_MAX).map(|share| share_path(path, share)).filter(|path| path.is_dir());
        shares.filter_map(|path| Self::lock(path).ok().flatten())
    }

    /// `None` when somebody else has it.
    fn lock(path: PathBuf) -> Result<Option<Self>, FolderError> {
        make(&path)?;
        let lock = open(&path.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens or creates a file in it.
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        open(&self.path.join(name))
    }

    /// Brings the names in it to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

fn share_path(path: &Path, share: u32) -> PathBuf {
    if share == 1 { path.to_owned() } else { path.join(share.to_string()) }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path)
}

/// Makes the folder, for its owner alone, with all above it.
fn make(path: &Path) -> Result<(), FolderError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let is = fs::metadata(path)?;
    if !is.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory).into());
    }
    if is.uid() != effective_user() || is.permissions().mode() & 0o022 != 0 {
        return Err(FolderError::NotOurs);
    }
    Ok(())
}

/// Where spools are by convention: in what systemd gives a service, in `/var/lib` for root, else in
/// the user's state folder. `None` when there is none of these.
pub fn default_folder() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(state) = env::var("STATE_DIRECTORY").ok().and_then(|list| list.split(':').next().map(PathBuf::from))
        && state.is_absolute()
    {
        return Some(state.join("spool"));
    }
    if effective_user() == 0 {
        return Some(PathBuf::from("/var/lib/agentsight/spool"));
    }
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    Some(state.join("agentsight/spool"))
}
