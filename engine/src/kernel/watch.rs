//! Notices processes as they map libraries, become other programs and end.

use std::{
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use super::{Error, cpu_count};
use crate::sys::{
    perf_event::{ProcessEvent, ProcessEvents},
    process::MappedFile,
};

/// What happened, in the engine's terms.
#[derive(Debug)]
pub enum Happening {
    /// A process mapped a file executable.
    Mapped(u32, MappedFile),
    /// A process became another program, with this name.
    Exec(u32, String),
    /// A thread of a process ended.
    Exit {
        /// Process.
        pid: u32,
        /// Thread.
        tid: u32,
    },
    /// Something was lost: look at everything again.
    Lost,
}

/// Process events of all CPUs.
pub struct Watch {
    cpus: Vec<ProcessEvents>,
}

impl Watch {
    /// Begins watching.
    ///
    /// # Errors
    /// When no CPU's events can be had.
    pub fn start() -> Result<Self, Error> {
        let mut cpus = Vec::new();
        let mut failure = None;
        for cpu in 0..cpu_count() {
            match ProcessEvents::open(cpu) {
                Ok(events) => cpus.push(events),
                // A CPU that is possible but not online has no events.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if cpus.is_empty() => Err(Error::Watch(error)),
            _ => Ok(Self { cpus }),
        }
    }

    /// Descriptors to wait for.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.cpus.iter().map(ProcessEvents::fd)
    }

    /// Hands over what has happened.
    pub fn drain(&mut self, mut each: impl FnMut(Happening)) {
        for cpu in &mut self.cpus {
            cpu.drain(|event| {
                if let Some(happening) = translate(event) {
                    each(happening);
                }
            });
        }
    }
}

fn translate(event: ProcessEvent<'_>) -> Option<Happening> {
    match event {
        ProcessEvent::Mapped { pid, start, len, device, inode, path } => {
            // `[vdso]`, `//anon` and the like are no files.
            let path =
                std::str::from_utf8(path).ok().filter(|path| path.starts_with('/') && !path.starts_with("//"))?;
            let path = Path::new(path.strip_suffix(" (deleted)").unwrap_or(path));
            let end = start.saturating_add(len);
            Some(Happening::Mapped(pid, MappedFile { device, inode, start, end, path: PathBuf::from(path) }))
        }
        ProcessEvent::Exec { pid, comm } => Some(Happening::Exec(pid, String::from_utf8_lossy(comm).into_owned())),
        ProcessEvent::Exit { pid, tid } => Some(Happening::Exit { pid, tid }),
        ProcessEvent::Lost => Some(Happening::Lost),
    }
}
