//! Listening sockets: one per worker on the same port, so that the kernel spreads connections and workers
//! share nothing.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel holds for a worker that is busy or not ready yet.
const BACKLOG: i32 = 4096;
/// Pause after an error that will not go away by itself at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Silence before the kernel asks whether the peer is still there.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Binds `port` on every address of both families, shared with the other workers.
///
/// Where the kernel has no IPv6, IPv4 alone is bound.
///
/// # Errors
/// When the port cannot be bound.
pub fn bind(port: u16) -> io::Result<std::net::TcpListener> {
    match bind_address(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
            bind_address(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        result => result,
    }
}

/// Binds one address, shared with the other workers.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind_address(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The next connection. Errors of single connections and shortages are waited out: a listener never ends.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, super::original_destination::canonical(peer)),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether an accept error concerns a connection that went away, so that the next one can be tried at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Sets what every connection gets: no delay, and keep-alive probes, so that a peer that vanished is noticed.
/// A failure costs a feature and not the connection, so it is only logged.
pub fn tune(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    let result = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keepalive));
    if let Err(error) = result {
        tracing::debug!(%error, "cannot set socket options");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn workers_share_a_port_and_serve_both_families() {
        let first = bind(0).expect("bound");
        let port = first.local_addr().expect("address").port();
        let second = bind(port).expect("bound again");
        let listeners = [first, second].map(|listener| TcpListener::from_std(listener).expect("registered"));
        for address in ["127.0.0.1", "::1"] {
            let address = SocketAddr::new(address.parse().expect("address"), port);
            let Ok(client) = TcpStream::connect(address).await else {
                assert!(address.is_ipv6(), "IPv4 is always there");
                continue;
            };
            let (_, peer) = tokio::select! {
                accepted = accept(&listeners[0]) => accepted,
                accepted = accept(&listeners[1]) => accepted,
            };
            assert_eq!(peer, client.local_addr().expect("address"), "peers are canonical");
        }
    }
}
