//! Batches on disk: what a collector that is away or slow has not taken yet.
//!
//! ```text
//! append ──► the newest segment … … the oldest segment ──► front ──► done: the cursor moves past it
//!              FOLDER/NUMBER-MARK.spool                                FOLDER/cursor
//! ```
//!
//! A segment is a file of records, each a header of 64 bytes and a batch, both with a checksum. It
//! is appended to by one run only and removed when everything in it is done. What is damaged is
//! passed over to the next sound record. When there is no room, or when it is too old, the oldest
//! goes first. Whatever is lost is told as [`Losses`].
//!
//! The way down: `keeper` is the thread that waits for the disk, so that nobody else has to;
//! `store` is the order of things; `segment` and `record` are the files; `folder` says where.

mod age;
mod cursor;
#[cfg(any(test, feature = "fuzz"))]
pub mod exercise;
mod folder;
mod keeper;
mod record;
mod segment;
mod store;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

pub use self::{
    age::Stamp,
    folder::{Folder, FolderError, default_folder},
    keeper::{Event, Spool},
    record::{Encoding, HEADER_BYTES},
    store::{Batch, Front, Left, Losses, Store},
};

/// Where batches are kept, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder. It is created when there is something to keep.
    pub folder: PathBuf,
    /// What is kept.
    pub bounds: Bounds,
    /// When what is written has to be on the disk.
    pub sync: Sync,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// All segments together.
    pub bytes_max: u64,
    /// From when a batch was written on.
    pub age_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes_max: crate::limits::SPOOL_BYTES_DEFAULT, age_max: Duration::from_secs(72 * 60 * 60) }
    }
}

/// When what is written has to be on the disk, so that it outlives a crash of the machine. A crash
/// of the engine alone loses nothing that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sync {
    /// Before it counts as written.
    Always,
    /// Within a second.
    #[default]
    Interval,
    /// When the system sees fit.
    Never,
}
