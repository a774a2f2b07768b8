//! Folders of the engine's own: where they are by convention, and that nobody else may write there.

use std::{
    env,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use super::process::effective_user;

/// What a folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What must not be lost.
    State,
    /// What can be made again.
    Cache,
}

/// Why a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be made or looked at.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Others could put files there, or take away what is kept.
    #[error("it belongs to another user, or others may write to it: use a folder of mode 0700")]
    NotOurs,
}

/// Where the engine's folders of a kind are: in what systemd gives a service, in `/var/lib` or
/// `/var/cache` for root, else where the user's are. `None` when there is none of these.
pub fn by_convention(kind: Kind) -> Option<PathBuf> {
    let (of_service, of_root, of_user, in_home) = match kind {
        Kind::State => ("STATE_DIRECTORY", "/var/lib/agentsight", "XDG_STATE_HOME", ".local/state"),
        Kind::Cache => ("CACHE_DIRECTORY", "/var/cache/agentsight", "XDG_CACHE_HOME", ".cache"),
    };
    let absolute = |path: PathBuf| Some(path).filter(|path| path.is_absolute());
    let variable = |name| env::var_os(name).map(PathBuf::from).and_then(absolute);
    let first = |list: String| list.split(':').next().map(PathBuf::from);
    if let Some(folder) = env::var(of_service).ok().and_then(first).and_then(absolute) {
        return Some(folder);
    }
    if effective_user() == 0 {
        return Some(PathBuf::from(of_root));
    }
    let folder = variable(of_user).or_else(|| Some(variable("HOME")?.join(in_home)))?;
    Some(folder.join("agentsight"))
}

/// Makes a folder, for its owner alone, with all above it.
///
/// # Errors
/// When it can't be made, or is one that others may write to.
pub fn make(path: &Path) -> Result<(), Error> {
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
        return Err(Error::NotOurs);
    }
    Ok(())
}
