//! The floor: programs that do nothing, attached as agentsight attaches its own (Linux 6.6).

use std::{
    ffi::CString,
    fs::File,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use agentsight::{
    kernel::{attach::system_libraries, image::examine, uprobes},
    sys::bpf,
};
use anyhow::{Context as _, ensure};

/// The functions whose calls agentsight sees; each gets an entry and a return probe.
const FUNCTIONS: [&str; 4] = ["SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex"];

/// Probes that do nothing; they go when this is dropped.
pub struct Empty {
    links: Vec<uprobes::Link>,
}

impl Empty {
    /// Puts an empty program on entry and return of the functions of each system TLS library, at their
    /// first instructions.
    pub fn attach() -> anyhow::Result<Self> {
        let program = program()?;
        let mut links = Vec::new();
        for path in system_libraries() {
            let offsets = examine(&File::open(&path)?, |image| image.functions(&FUNCTIONS))?;
            let offsets: Vec<u64> = offsets.into_iter().flatten().collect();
            let name = CString::new(path.as_os_str().as_bytes())?;
            for on_return in [true, false] {
                if !offsets.is_empty() {
                    let link = bpf::link(program.as_fd(), &name, &offsets, on_return)
                        .with_context(|| format!("an empty program on {}", path.display()))?;
                    links.push(uprobes::Link::Together(link));
                }
            }
        }
        ensure!(!links.is_empty(), "this machine has no libssl that the dynamic linker knows");
        Ok(Self { links })
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        uprobes::detach(std::mem::take(&mut self.links));
    }
}

/// The program.
pub fn program() -> anyhow::Result<OwnedFd> {
    bpf::nothing().context("an empty BPF program is refused: measuring needs root and Linux 6.6")
}
