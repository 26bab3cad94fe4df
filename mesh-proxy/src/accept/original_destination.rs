//! The address that a peer dialled before interception redirected it.
//!
//! Without a redirect the kernel has no such address, and a connection straight to the proxy's own port says
//! the address of the proxy itself. Both are refused by the caller: the first would be forwarded nowhere
//! sensible, the second would loop.

use std::net::{IpAddr, SocketAddr};

use socket2::SockRef;
use tokio::net::TcpStream;

/// The address dialled, canonical (an IPv4 destination on a dual-stack socket is IPv4), or `None` when the
/// connection was not redirected.
#[must_use]
pub fn of(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let local = stream.local_addr().ok()?;
    let address = if local.ip().to_canonical().is_ipv4() {
        socket.original_dst_v4().ok()?
    } else {
        socket.original_dst_v6().ok()?
    };
    address.as_socket().map(canonical)
}

/// Folds an IPv4-mapped IPv6 address.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether a connection to `address` would come back to one of the proxy's own ports.
#[must_use]
pub fn is_loop(address: SocketAddr, own_addresses: &[IpAddr], own_ports: &[u16]) -> bool {
    let ip = address.ip().to_canonical();
    own_ports.contains(&address.port())
        && (ip.is_loopback() || ip.is_unspecified() || own_addresses.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_address_and_own_port_together_are_a_loop() {
        let own: [IpAddr; 1] = ["10.0.0.5".parse().expect("address")];
        let ports = [15001, 15006];
        let at = |text: &str| text.parse::<SocketAddr>().expect("address");
        assert!(is_loop(at("10.0.0.5:15006"), &own, &ports));
        assert!(is_loop(at("127.0.0.1:15001"), &own, &ports));
        assert!(is_loop(at("[::ffff:10.0.0.5]:15001"), &own, &ports));
        assert!(!is_loop(at("10.0.0.6:15006"), &own, &ports));
        assert!(!is_loop(at("10.0.0.5:8080"), &own, &ports));
    }

    #[tokio::test]
    async fn a_connection_that_was_not_redirected_has_none() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, (server, _)) = (client.expect("connected"), server.expect("accepted"));
        assert_eq!(of(&server), None);
    }
}
