//! Other addresses of a server, each of its own and with its own port.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

/// Listens on `count` addresses of the loopback network and hands on what is said there to `server`, until
/// the process ends.
pub fn relays(server: SocketAddr, count: usize) -> Vec<SocketAddr> {
    let start = |index: usize| {
        let index = u8::try_from(index).expect("few addresses");
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2 + index), 0)).expect("a loopback address");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect(server) {
                    hand_on(&client, &server);
                }
            }
        });
        address
    };
    (0..count).map(start).collect()
}

/// Both directions, each until its end.
fn hand_on(client: &TcpStream, server: &TcpStream) {
    for (from, to) in [(client, server), (server, client)] {
        let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
        thread::spawn(move || {
            // Who breaks off is seen by the other.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
            let _ = from.shutdown(Shutdown::Read);
        });
    }
}
