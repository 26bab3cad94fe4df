//! IP packets, as far as they are looked at (pure). What is malformed or a fragment is no packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Extension headers of IPv6 that state their own length (RFC 8200, section 4): hop-by-hop options, routing,
/// destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
/// Most extension headers that are passed over.
const EXTENSIONS_MAX: usize = 8;

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The protocol, for people and programs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet<'b> {
    pub(super) protocol: Protocol,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// Number of the first byte of the payload in its stream; 0 for UDP.
    pub(super) sequence: u32,
    /// The packet opens a connection: SYN, and ACK for the answer.
    pub(super) opening: Option<Opening>,
    pub(super) payload: &'b [u8],
}

/// A packet that opens a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// From the side that connects.
    Request,
    /// From the other.
    Answer,
}

/// Reads a packet from its IP header on.
pub(super) fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    match bytes.first()? >> 4 {
        4 => v4(bytes),
        6 => v6(bytes),
        _ => None,
    }
}

fn v4(bytes: &[u8]) -> Option<Packet<'_>> {
    let header_bytes = usize::from(bytes.first()? & 0x0f) * 4;
    let total = usize::from(u16_at(bytes, 2)?);
    // More fragments, or not the first one (RFC 791): ports would not be in it.
    if header_bytes < 20 || u16_at(bytes, 6)? & 0x3fff != 0 {
        return None;
    }
    // A length of 0 is that of a packet larger than the field can say.
    let end = if total == 0 { bytes.len() } else { total.min(bytes.len()) };
    let source: [u8; 4] = bytes.get(12..16)?.try_into().ok()?;
    let destination: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
    let addresses = (Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into());
    transport(*bytes.get(9)?, addresses, bytes.get(header_bytes..end)?)
}

fn v6(bytes: &[u8]) -> Option<Packet<'_>> {
    let length = usize::from(u16_at(bytes, 4)?);
    let end = if length == 0 { bytes.len() } else { (40 + length).min(bytes.len()) };
    let source: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
    let destination: [u8; 16] = bytes.get(24..40)?.try_into().ok()?;
    let addresses = (Ipv6Addr::from(source).into(), Ipv6Addr::from(destination).into());
    let (mut next, mut at) = (*bytes.get(6)?, 40);
    for _ in 0..EXTENSIONS_MAX {
        if !EXTENSIONS.contains(&next) {
            break;
        }
        next = *bytes.get(at)?;
        at += (usize::from(*bytes.get(at + 1)?) + 1) * 8;
    }
    transport(next, addresses, bytes.get(at..end)?)
}

fn transport(protocol: u8, (source, destination): (IpAddr, IpAddr), bytes: &[u8]) -> Option<Packet<'_>> {
    let source = SocketAddr::new(source, u16_at(bytes, 0)?);
    let destination = SocketAddr::new(destination, u16_at(bytes, 2)?);
    match protocol {
        TCP => {
            let sequence = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
            let header_bytes = usize::from(bytes.get(12)? >> 4) * 4;
            let flags = bytes.get(13)?;
            let opening = match (flags & 0x02 != 0, flags & 0x10 != 0) {
                (true, false) => Some(Opening::Request),
                (true, true) => Some(Opening::Answer),
                (false, _) => None,
            };
            if header_bytes < 20 {
                return None;
            }
            let payload = bytes.get(header_bytes..)?;
            Some(Packet { protocol: Protocol::Tcp, source, destination, sequence, opening, payload })
        }
        UDP => {
            let payload = bytes.get(8..)?;
            Some(Packet { protocol: Protocol::Udp, source, destination, sequence: 0, opening: None, payload })
        }
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment from port 1000 to port 80 with sequence number 7.
    fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x03, 0xe8, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0];
        bytes.extend(payload);
        bytes
    }

    fn ipv4(protocol: u8, body: &[u8]) -> Vec<u8> {
        let total = u16::try_from(20 + body.len()).expect("short").to_be_bytes();
        let mut bytes =
            vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        bytes.extend(body);
        bytes
    }

    fn ipv6(next: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        let mut bytes = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
        bytes.extend(Ipv6Addr::LOCALHOST.octets());
        bytes.extend(Ipv6Addr::UNSPECIFIED.octets());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn segments_of_both_families_are_read() {
        for bytes in [ipv4(TCP, &tcp(0x18, b"hello")), ipv6(TCP, &tcp(0x18, b"hello"))] {
            let packet = parse(&bytes).expect("a packet");
            assert_eq!((packet.source.port(), packet.destination.port(), packet.sequence), (1000, 80, 7));
            assert_eq!((packet.payload, packet.opening), (&b"hello"[..], None));
        }
        let openings = [(0x02, Some(Opening::Request)), (0x12, Some(Opening::Answer)), (0x10, None)];
        for (flags, opening) in openings {
            assert_eq!(parse(&ipv4(TCP, &tcp(flags, b""))).expect("a packet").opening, opening);
        }
    }

    #[test]
    fn padding_behind_the_packet_is_no_payload() {
        let mut bytes = ipv4(TCP, &tcp(0x10, b""));
        bytes.extend([0; 6]);
        assert_eq!(parse(&bytes).expect("a packet").payload, b"");
    }

    #[test]
    fn extension_headers_are_passed_over() {
        let mut body = vec![TCP, 0, 0, 0, 0, 0, 0, 0];
        body.extend(tcp(0x18, b"x"));
        assert_eq!(parse(&ipv6(60, &body)).expect("a packet").payload, b"x");
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_no_packet() {
        let whole = ipv4(TCP, &tcp(0x18, b""));
        assert!((0..whole.len()).all(|end| parse(&whole[..end]).is_none()));
        let mut fragment = whole.clone();
        fragment[6] = 0x20;
        assert_eq!(parse(&fragment), None);
        assert_eq!(parse(&ipv4(1, &[8, 0, 0, 0])), None, "ICMP");
        assert_eq!(parse(&[0, 1, 8, 0, 6, 4]), None, "ARP");
    }
}
