//! Which processes are captured.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use agentsight_abi::config::filter;

use super::wanted::Wanted;

/// Kinds of filters: a process passes when its pid or its name is chosen (or neither kind is given),
/// and its user is, and its cgroup is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Process ids.
    pub pids: Vec<u32>,
    /// Names of the calling thread, as in /proc/PID/comm.
    pub comms: Vec<String>,
    /// Real user ids.
    pub uids: Vec<u32>,
    /// Cgroup ids; a process in a cgroup below one of them is chosen too.
    pub cgroups: Vec<u64>,
    /// Containers and pods, whose cgroups are found while running.
    pub containers: Vec<Wanted>,
    /// Only processes that are added while running: the command and its descendants.
    pub by_command: bool,
    /// Sides of connections that are left out, bits of [`agentsight_abi::config::unwanted`].
    pub unwanted_sides: u32,
}

impl Selection {
    /// The bits that the programs check.
    pub fn filters(&self) -> u32 {
        let mut filters = 0;
        // Names select processes by pid too, once the engine has looked them up.
        if self.by_command || !self.pids.is_empty() || !self.comms.is_empty() {
            filters |= filter::TGID;
        }
        if !self.comms.is_empty() {
            filters |= filter::COMM;
        }
        if !self.uids.is_empty() {
            filters |= filter::UID;
        }
        if !self.cgroups.is_empty() || !self.containers.is_empty() {
            filters |= filter::CGROUP;
        }
        filters
    }
}

/// A name as the kernel keeps it: at most 15 bytes, then NULs (TASK_COMM_LEN, linux/sched.h).
pub fn comm_key(comm: &str) -> [u8; 16] {
    let mut key = [0; 16];
    let len = comm.len().min(15);
    key[..len].copy_from_slice(&comm.as_bytes()[..len]);
    key
}

/// The id of a cgroup: a number as is, or a directory below /sys/fs/cgroup, whose inode number it is.
///
/// # Errors
/// When there is no such directory.
pub fn cgroup_id(text: &str) -> io::Result<u64> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let relative = text.trim_start_matches('/');
    ["/", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .find_map(|base| fs::metadata(Path::new(base).join(relative)).ok())
        .map(|metadata| metadata.ino())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no cgroup `{text}`: give its path below /sys/fs/cgroup, or its id"),
            )
        })
}

/// The id of the cgroup at this path of the v2 hierarchy, as /proc/PID/cgroup gives it. Where both versions
/// are mounted, v2 is at `unified`.
///
/// # Errors
/// When there is no such directory.
pub fn cgroup_id_at(path: &str) -> io::Result<u64> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .iter()
        .find_map(|base| fs::metadata(Path::new(base).join(path.trim_start_matches('/'))).ok())
        .map(|metadata| metadata.ino())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no cgroup {path} below /sys/fs/cgroup")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_follow_from_what_is_chosen() {
        assert_eq!(Selection::default().filters(), 0);
        let by_comm = Selection { comms: vec!["curl".into()], ..Selection::default() };
        assert_eq!(by_comm.filters(), filter::TGID | filter::COMM);
        let all = Selection { pids: vec![1], uids: vec![0], cgroups: vec![1], ..Selection::default() };
        assert_eq!(all.filters(), filter::TGID | filter::UID | filter::CGROUP);
    }

    #[test]
    fn names_are_cut_as_the_kernel_cuts_them() {
        assert_eq!(&comm_key("curl")[..5], b"curl\0");
        assert_eq!(&comm_key("a-name-that-is-too-long"), b"a-name-that-is-\0");
    }
}
