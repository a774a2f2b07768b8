//! Plain sockets: what the programs have to know of the kernel, and where they attach.

use agentsight_abi::socket::{LAYOUT_WORDS, SocketLayout};
use aya::{Ebpf, programs::RawTracePoint};

use super::{Error, btf::Btf};

/// Where the kernel describes its types.
pub(super) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The programs, and the tracepoints that they are for. The first two are there from Linux 6.3 on.
const PROGRAMS: [(&str, &str); 3] = [
    ("socket_sent", "sock_send_length"),
    ("socket_received", "sock_recv_length"),
    ("socket_state", "inet_sock_set_state"),
];

/// Why something of the kernel can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No type information.
    #[error("{BTF}: {0} (the kernel needs CONFIG_DEBUG_INFO_BTF=y)")]
    Btf(std::io::Error),
    /// It has no such field, or can't be read.
    #[error("the kernel's type information has no {0}")]
    Field(&'static str),
}

/// Reads this kernel's layout. With the default layout instead, nothing is looked at.
///
/// # Errors
/// What is missing.
pub fn layout() -> Result<SocketLayout, Unavailable> {
    let bytes = std::fs::read(BTF).map_err(Unavailable::Btf)?;
    let btf = Btf::parse(&bytes).ok_or(Unavailable::Field("structures that can be read"))?;
    layout_of(&btf)
}

fn layout_of(btf: &Btf<'_>) -> Result<SocketLayout, Unavailable> {
    let sock = |field: &'static str| {
        btf.offset("sock", &["__sk_common", field])
            .or_else(|| btf.offset("sock", &[field]))
            .ok_or(Unavailable::Field(field))
    };
    let of =
        |structure: &'static str, field: &'static str| btf.offset(structure, &[field]).ok_or(Unavailable::Field(field));
    // A kernel may lack these families, or have them as modules.
    let family = |structure: &'static str, path: &[&str]| btf.offset(structure, path).unwrap_or(0);
    let inode = of("socket_alloc", "vfs_inode")?.checked_sub(of("socket_alloc", "socket")?);
    Ok(SocketLayout {
        enabled: 1,
        family: sock("skc_family")?,
        peer_port: sock("skc_dport")?,
        local_port: sock("skc_num")?,
        peer_v4: sock("skc_daddr")?,
        local_v4: sock("skc_rcv_saddr")?,
        peer_v6: sock("skc_v6_daddr").unwrap_or(0),
        local_v6: sock("skc_v6_rcv_saddr").unwrap_or(0),
        kind: sock("sk_type")?,
        shutdown: sock("sk_shutdown")?,
        socket: sock("sk_socket")?,
        socket_inode: inode.ok_or(Unavailable::Field("socket_alloc as it is known"))? + of("inode", "i_ino")?,
        unix_addr: family("unix_sock", &["addr"]),
        unix_peer: family("unix_sock", &["peer"]),
        unix_len: family("unix_address", &["len"]),
        unix_path: family("unix_address", &["name"]) + family("sockaddr_un", &["sun_path"]),
        files: of("task_struct", "files")?,
        table: of("files_struct", "fdt")?,
        table_len: of("fdtable", "max_fds")?,
        table_files: of("fdtable", "fd")?,
        private_data: of("file", "private_data")?,
        pad: 0,
    })
}

/// The layout as the words that the loader takes.
pub fn words(layout: &SocketLayout) -> [u32; LAYOUT_WORDS] {
    let SocketLayout { enabled, family, peer_port, local_port, peer_v4, local_v4, peer_v6, local_v6, .. } = *layout;
    let SocketLayout { kind, shutdown, socket, socket_inode, unix_addr, unix_peer, unix_len, unix_path, .. } = *layout;
    let SocketLayout { files, table, table_len, table_files, private_data, pad, .. } = *layout;
    [
        enabled,
        family,
        peer_port,
        local_port,
        peer_v4,
        local_v4,
        peer_v6,
        local_v6,
        kind,
        shutdown,
        socket,
        socket_inode,
        unix_addr,
        unix_peer,
        unix_len,
        unix_path,
        files,
        table,
        table_len,
        table_files,
        private_data,
        pad,
    ]
}

/// Loads and attaches the programs; they stay until the object is dropped.
///
/// # Errors
/// What the kernel refused.
pub fn attach(ebpf: &mut Ebpf) -> Result<(), Error> {
    for (name, tracepoint) in PROGRAMS {
        let program = ebpf.program_mut(name).ok_or(Error::Object("a program for sockets"))?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load()?;
        program.attach(tracepoint)?;
    }
    Ok(())
}

/// Takes the programs off again.
pub fn detach(ebpf: &mut Ebpf) {
    for (name, _) in PROGRAMS {
        if let Some(Ok(program)) = ebpf.program_mut(name).map(<&mut RawTracePoint>::try_from) {
            // A program that isn't loaded needs no unloading.
            let _ = program.unload();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_a_layout() {
        if !std::path::Path::new(BTF).exists() {
            return;
        }
        let layout = layout().unwrap();
        assert_eq!(words(&layout)[..2], [1, layout.family]);
        assert!(layout.kind > 0 && layout.socket > 0 && layout.private_data > 0, "{layout:?}");
    }
}
