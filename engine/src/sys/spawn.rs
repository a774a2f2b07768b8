//! Running a command as the user who called sudo, with the limits that this process was started with.

use std::{
    ffi::{CStr, CString},
    io,
    os::unix::process::CommandExt as _,
    process::Command,
    sync::OnceLock,
};

/// How many files this process might have open when it was started.
static OPEN_FILES: OnceLock<libc::rlimit> = OnceLock::new();

/// Lets this process have as many files open as it is allowed to: a file with probes takes up to twenty,
/// and the usual limit of 1024 is there for programs that use select(2). Where it is refused the limit stays.
#[expect(unsafe_code, reason = "getrlimit and setrlimit")]
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && OPEN_FILES.set(limit).is_ok() {
            libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: limit.rlim_max, ..limit });
        }
    }
}

/// Gives `command` the limit that this process was started with.
#[expect(unsafe_code, reason = "limits have to be set between fork and exec")]
pub fn with_open_files_as_before(command: &mut Command) {
    let Some(&limit) = OPEN_FILES.get() else { return };
    // SAFETY: between fork and exec only a system call is made, whose argument the closure owns.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// When this process was started through sudo, makes `command` run as the user who called it.
#[expect(unsafe_code, reason = "the groups of a user have to be set between fork and exec")]
pub fn as_invoking_user(command: &mut Command) {
    let id = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    // SAFETY: a plain query.
    let is_root = unsafe { libc::geteuid() } == 0;
    let (Some(uid), Some(gid), Ok(user)) = (id("SUDO_UID"), id("SUDO_GID"), std::env::var("SUDO_USER")) else { return };
    if !is_root || uid == 0 {
        return;
    }
    let Ok(user) = CString::new(user) else { return };
    // sudo keeps the caller's name apart from root's; the command's own environment is the caller's.
    if let Ok(name) = user.to_str() {
        command.env("USER", name).env("LOGNAME", name);
    }
    if let Some(home) = home_of(uid) {
        command.env("HOME", home);
    }
    let groups = groups_of(&user, gid);
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(move || {
            let done =
                libc::setgroups(groups.len(), groups.as_ptr()) == 0 && libc::setgid(gid) == 0 && libc::setuid(uid) == 0;
            if done { Ok(()) } else { Err(io::Error::last_os_error()) }
        });
    }
}

/// All groups of a user, looked up before the fork because that allocates.
#[expect(unsafe_code, reason = "getgrouplist")]
fn groups_of(user: &CStr, gid: u32) -> Vec<libc::gid_t> {
    let mut groups = vec![gid; 256];
    let mut count = groups.len() as libc::c_int;
    // SAFETY: the array has as many elements as `count` says, and the name ends in NUL.
    let found = unsafe { libc::getgrouplist(user.as_ptr(), gid, groups.as_mut_ptr(), &mut count) };
    // With more groups than there is room for, the first ones have to do.
    groups.truncate(if found < 0 { 256 } else { usize::try_from(count).unwrap_or(1) });
    groups
}

fn home_of(uid: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields.get(5).map(|home| (*home).to_owned()))?
    })
}

/// Asks a process that this one started to end.
#[expect(unsafe_code, reason = "kill")]
pub fn terminate(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: no pointers; the process is a child that has not been waited for, so its id is its.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}
