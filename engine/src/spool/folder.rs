//! The folder of a spool: made for its owner alone, and used by one engine at a time.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::sys::folder::{self, Kind};

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
    /// What is in it can't be opened.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It can't be made, or others could put files there that would be sent.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Every share of it is in use.
    #[error("{SHARES_MAX} engines use it already")]
    InUse,
}

impl Folder {
    /// Takes `path`, or when another engine has it, a folder in it that nobody has.
    pub fn claim(path: &Path) -> Result<Self, FolderError> {
        folder::make(path)?;
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
        folder::make(&path)?;
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

/// Where spools are by convention. `None` when there is no such place.
pub fn default_folder() -> Option<PathBuf> {
    Some(folder::by_convention(Kind::State)?.join("spool"))
}
