//! Who has which address in a local mesh (pure).
//!
//! The hub is the first address of the network, IPv4 and IPv6; the workloads follow from the tenth on, in
//! order. The IPv6 network is a fixed unique local one (RFC 4193): it exists only inside the mesh's own
//! namespaces, so that two meshes cannot meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// The network unless the file states another.
pub(crate) const DEFAULT_NETWORK: &str = "10.77.0.0/16";
/// Range that the control plane takes addresses of services from. Reserved for future use by RFC 1112, so no
/// workload or machine has one of them.
pub(crate) const VIP_NETWORK: &str = "240.240.0.0/16";
/// The same for IPv6.
pub(crate) const VIP_NETWORK_V6: &str = "fd77:6d6d::/64";

/// The IPv6 network of every local mesh.
const NETWORK_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0x6d6d, 1, 0, 0, 0, 0, 0);
const PREFIX_V6: u8 = 64;
/// Offset of the hub.
const HUB: u32 = 1;
/// Offset of the first workload; those between are free for what a later hub may serve.
const FIRST_WORKLOAD: u32 = 10;

/// The network of a local mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Network(Ipv4Net);

/// An IPv4 and an IPv6 address with the lengths of their prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// IPv4.
    pub(crate) v4: Ipv4Net,
    /// IPv6.
    pub(crate) v6: Ipv6Net,
}

/// Why a network was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    /// It is not written as one.
    #[error("{text:?} is not an IPv4 network such as {DEFAULT_NETWORK}")]
    Malformed {
        /// What was written.
        text: String,
    },
    /// It is too small to be of use.
    #[error("a /{prefix} network has no room for workloads; /24 or larger is needed")]
    TooSmall {
        /// Its prefix.
        prefix: u8,
    },
    /// Its addresses may belong to somebody.
    #[error(
        "{network} is not a private network (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10)"
    )]
    NotPrivate {
        /// The network.
        network: Ipv4Net,
    },
}

impl Network {
    /// Parses a network.
    ///
    /// # Errors
    /// When it is not an IPv4 network, too small, or not private.
    pub(crate) fn parse(text: &str) -> Result<Self, NetworkError> {
        let network: Ipv4Net = text.parse().map_err(|_| NetworkError::Malformed { text: text.to_owned() })?;
        if network.prefix_len() > 24 {
            return Err(NetworkError::TooSmall { prefix: network.prefix_len() });
        }
        let network = network.trunc();
        let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];
        let holds = |range: &&str| range.parse::<Ipv4Net>().is_ok_and(|range| range.contains(&network));
        if !private.iter().any(holds) {
            return Err(NetworkError::NotPrivate { network });
        }
        Ok(Self(network))
    }

    /// The hub's addresses.
    pub(crate) fn hub(self) -> Addresses {
        self.at(HUB)
    }

    /// Addresses of the workload number `index`, or `None` when the network is full.
    pub(crate) fn workload(self, index: u32) -> Option<Addresses> {
        let offset = FIRST_WORKLOAD.checked_add(index)?;
        let broadcast = u32::try_from((1_u64 << (32 - self.0.prefix_len())) - 1).ok()?;
        (offset < broadcast).then(|| self.at(offset))
    }

    /// The network itself.
    pub(crate) fn v4(self) -> Ipv4Net {
        self.0
    }

    fn at(self, offset: u32) -> Addresses {
        let v4 = Ipv4Addr::from_bits(self.0.network().to_bits() | offset);
        let v6 = Ipv6Addr::from_bits(NETWORK_V6.to_bits() | u128::from(offset));
        Addresses { v4: Ipv4Net::new_assert(v4, self.0.prefix_len()), v6: Ipv6Net::new_assert(v6, PREFIX_V6) }
    }
}

impl Addresses {
    /// The IPv4 address.
    pub(crate) fn v4(self) -> IpAddr {
        self.v4.addr().into()
    }

    /// The IPv6 address.
    pub(crate) fn v6(self) -> IpAddr {
        self.v6.addr().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_follow_the_hub_and_never_reach_the_broadcast_address() {
        let network = Network::parse("10.9.0.7/24").expect("a network");
        assert_eq!(network.hub().v4.to_string(), "10.9.0.1/24");
        assert_eq!(network.hub().v6.to_string(), "fd77:6d6d:1::1/64");
        assert_eq!(network.workload(0).expect("room").v4.to_string(), "10.9.0.10/24");
        assert_eq!(network.workload(244).expect("room").v4.to_string(), "10.9.0.254/24");
        assert_eq!(network.workload(245), None);
        assert_eq!(network.workload(u32::MAX), None);
    }

    #[test]
    fn addresses_that_may_be_somebodys_are_refused() {
        assert_eq!(
            Network::parse(DEFAULT_NETWORK).map(|n| n.v4().to_string()),
            Ok(DEFAULT_NETWORK.to_owned())
        );
        assert!(matches!(Network::parse("8.8.0.0/16"), Err(NetworkError::NotPrivate { .. })));
        assert!(matches!(Network::parse("0.0.0.0/0"), Err(NetworkError::NotPrivate { .. })));
        assert!(matches!(Network::parse("10.0.0.0/25"), Err(NetworkError::TooSmall { prefix: 25 })));
        assert!(matches!(Network::parse("10.0.0.0"), Err(NetworkError::Malformed { .. })));
        assert!(matches!(Network::parse("fd00::/8"), Err(NetworkError::Malformed { .. })));
    }
}
