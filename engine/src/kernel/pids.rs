//! How processes are numbered: by the kernel in the first pid namespace, and in another one of its own as
//! this program sees them.

use agentsight_abi::pid::{PID_LAYOUT_WORDS, PidLayout};

use super::{
    btf::Btf,
    sockets::{BTF, Unavailable},
};

/// Number of the first pid namespace, `PROC_PID_INIT_INO` in linux/proc_ns.h.
const FIRST_NAMESPACE: u32 = 0xefff_fffc;

/// What the programs have to know to number processes as this program does; the default when they do
/// anyway.
///
/// # Errors
/// What is missing.
pub fn layout() -> Result<PidLayout, Unavailable> {
    use std::os::unix::fs::MetadataExt as _;
    let namespace = std::fs::metadata("/proc/self/ns/pid").ok().and_then(|metadata| metadata.ino().try_into().ok());
    match namespace {
        None | Some(FIRST_NAMESPACE) => Ok(PidLayout::default()),
        Some(namespace) => {
            let bytes = std::fs::read(BTF).map_err(Unavailable::Btf)?;
            layout_of(&Btf::parse(&bytes).ok_or(Unavailable::Field("structures that can be read"))?, namespace)
        }
    }
}

fn layout_of(btf: &Btf<'_>, namespace: u32) -> Result<PidLayout, Unavailable> {
    let of = |structure: &'static str, path: &[&'static str]| {
        btf.offset(structure, path).ok_or(Unavailable::Field(path.last().copied().unwrap_or(structure)))
    };
    Ok(PidLayout {
        namespace,
        leader: of("task_struct", &["group_leader"])?,
        pid: of("task_struct", &["thread_pid"])?,
        level: of("pid", &["level"])?,
        numbers: of("pid", &["numbers"])?,
        number: of("upid", &["nr"])?,
        number_namespace: of("upid", &["ns"])?,
        inode: of("pid_namespace", &["ns", "inum"])?,
    })
}

/// The layout as the words that the loader takes.
pub fn words(layout: &PidLayout) -> [u32; PID_LAYOUT_WORDS] {
    let PidLayout { namespace, leader, pid, level, numbers, number, number_namespace, inode } = *layout;
    [namespace, leader, pid, level, numbers, number, number_namespace, inode]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_a_layout() {
        let Ok(bytes) = std::fs::read(BTF) else { return };
        let layout = layout_of(&Btf::parse(&bytes).unwrap(), 7).unwrap();
        assert_eq!(words(&layout)[..2], [7, layout.leader]);
        assert!(layout.pid > 0 && layout.numbers > layout.level, "{layout:?}");
    }
}
