//! Listening sockets: one owner of a port, many shards on it.
//!
//! Shards share a port with SO_REUSEPORT, which would also let a second gateway of the same user
//! join in silently and take half of the miners. So the port is bound once without it: a live
//! listener of anybody else makes that fail. The probe socket is bound but never listens, so no
//! miner can land in a queue that nobody accepts from.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel queues for a listener before they are accepted. A backlog of 128 loses
/// SYNs in a burst of connects, and each loss costs a second. `net.core.somaxconn` caps it.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Binds `addr` for this process alone (no SO_REUSEPORT) and listens.
///
/// # Errors
///
/// The address is taken, not local, or not permitted; the text names it.
pub fn bind_exclusive(addr: SocketAddr) -> io::Result<TcpListener> {
    bind_shared(addr, false)
}

/// Binds `addr`, with SO_REUSEPORT if `reuse_port`, and listens.
///
/// # Errors
///
/// The address is taken, not local, or not permitted; the text names it.
pub fn bind_shared(addr: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let bound = bound_socket(addr, reuse_port).and_then(|socket| {
        socket.listen(LISTEN_BACKLOG)?;
        Ok(TcpListener::from(socket))
    });
    bound.map_err(|error| explain(addr, &error))
}

/// Binds one listener a shard on the same address and refuses a port that anybody else listens
/// on. With port 0 the kernel chooses one port for all; ask a listener for its address.
///
/// # Errors
///
/// The address is taken, not local, or not permitted; the text names it.
pub fn bind_shards(addr: SocketAddr, shards: usize) -> io::Result<Vec<TcpListener>> {
    if shards <= 1 {
        return Ok(vec![bind_exclusive(addr)?]);
    }
    // Held until all are bound, so that a port chosen by the kernel stays ours.
    let exclusive = bound_socket(addr, false).map_err(|error| explain(addr, &error))?;
    let chosen = exclusive.local_addr()?.as_socket().unwrap_or(addr);
    (0..shards).map(|_| bind_shared(chosen, true)).collect()
}

fn bound_socket(addr: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Lets a restart bind while old connections linger in TIME_WAIT; a live listener still
    // refuses it.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn explain(addr: SocketAddr, error: &io::Error) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{addr} is taken: another process listens on it; stop it or choose another")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{addr} is not an address of this machine; use one of its own or 0.0.0.0")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{addr} needs the right to bind ports below 1024; choose a higher port")
        }
        _ => format!("cannot listen on {addr}: {error}"),
    };
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};

    const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_second_owner_of_the_port_is_refused() {
        let first = bind_exclusive(ANY_PORT).unwrap();
        let addr = first.local_addr().unwrap();
        let refused = bind_exclusive(addr).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(refused.to_string().contains(&addr.to_string()));
        assert!(bind_shards(addr, 2).is_err());
    }

    #[test]
    fn shards_share_a_port_and_a_second_gateway_is_refused() {
        let shards = bind_shards(ANY_PORT, 3).unwrap();
        let addr = shards[0].local_addr().unwrap();
        assert!(shards.iter().all(|shard| shard.local_addr().unwrap() == addr));
        TcpStream::connect(addr).unwrap();
        for shards_of_another in 1..4 {
            let refused = bind_shards(addr, shards_of_another).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        }
        drop(shards);
        assert_eq!(bind_shards(addr, 2).unwrap().len(), 2);
    }
}
