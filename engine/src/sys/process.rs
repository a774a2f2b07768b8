//! What /proc says of processes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agentsight_abi::pid::OUTSIDE;

use super::container;
use crate::exchange::Process;

/// Name and container of a process by the number in its records; what can't be read is left out.
pub fn describe(pid: u32) -> Process {
    let executable = fs::read_link(format!("/proc/{pid}/exe")).ok().and_then(|path| {
        let name = path.file_name()?.to_str()?;
        Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
    });
    let container = container::of(pid);
    let names = container.as_ref().map(|container| container.names(Path::new("/"))).unwrap_or_default();
    let (container_id, pod_uid) = container.map(|container| (container.id, container.pod_uid)).unzip();
    Process {
        pid: pid & !OUTSIDE,
        executable,
        container_id,
        container_name: names.container,
        pod_uid: pod_uid.flatten(),
        pod_name: names.pod,
        pod_namespace: names.namespace,
    }
}

/// All processes at this moment.
///
/// # Errors
/// When /proc can't be read.
pub fn all() -> io::Result<Vec<u32>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The name of a process's main thread.
pub fn comm(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|comm| comm.trim_end().to_owned())
}

/// True while the process has a thread that is not dead.
pub fn is_alive(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().any(|task| {
        // The state is the first field after the name in parentheses, proc_pid_stat(5).
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { return false };
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        !matches!(state, None | Some('Z' | 'X' | 'x'))
    })
}

/// A file that a process has mapped executable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MappedFile {
    /// Device, major and minor.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
    /// First address of the mapping.
    pub start: u64,
    /// First address after the mapping.
    pub end: u64,
    /// Path as the process sees it.
    pub path: PathBuf,
}

impl MappedFile {
    /// Paths that lead to this very file from here: through the process's own root, which covers
    /// other mount namespaces, and through the mapping itself, which covers deleted files.
    pub fn reachable_as(&self, pid: u32) -> [PathBuf; 2] {
        let relative = self.path.strip_prefix("/").unwrap_or(&self.path);
        [
            Path::new("/proc").join(pid.to_string()).join("root").join(relative),
            PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", self.start, self.end)),
        ]
    }
}

/// Executable file mappings of a process, proc_pid_maps(5). Empty when it is gone.
pub fn executable_mappings(pid: u32) -> Vec<MappedFile> {
    let Ok(maps) = fs::read(format!("/proc/{pid}/maps")) else { return Vec::new() };
    String::from_utf8_lossy(&maps).lines().filter_map(parse_mapping).collect()
}

fn parse_mapping(line: &str) -> Option<MappedFile> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    if fields.next()?.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let (major, minor) = fields.nth(1)?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    let path = fields.next()?.trim_start();
    if inode == 0 || !path.starts_with('/') {
        return None;
    }
    Some(MappedFile {
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode,
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        path: PathBuf::from(path.strip_suffix(" (deleted)").unwrap_or(path)),
    })
}

/// The user as whom this process acts.
#[expect(unsafe_code, reason = "geteuid has no safe wrapper in the standard library")]
pub fn effective_user() -> u32 {
    // SAFETY: no pointers, and it can't fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read() {
        let line = "7f0c2a000000-7f0c2a05b000 r-xp 0001f000 fe:00 1234                       /usr/lib/libssl.so.3";
        let file = parse_mapping(line).unwrap();
        assert_eq!((file.device, file.inode, file.start), ((0xfe, 0), 1234, 0x7f0c_2a00_0000));
        assert_eq!(file.path, Path::new("/usr/lib/libssl.so.3"));
        assert_eq!(parse_mapping(&line.replace("r-xp", "r--p")), None);
        assert_eq!(parse_mapping("7ffd-7ffe r-xp 00000000 00:00 0    [vdso]"), None);
        let own = executable_mappings(std::process::id());
        assert!(!own.is_empty());
        assert!(own.iter().all(|file| file.reachable_as(std::process::id())[0].exists()));
    }

    #[test]
    fn this_process_is_alive_and_has_a_name() {
        let pid = std::process::id();
        assert!(is_alive(pid) && all().unwrap().contains(&pid));
        assert!(describe(pid).executable.is_some());
        assert!(!is_alive(u32::MAX));
    }
}
