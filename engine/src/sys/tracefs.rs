//! Tracepoint descriptions, read from a tracefs that is mounted nowhere.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::AsRawFd as _,
};

use super::owned;

/// What a tracepoint's `format` says.
#[derive(Debug, PartialEq, Eq)]
pub struct Tracepoint {
    /// Its id, for perf_event_open(2).
    pub id: u64,
    format: String,
}

impl Tracepoint {
    /// Looks up `category`/`name`.
    ///
    /// # Errors
    /// When there is no tracefs, or no such tracepoint.
    pub fn find(category: &str, name: &str) -> io::Result<Self> {
        let path = format!("events/{category}/{name}/format");
        let format = match std::fs::read_to_string(format!("/sys/kernel/tracing/{path}")) {
            Ok(format) => format,
            Err(_) => read_detached(&path)?,
        };
        Self::parse(format)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no ID in the tracepoint's format"))
    }

    fn parse(format: String) -> Option<Self> {
        let id = format.lines().find_map(|line| line.strip_prefix("ID:"))?.trim().parse().ok()?;
        Some(Self { id, format })
    }

    /// Offset in bytes of a field in what the program is given.
    pub fn offset(&self, field: &str) -> Option<u32> {
        self.format.lines().find_map(|line| {
            let mut parts = line.trim().split(';');
            let declaration = parts.next()?.strip_prefix("field:")?;
            let name = declaration.rsplit([' ', '*']).next()?.split('[').next()?;
            (name == field).then(|| parts.find_map(|part| part.trim().strip_prefix("offset:")?.parse().ok()))?
        })
    }
}

/// fsopen(2), fsconfig(2) and fsmount(2) give a file system without a place in the mount tree, so
/// that nothing has to be mounted, found by others, or cleaned up.
#[expect(unsafe_code, reason = "the mount calls have no wrappers")]
fn read_detached(path: &str) -> io::Result<String> {
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    // SAFETY: each call gets descriptors that are open and strings that end in NUL, and those whose
    // result is owned make a descriptor.
    let mount = unsafe {
        let context = owned(libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), 1))?;
        let nothing = std::ptr::null::<libc::c_char>();
        let made = libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, nothing, nothing, 0);
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        owned(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, 0))?
    };
    let path = std::ffi::CString::new(path)?;
    // SAFETY: as above.
    let file =
        unsafe { owned(libc::openat(mount.as_raw_fd(), path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC).into())? };
    let mut text = String::new();
    File::from(file).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_from_a_format() {
        let format = "name: sched_process_fork\nID: 318\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\tfield:char parent_comm[16];\toffset:8;\tsize:16;\tsigned:0;\n\tfield:pid_t child_pid;\toffset:44;\tsize:4;\tsigned:1;\n";
        let tracepoint = Tracepoint::parse(format.into()).unwrap();
        assert_eq!(tracepoint.id, 318);
        assert_eq!(tracepoint.offset("child_pid"), Some(44));
        assert_eq!(tracepoint.offset("parent_comm"), Some(8));
        assert_eq!(tracepoint.offset("pid"), None);
    }
}
