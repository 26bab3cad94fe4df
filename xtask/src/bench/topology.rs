//! Namespaces: for every peer one of the client's side and one of the server's, on one bridge.
//!
//! A pair for each peer, because interception holds for a whole namespace and would take the explicit
//! proxies' traffic too. The bridge lives in the sandbox's own namespace, where the control plane runs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;

use super::daemon::ip;
use super::plan::Peer;

/// Address of the bridge, and of the control plane.
pub(crate) const HUB: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// Both sides of one peer.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// Namespace of the load generator and of proxy A.
    pub(crate) client: String,
    /// Namespace of the application and of proxy B.
    pub(crate) server: String,
    /// Address of the client's side.
    pub(crate) client_address: Ipv4Addr,
    /// Address of the server's side.
    pub(crate) server_address: Ipv4Addr,
}

impl Pair {
    /// Where something of the server's side listens.
    pub(crate) fn at_server(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.server_address), port)
    }
}

/// Makes the bridge.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn make_hub() -> Result<()> {
    ip(&["link", "add", "hub", "type", "bridge"])?;
    ip(&["address", "add", &format!("{HUB}/16"), "dev", "hub"])?;
    ip(&["link", "set", "hub", "up"])
}

/// Makes the namespaces of one peer.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn make_pair(peer: Peer) -> Result<Pair> {
    let number = match peer {
        Peer::Direct => 1,
        Peer::MiniMesh => 2,
        Peer::Envoy => 3,
        Peer::Haproxy => 4,
        Peer::Nginx => 5,
    };
    let pair = Pair {
        client: format!("{peer}-client"),
        server: format!("{peer}-server"),
        client_address: Ipv4Addr::new(10, 78, number, 1),
        server_address: Ipv4Addr::new(10, 78, number, 2),
    };
    attach(&pair.client, pair.client_address, &format!("c{number}"))?;
    attach(&pair.server, pair.server_address, &format!("s{number}"))?;
    Ok(pair)
}

fn attach(namespace: &str, address: Ipv4Addr, port: &str) -> Result<()> {
    ip(&["netns", "add", namespace])?;
    ip(&["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace])?;
    ip(&["link", "set", port, "master", "hub", "up"])?;
    ip(&["-n", namespace, "link", "set", "lo", "up"])?;
    ip(&["-n", namespace, "address", "add", &format!("{address}/16"), "dev", "eth0"])?;
    ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
    // Virtual addresses need a route to be dialled at all; interception takes them before they get there.
    ip(&["-n", namespace, "route", "add", "default", "via", &HUB.to_string()])
}
