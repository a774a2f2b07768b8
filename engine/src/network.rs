//! What carries a connection, and between which ends, as far as the kernel told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agentsight_abi::socket::{AF_INET, AF_INET6, Endpoints, PATH_BYTES, transport};

/// A connection's transport. The default is TLS between ends that aren't known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Not inside TLS.
    pub plain: bool,
    /// The kernel tells the end of it in any case, whatever becomes of the process.
    pub end_is_told: bool,
    /// The observed process's end.
    pub local: Option<End>,
    /// The other end.
    pub peer: Option<End>,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// An IP address, or the path of a UNIX socket (an abstract one begins with `@`).
    pub address: String,
    /// The port, of an IP address.
    pub port: Option<u16>,
}

impl Network {
    /// Reads what an `Open` record says: its [`transport`], both ends, and of a UNIX socket `path`.
    pub fn new(carrier: u32, ends: &Endpoints, path: &[u8]) -> Self {
        let plain = carrier != transport::TLS;
        let (local, peer) = match (carrier, ends.family) {
            (transport::UNIX, _) => (unix(path), unix(path)),
            (_, AF_INET) => (
                ip(Ipv4Addr::from([ends.local[0], ends.local[1], ends.local[2], ends.local[3]]), ends.local_port),
                ip(Ipv4Addr::from([ends.peer[0], ends.peer[1], ends.peer[2], ends.peer[3]]), ends.peer_port),
            ),
            (_, AF_INET6) => {
                (ip(Ipv6Addr::from(ends.local), ends.local_port), ip(Ipv6Addr::from(ends.peer), ends.peer_port))
            }
            _ => (None, None),
        };
        Self { plain, end_is_told: carrier == transport::INET, local, peer }
    }
}

/// An end at a port; what isn't connected has none.
fn ip(address: impl Into<IpAddr>, port: u16) -> Option<End> {
    // IPv4 through an IPv6 socket is IPv4 on the wire (RFC 4291 section 2.5.5.2).
    let address = address.into().to_canonical();
    (port != 0 && !address.is_unspecified()).then(|| End { address: address.to_string(), port: Some(port) })
}

/// The end with a name; which of both ends has it makes no difference to what it is called.
fn unix(path: &[u8]) -> Option<End> {
    let path = &path[..path.len().min(PATH_BYTES)];
    let (mark, name) = match path.split_first()? {
        (0, name) => ("@", name),
        _ => ("", path),
    };
    let name = name.split(|&byte| byte == 0).next()?;
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    Some(End { address: format!("{mark}{name}"), port: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(carrier: u32, family: u16, peer: &[u8], port: u16, path: &[u8], expected: Option<(&str, Option<u16>)>) {
        let mut ends = Endpoints { family, local_port: 1, peer_port: port, local: [1; 16], ..Endpoints::default() };
        ends.peer[..peer.len()].copy_from_slice(peer);
        let network = Network::new(carrier, &ends, path);
        let peer = network.peer.as_ref().map(|end| (end.address.as_str(), end.port));
        assert_eq!(peer, expected, "{family} {path:?}");
        assert_eq!(network.plain, carrier != transport::TLS);
    }

    #[test]
    fn ends_have_names() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 7];
        let mut loopback = [0; 16];
        loopback[15] = 1;
        check(transport::INET, AF_INET, &[10, 0, 0, 7], 8000, b"", Some(("10.0.0.7", Some(8000))));
        check(transport::TLS, AF_INET6, &loopback, 443, b"", Some(("::1", Some(443))));
        check(transport::INET, AF_INET6, &mapped, 80, b"", Some(("10.0.0.7", Some(80))));
        check(transport::INET, AF_INET, &[0; 4], 80, b"", None);
        check(transport::INET, AF_INET, &[10, 0, 0, 7], 0, b"", None);
        check(transport::TLS, 0, &[], 0, b"", None);
        check(transport::UNIX, 1, &[], 0, b"/run/llm.sock\0\0", Some(("/run/llm.sock", None)));
        check(transport::UNIX, 1, &[], 0, b"\0name\0", Some(("@name", None)));
        check(transport::UNIX, 1, &[], 0, &[0; 112], None);
        check(transport::UNIX, 1, &[], 0, &[0xff; 200], None);
    }
}
