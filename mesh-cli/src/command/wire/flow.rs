//! Connections, made up from packets (pure).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::direction::{Direction, Verdict};
use super::packet::{Opening, Packet, Protocol};

/// Most connections that are followed; of further ones nothing is said.
const FLOWS_MAX: usize = 100_000;

/// Whether what is said on a connection can be read on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Security {
    /// Anybody can.
    Plaintext,
    /// Too little was seen to tell.
    Unknown,
    /// Nobody can.
    Tls,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) protocol: Protocol,
    /// The side that connected.
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) packets: u64,
    sent: Direction,
    received: Direction,
}

impl Flow {
    /// What was found: plaintext in one direction makes the whole so.
    pub(super) fn security(&self) -> Security {
        match (self.protocol, self.sent.verdict, self.received.verdict) {
            // Nothing of the mesh secures datagrams.
            (Protocol::Udp, _, _) | (_, Verdict::Plaintext, _) | (_, _, Verdict::Plaintext) => {
                Security::Plaintext
            }
            (Protocol::Tcp, Verdict::Tls, _) | (Protocol::Tcp, _, Verdict::Tls) => Security::Tls,
            (Protocol::Tcp, Verdict::Open, Verdict::Open) => Security::Unknown,
        }
    }

    /// Payload in both directions.
    pub(super) fn bytes(&self) -> u64 {
        self.sent.bytes + self.received.bytes
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Flows {
    known: HashMap<(Protocol, SocketAddr, SocketAddr), Flow>,
}

impl Flows {
    /// Takes a packet in.
    pub(super) fn add(&mut self, packet: &Packet<'_>) {
        if !is_between_hosts(packet) {
            return;
        }
        let (source, destination) = (packet.source, packet.destination);
        let (client, server) = match packet.opening {
            Some(Opening::Request) => (source, destination),
            Some(Opening::Answer) => (destination, source),
            // A connection that was open before: servers have the lower port.
            None if source.port() < destination.port() => (destination, source),
            None => (source, destination),
        };
        let key = match self.known.contains_key(&(packet.protocol, server, client)) {
            true => (packet.protocol, server, client),
            false => (packet.protocol, client, server),
        };
        if self.known.len() >= FLOWS_MAX && !self.known.contains_key(&key) {
            return;
        }
        let flow = self.known.entry(key).or_insert_with(|| Flow {
            protocol: packet.protocol,
            client,
            server,
            packets: 0,
            sent: Direction::default(),
            received: Direction::default(),
        });
        let direction = if source == flow.client { &mut flow.sent } else { &mut flow.received };
        let bytes_before = direction.bytes;
        match (packet.protocol, packet.opening) {
            (Protocol::Udp, _) => direction.bytes += u64::try_from(packet.payload.len()).unwrap_or(0),
            (Protocol::Tcp, Some(_)) => direction.open(packet.sequence.wrapping_add(1)),
            (Protocol::Tcp, None) => direction.take(packet.sequence, packet.payload),
        }
        if direction.bytes > bytes_before {
            flow.packets += 1;
        }
    }

    /// Those on which something was said, plaintext first.
    pub(super) fn into_list(self) -> Vec<Flow> {
        let mut flows: Vec<Flow> = self.known.into_values().filter(|flow| flow.bytes() > 0).collect();
        flows.sort_by_key(|flow| (flow.security(), flow.server, flow.client));
        flows
    }
}

/// Neighbour discovery and the like is the network's own and no traffic of workloads.
fn is_between_hosts(packet: &Packet<'_>) -> bool {
    [packet.source.ip(), packet.destination.ip()].into_iter().all(|address| match address {
        IpAddr::V4(address) => !(address.is_multicast() || address.is_broadcast() || address.is_link_local()),
        IpAddr::V6(address) => !(address.is_multicast() || address.is_unicast_link_local()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet<'b>(
        from: &str,
        to: &str,
        sequence: u32,
        opening: Option<Opening>,
        payload: &'b [u8],
    ) -> Packet<'b> {
        let address = |text: &str| text.parse().expect("an address");
        Packet {
            protocol: Protocol::Tcp,
            source: address(from),
            destination: address(to),
            sequence,
            opening,
            payload,
        }
    }

    const CLIENT: &str = "10.0.0.1:40000";
    const SERVER: &str = "10.0.0.2:8080";
    const HELLO: &[u8] = &[22, 3, 1, 0, 2, 1, 0];

    #[test]
    fn both_directions_of_a_connection_are_one_flow() {
        let mut flows = Flows::default();
        flows.add(&packet(CLIENT, SERVER, 9, Some(Opening::Request), b""));
        flows.add(&packet(SERVER, CLIENT, 99, Some(Opening::Answer), b""));
        flows.add(&packet(CLIENT, SERVER, 10, None, HELLO));
        flows.add(&packet(SERVER, CLIENT, 100, None, HELLO));
        flows.add(&packet(CLIENT, SERVER, 10, None, HELLO));
        let list = flows.into_list();
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].security(), list[0].bytes(), list[0].packets), (Security::Tls, 14, 2));
        assert_eq!((list[0].client.port(), list[0].server.port()), (40000, 8080));
    }

    #[test]
    fn plaintext_in_one_direction_makes_the_connection_so() {
        let mut flows = Flows::default();
        flows.add(&packet(CLIENT, SERVER, 9, Some(Opening::Request), b""));
        flows.add(&packet(CLIENT, SERVER, 10, None, HELLO));
        flows.add(&packet(SERVER, CLIENT, 5, None, b"HTTP/1.1 200 OK\r\n"));
        assert_eq!(flows.into_list()[0].security(), Security::Plaintext);
    }

    #[test]
    fn a_connection_without_payload_is_not_listed() {
        let mut flows = Flows::default();
        flows.add(&packet(CLIENT, SERVER, 9, Some(Opening::Request), b""));
        assert!(flows.into_list().is_empty());
    }

    #[test]
    fn an_open_connection_is_named_by_its_lower_port() {
        let mut flows = Flows::default();
        flows.add(&packet(SERVER, CLIENT, 9, None, HELLO));
        flows.add(&packet(CLIENT, SERVER, 9, None, HELLO));
        let list = flows.into_list();
        assert_eq!((list.len(), list[0].server.port()), (1, 8080));
    }
}
