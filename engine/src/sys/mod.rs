//! The system calls that the engine needs and no library wraps: one file each, all `unsafe` inside.

pub mod clock;
pub mod container;
pub mod disk;
pub mod folder;
pub mod memory;
pub mod perf_event;
pub mod process;
pub mod signals;
pub mod spawn;
pub mod tracefs;
pub mod wait;
